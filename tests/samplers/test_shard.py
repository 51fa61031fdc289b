"""Shards of an order, and what is left of it after kills: checked for random layouts and worlds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radioloader.samplers.layout import Layout
from radioloader.samplers.order import BlockShuffled, Sequential, Shuffled
from radioloader.samplers.samplers import KeySampler
from radioloader.samplers.shard import evaluation_shard, remaining, training_shard
from radioloader.types import PatchKey

property_test = settings(deadline=None, derandomize=True, max_examples=80)
WORLD = st.integers(1, 8)
Array = np.ndarray[Any, Any]


@st.composite
def orders(draw: st.DrawFn) -> tuple[Array, int]:
    """The volume of each visit, and the unit: random counts, shuffled or not."""
    unit = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(any))
    if draw(st.booleans()):
        counts = [n * unit for n in counts]
    layout = Layout(np.array(counts, np.int64), unit=unit)
    order = draw(st.sampled_from([Sequential(), Shuffled(), BlockShuffled(3)]))
    visits = order(layout, seed=draw(st.integers(0, 9)), epoch=0)
    return layout.volumes(visits.samples), visits.unit


def shards(volumes: Array, world: int, **arguments: Any) -> list[list[int]]:
    return [training_shard(volumes, rank=r, world_size=world, **arguments).tolist() for r in range(world)]


def evaluation(volumes: Array, world: int, unit: int = 1) -> list[list[int]]:
    return [evaluation_shard(volumes, rank=r, world_size=world, unit=unit).tolist() for r in range(world)]


@pytest.mark.parametrize(
    ("world", "drop_last", "expected"),
    [
        (1, False, [[0, 1, 2, 3, 4, 5, 6]]),
        # Volumes by first visit: 2 at 0, 3, 6; 0 at 1, 5; 1 at 2, 4. The head is repeated: 0 comes twice.
        (2, False, [[0, 3, 6, 0], [1, 2, 4, 5]]),
        (2, True, [[0, 1, 3], [2, 4, 5]]),
        (3, False, [[0, 3, 6], [1, 5, 0], [2, 4, 1]]),
        (4, False, [[0, 3], [6, 0], [1, 5], [2, 4]]),
    ],
)
def test_literal_shards(world: int, drop_last: bool, expected: list[list[int]]) -> None:
    volumes = np.array([2, 0, 1, 2, 1, 0, 2])
    assert shards(volumes, world, drop_last=drop_last) == expected


def test_literal_evaluation_shards() -> None:
    volumes = np.array([2, 0, 1, 2, 1, 0, 2])
    assert evaluation(volumes, 2) == [[0, 2, 3, 4, 6], [1, 5]]
    assert evaluation(volumes, 3) == [[0, 3, 6], [1, 5], [2, 4]]
    assert evaluation(volumes, 5) == [[0, 3, 6], [1, 5], [2, 4], [], []]


def test_literal_shards_that_take_units_in_turn() -> None:
    volumes = np.repeat([2, 0, 1, 2, 1], 2)
    assert shards(volumes, 1, unit=2, mix=2) == [[0, 2, 1, 3, 4, 6, 5, 7, 8, 9]]
    assert shards(volumes, 1, unit=2, mix=3) == [[0, 2, 4, 1, 3, 5, 6, 8, 7, 9]]
    assert shards(volumes, 1, unit=2, mix=9) == [[0, 2, 4, 6, 8, 1, 3, 5, 7, 9]]
    # Units by volume: 2 at 0, 3 and 5 (unit 0 again), 0 at 1, 1 at 2 and 4.
    assert shards(volumes, 2, unit=2, mix=2) == [[0, 6, 1, 7, 0, 1], [2, 4, 3, 5, 8, 9]]
    left, unit = remaining(volumes, [(2, 4)], unit=2, mix=2)
    assert (left.tolist(), unit) == ([8, 9], 2)
    left, unit = remaining(volumes, [(2, 2)], unit=2, mix=2)
    assert (left.tolist(), unit) == ([1, 3, 5, 7, 8, 9], 1)


def first_seen(volumes: Array) -> list[int]:
    return list(dict.fromkeys(volumes.tolist()))


@given(orders(), WORLD, st.booleans())
@property_test
def test_training_shards(order: tuple[Array, int], world: int, drop_last: bool) -> None:
    volumes, unit = order
    parts = shards(volumes, world, drop_last=drop_last, unit=unit)
    units = len(volumes) // unit
    assert len({len(part) for part in parts}) == 1  # equal steps
    visited = Counter(position for part in parts for position in part)
    if drop_last:
        kept = units - units % world
        assert visited == Counter(range(kept * unit))  # disjoint, and the tail dropped
    else:
        assert set(visited) == set(range(len(volumes)))  # all are covered
        assert sum(visited.values()) - len(visited) == (-units % world) * unit
        padding = -units % world
        again = Counter(range(len(volumes)))
        for k in range(padding):  # the head is repeated
            again.update(range(k % units * unit, k % units * unit + unit))
        assert visited == again
    for part in parts:
        for start in range(0, len(part), unit):  # units stay together
            assert part[start : start + unit] == list(range(part[start], part[start] + unit))
        once = list(dict.fromkeys(part))
        heads = once if world <= units else sorted(once)
        drops = sum(b < a for a, b in pairwise(heads))
        assert drops <= 1  # in the order, the repeated head last
        if drop_last or not -units % world:
            assert part == sorted(part)


@given(orders(), st.integers(2, 8))
@property_test
def test_training_ranks_own_volumes(order: tuple[Array, int], world: int) -> None:
    volumes, unit = order
    parts = shards(volumes, world, drop_last=True, unit=unit)
    # Volumes in the order of their first visit lie on consecutive ranks: neighbours share at most the one that a cut goes through.
    # A unit is of one volume where all units are whole; else the unit is 1.
    turn = {volume: place for place, volume in enumerate(first_seen(volumes[::unit]))}
    owned = [sorted({turn[int(volumes[p])] for p in part}) for part in parts]
    for mine, next_ in pairwise(owned):
        if mine and next_:
            assert mine[-1] <= next_[0]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 8), st.integers(0, 9))
@property_test
def test_equal_volumes_that_the_world_divides_are_on_one_rank_each(
    per_rank: int, count: int, world: int, seed: int
) -> None:
    layout = Layout(np.full(per_rank * world, count, np.int64))
    volumes = layout.volumes(Shuffled()(layout, seed=seed, epoch=0).samples)
    owners = [set(volumes[part].tolist()) for part in shards(volumes, world)]
    assert [len(owner) for owner in owners] == [per_rank] * world
    assert len(set.union(*owners)) == per_rank * world


@given(orders(), WORLD)
@property_test
def test_evaluation_shards(order: tuple[Array, int], world: int) -> None:
    volumes, unit = order
    parts = evaluation(volumes, world, unit)
    assert Counter(p for part in parts for p in part) == Counter(range(len(volumes)))
    owners = [set(volumes[part].tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set(volumes.tolist()))  # each volume on exactly one rank
    assert max(map(len, owners)) - min(map(len, owners)) <= 1
    assert all(part == sorted(part) for part in parts)


# ---- what is left --------------------------------------------------------------------------------------------------------


@given(
    orders(),
    st.lists(st.tuples(WORLD, st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
@property_test
def test_consumed_and_left_are_the_epoch_exactly_once(
    order: tuple[Array, int], runs: list[tuple[int, int, int]], training: bool, drop_last: bool, mix: int
) -> None:
    volumes, unit = order
    given: dict[str, Any] = {"training": training, "drop_last": drop_last, "unit": unit, "mix": mix if training else 1}
    done: list[tuple[int, int]] = []
    consumed: set[int] = set()
    for world, batch_size, batches in runs:
        left, rest_unit = remaining(volumes, done, **given)
        assert sorted({*consumed, *left.tolist()}) == list(range(len(volumes)))
        assert not consumed & set(left.tolist())
        assert left.tolist() == sorted(left.tolist())
        taken: Counter[int] = Counter()
        for rank in range(world):
            if training:
                part = training_shard(
                    volumes[left], rank=rank, world_size=world, drop_last=drop_last, unit=rest_unit, mix=mix
                )
            else:
                part = evaluation_shard(volumes[left], rank=rank, world_size=world, unit=rest_unit)
            taken.update(left[part[: batches * batch_size]].tolist())
        if not training or drop_last:
            assert set(taken.values()) <= {1}
        consumed |= set(taken)
        done.append((world, batches * batch_size))
    left, _ = remaining(volumes, done, **given)
    assert sorted(left.tolist()) == sorted(set(range(len(volumes))) - consumed)


class Patches:
    """Stands for a dataset with ``counts`` patches of its volumes."""

    seed = 0

    def __init__(self, counts: list[int], unit: int, mix: int = 1) -> None:
        self.layout = Layout(np.array(counts, np.int64), unit=unit, mix=mix)

    def __len__(self) -> int:
        return len(self.layout)

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> PatchKey:
        volume = int(self.layout.volumes(np.array([index]))[0])
        return PatchKey(volume, index - int(self.layout.starts[volume]), epoch)

    def fingerprint(self) -> dict[str, Any]:
        return {"samples": len(self)}


def samplers(dataset: Patches, world: int, drop_last: bool) -> list[KeySampler]:
    return [KeySampler(dataset, rank=rank, world_size=world, drop_last=drop_last, seed=3) for rank in range(world)]


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=10).filter(any),
    st.integers(1, 3),
    st.integers(1, 3),
    WORLD,
    st.integers(0, 12),
    st.booleans(),
)
@property_test
def test_the_same_world_goes_on_with_the_same_samples(
    counts: list[int], unit: int, mix: int, world: int, samples: int, drop_last: bool
) -> None:
    dataset = Patches(counts, unit, mix)
    visits = Sequential()(dataset.layout, seed=0, epoch=0)
    assume(not drop_last or world <= len(visits.samples) // visits.unit)  # others are refused
    for sampler in samplers(dataset, world, drop_last):
        sampler.restart(2, [])
        whole = list(sampler)
        sampler.restart(2, [(world, samples)])
        assert list(sampler) == whole[samples:]
        assert {key.epoch for key in whole} <= {2}
        assert len(sampler) == len(list(sampler.global_order(2))) or world > 1 or drop_last


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=10).filter(any),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.tuples(WORLD, st.integers(0, 5)), min_size=1, max_size=3),
    WORLD,
    st.booleans(),
)
@property_test
def test_samplers_go_on_in_other_worlds(
    counts: list[int], unit: int, mix: int, runs: list[tuple[int, int]], last: int, drop_last: bool
) -> None:
    dataset = Patches(counts, unit, mix)
    least = (
        len(Sequential()(dataset.layout, seed=0, epoch=0).samples) // Sequential()(dataset.layout, seed=0, epoch=0).unit
    )
    assume(not drop_last or max(world for world, _ in [*runs, (last, 0)]) <= least)  # others are refused
    consumed: set[PatchKey] = set()
    progress: list[tuple[int, int]] = []
    for world, samples in [*runs, (last, 10**6)]:
        keys = []
        before = 0
        if progress and progress[-1][0] == world:  # a loader counts on
            before = progress[-1][1]
        for sampler in samplers(dataset, world, drop_last):
            sampler.restart(5, progress)
            assert sampler.left_on_this_rank() == len(list(sampler))
            sampler.restart(5, progress)
            keys += list(sampler)[:samples]
            assert sampler.samples_done(progress) == len(consumed)
        if not before:
            assert not consumed & set(keys)  # nothing comes again
        consumed |= set(keys)
        done = before + samples
        progress = [*(progress[:-1] if before else progress), *([(world, done)] if done else [])]
    everything = set(samplers(dataset, 1, drop_last)[0].global_order(5))
    assert consumed <= everything
    if not drop_last:
        assert consumed == everything
