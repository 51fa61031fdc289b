from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from radioloader.container.resample import resample

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32"])
@pytest.mark.parametrize("more", [(), (3,)])
def test_as_scipy_inside(dtype: str, more: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.container.resample._VOXELS", 500)  # in several slabs
    generator = np.random.default_rng(0)
    voxels = (generator.normal(size=(9, 8, 7, *more)) * 100).astype(dtype)
    angle = 0.3
    affine = nib.affines.from_matvec(np.diag([1.0, 1.2, 2.0]), [3, -4, 5])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    target = nib.affines.from_matvec(turn @ np.diag([0.8, -0.9, 1.3]), [4, 3, 6])
    matrix = np.linalg.inv(affine) @ target
    shape = (11, 12, 10)
    for nearest in (False, True):
        found = resample(voxels, affine, shape, target, nearest=nearest)
        assert found.dtype == voxels.dtype
        channels = [voxels] if not more else list(np.moveaxis(voxels, 3, 0))
        wanted = np.stack(
            [
                affine_transform(
                    channel.astype(np.float64), matrix, output_shape=shape, order=0 if nearest else 1, mode="nearest"
                )
                for channel in channels
            ],
            axis=-1,
        )
        wanted = wanted if more else wanted[..., 0]
        wanted = np.rint(wanted) if dtype.startswith("int") else wanted
        place = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
        at = nib.affines.apply_affine(matrix, place)
        inside = ((at >= -0.5) & (at < np.array(voxels.shape[:3]) - 0.5)).all(axis=-1)
        assert 0.2 < inside.mean() < 0.9
        assert not found[~inside].any()
        np.testing.assert_allclose(
            found[inside],
            wanted[inside],
            rtol=0,
            atol=1 if dtype.startswith("int") else 1e-3 if dtype == "float32" else 1e-5,
        )
        if nearest:
            assert np.array_equal(found[inside], wanted[inside].astype(dtype))


def test_to_finer_voxels_and_back_gives_labels_again() -> None:
    voxels = np.random.default_rng(1).integers(0, 5, (6, 7, 5), np.uint8)
    affine = np.diag([3.0, 2.0, 1.5, 1.0])
    fine = nib.affines.from_matvec(np.diag([1.0, 1.0, 0.5]), [-1.0, -0.5, -0.5])
    up = resample(voxels, affine, (18, 14, 15), fine, nearest=True)
    assert np.array_equal(up, np.kron(voxels, np.ones((3, 2, 3), np.uint8)))
    assert np.array_equal(resample(up, fine, voxels.shape, affine, nearest=True), voxels)


def test_large_whole_numbers() -> None:
    voxels = np.full((4, 4, 4), 2**31 - 1, np.int32)
    found = resample(voxels, np.eye(4), (7, 7, 7), np.diag([0.5, 0.5, 0.5, 1]), nearest=False)
    assert (found == 2**31 - 1).all()


def test_one_slice() -> None:
    voxels = np.full((4, 4, 1), 7.0, np.float32)
    target = nib.affines.from_matvec(np.eye(3), [0, 0, -1])
    found = resample(voxels, np.eye(4), (4, 4, 3), target, nearest=False)
    assert np.array_equal(found, np.stack([np.zeros((4, 4)), voxels[..., 0], np.zeros((4, 4))], axis=-1))
