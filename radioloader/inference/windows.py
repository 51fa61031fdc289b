"""Windows that cover a volume, and how much each of their voxels counts: where MONAI's ``sliding_window_inference`` has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from numbers import Real
from typing import Any

import torch

from radioloader.errors import ConfigError
from radioloader.samplers.positions import Site, Stream
from radioloader.types import Box, Triple

__all__ = ["BLENDS", "WindowPositions", "Windows", "as_overlap", "importance"]

BLENDS = ("gaussian", "constant")

_SIGMA = 0.125
"""Standard deviation of the gaussian weights, as a share of the window: MONAI's default, and nnU-Net's."""
_SMALLEST = 1e-3


def as_overlap(value: Any) -> tuple[float, float, float]:
    """``value`` on each axis (x, y, z).

    Raises:
        ConfigError: Not one or three numbers, at least 0 and below 1.
    """
    try:
        values = tuple(float(v) for v in ([value] * 3 if isinstance(value, Real) else value))
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(0 <= v < 1 for v in values):
        raise ConfigError(
            f"overlap={value!r} must be one or three shares of the patch (x, y, z), each at least 0 and below 1: 0.5 for half of it"
        )
    return values[0], values[1], values[2]


def _starts(n: int, size: int, overlap: float) -> list[int]:
    if n <= size:
        return [-((size - n) // 2)]
    step = max(1, int(size * (1 - overlap)))
    last = n - size
    return [*range(0, last, step), last]


@dataclass(frozen=True)
class Windows:
    """The windows of one volume, in raster order: z changes fastest.

    Windows start at multiples of the patch less its overlap; the last one on each axis is moved back to end with the volume. On an axis
    that is shorter than the patch there is one, with the volume in its middle.

    *Cells* are the parts of the volume from one start to the next. A window covers cells from its own on; none after it in raster order
    touches its own, whose sums then are complete.

    Attributes:
        shape: (X, Y, Z) of the volume in voxels.
        size: (X, Y, Z) of a window.
        overlap: Share of the window that neighbours have in common, on each axis.
    """

    shape: Triple
    size: Triple
    overlap: tuple[float, float, float]

    @cached_property
    def starts(self) -> list[list[int]]:
        """First voxels of windows on each axis; negative where the volume is smaller."""
        return [_starts(n, s, o) for n, s, o in zip(self.shape, self.size, self.overlap, strict=True)]

    @cached_property
    def edges(self) -> list[list[int]]:
        """Where cells begin on each axis, and where the last one ends."""
        return [[max(a, 0) for a in axis] + [n] for axis, n in zip(self.starts, self.shape, strict=True)]

    def __len__(self) -> int:
        x, y, z = (len(axis) for axis in self.starts)
        return x * y * z

    def cell_of(self, number: int) -> Triple:
        """Where a window is among those of each axis, which is its own cell as well."""
        _, y, z = (len(axis) for axis in self.starts)
        return (number // (y * z), number // z % y, number % z)

    def window(self, number: int) -> Box:
        """The voxels of a window; some are outside of a volume that is smaller."""
        return Box.at([axis[i] for axis, i in zip(self.starts, self.cell_of(number), strict=True)], self.size)

    def cell(self, cell: Triple) -> Box:
        """The voxels of a cell."""
        low = [axis[i] for axis, i in zip(self.edges, cell, strict=True)]
        high = [axis[i + 1] for axis, i in zip(self.edges, cell, strict=True)]
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def cells(self, number: int) -> Iterator[Triple]:
        """The cells that a window touches."""
        window, own = self.window(number), self.cell_of(number)
        x, y, z = (
            [i for i in range(first, len(edges) - 1) if edges[i] < stop]
            for first, edges, stop in zip(own, self.edges, window.stop, strict=True)
        )
        return product(x, y, z)


@dataclass(frozen=True, slots=True)
class WindowPositions:
    """Positions of :class:`Windows`, for a :class:`~radioloader.PatchDataset`."""

    overlap: tuple[float, float, float]

    def count(self, site: Site, patch_size: Triple) -> int | None:
        return len(Windows(site.shape, patch_size, self.overlap))

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        return Windows(site.shape, patch_size, self.overlap).window(draw).start


def importance(size: Triple, blend: str) -> torch.Tensor:
    """How much each voxel of a window counts: (X, Y, Z) float32.

    Gaussian weights are those of MONAI's ``compute_importance_map``: the middle counts most, none less than 0.001.
    """
    if blend == "constant":
        return torch.ones(size)
    weights = torch.ones(())
    for n in size:
        place = torch.arange(-(n - 1) / 2.0, (n - 1) / 2.0 + 1, dtype=torch.float32)
        line = torch.exp(place**2 / (-2 * (_SIGMA * n) ** 2))
        weights = weights.unsqueeze(-1) * line
    return weights.clamp(min=max(float(weights.min()), _SMALLEST))
