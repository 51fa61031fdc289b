"""Masks on the grid of an image, written as a DICOM segmentation (SEG, PS3.3 C.8.20) through highdicom."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from radioloader._optional import require
from radioloader.errors import ConfigError, FormatError, ShapeError
from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom._segheader import LPS, Code
from radioloader.formats.dicom._segsource import add_references, make_template
from radioloader.formats.dicom.grid import ImageGrid

__all__ = ["TISSUE", "SegmentSpec", "write_seg"]

TISSUE = Code("85756007", "SCT", "Tissue")
"""The category and type of segments that nobody described: true of nearly everything, and what 3D Slicer and dcmqi write as well."""

_TYPES = ("BINARY", "LABELMAP", "FRACTIONAL")
_PLAIN = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
_RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """How a class is described in the file (PS3.3 C.8.20.4).

    Attributes:
        label: Segment Label, 1 to 64 characters.
        category: Segmented Property Category, from CID 7150 where possible.
        kind: Segmented Property Type, from CID 7151 where possible.
        algorithm: How the segment was made.
        algorithm_name: By what; not written when it was made by hand.
    """

    label: str
    category: Code = TISSUE
    kind: Code = TISSUE
    algorithm: Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"] = "AUTOMATIC"
    algorithm_name: str = "unknown"


def write_seg(
    path: str | os.PathLike[str],
    labels: npt.NDArray[Any],
    grid: ImageGrid,
    segments: Mapping[int, str | SegmentSpec],
    *,
    source: Sequence[str | os.PathLike[str]] | None = None,
    segmentation_type: Literal["BINARY", "LABELMAP", "FRACTIONAL"] = "BINARY",
    fractional_type: Literal["PROBABILITY", "OCCUPANCY"] = "PROBABILITY",
    series_description: str = "Segmentation",
    series_number: int = 100,
    series_uid: str | None = None,
    compress: bool = False,
) -> dict[int, int]:
    """Write masks as one SEG file that refers to the frames of the image. Slices without any mask are left out.

    Args:
        path: The file; replaced atomically when it exists.
        labels: Classes (X, Y, Z) on ``grid``: integers, 0 being background, or bool, which is class 1. Or channels (X, Y, Z, C) of bool or
            0 and 1, which may overlap unless the type is LABELMAP. Or float values from 0 to 1, of either shape, for FRACTIONAL.
        grid: The image's grid.
        segments: Class to its name or description; it may hold classes that do not occur in ``labels``, and a name for the background
            0 is passed over. For channels the keys in ascending order belong to channels 0 ... C - 1. For float
            values (X, Y, Z) there is one.
        source: DICOM files of the image, from which patient and study are taken; None leaves the patient empty.
        segmentation_type: How the masks are stored. BINARY: one bit per pixel and segment. LABELMAP: the classes themselves, smaller and
            newer (DICOM 2024d), so that some programs do not know it. FRACTIONAL: steps of 1/255.
        fractional_type: What the values of FRACTIONAL are.
        series_description: SeriesDescription, up to 64 characters.
        series_number: SeriesNumber, at least 1.
        series_uid: SeriesInstanceUID, for several files in one series; None makes a new one.
        compress: RLE Lossless; not for BINARY, for which that is not defined.

    Returns:
        Key of ``segments`` to the number of its segment: the class itself for classes in a LABELMAP, otherwise 1, 2, ... in ascending order
        (PS3.3 C.8.20.4 wants them to be without gaps).

    Raises:
        ShapeError: ``labels`` does not have the grid's shape.
        ConfigError: A class has no name, values are negative or not of the type's kind, nothing is in the mask, or another argument has a
            value that is not allowed.
        FormatError: The file cannot be written there, or a source file cannot be read.
        MissingDependencyError: highdicom is not installed.
    """
    path = Path(path)
    labels = np.asarray(labels)
    if segmentation_type not in _TYPES:
        raise ConfigError(f"segmentation_type={segmentation_type!r} is not one of {', '.join(map(repr, _TYPES))}")
    if fractional_type not in ("PROBABILITY", "OCCUPANCY"):
        raise ConfigError(f"fractional_type={fractional_type!r} is not one of 'OCCUPANCY', 'PROBABILITY'")
    if compress and segmentation_type == "BINARY":
        raise ConfigError("compress=True is not possible for BINARY (pixels of one bit); use LABELMAP, or leave it out")
    if series_number < 1:
        raise ConfigError(f"series_number={series_number!r} must be at least 1")
    if len(series_description) > 64:
        raise ConfigError(f"series_description has {len(series_description)} characters; DICOM allows 64")
    if labels.ndim not in (3, 4) or labels.shape[:3] != tuple(grid.shape):
        raise ShapeError(
            f"{path}: labels of shape {labels.shape} do not fit the image's grid of {tuple(grid.shape)} voxels; expected (X, Y, Z) or "
            "(X, Y, Z, C)"
        )
    _check_values(labels, segmentation_type)
    specs = _specs(segments, labels)
    numbers, pixels = _numbered(labels, list(specs), segmentation_type)
    if not path.parent.is_dir():
        raise FormatError(f"{path}: cannot be written, the folder {path.parent} does not exist")
    if path.is_dir():
        raise FormatError(f"{path}: cannot be written, it is a folder; give the name of a file")
    require("highdicom", extra="dicom")
    template = make_template(grid, source)
    with quiet():
        seg = _segmentation(
            template,
            pixels,
            grid,
            [_description(numbers[key], spec) for key, spec in specs.items()],
            segmentation_type=segmentation_type,
            fractional_type=fractional_type,
            series_description=series_description,
            series_number=series_number,
            series_uid=series_uid,
            transfer_syntax=_RLE if compress else _PLAIN,
        )
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            seg.save_as(scratch, enforce_file_format=True)
            scratch.replace(path)
        except OSError as error:
            raise FormatError(f"{path}: could not be written: {error.strerror or error}") from error
        finally:
            scratch.unlink(missing_ok=True)
    return numbers


def _specs(segments: Mapping[int, str | SegmentSpec], labels: npt.NDArray[Any]) -> dict[int, SegmentSpec]:
    """The descriptions in ascending order of their keys, checked."""
    specs = {}
    for key, given in segments.items():
        spec = SegmentSpec(given) if isinstance(given, str) else given
        if (
            isinstance(key, bool)
            or not isinstance(key, int | np.integer)
            or key < 0
            or not isinstance(spec, SegmentSpec)
        ):
            raise ConfigError(
                f"segments[{key!r}]={given!r}: expected a class (a whole number) and its name or SegmentSpec"
            )
        # Value representation LO, PS3.5 6.2
        if not 0 < len(spec.label.strip()) <= 64 or "\\" in spec.label or not spec.label.isprintable():
            raise ConfigError(
                f"segments[{key}]: the label {spec.label!r} must have 1 to 64 printable characters, no backslash"
            )
        if spec.algorithm not in ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"):
            raise ConfigError(
                f"segments[{key}]: algorithm={spec.algorithm!r} is not one of 'AUTOMATIC', 'MANUAL', 'SEMIAUTOMATIC'"
            )
        specs[int(key)] = spec
    if labels.ndim == 3:
        specs.pop(0, None)
    if labels.ndim == 4 and len(specs) != labels.shape[3]:
        raise ConfigError(f"{len(specs)} segments for {labels.shape[3]} channels; expected one for each channel")
    if labels.dtype.kind == "f" and labels.ndim == 3 and len(specs) != 1:
        raise ConfigError(f"{len(specs)} segments for values of shape (X, Y, Z); expected one, or values (X, Y, Z, C)")
    if not specs:
        raise ConfigError("segments is empty; give a name for each class")
    return dict(sorted(specs.items()))


def _check_values(labels: npt.NDArray[Any], segmentation_type: str) -> None:
    if labels.dtype.kind not in "buif":
        raise ConfigError(f"labels of dtype {labels.dtype} cannot be written; expected bool, integers or floats")
    low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
    if labels.dtype.kind == "f":
        if segmentation_type != "FRACTIONAL":
            raise ConfigError(
                f"labels of dtype {labels.dtype} cannot be written as {segmentation_type}; convert them to integers or bool, or write them "
                'with segmentation_type="FRACTIONAL"'
            )
        if not (low >= 0 and high <= 1):  # NaN as well
            raise ConfigError(f"FRACTIONAL values reach from {low} to {high}; expected 0 to 1")
    elif low < 0:
        raise ConfigError(f"labels go down to {low}; expected 0 for background and classes above it")
    elif labels.ndim == 4 and high > 1:
        raise ConfigError(f"channels hold values up to {high}; expected bool, or 0 and 1")
    if not high:
        raise ConfigError("nothing is in the mask: all labels are 0; there is no segmentation to write")
    # Of masks from which nothing is left after rounding to 1/255, highdicom would write all frames.
    if labels.dtype.kind == "f" and high * 255 <= 0.5:
        raise ConfigError(
            f"FRACTIONAL values up to {high} are all rounded to 0, in steps of 1/255; there is nothing to write"
        )


def _numbered(
    labels: npt.NDArray[Any], keys: list[int], segmentation_type: str
) -> tuple[dict[int, int], npt.NDArray[Any]]:
    """Numbers of the segments, and the pixels as highdicom takes them: (Z, Y, X[, C]), holding these numbers."""
    numbers = {key: place for place, key in enumerate(keys, 1)}
    pixels = labels.transpose(2, 1, 0, *range(3, labels.ndim))
    if labels.dtype.kind == "f":
        return numbers, pixels.astype(np.float32, copy=False)
    if labels.ndim == 4:
        if segmentation_type == "LABELMAP" and (np.count_nonzero(labels, axis=3) > 1).any():
            raise ConfigError(
                'channels overlap, which a LABELMAP cannot hold; use segmentation_type="BINARY", or one class per voxel'
            )
        return numbers, pixels.astype(np.uint8, copy=False)
    largest = int(labels.max())
    if max(largest, keys[-1]) > 65535:
        raise ConfigError(
            f"class {max(largest, keys[-1])} does not fit into the 16 bits of a segment's number; number the classes anew"
        )
    found = np.zeros(largest + 1, np.bool_)
    for part in pixels:  # slice by slice, which takes less memory than a sort of all of them
        found[part.astype(np.intp, copy=False)] = True
    nameless = sorted(set(np.flatnonzero(found).tolist()) - {0} - set(keys))
    if nameless:
        raise ConfigError(
            f"labels hold the classes {', '.join(map(str, nameless[:10]))}, for which segments has no name; it has "
            f"{', '.join(map(str, keys))}"
        )
    if segmentation_type == "LABELMAP":
        numbers = {key: key for key in keys}
    table = np.zeros(largest + 1, np.uint16 if max(numbers.values()) > 255 else np.uint8)
    for key, number in numbers.items():
        if key <= largest:
            table[key] = number
    return numbers, table[pixels.view(np.uint8) if pixels.dtype.kind == "b" else pixels]


def _description(number: int, spec: SegmentSpec) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    family = codes.cid7162.ArtificialIntelligence  # highdicom wants one; taken out again
    return SegmentDescription(
        segment_number=number,
        segment_label=spec.label,
        segmented_property_category=CodedConcept(*spec.category),
        segmented_property_type=CodedConcept(*spec.kind),
        algorithm_type=spec.algorithm,
        algorithm_identification=None
        if spec.algorithm == "MANUAL"
        else AlgorithmIdentificationSequence(name=spec.algorithm_name, family=family, version="unknown"),
    )


def _segmentation(
    template: Any,
    pixels: npt.NDArray[Any],
    grid: ImageGrid,
    descriptions: list[Any],
    *,
    segmentation_type: str,
    fractional_type: str,
    series_description: str,
    series_number: int,
    series_uid: str | None,
    transfer_syntax: str,
) -> Any:
    """highdicom's dataset, with the places of the grid's slices, patient and study of the template, and references to the image."""
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import generate_uid

    axes = np.asarray(grid.affine, np.float64)[:3, :3]
    columns, rows = np.linalg.norm(axes[:, 0]), np.linalg.norm(axes[:, 1])
    normal = np.cross(axes[:, 0], axes[:, 1])
    normal /= np.linalg.norm(normal)
    gaps = np.abs(np.diff(grid.origins @ normal))
    thickness = float(np.median(gaps)) if len(gaps) else float(abs(axes[:, 2] @ normal))
    even = not len(gaps) or float(np.ptp(gaps)) < 1e-3 * thickness
    measures = PixelMeasuresSequence([rows, columns], thickness, thickness if even else None)
    orientation = PlaneOrientationSequence("PATIENT", [*(axes[:, 0] * LPS / columns), *(axes[:, 1] * LPS / rows)])
    seg = Segmentation(
        [template],
        pixels,
        segmentation_type=segmentation_type,
        segment_descriptions=descriptions,
        series_instance_uid=series_uid or generate_uid(),
        series_number=series_number,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="radioloader",
        manufacturer_model_name="radioloader",
        software_versions=_version(),
        device_serial_number="0",
        fractional_type=fractional_type,
        transfer_syntax_uid=transfer_syntax,
        content_label="SEGMENTATION",
        series_description=series_description,
        specific_character_set="ISO_IR 192",
        pixel_measures=measures,
        plane_orientation=orientation,
        plane_positions=[PlanePositionSequence("PATIENT", origin * LPS) for origin in grid.origins],
    )
    # highdicom takes the template's where they are nearly the same.
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
    if segmentation_type == "BINARY" and seg.Rows * seg.Columns < 8:
        _pack_anew(seg)
    for item in seg.SegmentSequence:
        # Nobody told us which family of algorithms it was; the attribute is optional.
        if "SegmentationAlgorithmIdentificationSequence" in item:
            del item.SegmentationAlgorithmIdentificationSequence
    add_references(seg, grid)
    return seg


def _pack_anew(seg: Any) -> None:
    """highdicom (0.28) begins each frame of less than 8 pixels in a byte of its own; DICOM wants all bits in a row (PS3.5 8.1.1)."""
    each = np.frombuffer(seg.PixelData, np.uint8)[: seg.NumberOfFrames, None]
    bits = np.unpackbits(each, axis=1, bitorder="little")[:, : seg.Rows * seg.Columns]
    data = np.packbits(bits.ravel(), bitorder="little").tobytes()
    seg.PixelData = data + b"\0" * (len(data) % 2)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("radioloader")
    except PackageNotFoundError:  # a checkout on the path
        return "unknown"
