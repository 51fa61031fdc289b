# `make demo` and `make test` each work alone on a machine that has Python 3.11+, make and a package index: they make .venv, install
# what they need into it, and use it again as long as pyproject.toml and constraints.txt have not changed.

PYTHON ?= python3
OUT ?= demo
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test stress lint format bench clean

help:
	@echo "make demo     the whole job on a simulated cohort: ingest, train, predict, compare (about 4 minutes); OUT=folder"
	@echo "make test     all tests (under 10 minutes on 2 cores)"
	@echo "make stress   all tests with their full repetition counts"
	@echo "make lint     ruff and mypy"
	@echo "make format   format the code"
	@echo "make bench    time patches beside .npy and .nii.gz, kinds of positions and slices"
	@echo "make clean    remove .venv and caches"

demo: $(VENV)/.installed-demo
	$(BIN)/radioloader demo --out "$(OUT)"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

stress: $(VENV)/.installed-dev
	RADIOLOADER_STRESS=1 $(BIN)/python -m pytest --timeout=3600

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-demo
	$(BIN)/python benchmarks/patches.py
	$(BIN)/python benchmarks/positions.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "radioloader needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(BIN)/python -c pass 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[$*]"
	@touch $@
