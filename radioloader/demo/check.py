"""Read every volume back from the store and compare it with nibabel's reading of its source file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radioloader.demo.cohort import Cohort
from radioloader.errors import ReadError

__all__ = ["StoreCheck", "check_store", "tree_bytes"]


@dataclass(frozen=True)
class StoreCheck:
    """What a first reading of all volumes showed.

    Attributes:
        equal: Volumes that were compared; all of them were equal, voxel for voxel.
        brain_means: Subject -> mean of its image's bright voxels, in stored units.
        slices: Subject -> axial slice (X, Y) in RAS axes, spacing along x and y in mm, what the source file is like.
    """

    equal: int
    brain_means: dict[str, float]
    slices: dict[str, tuple[NDArray[Any], tuple[float, float], str]]


def check_store(store: Any, *, cohort: Cohort, on_subject: Callable[[str], None] = lambda subject: None) -> StoreCheck:
    """Compare all volumes with their files and take from each image what later steps need.

    Raises:
        ReadError: A volume is not what nibabel reads from its file.
    """
    import nibabel as nib

    means: dict[str, float] = {}
    slices: dict[str, tuple[NDArray[Any], tuple[float, float], str]] = {}
    equal = 0
    for subject in cohort.subject_ids:
        for collection, path in (("T1w", cohort.image(subject)), ("seg", cohort.label(subject))):
            volume = store[collection].loc[subject]
            voxels = volume.to_numpy()
            file = nib.load(path)
            expected = nib.as_closest_canonical(file)
            same = np.array_equal(voxels, np.asanyarray(expected.dataobj))
            if not same or not np.allclose(volume.affine, expected.affine, atol=1e-6):
                raise ReadError(f"{collection} of {subject} in the store is not what nibabel reads from {path}")
            equal += 1
            if collection != "T1w":
                continue
            # Half of a head scan is air: what is brighter than the mean is the brain.
            means[subject] = float(voxels[voxels > voxels.mean()].mean(dtype=np.float64))
            shape = "×".join(str(n) for n in file.shape)
            zooms = "×".join(f"{z:.2f}" for z in file.header.get_zooms()[:3])
            caption = f"{shape}\n{zooms} mm, {''.join(nib.aff2axcodes(file.affine))}"
            dx, dy, _ = (float(s) for s in volume.spacing)
            slices[subject] = voxels[:, :, voxels.shape[2] // 2].copy(), (dx, dy), caption
        on_subject(subject)
    return StoreCheck(equal, means, slices)


def tree_bytes(folder: Path) -> int:
    """Size of all files under `folder` in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
