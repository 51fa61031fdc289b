"""What orders and samplers know of a dataset: how many samples its volumes have, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layout"]


def _no_columns(name: str) -> npt.NDArray[Any]:
    raise LookupError(name)


@dataclass(frozen=True)
class Layout:
    """The samples of a dataset, numbered volume by volume. n is the number of volumes.

    Attributes:
        counts: (n,) int64, samples of each volume in an epoch.
        unit: So many samples in a row of one volume (fewer at its end) are read together and best stay together.
        mix: So many units are visited in turn, sample by sample, where samples are shuffled.
        any_draw: Whether a volume has a sample for every draw, so that it can be visited any number of times: samples of one volume
            differ by their draw alone.
        shapes: (n, k) int64, spatial shape of each volume's samples.
        column: Gives a column of ``obs_meta``, (n,), by name.
    """

    counts: npt.NDArray[np.int64]
    unit: int = 1
    mix: int = 1
    any_draw: bool = True
    shapes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    column: Callable[[str], npt.NDArray[Any]] = _no_columns

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(n + 1,) number of the first sample of each volume, and of all samples."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def volumes(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The volume of each sample."""
        return np.searchsorted(self.starts, samples, side="right") - 1

    @cached_property
    def units(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First sample and length of each unit."""
        per_volume = -(-self.counts // self.unit)
        volume = np.repeat(np.arange(len(self.counts)), per_volume)
        number = np.arange(len(volume)) - np.repeat(np.cumsum(per_volume) - per_volume, per_volume)
        first = self.starts[volume] + number * self.unit
        return first, np.minimum(self.unit, self.starts[volume + 1] - first)
