"""``radioloader history``, and ``--at`` of the commands that look at a store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def twice(make_cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two versions: one subject; two."""
    root = tmp_path_factory.mktemp("history")
    images = sorted((make_cohort(root / "cohort", subjects=2) / "images").iterdir())
    for count in (1, 2):
        rl.ingest(root / "store", {"T1w": images[:count]}, workers=1)
    return root / "store"


def test_history(cli: Cli, twice: Path) -> None:
    done = cli("history", twice)
    assert (done.status, done.err) == (0, "")
    when = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(rf" +1  {when}  ingest of 1 volumes\n +2  {when}  ingest of 1 volumes\n", done.out)
    lines = cli("history", twice, "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == rl.open(twice).history()


def test_an_older_version_is_shown_and_exported(cli: Cli, twice: Path, tmp_path: Path) -> None:
    assert cli("info", twice).out.startswith(f"{twice}: 2 subjects, version 2\n")
    assert cli("info", twice, "--at", 1).out.startswith(f"{twice}: 1 subjects, version 1\n")
    assert (
        cli("info", twice, "--at", json.loads(cli("history", twice, "--json").out.splitlines()[0])["version"]).status
        == 0
    )
    assert "1 volumes of 1 subjects exported" in cli("export", twice, tmp_path / "out", "--at", "1").out
    assert cli("show", twice, "sub-02", "--out", tmp_path / "x.png").status == 0
    assert cli("show", twice, "sub-02", "--out", tmp_path / "x.png", "--at", 1).status == 2
    assert cli("report", twice, "--out", tmp_path / "report", "--at", 1).status == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "sub-01" in page
    assert "sub-02" not in page


def test_versions_that_are_not_there(cli: Cli, twice: Path) -> None:
    done = cli("info", twice, "--at", "3")
    assert (done.status, done.out) == (2, "")
    assert done.err == f"error: {twice} has no version 3; it has versions 1 to 2 (see history())\n"
    assert "at='noon' is neither a version" in cli("info", twice, "--at", "noon").err
