"""How many voxels lie in the tiles under a sample, for each voxel of it. A tile is fetched whole, so this is what a sample costs; exact."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

__all__ = ["in_patches", "in_slices", "in_volumes"]


def in_patches(shape: Sequence[int], patch_size: Sequence[int], tile: Sequence[int]) -> float:
    """Mean over all places where a patch lies inside the volume, all equally likely.

    Args:
        shape: Of the volume (X, Y, Z), in voxels.
        patch_size: Of the patch; what reaches over the volume does not count.
        tile: Extents of the tiles. Those at the far border are stored whole, and count whole.
    """
    return prod(_along(n, size, extent) for n, size, extent in zip(shape, patch_size, tile, strict=True))


def in_slices(shape: Sequence[int], axis: int, tile: Sequence[int]) -> float:
    """Of one slice across ``axis``; see :func:`in_patches`."""
    size = list(shape)
    size[axis] = 1
    return in_patches(shape, size, tile)


def in_volumes(shape: Sequence[int], tile: Sequence[int]) -> float:
    """Of the whole volume; see :func:`in_patches`."""
    return in_patches(shape, shape, tile)


def _along(n: int, size: int, extent: int) -> float:
    size = min(size, n)
    starts = np.arange(n - size + 1)
    touched = (starts + size - 1) // extent - starts // extent + 1
    return float(touched.mean()) * extent / size
