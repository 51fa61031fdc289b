"""Geometry of voxel grids."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from radioloader.config import SliceOrientation
from radioloader.errors import ConfigError
from radioloader.geometry import PLANES, affine_problem, axcodes, grid_distance, plane_axis, plane_name, spacing

OBLIQUE = np.array([[0.0, -1.5, 0.1, 4.0], [1.1, 0.0, 0.0, -5.0], [0.2, 0.0, 2.0, 6.0], [0.0, 0.0, 0.0, 1.0]])
CODES = ["".join(code) for order in permutations(("LR", "PA", "IS")) for code in product(*order)]


def test_usable_affines() -> None:
    for affine in (
        np.eye(4),
        OBLIQUE,
        OBLIQUE * [1e-4, 1e-4, 1e-4, 1],
        np.diag([1e4, 1e4, 1e4, 1]),
        np.diag([-1, 0.3, 9, 1]),
    ):
        assert affine_problem(affine) is None


@pytest.mark.parametrize(
    ("affine", "problem"),
    [
        (np.eye(3), r"the affine has shape \(3, 3\), expected \(4, 4\)"),
        (np.full((4, 4), np.nan), "holds values that are not finite"),
        (np.diag([1, np.inf, 1, 1]), "holds values that are not finite"),
        (np.diag([1, 0, 1, 1]), r"the affine is singular \(its axes do not span space\)"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.array([[1, 1, 0, 0], [0, 1e-9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.zeros((4, 4)), "singular"),
        (np.diag([1e200, 1, 1, 1]), "the affine holds values that are too large for mm"),
    ],
)
def test_unusable_affines(affine: np.ndarray, problem: str) -> None:
    import re

    found = affine_problem(affine)
    assert found is not None
    assert re.search(problem, found)


def test_spacing() -> None:
    np.testing.assert_allclose(spacing(np.diag([-2.0, 3.0, 0.5, 1.0])), (2, 3, 0.5))
    np.testing.assert_allclose(spacing(OBLIQUE), nib.affines.voxel_sizes(OBLIQUE))
    assert all(type(value) is float for value in spacing(OBLIQUE))


@pytest.mark.parametrize("codes", CODES)
def test_axis_codes_and_planes_of_all_48_orientations(codes: str) -> None:
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)),
        (5, 6, 7),
    )
    assert axcodes(affine) == codes
    tilted = affine.copy()
    tilted[:3, :3] = nib.eulerangles.euler2mat(0.2, -0.2, 0.3) @ affine[:3, :3]
    assert axcodes(tilted) == codes, "the closest one for oblique grids"
    for plane, letters in (("axial", "IS"), ("coronal", "PA"), ("sagittal", "LR")):
        assert codes[plane_axis(codes, plane)] in letters


def test_unknown_planes() -> None:
    with pytest.raises(ConfigError, match="plane='transversal' is not one of 'axial', 'coronal', 'sagittal'"):
        plane_axis("RAS", "transversal")
    for kind in (SliceOrientation.ISOTROPIC, SliceOrientation.CUSTOM):
        with pytest.raises(ConfigError, match=f"plane='{kind.value}' is not one of 'axial', 'coronal', 'sagittal'"):
            plane_axis("RAS", kind)
    with pytest.raises(ConfigError, match=r"plane=\['axial'\] is not one of"):
        plane_axis("RAS", ["axial"])  # type: ignore[arg-type]


def test_planes_by_their_orientation() -> None:
    for plane in PLANES:
        assert plane_name(SliceOrientation(plane)) == plane_name(plane) == plane
        assert plane_axis("PIR", SliceOrientation(plane)) == plane_axis("PIR", plane)


def test_grid_distance_is_the_greatest_over_all_voxels() -> None:
    shape = (4, 5, 6)
    other = OBLIQUE.copy()
    other[:3, :3] = nib.eulerangles.euler2mat(0.01, 0.02, -0.01) @ OBLIQUE[:3, :3]
    other[:3, 3] += [0.1, 0, -0.2]
    voxels = np.array([(*index, 1) for index in np.ndindex(shape)])
    distances = np.linalg.norm((voxels @ (OBLIQUE - other).T)[:, :3], axis=1)
    assert grid_distance(OBLIQUE, other, shape) == pytest.approx(distances.max(), rel=1e-12)
    assert grid_distance(OBLIQUE, other, (*shape, 9)) == pytest.approx(distances.max(), rel=1e-12)
    assert grid_distance(OBLIQUE, OBLIQUE, shape) == 0
    shifted = OBLIQUE.copy()
    shifted[0, 3] += 0.7
    assert grid_distance(OBLIQUE, shifted, shape) == pytest.approx(0.7)
    assert grid_distance(np.eye(4), np.diag([1.1, 1, 1, 1]), (11, 1, 1)) == pytest.approx(1.0)
