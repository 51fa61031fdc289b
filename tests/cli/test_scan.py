"""``radioloader scan``: one line for each volume, exit statuses, files."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.dicom.make import tilt, uid, write_garbage
from tests.formats.dicom.structures import on_slice, write_rtstruct
from tests.ingestion.dicom_files import AFFINE, grid_of, series

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scanned")
    series(root / "ct", 0, description="Thorax [red] 5 mm")
    series(root / "mr", 1, modality="MR", affine=tilt(AFFINE, 8.0))
    grid = grid_of(root / "ct")
    box = [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)]
    write_rtstruct(root / "rs", grid, {"GTV": [on_slice(grid, 2, box)], "Lung": [on_slice(grid, 3, box)]})
    return root


def lines(out: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in out.splitlines()]


def test_what_is_shown(cli: Cli, root: Path) -> None:
    done = cli("scan", root, "--workers", 1)
    assert (done.status, done.err) == (0, "")
    heading, ct, mr, rs, summary = lines(done.out)[:5]
    assert heading == [
        "series",
        "modality",
        "description",
        "volume",
        "files",
        "shape",
        "spacing (mm)",
        "axes",
        "verdict",
    ]
    assert ct == ["1", "CT", "Thorax [red] 5 mm", "8", "24x20x8", "0.8x0.9x2.5", "LPS", "regular"]
    assert mr == ["2", "MR", "8", "24x20x8", "0.8x0.9x2.5", "LPS", "tilted: 8.00 degrees"]
    assert rs == ["3", "RTSTRUCT", "1", "GTV, Lung"]
    text = " ".join(summary)
    assert re.fullmatch(
        r"17 files, 3 series, 2 volumes \(2 usable\), 1 segmentations and structure sets; \d+\.\d s", text
    )
    assert "P1" not in done.out
    assert "Quillfeather" not in done.out


def test_problems_make_it_1_and_are_named(cli: Cli, tmp_path: Path) -> None:
    series(tmp_path / "gap", 0, drop=(3,))
    write_garbage(tmp_path / "garbage")
    (tmp_path / "text").write_text("x" * 200)
    done = cli("scan", tmp_path)
    assert done.status == 1
    assert f"NOT USABLE: {tmp_path}/gap (7 files): irregular: 1 gap (5 mm after slice 3, expected 2.5 mm)" in done.out
    assert "1 volumes (0 usable)" in done.out
    assert f"{tmp_path}/garbage: broken DICOM" in done.out
    assert f"1 file left out: not DICOM (such as {tmp_path}/text)" in done.out
    (tmp_path / "garbage").unlink()
    done = cli("scan", tmp_path, "--on-irregular", "split")
    assert done.status == 0
    assert [row[2:5] for row in lines(done.out)[1:3]] == [["part1", "3", "24x20x3"], ["part2", "4", "24x20x4"]]


def test_tables_are_written(cli: Cli, root: Path, tmp_path: Path) -> None:
    done = cli("scan", root / "ct", root / "rs", "--csv", tmp_path / "x.csv", "--json", tmp_path / "x.json")
    assert done.status == 0
    assert done.out.splitlines()[-2:] == [f"wrote {tmp_path}/x.csv", f"wrote {tmp_path}/x.json"]
    with (tmp_path / "x.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["what"], row["modality"], row["shape"]) for row in rows] == [
        ("image", "CT", "24x20x8"),
        ("rtstruct", "RTSTRUCT", ""),
    ]
    assert rows[0]["series"] == uid("series", "study of P1", "series 0")
    assert [item["modality"] for item in json.loads((tmp_path / "x.json").read_text())["items"]] == ["CT", "RTSTRUCT"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["{root}/none"], "error: {root}/none does not exist"),
        (["{root}", "--on-tilt", "x"], "error: on_tilt='x' is not one of 'keep', 'resample', 'error'"),
        (["{root}", "--slice-tolerance", "-1"], "error: slice_tolerance_mm=-1.0 is not a distance in mm"),
        (
            ["{root}/ct", "--csv", "{root}/none/x.csv"],
            "error: {root}/none/x.csv cannot be written: No such file or directory",
        ),
        (["{root}/ct", "--json", "{root}/none/x"], "error: {root}/none/x cannot be written: No such file or directory"),
    ],
)
def test_wrong_arguments_get_one_line(arguments: list[str], text: str, cli: Cli, root: Path) -> None:
    done = cli("scan", *[argument.format(root=root) for argument in arguments])
    assert done.status == 2
    assert done.err.splitlines() == [text.format(root=root)]


def test_on_a_terminal_nothing_is_lost(root: Path) -> None:
    """Cells are folded to the width, not cut."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "radioloader", "scan", str(root / "ct"), "--workers", "1"],
        stdout=slave,
        env={**os.environ, "COLUMNS": "70", "TERM": "xterm"},
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
    os.close(master)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    for word in ("24x20x8", "regular", "Thorax"):
        assert word in text.replace("\r\n", "")
