"""Stores that the tests of the datasets share. None of them may be changed by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl

CONFIG = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)))
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Files:
    """A store and the arrays of its source files, as nibabel gives them.

    Attributes:
        uri: The store.
        subjects: Ids, sorted.
        arrays: By collection and subject, (X, Y, Z) or (X, Y, Z, T).
        affines: By subject.
    """

    uri: str
    subjects: list[str]
    arrays: dict[str, dict[str, Array]]
    affines: dict[str, Array]


def ingest(root: Path, files: dict[str, dict[str, Path]], **kwargs: Any) -> Files:
    report = rl.ingest(root / "store", files, workers=1, config=CONFIG, **kwargs)
    assert report.ok, str(report)
    images = {name: {subject: nib.load(path) for subject, path in paths.items()} for name, paths in files.items()}
    first = next(iter(images.values()))
    return Files(
        str(root / "store"),
        sorted(first),
        {name: {s: np.asanyarray(image.dataobj) for s, image in part.items()} for name, part in images.items()},
        {subject: image.affine for subject, image in first.items()},
    )


@pytest.fixture(scope="session")
def brains(cohort: Path, store_uri: str) -> Files:
    """The shared cohort: T1w (int16) and seg (uint8) of 4 subjects whose shapes grow along x."""
    subjects = [f"sub-{number:02d}" for number in range(1, 5)]
    t1w = {subject: nib.load(cohort / "images" / f"{subject}_T1w.nii.gz") for subject in subjects}
    seg = {subject: nib.load(cohort / "labels" / f"{subject}_seg.nii.gz") for subject in subjects}
    return Files(
        store_uri,
        subjects,
        {
            "T1w": {subject: np.asanyarray(image.dataobj) for subject, image in t1w.items()},
            "seg": {subject: np.asanyarray(image.dataobj) for subject, image in seg.items()},
        },
        {subject: image.affine for subject, image in t1w.items()},
    )


@pytest.fixture(scope="session")
def mixed(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """3 subjects of one shape: a scaled int16 CT, a uint8 PET, a 4D float32 perfusion series (5 points), two label time points."""
    root = tmp_path_factory.mktemp("mixed")
    generator = np.random.default_rng(1)
    shape = (14, 12, 10)
    files: dict[str, dict[str, Path]] = {"CT": {}, "PET": {}, "perf": {}, "mask": {}}
    for number, subject in enumerate(("a", "b", "c")):
        affine = np.diag([1.0, 1.5, 2.0, 1.0])
        affine[:3, 3] = number
        ct = generator.integers(0, 4000, shape, dtype=np.int16)
        files["CT"][subject] = write_image(root / "CT" / f"{subject}.nii.gz", ct, affine, slope=0.5, intercept=-1000.25)
        pet = generator.integers(0, 255, shape, dtype=np.uint8)
        files["PET"][subject] = write_image(root / "PET" / f"{subject}.nii.gz", pet, affine)
        perf = generator.normal(size=(*shape, 5)).astype(np.float32)
        files["perf"][subject] = write_image(root / "perf" / f"{subject}.nii.gz", perf, affine)
        mask = generator.integers(0, 3, (*shape, 2), dtype=np.uint8)
        files["mask"][subject] = write_image(root / "mask" / f"{subject}.nii.gz", mask, affine)
    return ingest(root, files)


ORIENTATIONS = ("RAS", "LPI", "ASR", "SPL", "IRP", "PIR")


@pytest.fixture(scope="session")
def turned(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One subject for each of ``ORIENTATIONS``, named by it. Sizes along left-right, posterior-anterior and inferior-superior are 7, 9
    and 11, plus the subject's number."""
    root = tmp_path_factory.mktemp("turned")
    generator = np.random.default_rng(2)
    files: dict[str, dict[str, Path]] = {"MR": {}, "seg": {}}
    for number, codes in enumerate(ORIENTATIONS):
        world = ["LRPAIS".index(code) // 2 for code in codes]
        shape = tuple((7, 9, 11)[axis] + number for axis in world)
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (code, row) in enumerate(zip(codes, world, strict=True)):
            affine[row, axis] = (1.0 if code in "RAS" else -1.0) * (1.0 + axis / 4)
        affine[:3, 3] = (5, -3, number)
        image = generator.integers(-500, 500, shape, dtype=np.int16)
        files["MR"][codes] = write_image(root / "MR" / f"{codes}.nii.gz", image, affine)
        files["seg"][codes] = write_image(root / "seg" / f"{codes}.nii.gz", (image > 250).astype(np.uint8), affine)
    return ingest(root, files)


@pytest.fixture(scope="session")
def crooked(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A cohort with everything that a dataset must refuse: collections ``A`` and ``B`` differ in grid, ``C`` lacks a subject, ``M`` mixes
    dtypes, ``T`` mixes numbers of time points."""
    root = tmp_path_factory.mktemp("crooked")
    generator = np.random.default_rng(3)
    files: dict[str, dict[str, Path]] = {name: {} for name in "ABCDMT"}
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    for number, subject in enumerate(("p", "q")):
        image = generator.integers(0, 99, (9, 8, 7), dtype=np.int16)
        files["A"][subject] = write_image(root / "A" / f"{subject}.nii.gz", image)
        files["B"][subject] = write_image(root / "B" / f"{subject}.nii.gz", image[: 9 - number])
        files["D"][subject] = write_image(root / "D" / f"{subject}.nii.gz", image, shifted)
        mixed_dtype = image.astype([np.int16, np.float32][number])
        files["M"][subject] = write_image(root / "M" / f"{subject}.nii.gz", mixed_dtype)
        series = np.repeat(image[..., None], 2 + number, axis=3)
        files["T"][subject] = write_image(root / "T" / f"{subject}.nii.gz", series)
    files["C"]["p"] = files["A"]["p"]
    return ingest(root, files, allow_missing=True, labels=[])


@pytest.fixture(scope="module")
def monai_transforms() -> Any:
    """The module ``monai.transforms``."""
    return pytest.importorskip("monai.transforms")
