"""A cohort of every kind of NIfTI file, and stores of it with every kind of tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl

CODES = ["".join(code) for order in permutations(("LR", "PA", "IS")) for code in product(*order)]
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
ENDINGS = [(".nii.gz", 1), (".nii", 1), (".img", 1), (".nii.gz", 2), (".hdr", 2)]
SCALINGS = [(None, None), (0.5, 0.0), (1.0, -1024.0), (None, None), (0.1, 3.3), (-2.0, 1.0), (None, None)]
STORES: dict[str, tuple[rl.TileConfig, str | None]] = {
    "isotropic": (rl.TileConfig(extent=5), None),
    "default": (rl.TileConfig(), None),
    "axial": (rl.TileConfig(orientation=rl.SliceOrientation.AXIAL), None),
    "sagittal": (rl.TileConfig(orientation=rl.SliceOrientation.SAGITTAL), None),
    "coronal": (rl.TileConfig(orientation=rl.SliceOrientation.CORONAL), None),
    "custom": (rl.TileConfig(custom=(3, 20, 4)), None),
    "RAS": (rl.TileConfig(extent=4), "RAS"),
    "axial in PIR": (rl.TileConfig(orientation=rl.SliceOrientation.AXIAL), "PIR"),
}


@dataclass
class Zoo:
    """Files by subject, and stores of them by kind.

    Attributes:
        files: One file for each of the 48 storage orientations, of changing dtype, byte order, container, dimension and scaling.
        stores: URI by name of :data:`STORES`.
    """

    files: dict[str, Path]
    stores: dict[str, str]

    def truth(self, subject: str, orientation: str | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """What nibabel reads, and the affine, turned by nibabel to ``orientation``."""
        image = nib.load(self.files[subject])
        values = np.asanyarray(image.dataobj)
        if orientation is None:
            return values, image.affine
        transform = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(orientation)
        )
        affine = image.affine @ nib.orientations.inv_ornt_aff(transform, values.shape[:3])
        return nib.orientations.apply_orientation(values, transform), affine


def oblique_affine(codes: str, number: int) -> np.ndarray[Any, Any]:
    """An affine whose closest axis codes are ``codes``, tilted, with three different spacings."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    straight = nib.orientations.inv_ornt_aff(turn, (1, 1, 1)) @ np.diag([0.8, 1.25, 2.5, 1.0])
    tilt = np.eye(4)
    tilt[:3, :3] = nib.eulerangles.euler2mat(0.01 * number, -0.005 * number, 0.1)
    tilt[:3, 3] = [-10.0 * number, 3.5, 7.25]
    return np.asarray(tilt @ straight)


def voxels(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Values over the dtype's whole range; NaN and infinities for floats."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        array = (generator.standard_normal(shape) * 1e4).astype(kind)
        array.flat[:3] = np.nan, np.inf, -np.inf
        return array
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


@pytest.fixture(scope="session")
def zoo(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    root = tmp_path_factory.mktemp("zoo")
    files = {}
    for number, codes in enumerate(CODES):
        ending, version = ENDINGS[(number + number // 10) % len(ENDINGS)]
        shape = (9 + number % 3, 12 - number % 4, 7 + number % 5)
        slope, intercept = SCALINGS[number % len(SCALINGS)]
        files[f"sub-{codes}"] = write_image(
            root / "files" / f"sub-{codes}{ending}",
            voxels(DTYPES[number % len(DTYPES)], (*shape, 3) if number % 4 == 3 else shape, number),
            oblique_affine(codes, number),
            slope,
            intercept,
            version=version,
            big_endian=number % 3 == 0,
        )
    stores = {}
    for name, (tile, orientation) in STORES.items():
        stores[name] = str(root / name)
        config = rl.StorageConfig(write=rl.WriteConfig(tile=tile))
        report = rl.ingest(stores[name], {"image": files}, orientation=orientation, workers=1, config=config)
        assert report.ok, str(report)
    return Zoo(files, stores)


@pytest.fixture(scope="module")
def stores(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store that is changed, of the subjects 5 and 6; one that subjects come from: 1 to 6, with others of the ids 5 and 6."""
    root = tmp_path_factory.mktemp("kill")
    for name, seed in (("base", 1), ("more", 2)):
        cohort = make_cohort(root / name / "files", subjects=6, shape=(14, 14, 14), seed=seed)
        sources = {"T1w": cohort / "images", "seg": cohort / "labels"}
        rl.ingest(root / name / "all", sources, obs_meta=cohort / "participants.tsv", workers=1)
    rl.open(root / "base" / "all").iloc[4:].materialize(root / "base" / "store", workers=1)
    return root / "base" / "store", root / "more" / "all"
