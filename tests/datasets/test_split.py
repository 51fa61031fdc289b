"""Splitting subjects: pure, exact, nobody on two sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import ConfigError

IDS = [f"sub-{number:02d}" for number in range(10)]


def test_literal_split() -> None:
    assert rl.split_subjects(IDS, (0.6, 0.2, 0.2), seed=0) == rl.Split(
        train=["sub-00", "sub-03", "sub-05", "sub-06", "sub-08", "sub-09"],
        val=["sub-01", "sub-02"],
        test=["sub-04", "sub-07"],
    )


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[str], tuple[float, float, float], int]:
    weights = draw(st.tuples(*[st.integers(0, 10)] * 3).filter(any))
    fractions = tuple(weight / sum(weights) for weight in weights)
    subjects = draw(st.lists(st.text(max_size=4), min_size=3, max_size=40, unique=True))
    return subjects, fractions, draw(st.integers(0, 10**9))  # type: ignore[return-value]


@given(splits())
@settings(deadline=None, derandomize=True, max_examples=80)
def test_every_subject_is_on_one_side_and_sizes_are_the_fractions(
    case: tuple[list[str], tuple[float, float, float], int],
) -> None:
    subjects, fractions, seed = case
    split = rl.split_subjects(subjects, fractions, seed=seed)
    parts = [split.train, split.val, split.test]
    assert sorted(subject for part in parts for subject in part) == sorted(subjects)
    assert all(part == sorted(part) for part in parts)
    for part, fraction in zip(parts, fractions, strict=True):
        assert bool(part) == (fraction > 0)
        assert abs(len(part) - fraction * len(subjects)) < 2
    # A function of the set of subjects, not of their order.
    turned = list(np.random.default_rng(seed).permutation(np.array(subjects, object)))
    assert rl.split_subjects(turned, fractions, seed=seed) == split


def test_seeds_give_different_splits_and_all_subjects_take_turns() -> None:
    held_out = {tuple(rl.split_subjects(IDS, (0.8, 0.0, 0.2), seed=seed).test) for seed in range(100)}
    assert len(held_out) > 30
    assert {subject for part in held_out for subject in part} == set(IDS)


def test_a_part_that_is_not_0_gets_somebody() -> None:
    split = rl.split_subjects(IDS, (0.98, 0.01, 0.01), seed=0)
    assert [len(split.train), len(split.val), len(split.test)] == [8, 1, 1]
    split = rl.split_subjects(IDS[:2], (0.5, 0.0, 0.5), seed=0)
    assert [len(split.train), len(split.val), len(split.test)] == [1, 0, 1]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.6, 0.2), (1.2, -0.2, 0.0), (0.3, 0.3, 0.3), (), (float("nan"), 0.5, 0.5)]
)
def test_wrong_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(
        ConfigError, match=r"split=.* must be three fractions \(train, val, test\) of at least 0 that add up to 1"
    ):
        rl.split_subjects(IDS, fractions, seed=0)


def test_too_few_subjects() -> None:
    with pytest.raises(
        ConfigError, match=r"2 subjects cannot be split into parts of \(0.8, 0.1, 0.1\): every part needs one"
    ):
        rl.split_subjects(IDS[:2], (0.8, 0.1, 0.1), seed=0)


def test_a_subject_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the split has 1 subjects more than once, such as \['b'\]"):
        rl.Split(["a", "b"], ["b"], [])
    with pytest.raises(ConfigError, match="more than once"):
        rl.split_subjects(["a", "b", "b", "c"], (0.5, 0.0, 0.5), seed=0)
