"""Imports go downward only, read from the source: also those inside functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "radioloader"
LAYERS = {
    "errors": 0,
    "types": 0,
    "config": 0,
    "geometry": 0,
    "_checks": 0,
    "_files": 0,
    "_optional": 0,
    "_progress": 0,
    "storage": 1,
    "samplers": 1,
    "formats": 1,
    "ingestion": 2,
    "datasets": 2,
    "container": 3,
    "lightning": 4,
    "ml": 4,
    "adapters": 4,
    "exporting": 4,
    "overview": 4,
    "inference": 5,
    "monai": 5,
    "torchio": 5,
    "bench": 5,
    "demo": 5,
    "cli": 6,
}
FILES = sorted(ROOT.rglob("*.py"))


def part_of(module: str) -> str | None:
    """The package or module right below ``radioloader``; None for ``radioloader`` itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            yield from (
                (node.lineno, f"radioloader.{a.name}" if module == "radioloader" else module) for a in node.names
            )


def test_every_part_has_a_layer() -> None:
    found = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert found - {"__init__", "__main__"} == set(LAYERS)


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.parent != ROOT or f.stem in LAYERS], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for line, module in imports(path):
        if module.partition(".")[0] != "radioloader":
            continue
        other = part_of(module)
        if LAYERS[own] >= 5 and (other is None or other not in LAYERS):
            continue  # the top may use the public names
        assert other in LAYERS, f"{path}:{line} imports {module}: only the top layer may use the package's front"
        if LAYERS[own] == 0:
            assert LAYERS[other] == 0, f"{path}:{line} imports {module}"
        elif other != own:
            assert LAYERS[other] < LAYERS[own], f"{path}:{line}: {own} may not import {module}"


def test_only_one_module_makes_tiledb_contexts() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if path != ROOT / "storage" / "context.py":
            assert "tiledb.Ctx(" not in text, path
            assert "default_ctx" not in text, path


def test_files_stay_readable() -> None:
    long = {str(path.relative_to(ROOT)): count for path in FILES if (count := len(path.read_text().splitlines())) > 400}
    assert not long, "is there a seam at which each would read better as two?"
