"""Which images segmentations and structure sets are about, from their headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radioloader.formats.dicom.frames import Instance
from radioloader.formats.dicom.headers import read_instance
from radioloader.formats.dicom.segwrite import write_seg
from tests.formats.dicom.structures import make_grid, on_slice, write_rtstruct

pytest.importorskip("highdicom")
GRID = make_grid((12, 10, 6), np.diag([2.0, 1.5, 3.0, 1.0]))
SQUARE = np.array([[2, 2], [6, 2], [6, 6], [2, 6]], float)


def pictures(grid: object = GRID) -> set[str]:
    return {sop for frames in GRID.slices for sop, _ in frames}


def test_a_structure_set(tmp_path: Path) -> None:
    contours = {"GTV": [on_slice(GRID, 2, SQUARE)], "Lung L": [on_slice(GRID, 3, SQUARE), on_slice(GRID, 4, SQUARE)]}
    write_rtstruct(tmp_path / "rs.dcm", GRID, contours)
    found = read_instance(str(tmp_path / "rs.dcm"))
    assert isinstance(found, Instance)
    assert (found.what, found.names) == ("rtstruct", ((1, "GTV"), (2, "Lung L")))
    assert found.images == (GRID.series,)
    assert found.frame_of_reference == GRID.frame_of_reference
    assert found.pictures <= pictures()


def test_a_segmentation(tmp_path: Path) -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[2:5, 3:6, 1:3], labels[6:8, 3:6, 4] = 1, 2
    write_seg(tmp_path / "seg.dcm", labels, GRID, {1: "liver", 2: "tumour"})
    found = read_instance(str(tmp_path / "seg.dcm"))
    assert isinstance(found, Instance)
    assert (found.what, found.names) == ("seg", ((1, "liver"), (2, "tumour")))
    assert found.images == (GRID.series,)
    assert found.frame_of_reference == GRID.frame_of_reference
    assert found.pictures
    assert found.pictures <= pictures()
    assert found.frames == ()
