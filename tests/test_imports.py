"""What importing the package costs, and what it offers."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import radioloader as rl
from radioloader._optional import require
from radioloader.errors import MissingDependencyError, RadioloaderError

HEAVY = [
    "torch",
    "monai",
    "torchio",
    "lightning",
    "pytorch_lightning",
    "pandas",
    "pydicom",
    "nibabel",
    "tiledb",
    "loky",
    "rich",
]


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert modules_after("import radioloader") == set()


def test_using_the_config_imports_nothing_heavy() -> None:
    assert modules_after("import radioloader as rl; rl.configure(read=rl.ReadConfig(max_workers=2))") == set()


def test_opening_and_ingesting_need_no_torch(store_uri: str) -> None:
    found = modules_after(f"import radioloader as rl; rl.ingest; rl.open({store_uri!r}).T1w.iloc[0].to_numpy()")
    assert found - {"nibabel"} == {"tiledb"}


def test_the_command_line_starts_light() -> None:
    assert (
        modules_after("import radioloader.cli.main") & {"torch", "monai", "lightning", "torchio", "pandas", "tiledb"}
        == set()
    )


def test_every_public_name_resolves() -> None:
    for name in rl.__all__:
        assert getattr(rl, name) is not None
        assert name in dir(rl)


def test_ingest_is_the_function_whatever_was_imported_before() -> None:
    # A subpackage of the name of a function would hide it.
    for module in pkgutil.walk_packages(rl.__path__, "radioloader."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert [callable(each) for each in (rl.ingest, rl.open, rl.collate)] == [True] * 3


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rl.nothing  # noqa: B018


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(MissingDependencyError, match=r"'not_a_package'.*pip install 'radioloader\[monai\]'") as caught:
        require("not_a_package.sub", extra="monai")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, RadioloaderError)


def test_lightning_missing_is_explained() -> None:
    code = (
        "import sys; sys.modules['lightning'] = None; sys.modules['lightning.pytorch'] = None\n"
        "import radioloader as rl\n"
        "try: rl.lightning\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("MissingDependencyError")
    assert "pip install 'radioloader[lightning]'" in done.stdout


def test_importing_touches_no_network_and_writes_nothing() -> None:
    code = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    writes = event == 'open' and arguments[1] is not None and set(arguments[1]) & set('wax+')\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.exec', 'os.fork', 'os.posix_spawn', 'urllib.')) or writes:\n"
        "        print(event, arguments)\n"
        "sys.dont_write_bytecode = True\n"
        "sys.addaudithook(watch)\n"
        "import radioloader as rl\n"
        "rl.ReadConfig, rl.ingest, rl.open, rl.VolumeReader, rl.RadiObject\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == ""


def test_an_import_error_inside_an_installed_package_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_but_broken.py").write_text("import something_that_it_needs_itself\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_that_it_needs_itself") as caught:
        require("installed_but_broken", extra="monai")
    assert not isinstance(caught.value, RadioloaderError)


def test_require_gives_the_module() -> None:
    assert require("json.decoder", extra="all").__name__ == "json.decoder"


def test_the_oldest_torch_has_every_dtype_that_batches_use() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    floors = [line for line in project["dependencies"] if line.startswith("torch>=")]
    # torch.uint16 and torch.uint32 came with 2.3
    assert [tuple(map(int, line.removeprefix("torch>=").split("."))) >= (2, 3) for line in floors] == [True]
