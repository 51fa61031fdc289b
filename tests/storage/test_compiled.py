"""When the compiled reader is in use."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
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


compiled = pytest.mark.skipif(decoder is None, reason="the compiled reader is not built: no C compiler")


@compiled
def test_it_is_left_alone_where_that_is_asked_for_or_its_source_changed(tmp_path: Path) -> None:
    shutil.copytree(Path(radioloader.__file__).parent, tmp_path / "radioloader")
    assert run(tmp_path, RADIOLOADER_COMPILED="1") == "False"
    assert run(tmp_path, RADIOLOADER_COMPILED="0") == "True"
    with (tmp_path / "radioloader" / "storage" / "_decode.c").open("a") as file:
        file.write("/* changed */")
    assert run(tmp_path) == "True"


@pytest.mark.parametrize("what", ["_decode.*", "_decode.c"])
def test_it_and_its_source_can_be_missing(tmp_path: Path, what: str) -> None:
    shutil.copytree(Path(radioloader.__file__).parent, tmp_path / "radioloader", ignore=shutil.ignore_patterns(what))
    assert run(tmp_path) == "True"


HUGE = 2**31


@compiled
@pytest.mark.parametrize(
    ("shape", "tile", "grid", "tiles"),
    [
        ((20, 20, 4), (HUGE, HUGE, 4), (1, 1, 1, 1), 1),  # bytes of a tile: 2**67
        ((HUGE, HUGE, 1), (1, 1, 1), (2 * HUGE, 2 * HUGE, 1, 1), 0),  # tiles: 2**64
        ((20, 20, 4), (8, 8, 4), (3, 3, 1, 1), 8),
        ((25, 20, 4), (8, 8, 4), (3, 3, 1, 1), 9),
        ((20, 20, 4), (8, 0, 4), (3, 3, 1, 1), 9),
    ],
)
def test_tiles_that_cannot_be_are_refused(
    tmp_path: Path, shape: tuple[int, ...], tile: tuple[int, ...], grid: tuple[int, ...], tiles: int
) -> None:
    (tmp_path / "file").write_bytes(struct.pack("<Q", 0))
    out = np.zeros((2, 2, 2), np.int16)
    counts = np.full(tiles + 1, 8, np.int64)
    same, lowest = np.zeros(tiles, np.bool_), np.zeros(tiles, np.int16)
    box = ((shape[0] - 2, shape[0]), (0, 2), (0, 2))
    with pytest.raises(ValueError, match="do not fit each other"):
        decoder.read(
            os.fsencode(tmp_path / "file"), shape, tile, grid, False, "h", "h", counts, same, lowest, box, 0, out
        )
