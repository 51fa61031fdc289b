"""Pictures of planes: grey values, classes in colour over them, and letters for the directions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont, features

from radioloader.overview.planes import Plane

__all__ = ["CT_WINDOW", "MIME", "PALETTE", "class_colours", "draw", "encode"]

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#FFFFFF")
"""Okabe and Ito's colours, which the colour-blind tell apart (and white), in the order in which classes get them."""
CT_WINDOW = (-160.0, 240.0)
"""HU that are black and white: soft tissue."""

_FORMAT = "WEBP" if features.check("webp") else "JPEG"
_FAST = {"method": 2} if _FORMAT == "WEBP" else {}
"""Half the time of the default, for files that are a few percent larger."""
MIME = f"image/{_FORMAT.lower()}"
_SIZES = ((400, 82), (240, 78), (200, 72), (160, 66), (128, 60), (96, 50), (80, 35), (64, 20))
"""Pixels of a plane's longer side, and quality, from the best to the smallest."""
_BYTES_A_PIXEL = 0.1
"""Of compressed pictures, about: sizes that are clearly too large are not tried."""
_FILL = 0.2
"""Weak, for what lies below should still be seen (the uptake of PET); the outline is opaque."""


def class_colours(values: Sequence[int]) -> dict[int, str]:
    """The colour of each class; after the eighth they begin anew."""
    return {value: PALETTE[place % len(PALETTE)] for place, value in enumerate(values)}


def draw(planes: Sequence[Plane], *, window: tuple[float, float], colours: Mapping[int, str], size: int) -> Image.Image:
    """Planes side by side at one scale, in true proportions.

    Args:
        planes: What to draw.
        window: Values that are black and white.
        colours: Colour of each class; others are white.
        size: Pixels of the longest side of a plane.

    Returns:
        An RGB picture.
    """
    scale = size / max(max(plane.size_mm) for plane in planes)
    sizes = [tuple(max(8, round(side * scale)) for side in plane.size_mm) for plane in planes]
    height = max(rows for rows, _ in sizes)
    # So wide that letters of neighbouring planes stay apart, also where a picture is shown smaller.
    gap = max(6, size // 25)
    picture = Image.new("RGB", (sum(columns for _, columns in sizes) + gap * (len(planes) - 1), height))
    left = 0
    for plane, (rows, columns) in zip(planes, sizes, strict=True):
        top = (height - rows) // 2
        picture.paste(_tile(plane, (rows, columns), window, colours), (left, top))
        _letter(picture, plane.letters, (left, top, left + columns, top + rows), size)
        left += columns + gap
    return picture


def _tile(plane: Plane, size: tuple[int, int], window: tuple[float, float], colours: Mapping[int, str]) -> Image.Image:
    rows, columns = size
    pixels = np.zeros((rows, columns, 3), np.float32)
    if plane.image is not None:
        grey = Image.fromarray(_grey(plane.image, window))
        pixels[...] = np.asarray(grey.resize((columns, rows), Image.Resampling.BILINEAR), np.float32)[..., None]
    if plane.label is not None:
        # Numbered before they are enlarged: there are fewer.
        values, numbers = np.unique(plane.label, return_inverse=True)
        label = _nearest(numbers.reshape(plane.label.shape).astype(np.int32), size)
        inks = np.array([ImageColor.getrgb(colours.get(int(value), "#FFFFFF")) for value in values], np.float32)
        inside = (values != 0)[label]
        fill = np.where(_edges(label, 2 if max(size) >= 300 else 1) | (plane.image is None), 1.0, _FILL)[inside]
        pixels[inside] += fill[:, None].astype(np.float32) * (inks[label[inside]] - pixels[inside])
    return Image.fromarray(pixels.round().astype(np.uint8))


def _grey(values: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = window
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / max(
        high - low, 1e-300
    )
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)


def _nearest(label: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Of any integer type, which Pillow would not take."""
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(np.int64) for n, of in zip(size, label.shape, strict=True))
    nearest: npt.NDArray[Any] = label[rows[:, None], columns]
    return nearest


def _edges(label: npt.NDArray[Any], width: int) -> npt.NDArray[np.bool_]:
    """(rows, columns) pixels of classes that have another one or none within ``width`` pixels along rows or columns."""
    edge = np.zeros(label.shape, np.bool_)
    for step in range(1, width + 1):
        for axis in (0, 1):
            for shift in (step, -step):
                other = label.copy()
                to, of = [slice(None)] * 2, [slice(None)] * 2
                to[axis] = slice(shift, None) if shift > 0 else slice(None, shift)
                of[axis] = slice(None, -shift) if shift > 0 else slice(-shift, None)
                other[tuple(to)] = label[tuple(of)]
                edge |= other != label
    return edge


def _letter(picture: Image.Image, letters: Sequence[str], box: tuple[int, int, int, int], size: int) -> None:
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    font = ImageFont.load_default(max(9, size // 14))
    ink = ImageDraw.Draw(picture)
    inset = max(3, size // 50)
    places = (((left + inset, y), "lm"), ((right - inset, y), "rm"), ((x, top + 1), "mt"), ((x, bottom - 1), "mb"))
    for letter, (where, anchor) in zip(letters, places, strict=True):
        ink.text(where, letter, fill="#FFFFFF", stroke_width=1, stroke_fill="#000000", font=font, anchor=anchor)


def encode(
    planes: Sequence[Plane], *, window: tuple[float, float], colours: Mapping[int, str], most: int
) -> bytes | None:
    """The best picture in at most ``most`` bytes; None where the smallest takes more."""
    for size, quality in _SIZES:
        if 2 * size * size * _BYTES_A_PIXEL > most and size != _SIZES[-1][0]:
            continue
        data = io.BytesIO()
        draw(planes, window=window, colours=colours, size=size).save(data, _FORMAT, quality=quality, **_FAST)
        if data.tell() <= most:
            return data.getvalue()
    return None
