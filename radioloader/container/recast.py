"""What can be done to volumes on their way from one store to another: other tiles and filters, a crop, another spacing or orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.config import WriteConfig
from radioloader.container.resample import resample
from radioloader.errors import ConfigError
from radioloader.formats.orientation import check_orientation, turn, turn_grid
from radioloader.geometry import axcodes, spacing
from radioloader.types import Box

__all__ = ["Recast"]


@dataclass(frozen=True, slots=True)
class Recast:
    """Changes of volumes, in the order in which they are made.

    Attributes:
        crop: Box that is kept, in voxels of the stored grid, half-open; it may reach over the border, where volumes just end.
        orientation: Axis codes to turn the voxels to, such as ``"RAS"``.
        spacing: Distance between voxels along x, y and z, in mm; labels take the nearest voxel, images interpolate linearly.
        write: Tiles and filters; None keeps those of each volume where nothing else changes, and else takes the target's.
    """

    crop: Box | None = None
    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None
    write: WriteConfig | None = None

    @classmethod
    def of(
        cls,
        crop: Box | Sequence[tuple[int, int]] | None,
        orientation: str | None,
        spacing: float | Sequence[float] | None,
        write: WriteConfig | None,
    ) -> Recast:
        """The changes that arguments name.

        Raises:
            ConfigError: They make no sense.
        """
        return cls(
            None if crop is None else _box(crop),
            None if orientation is None else check_orientation(orientation),
            None if spacing is None else _spacing(spacing),
            write,
        )

    @property
    def moves_voxels(self) -> bool:
        """Whether voxels change, and not just how they are stored."""
        return self.crop is not None or self.orientation is not None or self.spacing is not None

    @property
    def keeps_arrays(self) -> bool:
        """Whether arrays can be copied as they are."""
        return not self.moves_voxels and self.write is None

    def recipe(self, content_hash: str) -> dict[str, Any]:
        """What makes a result of a volume of this content, as JSON-able values; empty where its voxels stay."""
        if not self.moves_voxels:
            return {}
        crop = None if self.crop is None else [list(self.crop.start), list(self.crop.stop)]
        spaced = None if self.spacing is None else list(self.spacing)
        return {"of": content_hash, "crop": crop, "orientation": self.orientation, "spacing": spaced}

    def inner(self, shape: Sequence[int]) -> Box | None:
        """The part of a volume of ``shape`` that is kept; None where the crop lies beside it."""
        return Box.whole(shape) if self.crop is None else self.crop.clip(shape[:3])

    def apply(
        self, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], start: Sequence[int], *, nearest: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Turn and resample what a crop has left.

        Args:
            voxels: (X, Y, Z) or (X, Y, Z, T), the part that is kept.
            affine: (4, 4) of the whole volume, voxel index to RAS mm.
            start: First voxel of the part.
            nearest: Take the nearest voxel's value where the spacing changes; else interpolate linearly.

        Returns:
            The voxels and their affine.
        """
        moved = affine.copy()
        moved[:3, 3] = affine[:3, :3] @ np.asarray(start, np.float64) + affine[:3, 3]
        if self.orientation is not None:
            codes = axcodes(moved)
            _, turned = turn_grid(voxels.shape, moved, codes, self.orientation)
            voxels, moved = turn(voxels, codes, self.orientation), turned
        if self.spacing is not None:
            voxels, moved = _respaced(voxels, moved, self.spacing, nearest=nearest)
        return np.ascontiguousarray(voxels), moved


def _respaced(
    voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], wanted: Sequence[float], *, nearest: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """As many voxels of another size as cover the field of view, about its centre: all of their centres lie within it."""
    size = np.array(voxels.shape[:3])
    ratio = np.asarray(wanted) / np.asarray(spacing(affine))
    # A size that a ratio such as 0.9999999 misses by a hair is that size.
    shape = np.maximum(1, np.ceil(size / ratio - 1e-3)).astype(np.int64)
    target = affine.copy()
    target[:3, :3] = affine[:3, :3] * ratio
    target[:3, 3] += affine[:3, :3] @ ((size - 1) / 2 - ratio * (shape - 1) / 2)
    return resample(voxels, affine, shape.tolist(), target, nearest=nearest), target


def _box(crop: Box | Sequence[tuple[int, int]]) -> Box:
    if isinstance(crop, Box):
        return crop
    try:
        (x0, x1), (y0, y1), (z0, z1) = ((int(a.__index__()), int(b.__index__())) for a, b in crop)
        return Box((x0, y0, z0), (x1, y1, z1))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"crop={crop!r} must be a Box, or first voxel and end (not part of it) along x, y and z, such as ((10, 74), (0, 64), (5, 40))"
        ) from error


def _spacing(given: float | Sequence[float]) -> tuple[float, float, float]:
    try:
        values = [float(given)] * 3 if isinstance(given, int | float) else [float(value) for value in given]
    except (TypeError, ValueError):
        values = []
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise ConfigError(f"spacing={given!r} must be a number of mm, or three of them (x, y, z), above 0")
    return (values[0], values[1], values[2])
