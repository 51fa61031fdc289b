"""Siemens mosaics: all slices of a time point tiled into one picture.

The header gives the corner of the mosaic as if it were one large slice; the slices' own places follow from it, from the number of slices
and from the slice normal in Siemens's private CSA header. The rule is the one that dcm2niix and SPM document.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame, Pixels, Tile
from radioloader.formats.dicom.meaning import image_type, indexes, kinds
from radioloader.formats.dicom.values import depth_of, has_rescale, integer, number, text, vector

__all__ = ["csa_values", "is_mosaic", "mosaic_frames"]

_MAX_VALUES = 10_000


def is_mosaic(dataset: Any) -> bool:
    """Whether a picture is a mosaic, as its ImageType says."""
    return "MOSAIC" in image_type(dataset).split("\\")


def mosaic_frames(path: str, dataset: Any, sop: str, pixels: Pixels) -> list[Frame]:
    """The slices of a mosaic, each as a tile of the one frame.

    Raises:
        FormatError: The header does not say how many slices there are, or where they lie.
    """
    csa = csa_values(_private_bytes(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10))
    count = _count(dataset, csa)
    if count is None:
        raise FormatError("a Siemens mosaic whose header does not say how many slices it has (NumberOfImagesInMosaic)")
    side = math.ceil(math.sqrt(count))
    if pixels.rows % side or pixels.columns % side:
        raise FormatError(
            f"a Siemens mosaic of {pixels.rows} x {pixels.columns} pixels, which {count} slices ({side} x {side} tiles) do not divide"
        )
    rows, columns = pixels.rows // side, pixels.columns // side
    orientation = vector(dataset, "ImageOrientationPatient", 6)
    spacing = vector(dataset, "PixelSpacing", 2)
    step = depth_of(dataset)
    if step <= 0:
        raise FormatError("a Siemens mosaic without SpacingBetweenSlices: the distance of its slices is unknown")
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along_row, along_column)
    given = csa.get("SliceNormalVector", [])
    if len(given) < 3:
        raise FormatError(
            "a Siemens mosaic without the CSA header's SliceNormalVector (anonymised?): the order of its slices is unknown"
        )
    towards = np.array([float(value) for value in given[:3]])
    if not np.isfinite(towards).all() or abs(np.dot(towards, normal)) < 0.99:
        raise FormatError("a Siemens mosaic whose SliceNormalVector is not normal to its slices")
    # The corner is that of a slice as large as the mosaic around the same centre.
    first = (
        np.array(vector(dataset, "ImagePositionPatient", 3))
        + along_row * spacing[1] * (pixels.columns - columns) / 2
        + along_column * spacing[0] * (pixels.rows - rows) / 2
    )
    shared = {
        "path": path,
        "number": 0,
        "sop": sop,
        "orientation": orientation,
        "spacing": spacing,
        "pixels": pixels,
        "rescaled": has_rescale(dataset),
        "slope": number(dataset, "RescaleSlope", 1.0),
        "intercept": number(dataset, "RescaleIntercept", 0.0),
        "instance": integer(dataset, "InstanceNumber"),
        "frame_of_reference": text(dataset, "FrameOfReferenceUID"),
        "thickness": step,
        "kind": kinds(dataset),
        "index": indexes(dataset),
    }
    return [
        Frame(
            position=tuple((first + towards * step * place).tolist()),
            tile=Tile(place // side * rows, place % side * columns, rows, columns),
            **shared,  # type: ignore[arg-type]
        )
        for place in range(count)
    ]


def _count(dataset: Any, csa: dict[str, list[str]]) -> int | None:
    try:
        value = dataset.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value
        count = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    except (KeyError, AttributeError, TypeError, ValueError):
        try:
            count = int(float(csa["NumberOfImagesInMosaic"][0]))
        except (KeyError, IndexError, ValueError):
            return None
    return count if count > 0 else None


def _private_bytes(dataset: Any, group: int, creator: str, element: int) -> bytes:
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, AttributeError):
        return b""
    return value if isinstance(value, bytes) else b""


def csa_values(data: bytes) -> dict[str, list[str]]:
    """The values of a Siemens CSA2 header (``SV10``) by name; empty when it is none, and what could be read of a damaged one."""
    values: dict[str, list[str]] = {}
    if data[:4] != b"SV10" or len(data) < 16:
        return values
    (count,) = struct.unpack_from("<I", data, 8)
    place = 16
    for _ in range(min(count, _MAX_VALUES)):
        if place + 84 > len(data):
            break
        name = data[place : place + 64].split(b"\0")[0].decode("latin-1")
        (items,) = struct.unpack_from("<I", data, place + 76)
        place += 84
        found = []
        for _ in range(min(items, _MAX_VALUES)):
            if place + 16 > len(data):
                break
            (length,) = struct.unpack_from("<I", data, place)
            text_ = data[place + 16 : place + 16 + length].split(b"\0")[0].decode("latin-1").strip()
            if text_:
                found.append(text_)
            place += 16 + (length + 3) // 4 * 4
        values[name] = found
    return values
