"""Volumes written as series of single-frame DICOM files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from tests.formats.dicom.encode import put_pixels, save, uid
from tests.formats.dicom.volumes import Array, plane_of

__all__ = ["PATIENT", "decimals", "patient_study", "write_series"]

PATIENT: dict[str, Any] = {
    "PatientName": "Quillfeather^Ottoline",
    "PatientID": "PID-604417",
    "PatientBirthDate": "19480229",
    "PatientSex": "F",
    "PatientAge": "071Y",
    "PatientWeight": "63.5",
    "AccessionNumber": "ACC-885213",
    "StudyID": "STD-7731",
    "StudyDate": "20190314",
    "StudyTime": "101112.131415",
    "SeriesDate": "20190314",
    "SeriesTime": "101213.000000",
    "InstitutionName": "Saint Wilfreda Infirmary",
    "ReferringPhysicianName": "Marrowby^Ignatius",
    "OperatorsName": "Tapscott^Una",
    "StationName": "SCANNER-NORTH-3",
    "StudyDescription": "Head of Ottoline Q",
}
"""Identity that a written file has unless told otherwise."""

CLASSES = {
    "CT": uids.CTImageStorage,
    "MR": uids.MRImageStorage,
    "PT": uids.PositronEmissionTomographyImageStorage,
}


def decimals(values: Sequence[float] | Array) -> list[str]:
    """As DICOM's decimal strings: 16 characters each."""
    return [format_number_as_ds(float(value)) for value in values]


def patient_study(ds: Dataset, patient: Mapping[str, Any] | None, study: str, series: str, frame: str | None) -> None:
    """Patient, study, series and frame of reference; the texts become UIDs. A ``frame`` of None leaves its UID away."""
    for keyword, value in {**PATIENT, **(patient or {})}.items():
        setattr(ds, keyword, value)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", study), uid("series", study, series)
    if frame is not None:
        ds.FrameOfReferenceUID = uid("frame of reference", frame)
        ds.PositionReferenceIndicator = ""


def at(value: Any, index: int) -> Any:
    """One value for all, or one for each."""
    return value if value is None or isinstance(value, str | float | int) else value[index]


