"""Where patches lie: uniform positions statistically, grids exactly."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.samplers.positions import (
    GridPositions,
    RegionPositions,
    Site,
    TileAlignedPositions,
    UniformPositions,
    as_triple,
)
from radioloader.samplers.random import generator

property_test = settings(deadline=None, derandomize=True, max_examples=60)
SIZE = st.integers(1, 14)
SIZES = st.tuples(SIZE, SIZE, SIZE)


class Streams:
    """The streams of one sample of volume ``name``, as datasets make them."""

    def __init__(self, draw: int, name: str = "a", seed: int = 0) -> None:
        self.draw, self.name, self.seed = draw, name, seed

    def __call__(self, name: str, draw: int | None = None) -> np.random.Generator:
        return generator(name, self.seed, 0, self.name, self.draw if draw is None else draw)


def uniform(shape: tuple[int, int, int], patch: tuple[int, int, int], draw: int) -> tuple[int, int, int]:
    return UniformPositions().start(Site(shape), patch, draw=draw, stream=Streams(draw))


def test_uniform_literal_values() -> None:
    positions = [
        UniformPositions().start(Site((20, 24, 18)), (8, 8, 8), draw=draw, stream=Streams(draw, "sub-01_T1w"))
        for draw in range(4)
    ]
    assert positions == [(9, 1, 6), (8, 9, 6), (5, 14, 1), (12, 8, 8)]


def test_uniform_reaches_every_valid_start_equally_often(counts: Callable[[int, int], int]) -> None:
    # 5 * 4 * 3 = 60 starts; chi-squared with 59 degrees of freedom, 99.9 % quantile 98.3.
    rounds = counts(6000, 60000)
    seen = np.zeros((5, 4, 3))
    for draw in range(rounds):
        seen[uniform((10, 8, 6), (6, 5, 4), draw)] += 1
    assert seen.min() > 0
    expected = rounds / seen.size
    assert ((seen - expected) ** 2 / expected).sum() < 98.3


@given(SIZES, SIZES, st.integers(0, 10_000))
@property_test
def test_uniform_lies_inside_or_is_centred(shape: tuple[int, int, int], patch: tuple[int, int, int], draw: int) -> None:
    for start, n, size in zip(uniform(shape, patch, draw), shape, patch, strict=True):
        if size <= n:
            assert 0 <= start <= n - size
        else:
            before, after = -start, start + size - n
            assert before >= 0
            assert after >= 0
            assert abs(before - after) <= 1


def test_uniform_has_no_count_of_its_own() -> None:
    assert UniformPositions().count(Site((9, 9, 9)), (3, 3, 3)) is None


def all_starts(grid: GridPositions, shape: tuple[int, int, int], patch: tuple[int, int, int]) -> list[tuple[int, ...]]:
    count = grid.count(Site(shape), patch)
    assert count is not None
    return [grid.start(Site(shape), patch, draw=draw, stream=Streams(0)) for draw in range(count)]


def test_grid_literal_values() -> None:
    assert all_starts(GridPositions(), (10, 4, 4), (4, 4, 4)) == [(0, 0, 0), (4, 0, 0), (6, 0, 0)]
    assert all_starts(GridPositions(overlap=2), (10, 4, 4), (4, 4, 4)) == [(x, 0, 0) for x in (0, 2, 4, 6)]
    # The last axis runs fastest; an overlap may differ from axis to axis.
    assert all_starts(GridPositions(overlap=(0, 1, 2)), (4, 7, 6), (4, 4, 4)) == [
        (0, 0, 0),
        (0, 0, 2),
        (0, 3, 0),
        (0, 3, 2),
    ]


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
    shape, patch = draw(SIZES), draw(SIZES)
    overlap = tuple(draw(st.integers(0, size - 1)) for size in patch)
    return shape, patch, overlap  # type: ignore[return-value]


@given(grids())
@property_test
def test_grid_covers_the_volume_and_keeps_the_overlap(case: tuple[tuple[int, int, int], ...]) -> None:
    shape, patch, overlap = case
    starts = all_starts(GridPositions(overlap), shape, patch)
    assert len(set(starts)) == len(starts)
    visits = np.zeros(shape, int)
    for start in starts:
        box = rl.Box.at(start, patch)
        inside = box.clip(shape)
        assert inside is not None
        visits[inside.slices()] += 1
        for first, n, size in zip(start, shape, patch, strict=True):
            assert (0 <= first <= n - size) if size <= n else first == (n - size) // 2
    assert visits.min() >= 1
    for axis in range(3):
        along = sorted({start[axis] for start in starts})
        for a, b in pairwise(along):
            assert a + patch[axis] - b >= overlap[axis]
        # No more patches than the overlap needs.
        step, room = patch[axis] - overlap[axis], max(shape[axis] - patch[axis], 0)
        assert len(along) == -(-room // step) + 1


@given(grids())
@property_test
def test_grid_patches_put_together_are_the_volume(case: tuple[tuple[int, int, int], ...]) -> None:
    shape, patch, overlap = case
    volume = np.arange(np.prod(shape)).reshape(shape)
    result = np.full(shape, -1)
    for start in all_starts(GridPositions(overlap), shape, patch):
        inside = rl.Box.at(start, patch).clip(shape)
        assert inside is not None
        result[inside.slices()] = volume[inside.slices()]
    np.testing.assert_array_equal(result, volume)


def test_grid_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"overlap=\(4, 4, 4\) must be smaller than the patch size \(4, 8, 8\)"):
        GridPositions(4).count(Site((20, 20, 20)), (4, 8, 8))
    with pytest.raises(ConfigError, match="overlap=-1 must be one or three whole numbers"):
        GridPositions(-1)
    with pytest.raises(IndexError, match="grid patch 3 is out of range, the volume has 3"):
        GridPositions().start(Site((10, 4, 4)), (4, 4, 4), draw=3, stream=Streams(3))
    with pytest.raises(IndexError, match="grid patch -1 is out of range"):
        GridPositions().start(Site((10, 4, 4)), (4, 4, 4), draw=-1, stream=Streams(0))


def test_as_triple() -> None:
    assert as_triple(5, "size", minimum=1) == (5, 5, 5)
    assert as_triple([1, np.int64(2), 3], "size", minimum=1) == (1, 2, 3)
    assert as_triple(np.array([1, 2, 3]), "size", minimum=1) == (1, 2, 3)  # type: ignore[arg-type]
    for wrong in (0, -3, (1, 2), (1, 2, 3, 4), (1, 2, 2.5), 1.5, "64", None, True):
        with pytest.raises(ConfigError, match=r"size=.* must be one or three whole numbers \(x, y, z\) of at least 1"):
            as_triple(wrong, "size", minimum=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", [UniformPositions(), GridPositions(overlap=(1, 2, 3))])
def test_positions_pickle_and_say_what_they_are(positions: UniformPositions | GridPositions) -> None:
    again = pickle.loads(pickle.dumps(positions))
    assert repr(again) == repr(positions) in ("UniformPositions()", "GridPositions(overlap=(1, 2, 3))")
    first = positions.start(Site((20, 20, 20)), (6, 6, 6), draw=2, stream=Streams(2))
    assert again.start(Site((20, 20, 20)), (6, 6, 6), draw=2, stream=Streams(2)) == first


# ---- whole tiles ---------------------------------------------------------------------------------------------------------

Triple = tuple[int, int, int]


def starts_of(positions: Any, site: Site, patch: Triple, draws: int) -> list[Triple]:
    return [positions.start(site, patch, draw=draw, stream=Streams(draw)) for draw in range(draws)]


def chi_squared(found: list[Triple], room: Triple) -> float:
    seen = np.zeros([n + 1 for n in room])
    np.add.at(seen, tuple(np.array(found).T), 1)
    expected = len(found) / seen.size
    return float(((seen - expected) ** 2 / expected).sum())


def test_tile_aligned_positions_are_all_whole_tiles_equally_often(counts: Callable[[int, int], int]) -> None:
    # Tiles of 4, 5 and 6; of the last axis only whole tiles, the 3 voxels at the border are never reached.
    site = Site((16, 25, 21), (4, 5, 6))
    found = starts_of(TileAlignedPositions(), site, (8, 5, 12), counts(3000, 30000))
    assert {start[0] for start in found} == {0, 4, 8}
    assert {start[1] for start in found} == {0, 5, 10, 15, 20}
    assert {start[2] for start in found} == {0, 6}
    tiles = [(x // 4, y // 5, z // 6) for x, y, z in found]
    assert chi_squared(tiles, (2, 4, 1)) < 58.3  # 29 degrees of freedom, 99.9 %


@given(SIZES, SIZES, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), st.integers(0, 1000))
@property_test
def test_tile_aligned_patches_touch_whole_tiles_only(shape: Triple, tile: Triple, factor: Triple, draw: int) -> None:
    patch = tuple(t * f for t, f in zip(tile, factor, strict=True))
    site = Site(shape, tile)
    assert TileAlignedPositions().count(site, patch) is None  # type: ignore[arg-type]
    start = TileAlignedPositions().start(site, patch, draw=draw, stream=Streams(draw))  # type: ignore[arg-type]
    for first, size, n, t in zip(start, patch, shape, tile, strict=True):
        if size <= n:
            assert first % t == 0
            assert 0 <= first <= n - size
        else:
            assert first == (n - size) // 2


def test_tile_aligned_refuses_parts_of_tiles() -> None:
    count = TileAlignedPositions().count
    with pytest.raises(
        ConfigError,
        match=r"needs a patch of whole tiles: patch_size=\(8, 6, 8\), but tiles are \(8, 8, 8\); choose multiples",
    ):
        count(Site((20, 20, 20), (8, 8, 8)), (8, 6, 8))
    # An axis that the patch covers is not cut.
    assert count(Site((20, 6, 5), (8, 8, 8)), (8, 6, 8)) is None
    assert count(Site((20, 20, 20), (8, 8, 8)), (16, 8, 8)) is None


# ---- regions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [1, 2, (1, 2, 5)])
def test_each_region_patch_is_distributed_like_a_uniform_one(span: Any, counts: Callable[[int, int], int]) -> None:
    # One patch of each group, so that they are independent: 7 * 6 * 4 = 168 starts, 167 degrees of freedom, 99.9 % quantile 229.
    positions, site = RegionPositions(3, span), Site((12, 9, 8), (4, 4, 3))
    rounds = counts(5000, 50000)
    for member in (0, 2):
        found = [
            positions.start(site, (6, 4, 5), draw=3 * group + member, stream=Streams(3 * group + member))
            for group in range(rounds)
        ]
        assert chi_squared(found, (6, 5, 3)) < 229


@given(
    SIZES,
    SIZES,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 5),
    st.integers(1, 3),
)
@property_test
def test_a_groups_patches_start_in_one_block(shape: Triple, patch: Triple, tile: Triple, group: int, span: int) -> None:
    positions, site = RegionPositions(group, span), Site(shape, tile)
    assert positions.group == group
    for number in range(4):
        draws = range(number * group, (number + 1) * group)
        starts = [positions.start(site, patch, draw=draw, stream=Streams(draw)) for draw in draws]
        for axis, (n, size, t) in enumerate(zip(shape, patch, tile, strict=True)):
            along = [start[axis] for start in starts]
            if size > n:
                assert set(along) == {(n - size) // 2}
                continue
            assert all(0 <= first <= n - size for first in along)
            assert len({first // (t * span) for first in along}) == 1
            low = along[0] // (t * span) * t * span
            # The region that patches at the block's starts can reach, in whole tiles.
            assert max(along) + size <= low + span * t - 1 + size
            assert max(along) - min(along) < span * t


def test_groups_are_independent_and_members_differ() -> None:
    positions, site = RegionPositions(4), Site((64, 64, 64), (8, 8, 8))
    starts = np.array(starts_of(positions, site, (16, 16, 16), 4000)).reshape(1000, 4, 3)
    assert len(np.unique(starts.reshape(-1, 3), axis=0)) > 3500
    blocks = starts[:, 0] // 8
    for axis in range(3):
        # Neighbouring groups are uncorrelated (a standard deviation of 0.032), members of one are not.
        assert abs(np.corrcoef(blocks[:-1, axis], blocks[1:, axis])[0, 1]) < 0.11
        assert np.corrcoef(starts[:, 0, axis], starts[:, 1, axis])[0, 1] > 0.9
        within = starts[:, 0, axis] - starts[:, 0, axis] // 8 * 8, starts[:, 1, axis] - starts[:, 1, axis] // 8 * 8
        assert abs(np.corrcoef(*within)[0, 1]) < 0.11


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0,), "patches=0 must be a whole number of at least 1"),
        ((2, 0), "span=0 must be one or three whole numbers"),
        ((2, (1, 2)), r"span=\(1, 2\) must be one or three"),
    ],
)
def test_wrong_regions(arguments: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        RegionPositions(*arguments)


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        (TileAlignedPositions(), "TileAlignedPositions()"),
        (RegionPositions(), "RegionPositions(patches=8, span=(1, 1, 1), mix=1)"),
        (RegionPositions(2, (1, 2, 3)), "RegionPositions(patches=2, span=(1, 2, 3), mix=1)"),
    ],
)
def test_tile_positions_pickle_and_say_what_they_are(positions: Any, text: str) -> None:
    again = pickle.loads(pickle.dumps(positions))
    assert again == positions
    assert hash(again) == hash(positions)
    assert repr(again) == text
    site = Site((40, 40, 40), (8, 8, 8))
    first = starts_of(positions, site, (16, 16, 16), 12)
    assert starts_of(again, site, (16, 16, 16), 12) == first  # the same key, the same place
    assert len(set(first)) > 6
