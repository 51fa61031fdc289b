"""The command that is printed does the same as the layout."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from radioloader.cli.main import main
from radioloader.ingestion.layouts.ingest import explain_plan, plan_layout
from tests.ingestion.layouts import trees

TREES: dict[str, Callable[[Path], Path]] = {
    "decathlon": trees.decathlon,
    "decathlon 4D": lambda root: trees.decathlon(root, channels=4),
    "decathlon without json": lambda root: trees.decathlon(root, described=False, tested=False),
    "nnunet": trees.nnunet,
    "nnunet channels": lambda root: trees.nnunet(root, channels=("T1w", "a name, with = and 'quotes'")),
    "nnunet two channels": lambda root: trees.nnunet(root, channels=("T1w", "T2 w")),
    "bids": trees.bids,
    "folders": lambda root: trees.plain(root, {"T1w": ["a.nii.gz", "b.nii.gz"], "seg": ["a.nii.gz"]}),
    "one folder": lambda root: trees.plain(root, {"": ["a.nii.gz", "b.nii.gz"]}),
    "subjects": lambda root: trees.plain(root, {f"p{i}": ["t1.nii.gz", "seg.nii.gz"] for i in (1, 2)}),
    "manifest": lambda root: table(root),
}
NO_GLOBS = {"nnunet channels", "bids", "manifest"}


def table(root: Path) -> Path:
    trees.write(root / "x.nii.gz", trees.voxels(1))
    (root / "cohort.csv").write_text("subject_id,T1w,age\na,x.nii.gz,3\n")
    return root / "cohort.csv"


@pytest.mark.parametrize("kind", TREES)
def test_the_command_does_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[Any], dict[str, Any]]
) -> None:
    source = TREES[kind](tmp_path / "data set")
    assert rl.ingest_layout(tmp_path / "one", source, workers=1).ok
    lines, sources = explain_plan(plan_layout(source), tmp_path / "two", {"workers": 1})
    assert (sources is not None) == (kind not in NO_GLOBS)
    words = shlex.split(lines[-1])
    assert words[:2] == ["radioloader", "ingest"]
    assert "auto" not in words
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert content(tmp_path / "two") == content(tmp_path / "one")
    one, two = rl.open(tmp_path / "one"), rl.open(tmp_path / "two")
    for name in one.collection_names:
        assert one[name].classes == two[name].classes


def test_globs_that_would_take_other_files_are_not_printed(tmp_path: Path) -> None:
    """A file that no dataset.json lists is not taken, and a glob would take it."""
    root = trees.decathlon(tmp_path / "x")
    assert explain_plan(plan_layout(root), "store", {})[1] is not None
    trees.write(root / "imagesTr" / "more.nii.gz", trees.voxels(5))
    lines, sources = explain_plan(plan_layout(root), "store", {})
    assert sources is None
    assert lines[-1] == f"  radioloader ingest store {root} --layout decathlon --image FLAIR --label label"


def test_options_are_repeated(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x", described=False, tested=False)
    options = {"orientation": "RAS", "strict": True, "keep-tag": ["A", "B"]}
    assert explain_plan(plan_layout(root), "s t", options)[0][-1] == (
        f"  radioloader ingest 's t' --image image={root}/imagesTr --label label={root}/labelsTr --orientation RAS --strict --keep-tag A "
        "--keep-tag B"
    )
