"""Looking at a folder of DICOM files beside reading their headers with pydicom, in time by the clock."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, timed

__all__ = ["measure"]

_FILES = 2000
_SLICES = 100
_SIDE = 64
_READING = "pydicom, 1 process"


def measure(cohort: Cohort, full: bool, files: int = _FILES) -> Iterator[dict[str, Any]]:
    """Files per second, and each scan's time in times that of the headers alone, taken in the same round.

    Scanning does more than reading: it makes volumes of the files, and says how they lie.
    """
    folder = cohort.folder / "dicom"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        paths = _write(folder, files)
        calls: dict[str, Callable[[], object]] = {_READING: partial(_headers, paths)}
        for workers in (1, 2):
            calls[f"scan, workers={workers}"] = partial(_scan, folder, files, workers)
        # Ratios of figures that were taken one right after the other: what else the machine does changes all of them.
        rounds: dict[str, list[float]] = {name: [] for name in calls}
        rates = {name: _noting(call, files, rounds[name]) for name, call in calls.items()}
        what = f"{files} files of {_SIDE}x{_SIDE} pixels, headers only"
        yield from interleaved(rates, 7 if full else 5, unit="files/s", what=what)
        for name in list(calls)[1:]:
            ratios = [b / a for a, b in zip(rounds[name][1:], rounds[_READING][1:], strict=True)]
            yield {
                "name": f"{name} / {_READING}",
                "value": round(statistics.median(ratios), 3),
                "lowest": round(min(ratios), 3),
                "highest": round(max(ratios), 3),
                "unit": "times",
                "what": "time of a scan, in times that of reading the headers",
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _noting(call: Callable[[], object], files: int, rates: list[float]) -> Callable[[], float]:
    def rate() -> float:
        rates.append(files / timed(call))
        return rates[-1]

    return rate


def _headers(paths: list[Path]) -> None:
    from pydicom import dcmread

    for path in paths:
        dcmread(path, stop_before_pixels=True)


def _scan(folder: Path, files: int, workers: int) -> None:
    found = rl.scan(folder, workers=workers)
    if not found.ok or found.files != files:
        raise RuntimeError(str(found.left_out()))


def _write(folder: Path, files: int) -> list[Path]:
    """Axial CT series of :data:`_SLICES` slices each, with what a scanner's header holds."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 4096, (_SIDE, _SIDE), dtype=np.uint16).tobytes()
    paths = []
    for number in range(files):
        series, place = divmod(number, _SLICES)
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{series}.{place + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.826.0.2.{series}", f"1.2.826.0.3.{series}"
        ds.FrameOfReferenceUID = f"1.2.826.0.4.{series}"
        ds.PatientName, ds.PatientID, ds.PatientSex = "Nobody^Real", f"P{series}", "O"
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20000101"
        ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101010.5"
        ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Made up", "Scanner"
        ds.ImageType, ds.SeriesDescription, ds.ProtocolName = ["ORIGINAL", "PRIMARY", "AXIAL"], "Thorax", "Thorax"
        ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, _SLICES - place
        ds.KVP, ds.XRayTubeCurrent, ds.Exposure, ds.ConvolutionKernel = 120, 200, 50, "B30f"
        ds.SliceThickness, ds.PatientPosition, ds.BodyPartExamined = 2.5, "HFS", "CHEST"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-200, -200, 2.5 * place], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.RescaleSlope, ds.RescaleIntercept = [0.8, 0.8], 1, -1024
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.Rows = ds.Columns = _SIDE
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.PixelData = pixels
        ds["PixelData"].VR = "OW"
        paths.append(folder / f"{number:05d}")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths
