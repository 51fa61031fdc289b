"""Voxels in the tiles under a sample, against counting them place by place."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest

from radioloader.bench.amplification import in_patches, in_slices, in_volumes
from radioloader.storage.blocks import tiles_of
from radioloader.types import Box, Triple


def counted(shape: Triple, size: Triple, tile: Triple) -> float:
    """Mean over every place of a patch of the whole tiles that it touches."""
    inside = [min(a, n) for a, n in zip(size, shape, strict=True)]
    starts = product(*[range(n - a + 1) for n, a in zip(shape, inside, strict=True)])
    touched = [len(list(tiles_of(Box.at(start, inside), tile, shape))) for start in starts]
    return sum(touched) / len(touched) * prod(tile) / prod(inside)


@pytest.mark.parametrize(
    ("shape", "size", "tile"),
    [
        ((20, 24, 18), (8, 8, 8), (8, 8, 8)),
        ((20, 24, 18), (5, 9, 3), (4, 7, 18)),
        ((6, 7, 5), (8, 8, 8), (4, 4, 4)),  # the patch is larger than the volume
        ((9, 9, 9), (1, 9, 9), (3, 2, 9)),
    ],
)
def test_it_is_what_counting_gives(shape: Triple, size: Triple, tile: Triple) -> None:
    assert in_patches(shape, size, tile) == pytest.approx(counted(shape, size, tile))


def test_tiles_that_fit_hold_nothing_else() -> None:
    assert in_patches((512, 512, 280), (512, 512, 1), (512, 512, 1)) == 1
    assert in_volumes((64, 64, 32), (32, 32, 32)) == 1
    assert in_slices((64, 48, 32), 2, (64, 48, 1)) == 1


def test_known_values() -> None:
    assert in_slices((64, 64, 64), 0, (32, 32, 32)) == 32
    # On each axis a patch of one tile's width lies in two tiles from all but one start in 32; of 33 starts two fit.
    assert in_patches((64, 64, 64), (32, 32, 32), (32, 32, 32)) == pytest.approx((64 / 33) ** 3)
    assert in_volumes((33, 32, 32), (32, 32, 32)) == pytest.approx(64 / 33)  # the tile at the border is stored whole
