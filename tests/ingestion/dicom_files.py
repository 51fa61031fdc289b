"""Small DICOM series for the ingest tests: 24 x 20 x 8 voxels with known values and places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

import radioloader as rl
from radioloader.formats.dicom.grid import ImageGrid
from tests.formats.dicom import structures
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
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    first = headers[0]
    lps = np.array([-1.0, -1.0, 1.0])
    origins = np.array([header.ImagePositionPatient for header in headers], float) * lps
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3) * lps
    affine = np.eye(4)
    down, right = (float(value) for value in first.PixelSpacing)
    affine[:3] = np.stack(
        [row * right, column * down, (origins[-1] - origins[0]) / (len(origins) - 1), origins[0]], axis=1
    )
    return ImageGrid(
        shape=(first.Columns, first.Rows, len(headers)),
        affine=affine,
        origins=origins,
        frame_of_reference=first.FrameOfReferenceUID,
        study=first.StudyInstanceUID,
        series=first.SeriesInstanceUID,
        sop_class=first.SOPClassUID,
        slices=tuple(((header.SOPInstanceUID, 0),) for header in headers),
    )


def stored(uri: Any, collection: str) -> dict[str, np.ndarray[Any, Any]]:
    """Voxels by obs_id."""
    return {volume.obs_id: volume.to_numpy() for volume in rl.open(uri)[collection]}


def same(found: dict[str, np.ndarray[Any, Any]], wanted: dict[str, np.ndarray[Any, Any]]) -> bool:
    """Whether two results of :func:`stored` hold the same volumes."""
    return found.keys() == wanted.keys() and all(np.array_equal(found[key], wanted[key]) for key in wanted)