def write_series(
    folder: Path,
    voxels: Array,
    affine: Array,
    *,
    modality: str = "CT",
    syntax: UID = uids.ExplicitVRLittleEndian,
    bits_stored: int = 16,
    bits_allocated: int | None = None,
    signed: bool = True,
    high_bits_junk: bool = False,
    fragments: int = 1,
    pixel_padding: int | None = None,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    names: Literal["shuffled", "reversed", "plain"] = "shuffled",
    extension: str = ".dcm",
    instance_numbers: Literal["wrong", "right", "same", "none"] | Sequence[int] = "wrong",
    drop: Sequence[int] = (),
    duplicate: Sequence[int] = (),
    duplicate_uids: bool = False,
    shift: Mapping[int, float] | None = None,
    description: str = "",
    series_number: int | None = 1,
    patient: Mapping[str, Any] | None = None,
    study: str = "study",
    series: str = "series",
    frame_of_reference: str | None = "frame",
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    echo: int | Sequence[int] | None = None,
    acquisition: int | Sequence[int] | None = None,
    acquisition_time: str | Sequence[str] | None = None,
    temporal: int | Sequence[int] | None = None,
    b_value: float | Sequence[float] | None = None,
    direction: Sequence[Sequence[float]] | None = None,
    phase: float | Sequence[float] | None = None,
    extra: Callable[[Dataset, int], None] | None = None,
    seed: int = 0,
) -> list[Path]:
    """Writes one file per slice (and time point) and returns their paths, of slice 0 first, whatever their names are.

    A right reader gives back ``rescaled(voxels, slope, intercept)`` and ``affine``. Repeated calls may add to one folder and, with the
    same ``study`` and ``series``, to one series.

    Args:
        voxels: Stored values, integers, (X, Y, Z) or (X, Y, Z, T). Paths of (X, Y, Z, T) are those of time point 0 first.
        affine: Voxel index to RAS mm, right-handed; see :mod:`tests.formats.dicom.volumes`.
        slope: RescaleSlope, of all slices or one for each; so is ``intercept``. MR without either gets no rescaling at all.
        names: Whether the order of the file names is random, from the last slice to the first, or that of the slices.
        extension: Of the names; may be empty.
        instance_numbers: "wrong": in an order that has nothing to do with position. A sequence gives one for each slice.
        drop: Slices that are not written.
        duplicate: Slices written twice: the same file again, or with ``duplicate_uids`` the same image as an instance of its own.
        shift: mm along the normal by which slices are out of place.
        study: A text from which the UID is made; so are ``series`` and ``frame_of_reference`` (None: no UID).
        echo: EchoNumbers (and EchoTime, 5 ms each), of the whole volume or one for each time point; so are the following.
        acquisition: AcquisitionNumber.
        acquisition_time: AcquisitionTime, "hhmmss.ffffff".
        temporal: TemporalPositionIdentifier. (X, Y, Z, T) with nothing that tells time points apart gets 1..T.
        b_value: DiffusionBValue; ``direction`` is its gradient in LPS.
        phase: TriggerTime, ms.
        extra: Called with every dataset and number of its slice before it is written; may change anything, pixels included.
    """
    plane = plane_of(affine)
    volume = voxels[..., None] if voxels.ndim == 3 else voxels
    depth, times = volume.shape[2:]
    if voxels.ndim == 4 and all(v is None for v in (echo, acquisition, acquisition_time, temporal, b_value, phase)):
        temporal = range(1, times + 1)
    generator = np.random.default_rng(seed)
    wanted = [(k, t) for t in range(times) for k in range(depth) if k not in drop]
    copies = len(wanted) + sum(k in duplicate for k, _ in wanted)
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    order = {"plain": np.arange(copies), "reversed": np.arange(copies)[::-1], "shuffled": generator.permutation(copies)}
    files = iter([folder / f"IM{before + number:05d}{extension}" for number in order[names]])
    numbers = 1 + generator.permutation(depth * times)
    paths = []
    for k, t in wanted:
        frame = volume[:, :, k, t].T
        identity = (study, series, k, t, affine.tobytes(), sha256(frame.tobytes()).hexdigest(), seed)
        ds = Dataset()
        patient_study(ds, patient, study, series, frame_of_reference)
        ds.SOPClassUID, ds.SOPInstanceUID = CLASSES[modality], uid("instance", *identity)
        ds.Modality, ds.ImageType, ds.SeriesDescription = modality, list(image_type), description
        ds.Manufacturer, ds.SeriesNumber, ds.SpecificCharacterSet = "", series_number, "ISO_IR 192"
        number = k + t * depth
        if instance_numbers != "none":
            known = {"wrong": int(numbers[number]), "right": number + 1, "same": 1}
            ds.InstanceNumber = (
                known[instance_numbers] if isinstance(instance_numbers, str) else int(instance_numbers[k])
            )
        ds.ImageOrientationPatient = decimals(plane.orientation)
        ds.ImagePositionPatient = decimals(plane.position(k, (shift or {}).get(k, 0.0)))
        ds.PixelSpacing = decimals(plane.spacing)
        ds.SliceThickness = decimals([plane.gap])[0]
        if modality != "MR" or (at(slope, k), at(intercept, k)) != (1.0, 0.0):
            ds.RescaleSlope, ds.RescaleIntercept = decimals([at(slope, k), at(intercept, k)])
        if pixel_padding is not None:
            ds.add_new("PixelPaddingValue", "SS" if signed else "US", pixel_padding)
        if at(echo, t) is not None:
            ds.EchoNumbers, ds.EchoTime = at(echo, t), 5.0 * at(echo, t)
        for keyword, value in (
            ("AcquisitionNumber", acquisition),
            ("AcquisitionTime", acquisition_time),
            ("TemporalPositionIdentifier", temporal),
            ("DiffusionBValue", b_value),
            ("TriggerTime", phase),
        ):
            if at(value, t) is not None:
                setattr(ds, keyword, at(value, t))
        if direction is not None:
            ds.DiffusionGradientOrientation = [float(value) for value in direction[t]]
        put_pixels(
            ds,
            frame[None],
            syntax,
            bits_stored=bits_stored,
            bits_allocated=bits_allocated,
            signed=signed,
            junk=high_bits_junk,
            fragments=fragments,
        )
        if extra is not None:
            extra(ds, k)
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        paths.append(save(ds, next(files)))
        if k in duplicate and not duplicate_uids:
            shutil.copyfile(paths[-1], next(files))
        elif k in duplicate:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("duplicate", *identity)
            save(ds, next(files))
    return paths
