"""Orders are permutations and shards divide them: pure functions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.samplers.order import sequential, shuffled
from radioloader.samplers.shard import evaluation_shard, training_shard

COUNTS = st.integers(1, 60)
WORLDS = st.integers(1, 8)
property_test = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (0, 0, [4, 0, 6, 3, 5, 1, 2]),
        (0, 1, [5, 1, 6, 2, 0, 3, 4]),
        (7, 0, [3, 6, 5, 4, 2, 1, 0]),
    ],
)
def test_shuffled_literal_values(seed: int, epoch: int, expected: list[int]) -> None:
    assert shuffled(7, seed=seed, epoch=epoch).tolist() == expected


def test_sequential() -> None:
    assert sequential(4).tolist() == [0, 1, 2, 3]
    assert sequential(0).tolist() == []


@given(COUNTS, st.integers(0, 2**40), st.integers(0, 1000))
@property_test
def test_shuffled_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    order = shuffled(count, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == shuffled(count, seed=seed, epoch=epoch).tolist()


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(shuffled(40, seed=seed, epoch=epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_shuffled_is_uniform(counts: Callable[[int, int], int]) -> None:
    # Where each of 5 samples lands over many epochs: chi-squared with 16 degrees of freedom, 99.9 % quantile 39.25.
    rounds = counts(2000, 20000)
    table = np.zeros((5, 5))
    for epoch in range(rounds):
        table[np.arange(5), shuffled(5, seed=1, epoch=epoch)] += 1
    expected = rounds / 5
    assert ((table - expected) ** 2 / expected).sum() < 39.25


@given(COUNTS, WORLDS, st.booleans())
@property_test
def test_training_shards_are_equally_long_and_cover(count: int, world: int, drop_last: bool) -> None:
    order = shuffled(count, seed=3, epoch=count)
    shards = [training_shard(order, rank=rank, world_size=world, drop_last=drop_last) for rank in range(world)]
    steps = count // world if drop_last else -(-count // world)
    assert [len(shard) for shard in shards] == [steps] * world
    dealt = np.stack(shards, axis=1).ravel().tolist() if steps else []  # in the order in which all ranks together go on
    assert dealt[:count] == order.tolist()[: len(dealt)]
    if drop_last:
        assert len(set(dealt)) == len(dealt) > count - world
    else:
        assert set(dealt) == set(range(count))
        assert dealt[count:] == [order[i % count] for i in range(len(dealt) - count)]


@given(COUNTS, WORLDS)
@property_test
def test_evaluation_shards_hold_every_sample_exactly_once(count: int, world: int) -> None:
    order = shuffled(count, seed=3, epoch=count)
    shards = [evaluation_shard(order, rank=rank, world_size=world).tolist() for rank in range(world)]
    assert sorted(chain.from_iterable(shards)) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_shards_of_nothing_are_empty() -> None:
    nothing = sequential(0)
    assert training_shard(nothing, rank=1, world_size=3).tolist() == []
    assert training_shard(nothing, rank=1, world_size=3, drop_last=True).tolist() == []
    assert evaluation_shard(nothing, rank=1, world_size=3).tolist() == []
