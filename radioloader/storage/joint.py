"""Which regions of a batch are read together, because they lie in the same tiles."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from radioloader.types import Box, VolumeRef

__all__ = ["groups"]

_LARGEST = 256 * 2**20
"""Bytes of a joint read, at most."""


def groups(wanted: Sequence[tuple[VolumeRef, Box | None, Box | None]]) -> list[list[int]]:
    """Group boxes so that those of one volume whose tiles overlap are read once.

    A tile is decoded whole for every read that touches it: eight neighbouring axial slices of isotropic tiles, read one by one, decode
    the same tiles eight times. Boxes are joined where the box around them has fewer tiles than they have one by one, and where they
    are cut from the same region.

    Args:
        wanted: Volume, box (None: inside no volume, never joined) and region (or None) of each.

    Returns:
        Places in ``wanted``, each in one group.
    """
    by_volume: dict[str, list[int]] = {}
    by_region: dict[tuple[str, Box], list[int]] = {}
    result: list[list[int]] = []
    for place, (ref, box, region) in enumerate(wanted):
        if box is not None and region is not None:
            by_region.setdefault((ref.uri, region), []).append(place)
        elif box is None or ref.tile is None:
            result.append([place])
        else:
            by_volume.setdefault(ref.uri, []).append(place)
    result += by_region.values()
    for places in by_volume.values():
        if len(places) == 1:
            result.append(places)
        else:
            result += _join(places, wanted)
    return result


def _join(places: list[int], wanted: Sequence[tuple[VolumeRef, Box | None, Box | None]]) -> list[list[int]]:
    ref = wanted[places[0]][0]
    assert ref.tile is not None
    most = _LARGEST // (np.dtype(ref.dtype).itemsize * ref.channels)
    boxes = {place: box for place in places if (box := wanted[place][1]) is not None}
    tiles = {place: _tiles(box, ref.tile) for place, box in boxes.items()}
    result: list[list[int]] = []
    group: list[int] = []
    around, decoded = Box((0, 0, 0), (1, 1, 1)), 0
    for place in sorted(places, key=lambda p: (tiles[p].start, boxes[p].start)):
        joined = Box.around([around, boxes[place]]) if group else boxes[place]
        count = prod(_tiles(joined, ref.tile).shape)
        if group and count < decoded + prod(tiles[place].shape) and prod(joined.shape) <= most:
            group.append(place)
            around, decoded = joined, count
        else:
            group = [place]
            result.append(group)
            around, decoded = boxes[place], prod(tiles[place].shape)
    return result


def _tiles(box: Box, tile: tuple[int, int, int]) -> Box:
    """The tiles that a box touches, as a box of tile numbers."""
    start = [a // t for a, t in zip(box.start, tile, strict=True)]
    stop = [-(-b // t) for b, t in zip(box.stop, tile, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
