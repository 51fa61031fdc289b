"""Orders that visit some volumes more often than others: how often, and what weights are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.order import ClassBalanced, Order, Weighted


def of(*counts: int, **arguments: Any) -> Layout:
    return Layout(np.array(counts, np.int64), **arguments)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.5, 7.0]), min_size=1, max_size=12).filter(any),
    st.integers(1, 60),
    st.integers(0, 20),
    st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_weighted_counts_are_the_expectation_rounded_up_or_down(
    weights: list[float], samples: int, epoch: int, any_draw: bool
) -> None:
    layout = of(*[3] * len(weights), any_draw=any_draw)
    visits = Weighted(tuple(weights), samples)(layout, seed=0, epoch=epoch)
    assert len(visits.samples) == samples
    volumes = layout.volumes(visits.samples)
    expected = np.array(weights) / sum(weights) * samples
    found = np.bincount(volumes, minlength=len(weights))
    assert (np.abs(found - expected) < 1 + 1e-9).all()
    assert (found[expected == 0] == 0).all()
    assert visits.draws is not None
    pairs = list(zip(visits.samples.tolist(), visits.draws.tolist(), strict=True))
    assert len(set(pairs)) == samples
    for sample, count in Counter(visits.samples.tolist()).items():  # numbered as they come
        assert [draw for s, draw in pairs if s == sample] == list(range(count))
    if any_draw:
        assert set(visits.samples.tolist()) <= set(layout.starts[:-1].tolist())


def test_weighted_frequencies_are_exact_on_average(counts: Callable[[int, int], int]) -> None:
    weights, rounds = (0.3, 1.0, 2.7, 0.0, 5.0), counts(2000, 20000)
    layout = of(*[1] * 5)
    found = np.zeros(5)
    for epoch in range(rounds):
        found += np.bincount(Weighted(weights, 7)(layout, seed=0, epoch=epoch).samples, minlength=5)
    # A count is a floor plus a Bernoulli: a standard deviation of at most 0.5 an epoch.
    assert (np.abs(found / rounds - np.array(weights) / 9 * 7) < 4 * 0.5 / np.sqrt(rounds)).all()


def test_slices_of_a_weighted_volume_are_equally_likely(counts: Callable[[int, int], int]) -> None:
    rounds = counts(600, 6000)
    layout = of(5, 3, any_draw=False)
    found = np.zeros(8)
    for epoch in range(rounds):
        found += np.bincount(Weighted((1, 3), 8)(layout, seed=0, epoch=epoch).samples, minlength=8)
    expected = np.array([2 / 5] * 5 + [6 / 3] * 3) * rounds
    assert ((found - expected) ** 2 / expected).sum() < 24.3  # chi-squared, 99.9 % at 7 degrees of freedom


@pytest.mark.parametrize("order", [Weighted((1, 1, 1), 12), ClassBalanced("class", 12)])
def test_volumes_without_samples_are_not_visited(order: Order) -> None:
    # Such as volumes of which skip_empty left no slice: the first, one in the middle, or the last.
    for counts in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        layout = of(*counts, any_draw=False, column=lambda _: np.array(["a", "b", "b"]))
        visits = order(layout, seed=0, epoch=0)
        assert visits.samples.max() < 5
        found = np.bincount(layout.volumes(visits.samples), minlength=3)
        assert found[np.array(counts) == 0] == 0
        assert sorted(found.tolist()) == [0, 6, 6]


def test_classes_are_balanced() -> None:
    classes = np.array(["a"] * 7 + ["b"] * 2 + ["c"])
    layout = of(*[2] * 10, column=lambda name: {"diagnosis": classes}[name])
    total = np.zeros(10)
    for epoch in range(50):
        found = np.bincount(layout.volumes(ClassBalanced("diagnosis", 24)(layout, seed=0, epoch=epoch).samples))
        total += found
        assert (np.abs(found - 8 / np.array([7] * 7 + [2] * 2 + [1])) < 1 + 1e-9).all()
    assert np.allclose([total[classes == name].sum() / 50 for name in "abc"], 8, atol=0.6)
    numbers = of(*[1] * 4, column=lambda _: np.array([1, 1, 2, 2]))
    assert len(ClassBalanced("n")(numbers, seed=0, epoch=0).samples) == 4  # as many as the dataset has


def test_weighted_visits_come_in_turn() -> None:
    visits = Weighted((1, 2, 1), samples=8)(of(4, 4, 4, unit=2, mix=2), seed=0, epoch=0)
    assert (visits.unit, visits.mix) == (2, 2)
    visits = Weighted((1, 2, 1), samples=7)(of(4, 4, 4, unit=2, mix=2), seed=0, epoch=0)
    assert visits.samples.tolist() == [4, 0, 4, 0, 4, 8, 4]
    assert visits.draws is not None
    assert visits.draws.tolist() == [0, 0, 1, 1, 2, 0, 3]
    assert (visits.unit, visits.mix) == (1, 1)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ((1.0, 2.0), "weights has 2 numbers, but the dataset has 7 volumes"),
        ((0.0,) * 7, "weights must be finite numbers of at least 0, and not all 0"),
        ((1.0,) * 6 + (-1.0,), "weights must be finite numbers of at least 0"),
        ((1.0,) * 6 + (float("nan"),), "weights must be finite numbers"),
        ((1.0,) * 6 + (float("inf"),), "weights must be finite numbers"),
        ("n", "weights='n': the column holds <U1, expected numbers"),
    ],
)
def test_weights_that_do_not_fit(weights: Any, text: str) -> None:
    layout = of(*[1] * 7, column={"n": np.array(list("abcdefg"))}.__getitem__)
    with pytest.raises(ConfigError, match=text):
        Weighted(weights)(layout, seed=0, epoch=0)


def test_weights_that_only_empty_volumes_have() -> None:
    with pytest.raises(ConfigError, match="weights are 0 for all volumes that have samples"):
        Weighted((1, 0))(of(0, 4, any_draw=False), seed=0, epoch=0)


def test_weighted_visits_keep_groups_of_draws_together() -> None:
    layout = Layout(np.array([8, 8, 8]), unit=4)
    for epoch in range(5):
        visits = Weighted((3.0, 1.0, 2.0))(layout, seed=1, epoch=epoch)
        assert visits.unit == 4
        volumes = layout.volumes(visits.samples).reshape(-1, 4)
        draws = visits.draws
        assert draws is not None
        assert (volumes == volumes[:, :1]).all()
        # Each group is one group of draws: 0-3, 4-7, ...
        assert (draws.reshape(-1, 4) == draws[::4, None] + np.arange(4)).all()
        assert (draws[::4] % 4 == 0).all()
        assert np.bincount(volumes[:, 0], minlength=3).tolist() == [3, 1, 2]
    assert Weighted((1.0, 1.0, 1.0), samples=10)(layout, seed=1, epoch=0).unit == 1
