"""Keys that a KeySampler yields, on every rank and in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.order import EqualShapes, Sequential
from radioloader.samplers.samplers import KeySampler, rank_and_world
from radioloader.types import PatchKey


@dataclass
class Patches:
    """Stands for a dataset of ``volumes`` with ``draws`` patches each."""

    volumes: int = 3
    draws: int = 2
    seed: int = 0

    def __len__(self) -> int:
        return self.volumes * self.draws

    @property
    def layout(self) -> Layout:
        return Layout(np.full(self.volumes, self.draws, np.int64))

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> PatchKey:
        return PatchKey(index // self.draws, index % self.draws if draw is None else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        return {"volumes": self.volumes}


def short(keys: Any) -> list[tuple[int, int, int]]:
    return [(key.volume, key.draw, key.epoch) for key in keys]


@pytest.mark.parametrize(
    ("seed", "epoch", "rank", "world", "expected"),
    [
        (0, 0, 0, 1, [(1, 1, 0), (0, 0, 0), (2, 1, 0), (2, 0, 0), (0, 1, 0), (1, 0, 0)]),
        (0, 1, 0, 1, [(0, 1, 1), (2, 1, 1), (1, 0, 1), (0, 0, 1), (1, 1, 1), (2, 0, 1)]),
        (5, 0, 0, 1, [(0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 1, 0), (1, 1, 0), (2, 0, 0)]),
        # By first visits the volumes are 1, 0, 2: rank 0 owns 1, rank 1 owns 2, and they share 0; each keeps to the order.
        (0, 0, 0, 2, [(1, 1, 0), (0, 0, 0), (1, 0, 0)]),
        (0, 0, 1, 2, [(2, 1, 0), (2, 0, 0), (0, 1, 0)]),
        (0, 3, 3, 4, [(2, 1, 3), (2, 0, 3)]),
    ],
)
def test_literal_keys(seed: int, epoch: int, rank: int, world: int, expected: list[tuple[int, int, int]]) -> None:
    sampler = KeySampler(Patches(), seed=seed, rank=rank, world_size=world)
    sampler.set_epoch(epoch)
    assert short(sampler) == expected


def test_unshuffled_keys() -> None:
    assert short(KeySampler(Patches(), shuffle=False)) == [(v, d, 0) for v in range(3) for d in range(2)]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 5), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_training_ranks_take_equal_steps_and_cover(volumes: int, world: int, epoch: int, drop_last: bool) -> None:
    dataset = Patches(volumes, 1)
    if drop_last and volumes < world:
        with pytest.raises(ConfigError, match="every rank would train on nothing"):
            KeySampler(dataset, rank=0, world_size=world, drop_last=True)
        return
    ranks = []
    for rank in range(world):
        sampler = KeySampler(dataset, rank=rank, world_size=world, drop_last=drop_last)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler)
        assert {key.epoch for key in keys} <= {epoch}
        ranks.append(keys)
    assert len({len(keys) for keys in ranks}) == 1
    everyone = list(chain.from_iterable(ranks))
    if drop_last:
        assert len(set(everyone)) == len(everyone) == volumes - volumes % world
    else:
        assert set(everyone) == {dataset.key(i, epoch=epoch) for i in range(volumes)}
        assert len(everyone) - len(set(everyone)) == -volumes % world


@given(st.integers(1, 30), st.integers(1, 8), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_evaluation_ranks_share_exactly(volumes: int, world: int, shuffle: bool) -> None:
    dataset = Patches(volumes, 1)
    samplers = [
        KeySampler(dataset, training=False, shuffle=shuffle, rank=rank, world_size=world) for rank in range(world)
    ]
    ranks = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(keys) for keys in ranks]
    everyone = list(chain.from_iterable(ranks))
    assert len(everyone) == volumes
    assert set(everyone) == {dataset.key(i) for i in range(volumes)}


def test_every_iteration_is_the_next_epoch_and_set_epoch_chooses() -> None:
    sampler = KeySampler(Patches())
    first, second = short(sampler), short(sampler)
    assert {epoch for *_, epoch in first} == {0}
    assert {epoch for *_, epoch in second} == {1}
    assert [key[:2] for key in first] != [key[:2] for key in second]
    sampler.set_epoch(0)
    assert short(sampler) == first
    assert short(sampler) == second
    sampler.set_epoch(7)
    assert {epoch for *_, epoch in short(sampler)} == {7}
    assert {epoch for *_, epoch in short(sampler)} == {8}


def test_an_iterator_that_is_not_used_is_no_epoch() -> None:
    # torch's loader makes two iterators of its sampler before it takes the first key, when there are workers.
    sampler = KeySampler(Patches())
    iter(sampler)
    iter(sampler)
    assert {key.epoch for key in sampler} == {0}


def test_an_epoch_that_was_left_early_counts() -> None:
    sampler = KeySampler(Patches())
    next(iter(sampler))
    assert {key.epoch for key in sampler} == {1}


def test_evaluation_keys_have_epoch_0_whatever_is_set() -> None:
    sampler = KeySampler(Patches(), training=False, shuffle=True)
    first = short(sampler)
    sampler.set_epoch(9)
    assert short(sampler) == first == short(sampler)
    assert {epoch for *_, epoch in first} == {0}


def test_the_seed_is_the_datasets_unless_given() -> None:
    expected = short(KeySampler(Patches(seed=0), seed=5))
    assert short(KeySampler(Patches(seed=5))) == expected
    assert short(KeySampler(Patches(seed=0))) != expected


def test_it_is_a_distributed_sampler() -> None:
    # Lightning leaves subclasses of it alone, and calls their set_epoch.
    sampler = KeySampler(Patches(), rank=1, world_size=4)
    assert isinstance(sampler, DistributedSampler)
    assert (sampler.rank, sampler.num_replicas, sampler.epoch) == (1, 4, 0)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"rank={rank} must be at least 0 and below world_size={world}"):
        KeySampler(Patches(), rank=rank, world_size=world)


def test_rank_and_world_come_from_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_and_world() == (0, 1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    assert rank_and_world() == (1, 3)
    sampler = KeySampler(Patches())
    assert (sampler.rank, sampler.num_replicas, len(sampler)) == (1, 3, 2)
    assert short(sampler) == short(KeySampler(Patches(), rank=1, world_size=3))


def test_numpys_integers_are_as_good_as_pythons() -> None:
    expected = KeySampler(Patches(), seed=5)
    expected.set_epoch(3)
    found = KeySampler(Patches(), seed=np.int64(5))  # type: ignore[arg-type]
    found.set_epoch(np.int64(3))  # type: ignore[arg-type]
    assert short(found) == short(expected)
    assert {type(value) for key in found for value in (key.volume, key.draw, key.epoch)} == {int}
    for wrong in (1.5, "1", True):
        with pytest.raises(ConfigError, match=f"seed={wrong!r} must be a whole number"):
            KeySampler(Patches(), seed=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"epoch={wrong!r} must be a whole number"):
            found.set_epoch(wrong)  # type: ignore[arg-type]


def test_orders_are_the_same_for_every_world() -> None:
    dataset = Patches(7, 3)
    expected = KeySampler(dataset, seed=2).global_order(4)
    alone = KeySampler(dataset, seed=2)
    alone.set_epoch(4)
    assert list(alone) == expected
    for world in (2, 3, 4, 8):
        assert KeySampler(dataset, seed=2, rank=world - 1, world_size=world).global_order(4) == expected


def test_an_epoch_that_is_empty_on_every_rank_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"an epoch of 6 samples \(of which 1 stay together\) is too short for 7 ranks with drop_last"
    ):
        KeySampler(Patches(3, 2), rank=0, world_size=7, drop_last=True)
    assert len(KeySampler(Patches(3, 2), rank=0, world_size=6, drop_last=True)) == 1
    assert len(KeySampler(Patches(3, 2), rank=0, world_size=7)) == 1
    KeySampler(Patches(3, 2), rank=0, world_size=7, drop_last=True, training=False)


@pytest.mark.parametrize(
    ("drop_last", "padding"), [(False, [0, 1, 0, 3, 4, 3, 0, 3]), (True, [0, -1, 0, -1, -1, -3, 0, -5])]
)
def test_it_says_how_many_samples_come_twice(drop_last: bool, padding: list[int]) -> None:
    # 21 samples on 1 to 8 ranks.
    found = [KeySampler(Patches(7, 3), rank=0, world_size=w, drop_last=drop_last).padding for w in range(1, 9)]
    assert found == padding
    assert KeySampler(Patches(7, 3), rank=0, world_size=4, training=False).padding == 0


def test_repeat_repeats_epoch_0() -> None:
    sampler = KeySampler(Patches(), repeat=True)
    first = short(sampler)
    assert first == short(sampler) == short(KeySampler(Patches()))
    sampler.set_epoch(5)
    assert short(sampler) == first


def test_a_restarted_epoch_goes_on_and_the_next_is_whole() -> None:
    sampler = KeySampler(Patches())
    sampler.set_epoch(2)
    whole = short(sampler)
    for again in (lambda: None, lambda: sampler.set_epoch(2)):  # a repeated set_epoch keeps the offset
        sampler.restart(2, [(1, 4)])
        again()
        assert len(sampler) == 6
        assert short(sampler) == whole[4:]
        assert len(short(sampler)) == 6
        assert sampler.epoch == 3
    sampler.restart(2, [(1, 4)])
    assert short(sampler) == whole[4:]
    sampler.set_epoch(2)  # once its rest was used, the epoch is asked for anew
    assert short(sampler) == whole
    sampler.restart(2, [(1, 4)])
    sampler.set_epoch(3)
    assert len(short(sampler)) == 6


def test_mixing_of_a_rank() -> None:
    sampler = KeySampler(Patches(8, 8), shuffle=False)
    assert (sampler.mixing(8).volumes, sampler.mixing(16).volumes, sampler.mixing(8).fewest) == (1, 2, 1)
    assert sampler.mixing(8).score == pytest.approx(1 / sampler.mixing(8).shuffled)
    assert KeySampler(Patches(8, 8)).mixing(8).score == pytest.approx(1, abs=0.15)
    assert KeySampler(Patches(8, 8), rank=0, world_size=8).mixing(8).volumes == 1  # a rank owns its volumes


def test_batches_of_equal_shape_do_not_split_cases_among_ranks() -> None:
    class Slices(Patches):
        @property
        def layout(self) -> Layout:
            counts = np.full(self.volumes, self.draws, np.int64)
            return Layout(counts, shapes=np.full((self.volumes, 2), 64, np.int64))

    def sampler(rank: int, volumes: int, draws: int, size: int) -> KeySampler:
        order = EqualShapes(size, Sequential())
        return KeySampler(Slices(volumes, draws), order=order, training=False, rank=rank, world_size=2)

    # Batches of 2 of 4 samples each: every batch is of one volume.
    parts = [short(key for key in sampler(rank, 3, 4, 2) if key) for rank in range(2)]
    assert {volume for volume, *_ in parts[0]} == {0, 2}
    assert {volume for volume, *_ in parts[1]} == {1}
    with pytest.raises(ConfigError, match="volumes would be evaluated by several ranks; use another order"):
        list(sampler(0, 3, 4, 3))
