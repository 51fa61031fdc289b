"""``radioloader report``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl

Cli = Callable[..., Any]


def test_a_page_in_the_current_folder(
    cli: Cli, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("report", store_uri, "--title", "Four subjects", "--workers", 1)
    assert done.status == 0
    assert done.out.startswith("store-report/index.html: 4 subjects, 8 volumes, 0 outliers, 4 pictures; ")
    assert done.err == "report 4/4 volumes\n"
    assert "<title>Four subjects</title>" in (tmp_path / "store-report" / "index.html").read_text(encoding="utf-8")


def test_options(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    done = cli("report", store_uri, "--out", tmp_path / "out", "--no-pictures", "--most", 2)
    assert done.status == 0
    assert "0 pictures" in done.out
    assert "report 2/2 volumes" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_what_cannot_be_read_is_told(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    shutil.copytree(store_uri, tmp_path / "store")
    shutil.rmtree(rl.open(tmp_path / "store").T1w.loc["sub-02"].uri)
    done = cli("report", tmp_path / "store", "--out", tmp_path / "out")
    assert done.status == 1
    assert "1 unreadable" in done.out
    assert "unreadable T1w 'sub-02_T1w': " in done.err


def test_no_store(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", tmp_path / "none", "--out", tmp_path / "out")
    assert done.status == 2
    assert done.err.startswith(f"error: there is no radioloader store at {tmp_path}/none")
    assert not (tmp_path / "out").exists()


def test_not_into_the_store(cli: Cli, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(store_uri, tmp_path / "cohort")
    monkeypatch.chdir(tmp_path / "cohort")
    before = sorted(tmp_path.rglob("*"))
    for options in ((), ("--out", "."), ("--out", "deep/report")):
        done = cli("report", ".", *options)
        assert done.status == 2
        assert f"is within the store {tmp_path}/cohort; choose a folder outside of it (--out)" in done.err
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("report", "../elsewhere/../cohort/.", "--no-pictures")
    assert done.status == 0
    assert done.out.startswith("cohort-report/index.html: ")
