"""Datasets in the layouts that people have, small, with voxels that tell which file is which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])
HIPPOCAMPUS = {"0": "background", "1": "Anterior", "2": "Posterior"}


def voxels(seed: int, dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def classes(seed: int, dtype: Any = np.uint8, count: int = 3) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, count, SHAPE).astype(dtype)


def write(path: Path, array: npt.NDArray[Any], affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def decathlon(root: Path, *, channels: int = 1, described: bool = True, tested: bool = True) -> Path:
    """Task with three cases for training and one for the test; several channels lie in the 4th axis."""
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    for i in (1, 2, 3):
        write(root / "imagesTr" / f"hip_00{i}.nii.gz", voxels(i, [np.int16, np.uint8, np.float32][i - 1], shape))
        write(root / "labelsTr" / f"hip_00{i}.nii.gz", classes(10 + i, np.float32 if i == 2 else np.uint8))
    if tested:
        write(root / "imagesTs" / "hip_009.nii.gz", voxels(9, np.int16, shape))
    if described:
        names = ["FLAIR", "T1w", "t1gd", "T2w"][:channels]
        write_json(
            root / "dataset.json",
            {
                "name": "Hippocampus",
                "modality": {str(i): name for i, name in enumerate(names)},
                "labels": HIPPOCAMPUS,
                "numTraining": 3,
                "training": [
                    {"image": f"./imagesTr/hip_00{i}.nii.gz", "label": f"./labelsTr/hip_00{i}.nii.gz"}
                    for i in (1, 2, 3)
                ],
                "test": ["./imagesTs/hip_009.nii.gz"] if tested else [],
            },
        )
    return root


def nnunet(root: Path, *, channels: tuple[str, ...] = ("CT",), described: bool = True, tested: bool = True) -> Path:
    """Raw dataset with three cases for training and one for the test, a file for each channel."""
    for i in (1, 2, 3):
        for k in range(len(channels)):
            write(root / "imagesTr" / f"case_{i}_{k:04d}.nii.gz", voxels(100 * k + i))
        write(root / "labelsTr" / f"case_{i}.nii.gz", classes(10 + i))
    if tested:
        for k in range(len(channels)):
            write(root / "imagesTs" / f"case_9_{k:04d}.nii.gz", voxels(100 * k + 9))
    if described:
        write_json(
            root / "dataset.json",
            {
                "channel_names": {str(k): name for k, name in enumerate(channels)},
                "labels": {"background": 0, "whole": [1, 2], "core": 2},
                "regions_class_order": [1, 2],
                "numTraining": 3,
                "file_ending": ".nii.gz",
            },
        )
    return root


def bids(root: Path) -> Path:
    """Two people; the first one has two sessions, all kinds of files, and derivatives."""
    one, two = root / "sub-01" / "ses-a", root / "sub-01" / "ses-b"
    for seed, session, name in ((1, one, "ses-a"), (2, two, "ses-b")):
        write(session / "anat" / f"sub-01_{name}_T1w.nii.gz", voxels(seed))
        (session / "anat" / f"sub-01_{name}_T1w.json").write_text("{}")
    write(one / "anat" / "sub-01_ses-a_acq-high_T1w.nii.gz", voxels(3))
    write(one / "func" / "sub-01_ses-a_task-rest_bold.nii.gz", voxels(4, shape=(*SHAPE, 3)))
    (one / "func" / "sub-01_ses-a_task-rest_events.tsv").write_text("onset\tduration\n")
    write(one / "fmap" / "sub-01_ses-a_phasediff.nii.gz", voxels(5))
    write(root / "sub-02" / "anat" / "sub-02_T1w.nii.gz", voxels(6))
    write(root / "sub-02" / "pet" / "sub-02_pet.nii.gz", voxels(7, np.float32))
    derived = root / "derivatives" / "seg" / "sub-01" / "ses-a" / "anat"
    write(derived / "sub-01_ses-a_dseg.nii.gz", classes(8))
    write(derived / "sub-01_ses-a_space-MNI152_dseg.nii.gz", classes(9))
    write(derived / "sub-01_ses-a_desc-preproc_T1w.nii.gz", voxels(10))
    write_json(root / "dataset_description.json", {"Name": "made up", "BIDSVersion": "1.9.0"})
    (root / "participants.tsv").write_text("participant_id\tage\tsite\nsub-01\t34\t0012\nsub-02\tn/a\t0013\n")
    (root / "README").write_text("made up")
    return root


def plain(root: Path, names: dict[str, list[str]]) -> Path:
    """Files by folder; those of folders and names that speak of labels hold classes."""
    seed = 0
    for folder, files in names.items():
        for name in files:
            seed += 1
            label = any(word in f"{folder}/{name}" for word in ("seg", "label", "mask"))
            write(root / folder / name, classes(seed) if label else voxels(seed))
    return root


def litter(root: Path) -> Path:
    """What lies about in folders that people have."""
    for name in (".DS_Store", "imagesTr/.DS_Store", "imagesTr/._hip_001.nii.gz", "imagesTr/notes.txt", "Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"litter")
    return root


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
