"""Orders: literal tables, statistics, and what holds for every layout."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.order import (
    FILLER,
    BlockShuffled,
    ClassBalanced,
    EqualShapes,
    Order,
    Sequential,
    Shuffled,
    Weighted,
    check_order,
    mixing,
)
from radioloader.samplers.random import generator
from radioloader.samplers.samplers import KeySampler

property_test = settings(deadline=None, derandomize=True, max_examples=50)
Array = np.ndarray[Any, Any]
COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def of(*counts: int, **arguments: Any) -> Layout:
    return Layout(np.array(counts, np.int64), **arguments)


COLUMNS = {"w": np.array([1.0, 1, 1, 1, 1, 1, 4]), "c": np.array(list("aaaaabc")), "n": np.array(list("abcdefg"))}
SHAPES = np.array([[4, 4, 4], [5, 4, 4], [4, 4, 4], [5, 4, 4], [4, 4, 4], [6, 1, 1], [4, 4, 4]])
PATCHES = of(2, 1, 3)
REGIONS = of(4, 4, 2, unit=2)
SLICES = of(3, 2, 4, unit=2, any_draw=False)
VOLUMES = of(1, 1, 1, 1, 1, 1, 1, shapes=SHAPES, column=COLUMNS.__getitem__)

TABLE: list[tuple[Order, Layout, int, int, list[int], list[int] | None, int]] = [
    (Sequential(), PATCHES, 0, 0, [0, 1, 2, 3, 4, 5], None, 1),
    (Sequential(), REGIONS, 3, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], None, 2),
    (Sequential(), SLICES, 0, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8], None, 1),
    (Shuffled(), PATCHES, 0, 0, [3, 0, 5, 4, 1, 2], None, 1),
    (Shuffled(), PATCHES, 0, 1, [1, 5, 2, 0, 3, 4], None, 1),
    (Shuffled(), PATCHES, 3, 0, [0, 2, 4, 5, 1, 3], None, 1),
    (Shuffled(), REGIONS, 0, 0, [0, 1, 8, 9, 6, 7, 2, 3, 4, 5], None, 2),
    (Shuffled(), REGIONS, 0, 1, [2, 3, 4, 5, 0, 1, 6, 7, 8, 9], None, 2),
    (Shuffled(), REGIONS, 3, 0, [0, 1, 4, 5, 8, 9, 2, 3, 6, 7], None, 2),
    (Shuffled(), SLICES, 0, 0, [0, 1, 7, 8, 5, 6, 2, 3, 4], None, 1),
    (Shuffled(), SLICES, 0, 1, [2, 3, 4, 0, 1, 5, 6, 7, 8], None, 1),
    (BlockShuffled(2), VOLUMES, 0, 0, [3, 2, 1, 5, 6, 4, 0], None, 1),
    (BlockShuffled(2), VOLUMES, 0, 1, [5, 3, 2, 0, 6, 1, 4], None, 1),
    (BlockShuffled(2), VOLUMES, 3, 0, [6, 4, 2, 5, 3, 0, 1], None, 1),
    (BlockShuffled(2), REGIONS, 0, 0, [4, 5, 6, 7, 8, 9, 0, 1, 2, 3], None, 2),
    (BlockShuffled(2), REGIONS, 3, 0, [8, 9, 0, 1, 2, 3, 6, 7, 4, 5], None, 2),
    (Weighted("w", 10), VOLUMES, 0, 0, [3, 2, 6, 5, 6, 6, 1, 0, 6, 4], [0, 0, 0, 0, 1, 2, 0, 0, 3, 0], 1),
    (Weighted("w", 10), VOLUMES, 3, 0, [2, 3, 6, 4, 6, 0, 1, 6, 5, 6], [0, 0, 0, 0, 1, 0, 0, 2, 0, 3], 1),
    # A volume with slices: each visit takes one of them, and draws are counted by slice.
    (Weighted((1, 0, 3)), SLICES, 0, 0, [7, 0, 5, 6, 5, 8, 6, 8, 2], [0, 0, 0, 0, 1, 0, 1, 1, 0], 1),
    (ClassBalanced("c", 6), VOLUMES, 0, 0, [4, 6, 3, 5, 5, 6], [0, 0, 0, 0, 1, 1], 1),
    (ClassBalanced("c", 6), VOLUMES, 0, 1, [1, 6, 5, 5, 2, 6], [0, 0, 0, 1, 0, 1], 1),
    (EqualShapes(2), VOLUMES, 0, 0, [4, 0, 5, -1, 3, 1, 6, 2], None, 2),
    (EqualShapes(2), VOLUMES, 0, 1, [5, -1, 6, 2, 1, 3, 0, 4], None, 2),
    (EqualShapes(3, Sequential()), VOLUMES, 0, 0, [1, 3, -1, 0, 2, 4, 5, -1, -1, 6, -1, -1], None, 3),
    (
        EqualShapes(2, ClassBalanced("c")),
        VOLUMES,
        0,
        0,
        [6, 6, 3, -1, 5, 5, 0, 2],
        [0, 1, 0, 0, 0, 1, 0, 0],
        2,
    ),
]


@pytest.mark.parametrize(("order", "layout", "seed", "epoch", "samples", "draws", "unit"), TABLE)
def test_literal_orders(
    order: Order, layout: Layout, seed: int, epoch: int, samples: list[int], draws: list[int] | None, unit: int
) -> None:
    # Written down: they may not change with a release, a platform or numpy's version.
    visits = order(layout, seed=seed, epoch=epoch)
    assert visits.samples.tolist() == samples
    assert (None if visits.draws is None else visits.draws.tolist()) == draws
    assert visits.unit == unit
    assert visits.samples.dtype == np.int64
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    assert again(layout, seed=seed, epoch=epoch).samples.tolist() == samples


def test_units_come_in_turn() -> None:
    even, plain = of(4, 4, 2, unit=2, mix=2), of(4, 4, 2, unit=2)
    for order in (Shuffled(), BlockShuffled(2)):
        visits = order(even, seed=0, epoch=1)
        assert (visits.unit, visits.mix) == (2, 2)  # left to the ranks
        assert visits.samples.tolist() == order(plain, seed=0, epoch=1).samples.tolist()
    # Units of different lengths (5 6 7, 3 4, 0 1 2) come in turn in the order itself.
    ragged = [Shuffled()(of(3, 2, 3, unit=3, mix=mix), seed=0, epoch=1) for mix in (1, 2, 3)]
    assert [visits.samples.tolist() for visits in ragged] == [
        [5, 6, 7, 3, 4, 0, 1, 2],
        [5, 3, 6, 4, 7, 0, 1, 2],
        [5, 3, 0, 6, 4, 1, 7, 2],
    ]
    assert {(visits.unit, visits.mix) for visits in ragged} == {(1, 1)}


def test_their_repr_says_all_that_decides_them() -> None:
    assert [
        repr(order)
        for order in (
            Sequential(),
            Shuffled(),
            BlockShuffled(5),
            Weighted("w"),
            Weighted([1, 2.5], 3),  # type: ignore[arg-type]
            ClassBalanced("c"),
            EqualShapes(4),
        )
    ] == [
        "Sequential()",
        "Shuffled()",
        "BlockShuffled(window=5)",
        "Weighted(weights='w', samples=None)",
        "Weighted(weights=(1.0, 2.5), samples=3)",
        "ClassBalanced(column='c', samples=None)",
        "EqualShapes(batch_size=4, order=Shuffled())",
    ]


# ---- permutations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_single_samples_are_shuffled_as_one_plain_permutation(count: int) -> None:
    for seed, epoch in ((0, 0), (5, 3)):
        expected = generator("order", seed, epoch).permutation(count).tolist()
        assert Shuffled()(of(*[1] * count), seed=seed, epoch=epoch).samples.tolist() == expected


@given(COUNTS, st.integers(1, 5), st.integers(-5, 5), st.integers(0, 5), st.sampled_from([1, 2, 100]))
@property_test
def test_permutations_keep_every_sample_and_every_unit(
    counts: list[int], unit: int, seed: int, epoch: int, window: int
) -> None:
    layout = of(*counts, unit=unit)
    first = [start + k for start, n in zip(layout.starts.tolist(), counts, strict=False) for k in range(0, n, unit)]
    for order in (Sequential(), Shuffled(), BlockShuffled(window)):
        visits = order(layout, seed=seed, epoch=epoch)
        samples = visits.samples.tolist()
        assert sorted(samples) == list(range(sum(counts)))
        assert visits.draws is None
        assert len(samples) % visits.unit == 0
        assert visits.unit == (unit if all(n % unit == 0 for n in counts) else 1)
        place = {sample: i for i, sample in enumerate(samples)}
        for start in first:  # a unit's samples lie side by side, in their order
            volume = int(layout.volumes(np.array([start]))[0])
            length = min(unit, int(layout.starts[volume + 1]) - start)
            assert [place[start + k] for k in range(length)] == list(range(place[start], place[start] + length))


def test_shuffles_are_uniform(counts: Callable[[int, int], int]) -> None:
    # Where each of 6 samples stands: chi-squared with (6 - 1)^2 = 25 degrees of freedom, 99.9 % quantile 52.6. And all 24 permutations
    # of 4: 23 degrees of freedom, 49.7.
    rounds = counts(3000, 30000)
    for order in (Shuffled(), BlockShuffled(2)):
        seen = np.zeros((6, 6))
        for epoch in range(rounds):
            seen[np.arange(6), order(of(*[1] * 6), seed=1, epoch=epoch).samples] += 1
        assert ((seen - rounds / 6) ** 2 / (rounds / 6)).sum() < 52.6
    orders = Counter(tuple(Shuffled()(of(2, 2), seed=2, epoch=epoch).samples.tolist()) for epoch in range(rounds))
    assert len(orders) == 24
    assert sum((n - rounds / 24) ** 2 / (rounds / 24) for n in orders.values()) < 49.7


def test_seeds_and_epochs_give_other_orders() -> None:
    layout = of(*[3] * 20)
    for order in (Shuffled(), BlockShuffled(4), Weighted((1.0,) * 20), EqualShapes(1)):
        some = layout if not isinstance(order, EqualShapes) else of(*[3] * 20, shapes=np.ones((20, 3), np.int64))
        found = {tuple(order(some, seed=s, epoch=e).samples.tolist()) for s in range(4) for e in range(4)}
        assert len(found) == 16


# ---- windows -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=15), st.integers(1, 6), st.integers(0, 3), st.integers(1, 3))
@property_test
def test_a_window_holds_so_many_volumes_at_a_time(counts: list[int], window: int, epoch: int, unit: int) -> None:
    layout = of(*counts, unit=unit)
    volumes = layout.volumes(BlockShuffled(window)(layout, seed=0, epoch=epoch).samples).tolist()
    seen: list[set[int]] = []
    while volumes:
        part: set[int] = set()
        while volumes and (len(part) < window or volumes[0] in part):
            part.add(volumes.pop(0))
        seen.append(part)
    assert [len(part) for part in seen[:-1]] == [window] * (len(seen) - 1)
    assert sum(len(part) for part in seen) == len(counts)  # none comes back in a later window
    assert set(chain.from_iterable(seen)) == set(range(len(counts)))


def test_mixing_grows_with_the_window() -> None:
    layout = of(*[8] * 64)
    scores = []
    for window in (1, 2, 4, 8, 16, 64):
        order = layout.volumes(BlockShuffled(window)(layout, seed=0, epoch=0).samples)
        scores.append(mixing(order, 16).score)
    assert scores == sorted(scores)
    assert scores[0] == pytest.approx(2 / mixing(layout.volumes(np.arange(512)), 16).shuffled)
    assert scores[-1] == pytest.approx(1, abs=0.03)
    shuffled = layout.volumes(Shuffled()(layout, seed=0, epoch=0).samples)
    assert mixing(shuffled, 16).score == pytest.approx(1, abs=0.03)


# ---- equal shapes --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 4),
    st.sampled_from([Shuffled(), Sequential(), BlockShuffled(2)]),
)
@property_test
def test_batches_of_equal_shape(kinds: list[tuple[int, int]], size: int, epoch: int, order: Order) -> None:
    shapes = np.array([[kind + 1, 4, 4] for kind, _ in kinds])
    layout = of(*[count for _, count in kinds], shapes=shapes)
    visits = EqualShapes(size, order)(layout, seed=0, epoch=epoch)
    assert visits.unit == size
    real = [sample for sample in visits.samples.tolist() if sample != FILLER]
    assert sorted(real) == list(range(len(layout)))
    short: Counter[int] = Counter()
    plain = order(layout, seed=0, epoch=epoch).samples.tolist()
    for batch in visits.samples.reshape(-1, size).tolist():
        samples = [sample for sample in batch if sample != FILLER]
        assert samples
        assert batch == samples + [FILLER] * (size - len(samples))  # fillers at the end
        volumes = layout.volumes(np.array(samples))
        assert len({tuple(shapes[v]) for v in volumes}) == 1
        assert [plain.index(s) for s in samples] == sorted(plain.index(s) for s in samples)
        short[int(shapes[volumes[0], 0])] += len(samples) < size
    assert max(short.values()) <= 1
    last = [max(plain.index(s) for s in b if s != FILLER) for b in visits.samples.reshape(-1, size).tolist()]
    assert last == sorted(last)  # a batch comes when its last sample would


# ---- mixing --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.integers(1, 8))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_mixing_against_brute_force(volumes: list[int], batch_size: int) -> None:
    found = mixing(volumes, batch_size)
    batches = [volumes[i : i + batch_size] for i in range(0, len(volumes), batch_size)]
    distinct = [len(set(batch)) for batch in batches]
    assert found.volumes == pytest.approx(sum(distinct) / len(distinct))
    assert found.fewest == min(distinct)
    every = [len({volumes[i] for i in c}) for c in combinations(range(len(volumes)), min(batch_size, len(volumes)))]
    assert found.shuffled == pytest.approx(sum(every) / len(every))
    assert found.score == pytest.approx(found.volumes / found.shuffled)


# ---- wrong arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: BlockShuffled(0), "window=0 must be a whole number of at least 1"),
        (lambda: BlockShuffled(2.5), "window=2.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: EqualShapes(0), "batch_size=0 must be a whole number of at least 1"),
        (lambda: EqualShapes(2, EqualShapes(3)), "order of EqualShapes is EqualShapes again"),
        (lambda: Weighted("w", 0), "samples=0 must be a whole number of at least 1"),
        (lambda: ClassBalanced("c", -1), "samples=-1 must be a whole number of at least 1"),
        (lambda: Weighted({"sub-01": 1.0}), "weights must be a column of obs_meta, or a number for each volume"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments(make: Callable[[], Order], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (Shuffled, r"order=Shuffled is a class; give an object of it: Shuffled\(\.\.\.\)"),
        ("shuffled", r"order='shuffled' gives no order of samples; give an object such as radioloader.Shuffled\(\)"),
    ],
)
def test_what_is_no_order(order: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_order(order)
    with pytest.raises(ConfigError, match=text):
        EqualShapes(2, order)
    with pytest.raises(ConfigError, match=text):
        KeySampler([0], order=order, seed=0)  # type: ignore[arg-type]
    check_order(None)
    check_order(lambda layout, *, seed, epoch: Shuffled()(layout, seed=seed, epoch=epoch))
