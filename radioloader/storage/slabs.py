"""Where a large read is cut into slabs, which threads read side by side and which leave less to hold at once."""

from __future__ import annotations

from math import prod

from radioloader.types import Box

__all__ = ["LARGE", "cut", "split"]

LARGE = 8 * 2**20
"""Bytes from which on a read is cut."""
_SLAB = 16 * 2**20
"""Bytes of a slab, about: what is decoded is still in the cache when it is converted, and the next slab reuses its memory."""
_THIN_SLAB = 64 * 2**20
"""Bytes of a slab whose part of the output is many short runs, about."""


def cut(
    box: Box, inner: Box, tile: tuple[int, int, int], *, itemsize: int, channels: int, threads: int, direct: bool
) -> list[Box]:
    """Cut a box between tiles, so that each tile is decoded once.

    The cut goes across the first axis on which the box has more than one tile: what belongs to a slab is then contiguous in an output in C
    order (across x), or made of long runs.

    Args:
        box: What is read, in voxels.
        inner: The part of it inside the volume.
        tile: Extents of a tile.
        itemsize: Bytes of a stored voxel.
        channels: Time points, which are read one after the other.
        threads: How many may read it.
        direct: Whether it is read straight into its output, which has to be contiguous for that.

    Returns:
        Slabs from first to last; ``box`` alone where cutting it would not pay.
    """
    size = prod(inner.shape) * itemsize
    if size * channels < LARGE:
        return [box]
    axis, ends = _cuts(inner, tile)
    if not ends:
        return [box]
    if direct and axis > 0:
        pieces = threads  # these need a copy more, which only threads make up for
    else:
        pieces = max(threads, -(-size // (_SLAB if axis < 2 else _THIN_SLAB)))
    return _pieces(box, axis, ends, pieces)


def split(box: Box, tile: tuple[int, int, int], pieces: int) -> list[Box]:
    """Cut a box inside the volume between tiles into as many slabs, or fewer, from first to last."""
    axis, ends = _cuts(box, tile)
    return _pieces(box, axis, ends, pieces)


def _cuts(box: Box, tile: tuple[int, int, int]) -> tuple[int, range]:
    """The first axis on which the box has more than one tile, and where tiles end inside the box."""
    for axis in range(3):
        ends = _ends(box.start[axis], box.stop[axis], tile[axis])
        if ends:
            break
    return axis, ends


def _pieces(box: Box, axis: int, ends: range, pieces: int) -> list[Box]:
    pieces = min(pieces, len(ends) + 1)
    places = [ends[piece * (len(ends) + 1) // pieces - 1] for piece in range(1, pieces)]
    starts, stops = [box.start[axis], *places], [*places, box.stop[axis]]
    return [_with(box, axis, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _ends(start: int, stop: int, extent: int) -> range:
    """Where tiles end inside ``start`` to ``stop``."""
    return range((start // extent + 1) * extent, stop, extent)


def _with(box: Box, axis: int, start: int, stop: int) -> Box:
    first, last = list(box.start), list(box.stop)
    first[axis], last[axis] = start, stop
    return Box((first[0], first[1], first[2]), (last[0], last[1], last[2]))
