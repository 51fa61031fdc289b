"""When the compiled reader is in use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import radioloader
from radioloader.storage._compiled import decoder

PRINT = "from radioloader.storage._compiled import decoder; print(decoder is None)"


def run(folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(decoder is None, reason="the compiled reader is not built: no C compiler")
def test_it_is_left_alone_where_that_is_asked_for_or_its_source_changed(tmp_path: Path) -> None:
    shutil.copytree(Path(radioloader.__file__).parent, tmp_path / "radioloader")
    assert run(tmp_path, RADIOLOADER_COMPILED="1") == "False"
    assert run(tmp_path, RADIOLOADER_COMPILED="0") == "True"
    with (tmp_path / "radioloader" / "storage" / "_decode.c").open("a") as file:
        file.write("/* changed */")
    assert run(tmp_path) == "True"


def test_it_can_be_missing(tmp_path: Path) -> None:
    shutil.copytree(
        Path(radioloader.__file__).parent, tmp_path / "radioloader", ignore=shutil.ignore_patterns("_decode.*")
    )
    assert run(tmp_path) == "True"
