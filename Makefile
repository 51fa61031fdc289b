# `make demo` and `make test` each work alone on a machine that has Python 3.11+, make and a package index: they make .venv, install
# what they need into it, and use it again as long as pyproject.toml and constraints.txt have not changed. `make bench` does the same with
# .venv-bench, which holds the peers.

PYTHON ?= python3
OUT ?= demo
VENV := .venv
BIN := $(VENV)/bin

BENCH := .venv-bench
COMPILED := hatch_build.py radioloader/storage/_decode.c

.PHONY: help demo test test-oldest stress lint format bench bench-full clean

help:
	@echo "make demo     the whole job on a simulated cohort: ingest, train, predict, compare (about 4 minutes); OUT=folder"
	@echo "make test     all tests (under 10 minutes on 2 cores)"
	@echo "make stress   all tests with their full repetition counts"
	@echo "make test-oldest  what MONAI and TorchIO take part in, with the oldest versions of them that are admitted"
	@echo "make lint     ruff and mypy"
	@echo "make format   format the code"
	@echo "make bench    beside the peers: the verdict table, in under 30 minutes on 2 cores (bench-full: everything, hours); ARGS=..."
	@echo "make clean    remove .venv, .venv-bench and caches"

demo: $(VENV)/.installed-demo
	$(BIN)/radioloader demo --out "$(OUT)"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

stress: $(VENV)/.installed-dev
	RADIOLOADER_STRESS=1 $(BIN)/python -m pytest --timeout=3600

# The oldest versions that pyproject.toml admits, put before the newest.
test-oldest: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/oldest --upgrade monai==1.5.0 torchio==0.23.1
	PYTHONPATH=$(VENV)/oldest $(BIN)/python -m pytest tests/adapters tests/inference

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks quick $(ARGS)

bench-full: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks full $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/.installed-%: pyproject.toml constraints.txt $(COMPILED)
	$(call make-venv,$(VENV))
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[$*]"
	@touch $@

$(BENCH)/.installed: pyproject.toml constraints.txt $(COMPILED) benchmarks/requirements.txt benchmarks/requirements-no-deps.txt
	$(call make-venv,$(BENCH))
	$(BENCH)/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -r benchmarks/requirements.txt -e .
	$(BENCH)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-deps -r benchmarks/requirements-no-deps.txt
	@touch $@

define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "radioloader needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(1)/bin/python -c pass 2>/dev/null || $(PYTHON) -m venv --clear $(1)
endef
