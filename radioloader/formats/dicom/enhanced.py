"""Frames of enhanced multi-frame images (PS3.3 A.36, A.38, A.56): each has its functional groups, or shares those of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from radioloader._optional import require
from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame, Pixels
from radioloader.formats.dicom.meaning import image_type, indexes, kinds
from radioloader.formats.dicom.values import depth_of, integer, item, number, seconds, text, vector

__all__ = ["enhanced_frames"]

_FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "ParametricMapFrameTypeSequence",
)


def enhanced_frames(path: str, dataset: Any, sop: str, pixels: Pixels) -> list[Frame]:
    """The frames of a file with per-frame functional groups.

    Raises:
        FormatError: A frame has no place, or there are not as many functional groups as frames.
    """
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    count = integer(dataset, "NumberOfFrames") or 1
    if not groups and count == 1:
        groups = [{}]  # one frame may have all it needs in the shared groups
    if len(groups) != count:
        raise FormatError(f"it has {count} frames and functional groups of {len(groups)}")
    further = _dimensions(dataset)
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    common = dict(kinds(dataset)), dict(indexes(dataset))
    reference = text(dataset, "FrameOfReferenceUID")
    frames = []
    for place, group in enumerate(groups):
        try:
            frame = _frame(path, place, _Groups(group, shared), sop, pixels, common, reference)
        except FormatError as error:
            raise FormatError(f"frame {place + 1} of {count}: {error}") from None
        frames.append(dataclasses.replace(frame, index=(*frame.index, *_dimension_values(group, further))))
    return _without_uniform_type(frames, dataset)


_PLACES = {"StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient"}


def _dimensions(dataset: Any) -> list[int]:
    """Which of the DimensionIndexValues (PS3.3 C.7.6.17) are not about the place of a frame."""
    datadict = require("pydicom.datadict", extra="dicom")
    pointers = [one.get("DimensionIndexPointer") for one in dataset.get("DimensionIndexSequence") or ()]
    return [
        place for place, tag in enumerate(pointers) if tag is not None and datadict.keyword_for_tag(tag) not in _PLACES
    ]


def _dimension_values(group: Any, further: list[int]) -> list[tuple[str, float | str]]:
    """What these values are for a frame, as one index: for what we have no name for."""
    content = item(group, "FrameContentSequence")
    values = None if content is None else content.get("DimensionIndexValues")
    if values is None or not further:
        return []
    values = [values] if isinstance(values, int) else list(values)
    if max(further) >= len(values):
        return []
    # Texts are sorted as such.
    return [("dimensions", ",".join(f"{int(values[place]):05d}" for place in further))]


class _Groups:
    """The functional groups of one frame: its own, else the shared ones."""

    def __init__(self, own: Any, shared: Any) -> None:
        self._own, self._shared = own, shared

    def get(self, keyword: str) -> Any:
        """The item of a functional group; None when the frame has none."""
        found = item(self._own, keyword)
        return item(self._shared, keyword) if found is None and self._shared is not None else found

    def need(self, keyword: str) -> Any:
        """The item of a functional group.

        Raises:
            FormatError: The frame has none.
        """
        found = self.get(keyword)
        if found is None:
            raise FormatError(f"it has no {keyword}")
        return found


def _frame(
    path: str,
    place: int,
    groups: _Groups,
    sop: str,
    pixels: Pixels,
    common: tuple[dict[str, str], dict[str, float | str]],
    reference: str,
) -> Frame:
    measures = groups.need("PixelMeasuresSequence")
    slope, intercept = _rescale(groups)
    content = groups.get("FrameContentSequence")
    kind, index = dict(common[0]), dict(common[1])
    # Of the file as a whole, not of this frame
    for name in ("time", "content time", "acquisition"):
        index.pop(name, None)
    _add_kind(kind, groups)
    _add_index(index, groups, content)
    instance = None
    if content is not None:
        stack = text(content, "StackID")
        if stack:
            kind["stack"] = stack
        instance = integer(content, "InStackPositionNumber")
    return Frame(
        path=path,
        number=place,
        sop=sop,
        position=vector(groups.need("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=vector(groups.need("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=vector(measures, "PixelSpacing", 2),
        pixels=pixels,
        slope=slope,
        intercept=intercept,
        instance=instance,
        frame_of_reference=reference,
        thickness=depth_of(measures),
        kind=tuple(kind.items()),
        index=tuple(index.items()),
        rescaled=(slope, intercept) != (1.0, 0.0) or groups.get("PixelValueTransformationSequence") is not None,
    )


def _rescale(groups: _Groups) -> tuple[float, float]:
    """Slope and intercept: the modality's (PS3.3 C.7.6.16.2.9); of parametric maps, for which these change nothing (A.75.5.1), those of the
    quantity that they show (C.7.6.16.2.11).

    Raises:
        FormatError: A parametric map has a table instead.
    """
    mapping = groups.get("RealWorldValueMappingSequence")
    if mapping is not None and groups.get("ParametricMapFrameTypeSequence") is not None:
        if mapping.get("RealWorldValueSlope") is None:
            raise FormatError("its values are given by a table (RealWorldValueLUTData), which is not supported")
        return number(mapping, "RealWorldValueSlope", 1.0), number(mapping, "RealWorldValueIntercept", 0.0)
    found = groups.get("PixelValueTransformationSequence")
    if found is None:
        return 1.0, 0.0
    return number(found, "RescaleSlope", 1.0), number(found, "RescaleIntercept", 0.0)


def _short(item: Any, keyword: str) -> str:
    return f"{number(item, keyword, 0.0):.4g}"


_KINDS: tuple[tuple[str, str, str, Callable[[Any, str], str]], ...] = (
    ("echo", "MREchoSequence", "EffectiveEchoTime", _short),
    ("flip", "MRTimingAndRelatedParametersSequence", "FlipAngle", _short),
    ("inversion", "MRModifierSequence", "InversionTimes", text),
    ("kvp", "CTXRayDetailsSequence", "KVP", _short),
    ("thickness", "PixelMeasuresSequence", "SliceThickness", _short),
    ("kernel", "CTReconstructionSequence", "ConvolutionKernel", text),
)
"""What makes frames pictures of different things: its name, the functional group and the attribute that say it, and how that is shown."""


def _add_kind(kind: dict[str, str], groups: _Groups) -> None:
    for keyword in _FRAME_TYPES:
        found = groups.get(keyword)
        if found is not None:
            kind["type"] = text(found, "FrameType").upper() or kind.get("type", "")
            component = text(found, "ComplexImageComponent")
            if component:
                kind["component"] = component
    for name, keyword, attribute, shown in _KINDS:
        found = groups.get(keyword)
        if found is not None and found.get(attribute) is not None:
            kind[name] = shown(found, attribute)


def _add_index(index: dict[str, float | str], groups: _Groups, content: Any) -> None:
    diffusion = groups.get("MRDiffusionSequence")
    if diffusion is not None and diffusion.get("DiffusionBValue") is not None:
        index["b-value"] = number(diffusion, "DiffusionBValue", 0.0)
        direction = item(diffusion, "DiffusionGradientDirectionSequence")
        values = None if direction is None else direction.get("DiffusionGradientOrientation")
        index["direction"] = (
            ",".join(f"{float(value):.4f}" for value in values)
            if values
            else text(diffusion, "DiffusionDirectionality")
        )
    cardiac = groups.get("CardiacSynchronizationSequence")
    if cardiac is not None and cardiac.get("NominalCardiacTriggerDelayTime") is not None:
        index["trigger"] = number(cardiac, "NominalCardiacTriggerDelayTime", 0.0)
    position = groups.get("TemporalPositionSequence")
    if position is not None and position.get("TemporalPositionTimeOffset") is not None:
        index["temporal position"] = number(position, "TemporalPositionTimeOffset", 0.0)
    if content is None:
        return
    if content.get("TemporalPositionIndex") is not None:
        index["temporal position"] = number(content, "TemporalPositionIndex", 0.0)
    if content.get("FrameAcquisitionNumber") is not None:
        index["acquisition"] = number(content, "FrameAcquisitionNumber", 0.0)
    clock = seconds(text(content, "FrameReferenceDateTime") or text(content, "FrameAcquisitionDateTime"))
    if clock is not None:
        index["time"] = clock


def _without_uniform_type(frames: list[Frame], dataset: Any) -> list[Frame]:
    """``frames`` with the file's ImageType where none of them has a type of its own."""
    whole = image_type(dataset)
    return [
        frame
        if any(name == "type" for name, _ in frame.kind)
        else dataclasses.replace(frame, kind=(("type", whole), *frame.kind))
        for frame in frames
    ]
