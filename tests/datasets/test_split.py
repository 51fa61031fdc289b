"""Splitting subjects: pure, exact, nobody on two sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


# ---- groups, strata, folds -----------------------------------------------------------------------------------------------


def parts(split: rl.Split) -> list[list[str]]:
    return [split.train, split.val, split.test]


MANY = [f"sub-{number:03d}" for number in range(100)]
DIAGNOSIS = {subject: "a" if number < 30 else "b" if number < 90 else "c" for number, subject in enumerate(MANY)}
FAMILY = {subject: number // 3 for number, subject in enumerate(MANY)}


def test_strata_keep_their_proportions() -> None:
    split = rl.split_subjects(MANY, (0.7, 0.1, 0.2), seed=3, stratify=DIAGNOSIS)
    counts = [[sum(DIAGNOSIS[s] == value for s in part) for value in "abc"] for part in parts(split)]
    assert counts == [[21, 42, 7], [3, 6, 1], [6, 12, 2]]


def test_ages_are_stratified_by_quintile() -> None:
    age = {subject: 20 + 0.5 * number for number, subject in enumerate(MANY)}
    split = rl.split_subjects(MANY, (0.5, 0.25, 0.25), seed=0, stratify=age)
    for part in parts(split):
        of_quintile = np.bincount([int((age[s] - 20) / 10) for s in part], minlength=5)
        assert np.abs(of_quintile - len(part) / 5).max() <= 1


@st.composite
def grouped(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, str], tuple[float, float, float], int]:
    count = draw(st.integers(12, 60))
    groups = {f"s{i}": draw(st.integers(0, 11)) for i in range(count)}
    groups |= {f"g{i}": i for i in range(3)}  # at least three groups
    values = {subject: draw(st.sampled_from("xyz")) for subject in groups}
    weights = draw(st.tuples(*[st.integers(0, 10)] * 3).filter(any))
    return groups, values, tuple(w / sum(weights) for w in weights), draw(st.integers(0, 10**6))  # type: ignore[return-value]


@given(grouped())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_groups_are_never_separated(
    case: tuple[dict[str, int], dict[str, str], tuple[float, float, float], int],
) -> None:
    groups, values, fractions, seed = case
    split = rl.split_subjects(list(groups), fractions, seed=seed, groups=groups, stratify=values)
    assert sorted(s for part in parts(split) for s in part) == sorted(groups)
    owner: dict[int, int] = {}
    for number, part in enumerate(parts(split)):
        assert bool(part) == (fractions[number] > 0)
        for subject in part:
            assert owner.setdefault(groups[subject], number) == number
    # A function of the set of subjects and of seed, not of their order or of what the groups are called.
    renamed = {subject: f"family {value}" for subject, value in groups.items()}
    again = rl.split_subjects(sorted(groups, reverse=True), fractions, seed=seed, groups=renamed, stratify=values)
    assert again == split


def test_groups_of_equal_size_fill_the_fractions() -> None:
    sizes = [len(part) for part in parts(rl.split_subjects(MANY, (0.7, 0.1, 0.2), seed=0, groups=FAMILY))]
    assert np.abs(np.array(sizes) - (70, 10, 20)).max() <= 2
    # No family is tied to a part: large ones are held out about as often as their share says.
    family = {s: "large" if i < 20 else s for i, s in enumerate(MANY)}
    held_out = [MANY[0] in rl.split_subjects(MANY, (0.5, 0.0, 0.5), seed=i, groups=family).test for i in range(40)]
    assert 8 < sum(held_out) < 32


def test_folds_validate_everybody_once() -> None:
    folds = rl.k_folds(MANY, 5, seed=1, groups=FAMILY, stratify=DIAGNOSIS, test=0.2)
    assert len(folds) == 5
    held_out = folds[0].test
    assert abs(len(held_out) - 20) <= 2
    assert all(fold.test == held_out for fold in folds)
    assert sorted(s for fold in folds for s in fold.val) == sorted(set(MANY) - set(held_out))
    for fold in folds:
        assert sorted([*fold.train, *fold.val, *fold.test]) == MANY
        assert abs(len(fold.val) - 16) <= 3
        for a in (fold.train, fold.val, fold.test):
            rest = set(MANY) - set(a)
            assert not {FAMILY[s] for s in a} & {FAMILY[s] for s in rest}
    assert rl.k_folds(MANY[::-1], 5, seed=1, groups=FAMILY, stratify=DIAGNOSIS, test=0.2) == folds
    assert [len(fold.val) for fold in rl.k_folds(IDS, 3, seed=0)] in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: rl.k_folds(IDS, 1, seed=0), "k=1 must be a whole number of folds, at least 2"),
        (lambda: rl.k_folds(IDS, 3, seed=0, test=1.0), "test=1.0 must be a share"),
        (lambda: rl.k_folds(IDS[:2], 3, seed=0), "2 subjects cannot be split into parts"),
        (
            lambda: rl.split_subjects(IDS, (0.4, 0.3, 0.3), seed=0, groups=dict.fromkeys(IDS, 1)),
            r"1 groups of subjects cannot be split into parts of \(0.4, 0.3, 0.3\): every part needs one",
        ),
        (
            lambda: rl.split_subjects(IDS, (0.5, 0.5, 0.0), seed=0, stratify={IDS[0]: "x"}),
            r"stratify has no value for 9 of 10 subjects, such as \['sub-01'",
        ),
        (
            lambda: rl.split_subjects([*IDS, IDS[0]], (0.5, 0.5, 0.0), seed=0, groups=dict.fromkeys(IDS, 1)),
            "1 subjects come more than once",
        ),
        (
            lambda: rl.split_by_column({"a": "train", "b": "dev", "c": None}),
            "2 of 3 subjects have neither 'train', 'val' nor 'test' in the split column, such as 'b' with 'dev'",
        ),
    ],
)
def test_what_cannot_be_split(call: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        call()


def test_a_column_tells_the_split() -> None:
    told = {"d": "Training", "a": "train", "c": "test", "b": "validation"}
    assert rl.split_by_column(told) == rl.Split(["a", "d"], ["b"], ["c"])


# ---- files ---------------------------------------------------------------------------------------------------------------


def test_a_split_is_saved_and_loaded(tmp_path: Path) -> None:
    split = rl.Split(["ä", "b/c"], ["d"], [])
    split.save(tmp_path / "split.json")
    assert rl.Split.load(tmp_path / "split.json") == split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": ["a"], "val": ["a"]}', r"split.json: the split has 1 subjects more than once, such as \['a'\]"),
        ('{"train": ["a"], "valid": []}', r"has the parts \['valid'\]"),
        ('{"train": "abc"}', "'abc' as its part 'train'; expected a list"),
        ("[1]", "holds a list; expected an object"),
        ("{", "is no JSON"),
    ],
)
def test_files_that_are_no_split(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        rl.Split.load(path)
    with pytest.raises(ConfigError, match=r"none.json cannot be read: No such file"):
        rl.Split.load(tmp_path / "none.json")
