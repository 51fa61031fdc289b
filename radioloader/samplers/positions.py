"""Where in a volume a patch lies: functions of the shapes, the draw and a random stream, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from radioloader.errors import ConfigError
from radioloader.types import Triple

__all__ = ["GridPositions", "Positions", "UniformPositions", "as_triple", "as_whole"]


def as_whole(value: int, name: str, *, minimum: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        ConfigError: Not a whole number of at least ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or (minimum is not None and value < minimum):
        least = "" if minimum is None else f" of at least {minimum}"
        raise ConfigError(f"{name}={value!r} must be a whole number{least}")
    return int(value)


def as_triple(value: int | Sequence[int], name: str, *, minimum: int) -> Triple:
    """``value`` on each axis (x, y, z).

    Raises:
        ConfigError: Not one or three whole numbers of at least ``minimum``.
    """
    values = tuple(value) if isinstance(value, Iterable) else (value,) * 3
    if len(values) != 3 or any(
        isinstance(v, bool) or not isinstance(v, int | np.integer) or v < minimum for v in values
    ):
        raise ConfigError(f"{name}={value!r} must be one or three whole numbers (x, y, z) of at least {minimum}")
    return (int(values[0]), int(values[1]), int(values[2]))


class Positions(Protocol):
    """Chooses patches. Implementations are frozen, small and picklable.

    A patch that is larger than the volume on an axis is centred on it, whatever the kind of positions.
    """

    def count(self, shape: Triple, patch_size: Triple) -> int | None:
        """How many patches a volume of ``shape`` (X, Y, Z) has; None: any number can be drawn."""

    def start(self, shape: Triple, patch_size: Triple, *, draw: int, generator: np.random.Generator) -> Triple:
        """First voxel (x, y, z) of patch number ``draw``."""


class UniformPositions:
    """Every position at which the patch lies inside the volume is equally likely."""

    def count(self, shape: Triple, patch_size: Triple) -> int | None:
        return None

    def start(self, shape: Triple, patch_size: Triple, *, draw: int, generator: np.random.Generator) -> Triple:
        room = [n - size for n, size in zip(shape, patch_size, strict=True)]
        # An axis without room draws as well: the other axes' positions do not depend on it.
        draws = generator.integers(0, [max(r, 0) + 1 for r in room])
        x, y, z = (int(d) if r >= 0 else r // 2 for d, r in zip(draws, room, strict=True))
        return (x, y, z)

    def __repr__(self) -> str:
        return "UniformPositions()"


class GridPositions:
    """Patches that cover the volume: every voxel lies in at least one.

    Patches start at multiples of (patch size - overlap); the last one on each axis is moved back to end with the volume.

    Args:
        overlap: Voxels that neighbours share at least, on each axis (x, y, z).
    """

    def __init__(self, overlap: int | Sequence[int] = 0) -> None:
        self.overlap = as_triple(overlap, "overlap", minimum=0)

    def _starts(self, shape: Triple, patch_size: Triple) -> list[list[int]]:
        starts = []
        for n, size, overlap in zip(shape, patch_size, self.overlap, strict=True):
            if overlap >= size:
                raise ConfigError(
                    f"overlap={self.overlap} must be smaller than the patch size {patch_size} on every axis"
                )
            last = n - size
            starts.append([*range(0, last, size - overlap), last] if last > 0 else [last // 2])
        return starts

    def count(self, shape: Triple, patch_size: Triple) -> int | None:
        x, y, z = (len(starts) for starts in self._starts(shape, patch_size))
        return x * y * z

    def start(self, shape: Triple, patch_size: Triple, *, draw: int, generator: np.random.Generator) -> Triple:
        xs, ys, zs = self._starts(shape, patch_size)
        if not 0 <= draw < len(xs) * len(ys) * len(zs):
            raise IndexError(f"grid patch {draw} is out of range, the volume has {len(xs) * len(ys) * len(zs)}")
        x, rest = divmod(draw, len(ys) * len(zs))
        y, z = divmod(rest, len(zs))
        return (xs[x], ys[y], zs[z])

    def __repr__(self) -> str:
        return f"GridPositions(overlap={self.overlap})"
