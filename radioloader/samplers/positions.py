"""Where in a volume a patch lies: functions of what the catalog says of the volume, the draw and random streams, of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.errors import ConfigError
from radioloader.types import Box, Triple

__all__ = [
    "GridPositions",
    "Positions",
    "RegionPositions",
    "Site",
    "Stream",
    "TileAlignedPositions",
    "UniformPositions",
    "as_triple",
    "check_positions",
    "uniform_start",
]


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


def _nothing() -> Mapping[int, tuple[int, npt.NDArray[Any]]]:
    return {}


def _no_voxels(collection: str, box: Box) -> npt.NDArray[Any]:
    raise LookupError(collection)


@dataclass(frozen=True, slots=True)
class Site:
    """What positions may know of a volume.

    Attributes:
        shape: (X, Y, Z) in voxels.
        tile: Extents (x, y, z) of its tiles in voxels.
        name: Tells volumes apart.
        foreground: Gives the label's index: by class the number of voxels, and coordinates (n, 3) of some of them.
        read: Gives the voxels (X, Y, Z) of a box of another collection of the same subject, for positions that depend on one.
    """

    shape: Triple
    tile: Triple = (1, 1, 1)
    name: str = ""
    foreground: Callable[[], Mapping[int, tuple[int, npt.NDArray[Any]]]] = _nothing
    read: Callable[[str, Box], npt.NDArray[Any]] = _no_voxels


class Stream(Protocol):
    """Gives the random streams of a sample."""

    def __call__(self, name: str, draw: int | None = None) -> np.random.Generator:
        """The stream ``name`` of this sample; with ``draw``, the one that all samples of the volume and epoch share under that number."""


class Positions(Protocol):
    """Chooses patches. Implementations are frozen, small and picklable; ``repr`` says all that decides them.

    A patch that is larger than the volume on an axis is centred on it, whatever the kind of positions.
    """

    def count(self, site: Site, patch_size: Triple) -> int | None:
        """How many patches a volume has; None: any number can be drawn.

        Raises:
            ConfigError: The volume or the patch does not fit these positions.
        """

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        """First voxel (x, y, z) of patch number ``draw``."""


def check_positions(positions: Any) -> None:
    """Refuse what does not choose patches.

    Raises:
        ConfigError: Not an object with ``count`` and ``start``.
    """
    if isinstance(positions, type):
        raise ConfigError(f"positions={positions.__name__} is a class; give an object of it: {positions.__name__}(...)")
    if not all(callable(getattr(positions, name, None)) for name in ("count", "start")):
        raise ConfigError(
            f"positions={positions!r} chooses no patches; give an object such as radioloader.UniformPositions()"
        )


def uniform_start(shape: Triple, patch_size: Triple, generator: np.random.Generator) -> Triple:
    """A start at which the patch lies inside the volume, all equally likely."""
    start = []
    for n, size in zip(shape, patch_size, strict=True):
        room = n - size
        # An axis without room draws as well: the other axes' positions do not depend on it.
        draw = int(generator.integers(0, max(room, 0) + 1))
        start.append(draw if room >= 0 else room // 2)
    return (start[0], start[1], start[2])


@dataclass(frozen=True, slots=True)
class UniformPositions:
    """Every position at which the patch lies inside the volume is equally likely."""

    def count(self, site: Site, patch_size: Triple) -> int | None:
        return None

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        return uniform_start(site.shape, patch_size, stream("position"))


@dataclass(frozen=True, slots=True)
class TileAlignedPositions:
    """Patches of whole tiles, each such position equally likely: the cheapest read, of few positions.

    On an axis along which the patch is not smaller than the volume it covers the volume. Tiles at the far border of the volume are
    cut off by it: patches end with the last whole tile, so that voxels beyond it are never seen. Vary the rest by augmentation.
    """

    def count(self, site: Site, patch_size: Triple) -> int | None:
        for n, size, tile in zip(site.shape, patch_size, site.tile, strict=True):
            if size < n and size % tile:
                raise ConfigError(
                    f"TileAlignedPositions needs a patch of whole tiles: patch_size={patch_size}, but tiles are {site.tile}; choose "
                    "multiples of the tile extents, RegionPositions, or ingest with other tiles"
                )
        return None

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        room = [n - size for n, size in zip(site.shape, patch_size, strict=True)]
        steps = stream("position").integers(0, [max(r, 0) // t + 1 for r, t in zip(room, site.tile, strict=True)])
        x, y, z = (int(s) * t if r >= 0 else r // 2 for s, r, t in zip(steps, room, site.tile, strict=True))
        return (x, y, z)


@dataclass(frozen=True, slots=True)
class RegionPositions:
    """Random positions at nearly the price of aligned ones: several patches are cut from one region, whose tiles are read once.

    A volume's patches come in groups of ``patches``. The starts of a group lie in one block of ``span`` tiles on each axis; the region
    that is read is what patches at these starts can reach. Statistics of what is sampled: a block is drawn with probability
    proportional to the starts in it, and the starts within it uniformly, so that *each patch by itself is distributed exactly as with
    UniformPositions*. The patches of a group are independent of each other given their block, and less than ``span`` tiles apart on
    each axis; different groups are independent.

    Samplers keep a group together: its patches follow each other, or (``mix``) those of several groups come in turn, so that a batch
    holds several volumes. The region is read with its first patch, and kept for the others (in each worker process for its own
    batches; threads share it).

    Attributes:
        patches: Patches of a group.
        span: Tiles (x, y, z) over which the starts of a group are spread; one number for all axes.
        mix: Groups whose patches come in turn where samples are shuffled. So many regions are kept at a time.
    """

    patches: int = 8
    span: int | tuple[int, int, int] = 1
    mix: int = 1

    def __post_init__(self) -> None:
        as_whole(self.patches, "patches", minimum=1)
        as_whole(self.mix, "mix", minimum=1)
        object.__setattr__(self, "span", as_triple(self.span, "span", minimum=1))

    @property
    def group(self) -> int:
        """So many consecutive draws of a volume share a region."""
        return self.patches

    def count(self, site: Site, patch_size: Triple) -> int | None:
        return None

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        span: Any = self.span
        block = [t * s for t, s in zip(site.tile, span, strict=True)]
        region = uniform_start(site.shape, patch_size, stream("region", draw // self.patches))
        starts = []
        position = stream("position")
        for n, size, anchor, length in zip(site.shape, patch_size, region, block, strict=True):
            if size > n:
                starts.append(anchor)
                continue
            # A uniformly drawn start picks its block with the right probability.
            low = anchor // length * length
            starts.append(int(position.integers(low, min(low + length, n - size + 1))))
        x, y, z = starts
        return (x, y, z)

    def region(self, site: Site, patch_size: Triple, start: Triple) -> Box:
        """What all patches of the group can reach of which one begins at ``start``."""
        span: Any = self.span
        first, stop = [], []
        for n, size, a, tile, tiles in zip(site.shape, patch_size, start, site.tile, span, strict=True):
            low = max(a, 0) // (tile * tiles) * tile * tiles
            first.append(low)
            stop.append(n if size >= n else min(low + tile * tiles - 1 + size, n))
        return Box((first[0], first[1], first[2]), (stop[0], stop[1], stop[2]))


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

    def count(self, site: Site, patch_size: Triple) -> int | None:
        x, y, z = (len(starts) for starts in self._starts(site.shape, patch_size))
        return x * y * z

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        xs, ys, zs = self._starts(site.shape, patch_size)
        if not 0 <= draw < len(xs) * len(ys) * len(zs):
            raise IndexError(f"grid patch {draw} is out of range, the volume has {len(xs) * len(ys) * len(zs)}")
        x, rest = divmod(draw, len(ys) * len(zs))
        y, z = divmod(rest, len(zs))
        return (xs[x], ys[y], zs[z])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GridPositions) and other.overlap == self.overlap

    def __hash__(self) -> int:
        return hash(("grid", self.overlap))

    def __repr__(self) -> str:
        return f"GridPositions(overlap={self.overlap})"
