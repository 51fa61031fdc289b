"""Flips and permutations of axes, for all 48 storage orientations."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from radioloader.errors import ConfigError
from radioloader.formats.orientation import check_orientation, reorient, turn, turn_grid
from radioloader.geometry import axcodes

ALL = ["".join(codes) for axes in permutations(["LR", "PA", "IS"]) for codes in product(*axes)]


def grid(codes: str) -> np.ndarray:
    """An affine with these axis codes and different spacings."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[row, axis] = (axis + 1.0) * (1 if code in "RAS" else -1)
    affine[:3, 3] = [5, -7, 11]
    return affine


def test_there_are_48() -> None:
    assert len(set(ALL)) == 48
    assert all(axcodes(grid(codes)) == codes for codes in ALL)


@pytest.mark.parametrize("source", ALL)
def test_every_voxel_keeps_its_place_and_comes_back(source: str) -> None:
    voxels = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    for target in ("RAS", "PIR", "LPS"):
        turned, affine = reorient(voxels, grid(source), source, target)
        assert axcodes(affine) == target
        assert turn_grid(voxels.shape, grid(source), source, target)[0] == turned.shape
        for index in [(0, 0, 0), (2, 3, 4), (1, 2, 3)]:
            place = np.linalg.inv(affine) @ grid(source) @ [*index, 1]
            assert turned[tuple(np.rint(place[:3]).astype(int))] == voxels[index]
        np.testing.assert_array_equal(turn(turned, target, source), voxels)


def test_time_stays_where_it_is() -> None:
    voxels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned, _ = reorient(voxels, grid("PIR"), "PIR", "RAS")
    assert turned.shape == (4, 2, 3, 5)
    np.testing.assert_array_equal(turn(turned, "RAS", "PIR"), voxels)


@pytest.mark.parametrize("codes", ["", "RA", "RAR", "RAX", "RASL", "123", 3, ("R", "A", "S"), b"RAS"])
def test_codes_that_are_no_orientation(codes: Any) -> None:
    with pytest.raises(ConfigError, match="three axis codes"):
        check_orientation(codes)


def test_codes_may_be_lower_case() -> None:
    assert check_orientation("lps") == "LPS"
