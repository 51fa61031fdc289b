"""Memory that a thread reads into on the way to where voxels are wanted."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scratch"]

_KEPT = 64 * 2**20


class Scratch:
    """Memory of each thread, reused from read to read: fresh pages for every patch cost as much as decoding it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uninitialised, and valid until the thread asks again."""
        size = prod(shape) * dtype.itemsize
        if size > _KEPT:
            return np.empty(shape, dtype)
        memory: npt.NDArray[np.uint8] | None = getattr(self._local, "memory", None)
        if memory is None or memory.size < size:
            memory = self._local.memory = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)
