"""Regions that are read once and kept for the samples that are cut from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage import slabs
from radioloader.storage.blocks import BlockCache
from radioloader.storage.request import ReadRequest
from radioloader.types import Box, VolumeRef

__all__ = ["Regions"]

_BYTES = 256 * 2**20
_PARTS = 8
"""In which threads read a region together, at most."""
_PART = 256 * 2**10
"""Bytes of such a part, at least."""

Read = Callable[[VolumeRef, int, Box, npt.NDArray[Any]], None]


class Regions:
    """Stored values of regions, the most recently used ones. For any number of threads."""

    def __init__(self) -> None:
        self._kept = BlockCache(_BYTES)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._kept.nbytes

    def clear(self) -> None:
        """Give back their memory."""
        self._kept.clear()

    def settled(self, request: ReadRequest) -> ReadRequest:
        """The request with the region that it is cut from; with none where that cannot be kept."""
        if request.region is None:
            return request
        inner, region = request.inner, request.region.clip(request.ref.shape)
        if inner is not None and region is not None and region.holds(inner):
            size = prod(region.shape) * np.dtype(request.ref.dtype).itemsize * request.ref.channels
            if size <= self._kept.limit // 4:
                return request if region is request.region else replace(request, region=region)
        return replace(request, region=None)

    def find(self, ref: VolumeRef, time: int, region: Box) -> npt.NDArray[Any] | None:
        """The values of a region, if they are kept."""
        return self._kept.find((ref.uri, time, region))

    def get(self, ref: VolumeRef, time: int, region: Box, box: Box, *, read: Read, share: bool) -> npt.NDArray[Any]:
        """The values of a region; read where they are not kept, together with the other threads that want them.

        Args:
            ref: The volume.
            time: Its time point.
            region: Which voxels, inside the volume.
            box: Which of them are wanted now.
            read: Reads the stored values of a box, at a time point, into memory.
            share: Whether threads share the reading: it then is in parts, which should cost as much as in one go.
        """

        def begin() -> tuple[npt.NDArray[Any], list[Callable[[], None]]]:
            block, parts = _memory(region, box, ref.dtype), [region]
            if share and ref.tile is not None:
                parts = slabs.split(region, ref.tile, max(1, min(_PARTS, block.nbytes // _PART)))
            return block, [partial(read, ref, time, part, block[part.slices(region.start)]) for part in parts]

        return self._kept.get((ref.uri, time, region), begin)


def _memory(region: Box, box: Box, dtype: str) -> npt.NDArray[Any]:
    """For a region. What is cut from it as ``box`` is of one piece: the axis on which that is thinnest is the slowest one."""
    outermost = min(range(3), key=lambda axis: box.shape[axis] / region.shape[axis])
    order = (outermost, *(axis for axis in range(3) if axis != outermost))
    memory = np.empty([region.shape[axis] for axis in order], dtype)
    return memory.transpose(np.argsort(order))
