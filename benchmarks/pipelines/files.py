"""The files of the pipelines, ``.nii.gz``: the cohort's own CTs, and heads that are made of the brain template in nilearn's wheel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import Cohort

__all__ = ["BRATS", "brain_files", "brain_shape", "brain_spacing", "brats_files", "ct_files", "make_files"]

BRATS = (240, 240, 155)
"""Voxels of a case of BraTS, 1 mm wide."""

Files = list[dict[str, str]]


def brain_shape(cohort: Cohort) -> tuple[int, int, int]:
    """Voxels (x, y, z) of the heads: those of BraTS, or fewer where the cohort's volumes are small as well."""
    x, y, z = (min(n, most) for n, most in zip(cohort.shape, BRATS, strict=True))
    return x, y, z


def brain_spacing(cohort: Cohort) -> float:
    """mm to which heads are resampled: as published, or less for heads of fewer voxels, so that tensors are as large and not padded."""
    return round(4 * min(n / most for n, most in zip(brain_shape(cohort), BRATS, strict=True)), 2)


def ct_files(cohort: Cohort) -> Files:
    """MONAI's datalist of the CTs and their labels."""
    return _pairs(cohort.images(), cohort.labels())


def brats_files(cohort: Cohort) -> Files:
    """MONAI's datalist of four modalities in a file each, and labels 0 to 3."""
    return _pairs(*(_paths(cohort, kind) for kind in ("modalities", "tumour")))


def brain_files(cohort: Cohort) -> dict[str, list[Path]]:
    """T1 images and masks of the brain, by their names in TorchIO's subjects."""
    return {"mri": _paths(cohort, "mri"), "brain": _paths(cohort, "brain")}


def _pairs(images: list[Path], labels: list[Path]) -> Files:
    return [{"image": str(image), "label": str(label)} for image, label in zip(images, labels, strict=True)]


def _paths(cohort: Cohort, kind: str) -> list[Path]:
    return [cohort.folder / "heads" / kind / f"{name}.nii.gz" for name in cohort.names]


def make_files(cohort: Cohort, say: Callable[[str], None] = lambda line: None) -> None:
    """Write the heads, unless they are there: the template in the range of a scanner with its noise, flipped and shifted. A case of BraTS
    has nothing around the head, and three contrasts more that are made of the first; small blobs stand for the tumour."""
    import nibabel as nib
    import numpy as np

    from benchmarks.cohort import load_base, make_subject

    done = cohort.folder / "heads" / f"{cohort.subjects}.json"
    wanted = {"recipe": 2, "shape": list(brain_shape(cohort))}
    if done.is_file() and json.loads(done.read_text()) == wanted:
        return
    paths = {kind: _paths(cohort, kind) for kind in ("modalities", "tumour", "mri", "brain")}
    for files in paths.values():
        files[0].parent.mkdir(parents=True, exist_ok=True)
    base, affine = load_base(None, brain_shape(cohort)), np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in range(cohort.subjects):
        image, label = make_subject(base, number)
        head = image > -900
        t1 = np.where(head, image + 1000, 0).astype(np.int16)
        contrasts = (t1, t1.max() - t1, t1 // 2 + 3, np.roll(t1, 1, 0))
        volumes = {
            "modalities": np.stack([np.where(head, contrast, 0).astype(np.int16) for contrast in contrasts], axis=-1),
            "tumour": label,
            "mri": np.abs(image + 1000).astype(np.int16),  # with what a scanner sees of the air
            "brain": head.astype(np.uint8),
        }
        for kind, voxels in volumes.items():
            nib.save(nib.Nifti1Image(voxels, affine), paths[kind][number])
        say(f"head {number + 1} of {cohort.subjects}")
    done.write_text(json.dumps(wanted))
