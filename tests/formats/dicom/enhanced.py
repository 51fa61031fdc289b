"""Volumes written as one enhanced multi-frame instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydicom import uid as uids
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from tests.formats.dicom.encode import put_pixels, save, uid
from tests.formats.dicom.series import at, decimals, patient_study
from tests.formats.dicom.volumes import Array, Plane, plane_of

__all__ = ["write_enhanced"]

CLASSES = {
    "CT": uids.EnhancedCTImageStorage,
    "MR": uids.EnhancedMRImageStorage,
    "PT": uids.EnhancedPETImageStorage,
}
FRAME_TYPES = {"CT": "CTImageFrameTypeSequence", "MR": "MRImageFrameTypeSequence", "PT": "PETFrameTypeSequence"}

# What tells the volumes of (X, Y, Z, T) apart: the attribute that the dimension index points to, and its functional group.
DIMENSIONS = {
    "time": ("TemporalPositionIndex", "FrameContentSequence"),
    "echo": ("EffectiveEchoTime", "MREchoSequence"),
    "b_value": ("DiffusionBValue", "MRDiffusionSequence"),
    "phase": ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
}


def item(**values: Any) -> Items:
    """A sequence of one item."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return Items([ds])


def write_enhanced(
    path: Path,
    voxels: Array,
    affine: Array,
    *,
    modality: str = "CT",
    syntax: UID = uids.ExplicitVRLittleEndian,
    bits_stored: int = 16,
    signed: bool = True,
    fragments: int = 1,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    along: Literal["time", "echo", "b_value", "phase"] = "time",
    values: Sequence[float] | None = None,
    frames: Literal["shuffled", "plain", "reversed"] = "shuffled",
    volume_first: bool = False,
    per_frame: Sequence[str] = (),
    stack_positions: Literal["right", "wrong", "none"] = "right",
    drop: Sequence[int] = (),
    shift: Mapping[int, float] | None = None,
    description: str = "",
    patient: Mapping[str, Any] | None = None,
    study: str = "study",
    series: str = "series",
    frame_of_reference: str = "frame",
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
    extra: Callable[[Dataset], None] | None = None,
    seed: int = 0,
) -> Path:
    """Writes one Enhanced CT, MR or PET instance; arguments that :func:`write_series` has as well mean the same.

    Args:
        voxels: Stored values, (X, Y, Z) or (X, Y, Z, T).
        slope: Of all frames, then shared, or one for each slice, then in every frame; so is ``intercept``.
        along: What T is. ``values`` are its echo times (ms), b-values, or delays (ms); for "time" the offsets in seconds.
        frames: The order of the frames in the file.
        volume_first: Whether the index of T stands before that of the slice among the DimensionIndexValues.
        per_frame: Of "orientation", "measures", "type" and "values": what is repeated in every frame rather than shared.
        stack_positions: InStackPositionNumber by position, at random, or not there, and its DimensionIndexValues with it.
        drop: Slices that are not written.
        shift: mm along the normal by which slices are out of place.
        extra: Called with the dataset before it is written.
    """
    plane = plane_of(affine)
    volume = voxels[..., None] if voxels.ndim == 3 else voxels
    depth, times = volume.shape[2:]
    points = list(values) if values is not None else [float(1 + t) for t in range(times)]
    wanted = [(k, t) for t in range(times) for k in range(depth) if k not in drop]
    generator = np.random.default_rng(seed)
    order = np.arange(len(wanted))
    order = {"plain": order, "reversed": order[::-1], "shuffled": generator.permutation(order)}[frames]
    wanted = [wanted[number] for number in order]
    stack = generator.permutation(depth) if stack_positions == "wrong" else np.arange(depth)

    ds = Dataset()
    patient_study(ds, patient, study, series, frame_of_reference)
    ds.SOPClassUID = CLASSES[modality]
    ds.SOPInstanceUID = uid("enhanced", study, series, affine.tobytes(), volume.tobytes(), along, points, seed)
    ds.Modality, ds.ImageType, ds.SeriesDescription = modality, list(image_type), description
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "", 1, 1
    ds.SpecificCharacterSet, ds.ContentDate, ds.ContentTime = "ISO_IR 192", "20190314", "101300"
    ds.AcquisitionDateTime = "20190314101214.000000"

    shared = Dataset()
    groups: dict[str, tuple[str, Callable[[int], Items]]] = {
        "orientation": (
            "PlaneOrientationSequence",
            lambda k: item(ImageOrientationPatient=decimals(plane.orientation)),
        ),
        "measures": ("PixelMeasuresSequence", lambda k: measures(plane)),
        "type": (FRAME_TYPES[modality], lambda k: item(FrameType=list(image_type))),
        "values": ("PixelValueTransformationSequence", lambda k: transformation(at(slope, k), at(intercept, k))),
    }
    varied = isinstance(slope, Sequence) or isinstance(intercept, Sequence)
    repeated = {*per_frame, *(["values"] if varied else [])}
    for name, (keyword, make) in groups.items():
        if name not in repeated:
            setattr(shared, keyword, make(0))
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items()
    for k, t in wanted:
        frame = Dataset()
        for name, (keyword, make) in groups.items():
            if name in repeated:
                setattr(frame, keyword, make(k))
        index = [] if stack_positions == "none" else [int(stack[k]) + 1]
        if times > 1:
            index = [t + 1, *index] if volume_first else [*index, t + 1]
        content: dict[str, Any] = {"StackID": "1", "FrameAcquisitionNumber": 1}
        if stack_positions != "none":
            content["InStackPositionNumber"] = int(stack[k]) + 1
        if times > 1 and along == "time":
            content["TemporalPositionIndex"] = t + 1
            content["FrameReferenceDateTime"] = f"201903141012{14 + points[t]:09.6f}"
            frame.TemporalPositionSequence = item(TemporalPositionTimeOffset=points[t])
        frame.FrameContentSequence = item(**content)
        if index:
            frame.FrameContentSequence[0].DimensionIndexValues = index if len(index) > 1 else index[0]
        position = plane.position(k, (shift or {}).get(k, 0.0))
        frame.PlanePositionSequence = item(ImagePositionPatient=decimals(position))
        if times > 1 and along == "echo":
            frame.MREchoSequence = item(EffectiveEchoTime=float(points[t]))
        if times > 1 and along == "phase":
            frame.CardiacSynchronizationSequence = item(NominalCardiacTriggerDelayTime=float(points[t]))
        if times > 1 and along == "b_value":
            frame.MRDiffusionSequence = diffusion(float(points[t]), t)
        ds.PerFrameFunctionalGroupsSequence.append(frame)

    pointers = [] if stack_positions == "none" else [("InStackPositionNumber", "FrameContentSequence")]
    if times > 1:
        pointers = [DIMENSIONS[along], *pointers] if volume_first else [*pointers, DIMENSIONS[along]]
    organization = uid("dimensions", study, series)
    ds.DimensionOrganizationSequence = item(DimensionOrganizationUID=organization)
    ds.DimensionIndexSequence = Items()
    for pointer, group in pointers:
        dimension = Dataset()
        dimension.DimensionOrganizationUID = organization
        dimension.DimensionIndexPointer = tag_for_keyword(pointer)
        dimension.FunctionalGroupPointer = tag_for_keyword(group)
        ds.DimensionIndexSequence.append(dimension)

    stored = np.stack([volume[:, :, k, t].T for k, t in wanted])
    put_pixels(ds, stored, syntax, bits_stored=bits_stored, signed=signed, fragments=fragments)
    ds.NumberOfFrames = len(wanted)
    if extra is not None:
        extra(ds)
    return save(ds, path)


def measures(plane: Plane) -> Items:
    gap = decimals([plane.gap])[0]
    return item(PixelSpacing=decimals(plane.spacing), SliceThickness=gap, SpacingBetweenSlices=gap)


def transformation(slope: float, intercept: float) -> Items:
    a, b = decimals([slope, intercept])
    return item(RescaleSlope=a, RescaleIntercept=b, RescaleType="US")


def diffusion(b_value: float, number: int) -> Items:
    group = item(DiffusionBValue=b_value, DiffusionDirectionality="NONE" if b_value == 0 else "DIRECTIONAL")
    if b_value:
        # A direction of its own for each volume, of unit length.
        vector = np.array([np.cos(number), np.sin(number), 0.5]) / np.sqrt(1.25)
        group[0].DiffusionGradientDirectionSequence = item(DiffusionGradientOrientation=vector.tolist())
    return group
