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
"""Of a region that threads read together, at most."""

Read = Callable[[VolumeRef, int, Box, npt.NDArray[Any]], None]


class Regions:
    """Stored values of regions, the most recently used ones. For any number of threads.

    Args:
        read: Reads the stored values of a box, at a time point, into memory.
        cut: Whether threads may share the reading of a region of a volume: one read in parts costs as much as in one go.
    """

    def __init__(self, read: Read, cut: Callable[[VolumeRef], bool]) -> None:
        self._read = read
        self._cut = cut
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
        if inner is not None and region is not None and Box.around([inner, region]) == region:
            size = prod(region.shape) * np.dtype(request.ref.dtype).itemsize * request.ref.channels
            if size <= self._kept.limit // 4:
                return request if region is request.region else replace(request, region=region)
        return replace(request, region=None)

    def find(self, ref: VolumeRef, time: int, region: Box) -> npt.NDArray[Any] | None:
        """The values of a region, if they are kept."""
        return self._kept.find((ref.uri, time, region))

    def get(self, ref: VolumeRef, time: int, region: Box, box: Box) -> npt.NDArray[Any]:
        """The values of a region, of which ``box`` is wanted next; read where they are not kept, together with the other threads that
        want them."""
        return self._kept.get((ref.uri, time, region), partial(self._begin, ref, time, region, box))

    def _begin(
        self, ref: VolumeRef, time: int, region: Box, box: Box
    ) -> tuple[npt.NDArray[Any], list[Callable[[], None]]]:
        outermost = _thinnest(box, region)
        order = (outermost, *(axis for axis in range(3) if axis != outermost))
        memory = np.empty([region.shape[axis] for axis in order], ref.dtype)
        block = memory.transpose(np.argsort(order))
        parts = [region]
        if ref.tile is not None and self._cut(ref):
            parts = slabs.split(region, ref.tile, _PARTS)
        return block, [partial(self._read, ref, time, part, block[part.slices(region.start)]) for part in parts]


def _thinnest(box: Box, region: Box) -> int:
    """The axis of which ``box`` takes the smallest share of ``region``: cut along it, memory that has it outermost is cut in one piece."""
    return min(range(3), key=lambda axis: box.shape[axis] / region.shape[axis])
