"""In which order samples come: pure functions of (number of samples, seed, epoch)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radioloader.samplers.random import generator

__all__ = ["sequential", "shuffled"]


def sequential(count: int) -> npt.NDArray[np.int64]:
    """(count,) int64: 0, 1, 2, ..."""
    return np.arange(count, dtype=np.int64)


def shuffled(count: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """(count,) int64: a uniformly random permutation, another one for each seed and epoch."""
    return generator("order", seed, epoch).permutation(count).astype(np.int64, copy=False)
