"""Values of a volume on another grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["resample"]

_VOXELS = 2**21
"""That are computed at once."""


def resample(
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    shape: Sequence[int],
    target: npt.NDArray[np.float64],
    *,
    nearest: bool,
) -> npt.NDArray[Any]:
    """Values at the voxel centres of another grid; 0 where the volume does not reach, which ends half a voxel beyond its outer centres.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, T).
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z) of the other grid.
        target: (4, 4), its affine.
        nearest: Take the nearest voxel's value; else interpolate linearly (whole numbers are rounded).

    Returns:
        The dtype and the number of axes of ``voxels``.
    """
    size = tuple(int(n) for n in shape[:3])
    result = np.zeros((*size, *voxels.shape[3:]), voxels.dtype)
    index_of = np.linalg.inv(affine) @ target
    # Such as 5e-17 for 0, which would put a centre beyond the border, or on the other side of a middle.
    index_of = np.round(index_of, 9)
    step = max(1, _VOXELS // max(1, size[1] * size[2]))
    last = np.array(voxels.shape[:3]) - 1
    for first in range(0, size[0], step):
        x = np.arange(first, min(first + step, size[0]))
        axes = np.meshgrid(x, np.arange(size[1]), np.arange(size[2]), indexing="ij", sparse=True)
        places = [sum(index_of[row, k] * axes[k] for k in range(3)) + index_of[row, 3] for row in range(3)]
        inside = np.ones(np.broadcast_shapes(*[place.shape for place in places]), np.bool_)
        for place, end in zip(places, last, strict=True):
            inside &= (place >= -0.5) & (place < end + 0.5)
        chosen = np.nonzero(inside)
        if not len(chosen[0]):
            continue
        at = [np.broadcast_to(place, inside.shape)[chosen] for place in places]
        values = _nearest(voxels, at) if nearest else _linear(voxels, at)
        result[first : first + len(x)][chosen] = values
    return result


def _nearest(voxels: npt.NDArray[Any], at: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[Any]:
    x, y, z = (np.floor(place + 0.5).astype(np.intp) for place in at)
    values: npt.NDArray[Any] = voxels[x, y, z]
    return values


def _linear(voxels: npt.NDArray[Any], at: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[Any]:
    import torch
    from torch.nn.functional import grid_sample

    real = np.float64 if voxels.dtype.itemsize > 4 or voxels.dtype in (np.int32, np.uint32) else np.float32
    # As grid_sample wants them: the last axis first, -1 and 1 in the middle of the first and last voxel.
    places = [place * (2 / max(n - 1, 1)) - 1 for place, n in zip(at, voxels.shape, strict=False)]
    grid = torch.from_numpy(np.stack(places[::-1], axis=-1).astype(real))[None, None, None]
    channels = np.moveaxis(voxels, 3, 0) if voxels.ndim == 4 else voxels[None]
    values = np.stack(
        [
            grid_sample(
                torch.from_numpy(np.ascontiguousarray(channel, real))[None, None],
                grid,
                padding_mode="border",
                align_corners=True,
            ).numpy()[0, 0, 0, 0]
            for channel in channels
        ],
        axis=-1,
    )
    if voxels.dtype.kind in "iu":
        values = np.clip(np.rint(values), np.iinfo(voxels.dtype).min, np.iinfo(voxels.dtype).max)
    return values.astype(voxels.dtype) if voxels.ndim == 4 else values[:, 0].astype(voxels.dtype)
