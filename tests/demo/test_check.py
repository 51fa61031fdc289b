"""The demo's own checks do find what is wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radioloader.demo.check import check_store, tree_bytes
from radioloader.demo.cohort import Cohort
from radioloader.demo.predict import _on_grid_of
from radioloader.errors import GridMismatchError, ReadError

AFFINE = nib.affines.from_matvec(np.diag([-1.0, 2.0, 3.0]), [5, 6, 7])  # LAS


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    cohort = Cohort(tmp_path, ("sub-01",), ())
    for path, dtype in ((cohort.image("sub-01"), np.int16), (cohort.label("sub-01"), np.uint8)):
        path.parent.mkdir()
        nib.save(nib.Nifti1Image(np.arange(60).reshape(3, 4, 5).astype(dtype), AFFINE), path)
    return cohort


def _store(cohort: Cohort, *, change: int = 0, shift: float = 0.0) -> Any:
    def volume(path: Path) -> Any:
        file = nib.as_closest_canonical(nib.load(path))
        voxels = np.array(file.dataobj)
        voxels[1, 1, 1] += change
        affine = file.affine + np.array([[0, 0, 0, shift]] + [[0, 0, 0, 0]] * 3)
        return SimpleNamespace(to_numpy=lambda: voxels, affine=affine, spacing=(1.0, 2.0, 3.0))

    images, labels = volume(cohort.image("sub-01")), volume(cohort.label("sub-01"))
    return {"T1w": SimpleNamespace(loc={"sub-01": images}), "seg": SimpleNamespace(loc={"sub-01": labels})}


def test_equal_volumes_pass_and_say_what_later_steps_need(cohort: Cohort) -> None:
    check = check_store(_store(cohort), cohort=cohort)
    assert check.equal == 2
    assert check.brain_means == {"sub-01": pytest.approx(np.arange(30, 60).mean())}
    pixels, spacing, caption = check.slices["sub-01"]
    assert pixels.shape == (3, 4)
    assert spacing == (1.0, 2.0)
    assert "3×4×5" in caption
    assert "LAS" in caption


@pytest.mark.parametrize("wrong", [{"change": 1}, {"shift": 0.01}])
def test_one_other_voxel_or_a_shift_is_found(cohort: Cohort, wrong: dict[str, Any]) -> None:
    with pytest.raises(ReadError, match="T1w of sub-01"):
        check_store(_store(cohort, **wrong), cohort=cohort)


def test_a_prediction_off_its_source_grid_is_found(cohort: Cohort, tmp_path: Path) -> None:
    source = cohort.image("sub-01")
    np.testing.assert_array_equal(_on_grid_of(cohort.label("sub-01"), source), np.arange(60).reshape(3, 4, 5))
    for name, shape, affine in (
        ("transposed", (5, 4, 3), AFFINE),
        ("turned", (3, 4, 5), np.diag([1, 1, -1, 1]) @ AFFINE),
        ("shifted", (3, 4, 5), nib.affines.from_matvec(AFFINE[:3, :3], [5, 6, 7.01])),
    ):
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), path)
        with pytest.raises(GridMismatchError, match=name):
            _on_grid_of(path, source)


def test_tree_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"123")
    (tmp_path / "c").write_bytes(b"4567")
    assert tree_bytes(tmp_path) == 7
