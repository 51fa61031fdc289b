"""Small DICOM series for the ingest tests: 24 x 20 x 8 voxels with known values and places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import radioloader as rl
from radioloader.formats.dicom.grid import ImageGrid
from tests.formats.dicom import structures
from tests.formats.dicom.grids import grid_of_files
from tests.formats.dicom.make import uid, write_series

AFFINE = np.array([[-0.8, 0, 0, 31.5], [0, -0.9, 0, -12.25], [0, 0, 2.5, 7.0], [0, 0, 0, 1]])
"""Axial, as a scanner has it: LPS."""


def voxels(seed: int = 0, shape: Sequence[int] = (24, 20, 8)) -> np.ndarray[Any, Any]:
    """int16 voxels, others for each seed."""
    return np.random.default_rng(seed).integers(-1000, 1000, tuple(shape), dtype=np.int16)


def series(folder: Path, seed: int = 0, *, who: str = "P1", **more: Any) -> np.ndarray[Any, Any]:
    """Writes a series of the patient ``who`` and gives its voxels; by default every seed is a series of its own, and every patient has one
    study. Whatever else :func:`write_series` takes."""
    array = more.pop("voxels", None)
    array = voxels(seed) if array is None else array
    options = {"series": f"series {seed}", "study": f"study of {who}", "series_number": seed + 1} | more
    patient = {"PatientID": who} | options.pop("patient", {})
    write_series(folder, array, options.pop("affine", AFFINE), patient=patient, seed=seed, **options)
    return array


def subject_of(study: str) -> str:
    """The id that the default rule gives to a patient with one study."""
    return f"sub-{hashlib.sha256(str(uid('study', study)).encode()).hexdigest()[:12]}"


def write_rtstruct(
    path: Path, grid: ImageGrid, drawn: Any, *, who: str = "P1", edit: Callable[[Any], None] | None = None, **more: Any
) -> Path:
    """A structure set of the patient ``who``."""

    def change(dataset: Any) -> None:
        dataset.PatientID = who
        if edit is not None:
            edit(dataset)

    return structures.write_rtstruct(path, grid, drawn, edit=change, **more)


def grid_of(folder: Path) -> ImageGrid:
    """The grid of a folder that holds one regular series of CT or MR files, from pydicom alone."""
    return grid_of_files(folder.iterdir())[0]


def stored(uri: Any, collection: str) -> dict[str, np.ndarray[Any, Any]]:
    """Voxels by obs_id."""
    return {volume.obs_id: volume.to_numpy() for volume in rl.open(uri)[collection]}


def same(found: dict[str, np.ndarray[Any, Any]], wanted: dict[str, np.ndarray[Any, Any]]) -> bool:
    """Whether two results of :func:`stored` hold the same volumes."""
    return found.keys() == wanted.keys() and all(np.array_equal(found[key], wanted[key]) for key in wanted)
