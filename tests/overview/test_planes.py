"""Which way planes lie, for volumes of every orientation: known by marks at places in mm."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from radioloader.formats.orientation import reorient
from radioloader.overview.measure import VolumeVoxels
from radioloader.overview.planes import Plane, middle_of, planes
from radioloader.storage.catalog import pack_occupied

ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]
# Of a RAS volume: marks at the patient's left, front and head, all in the planes through the middle.
SIZE, MIDDLE = (9, 11, 7), (4, 5, 3)
LEFT, FRONT, HEAD = 1, 2, 3


class Array(VolumeVoxels):
    """Voxels of an array, without a store."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._whole = array
        self.shape = array.shape  # type: ignore[assignment]


def cut(codes: str) -> dict[str, Plane]:
    marked = np.zeros(SIZE, np.uint8)
    marked[0, 5, 3] = LEFT
    marked[4, 10, 3] = FRONT
    marked[4, 5, 6] = HEAD
    turned, affine = reorient(marked, np.diag([1.0, 2.0, 3.0, 1.0]), "RAS", codes)
    where = np.zeros(SIZE)
    where[MIDDLE] = 1
    focus = [int(v) for v in np.argwhere(reorient(where, np.eye(4), "RAS", codes)[0])[0]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    volume = Array(np.ascontiguousarray(turned))
    return {plane.name: plane for plane in planes(volume, None, axcodes=codes, spacing=spacing, focus=focus)}


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_radiological_convention(codes: str) -> None:
    found = cut(codes)
    axial, coronal, sagittal = (found[name].image for name in ("axial", "coronal", "sagittal"))
    assert axial is not None
    assert coronal is not None
    assert sagittal is not None
    assert (axial.shape, coronal.shape, sagittal.shape) == ((11, 9), (7, 9), (7, 11))
    assert axial[5, 8] == coronal[3, 8] == LEFT  # at the right
    assert axial[0, 4] == FRONT  # up
    assert sagittal[3, 0] == FRONT  # at the left
    assert coronal[0, 4] == sagittal[0, 5] == HEAD  # up
    assert found["axial"].letters == ("R", "L", "A", "P")
    assert found["axial"].size_mm == (22, 9)
    assert found["coronal"].size_mm == (21, 9)
    assert found["sagittal"].size_mm == (21, 22)


def test_middle_of_what_is_occupied() -> None:
    masks = [np.zeros(n, np.bool_) for n in (20, 9, 30)]
    masks[0][4:9] = True
    masks[2][10:30] = True
    assert middle_of(pack_occupied(masks), (20, 9, 30)) == (6, 4, 19)
    assert middle_of(None, (20, 9, 30, 0)) == (10, 4, 15)
