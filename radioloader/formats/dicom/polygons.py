"""Polygons to pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Patch", "even_odd"]

Patch = tuple[slice, slice, npt.NDArray[np.bool_]]
"""Ranges of x and of y, and the mask (x, y) there; it is False everywhere else."""

_SNAP = 2.0**20
"""Vertices are rounded to this part of a pixel (1e-6), so that one that was drawn on a centre lies on it whatever an oblique affine did to
its last digits."""


def even_odd(polygon: npt.NDArray[np.float64], shape: tuple[int, int]) -> Patch:
    """The pixels whose centres lie inside a closed polygon, by the even-odd rule.

    A pixel is inside when a ray from its centre towards smaller x crosses the outline an odd number of times. Centres that lie exactly on
    the outline belong to what lies on the side of larger x, and along an outline parallel to x to what lies on the side of larger y. So
    polygons that share edges (same vertices, in any order) share no pixel and leave none out: each centre belongs to exactly one of them.

    Args:
        polygon: (n, 2) float64, vertices (x, y) in pixels; centres lie at whole numbers. The last vertex is joined to the first.
        shape: (X, Y); what lies outside is cut off.

    Returns:
        The smallest box that holds the pixels inside the image, and its mask.
    """
    places = np.round(polygon * _SNAP) / _SNAP
    # Whole numbers c with low <= c < high are ceil(low) to ceil(high) - 1: the half-open rule.
    low, high = (np.clip(np.ceil(edge), 0, shape).astype(np.intp) for edge in (places.min(axis=0), places.max(axis=0)))
    width, height = high - low
    ranges = slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
    if width == 0 or height == 0:
        return *ranges, np.zeros((width, height), np.bool_)
    # From smaller to larger y, whichever way the polygon runs: both polygons at an edge get the same crossings, to the last bit.
    start, end = places, np.roll(places, -1, axis=0)
    down = (end[:, 1] < start[:, 1])[:, None]
    start, end = np.where(down, end, start), np.where(down, start, end)
    first, stop = (np.clip(np.ceil(edge[:, 1]), low[1], high[1]).astype(np.intp) for edge in (start, end))
    count = stop - first
    edge = np.repeat(np.arange(len(places)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    column = np.clip(np.ceil(x + (row - y) * dx / dy), low[0], high[0]).astype(np.intp)
    # One column more takes the crossings behind the last pixel, which change none.
    turns = np.bincount((row - low[1]) * (width + 1) + column - low[0], minlength=height * (width + 1))
    inside = np.bitwise_xor.accumulate((turns & 1).astype(np.bool_).reshape(height, width + 1), axis=1)
    return *ranges, inside[:, :-1].T
