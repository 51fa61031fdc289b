"""``radioloader show``."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Cli = Callable[..., Any]


def test_a_picture_in_the_current_folder(
    cli: Cli, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("show", store_uri, "sub-01")
    assert (done.status, done.out, done.err) == (0, "sub-01.png\n", "")
    assert Image.open(io.BytesIO((tmp_path / "sub-01.png").read_bytes())).format == "PNG"


def test_options(cli: Cli, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    path = tmp_path / "x.png"
    done = cli("show", store_uri, "sub-02", "--image", "T1w", "--label", "seg", "--out", path, "--size", 100, "--open")
    assert (done.status, done.out) == (0, f"{path}\n")
    assert opened == [str(path)]
    assert max(Image.open(io.BytesIO(path.read_bytes())).size) < 400


def test_errors(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    done = cli("show", store_uri, "sub-1", "--out", tmp_path / "x.png")
    assert done.status == 2
    assert done.err.startswith(f"error: {store_uri}: subject or volume 'sub-1' is not there; it has 'sub-0")
    assert cli("show", store_uri, "sub-01", "--label", "T1w", "--out", tmp_path / "x.png").status == 2
