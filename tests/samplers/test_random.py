"""Streams are keyed by what they decide, the same on every machine."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from radioloader.samplers.random import generator, seed_of


def test_streams_have_these_literal_values() -> None:
    # Written down: an epoch must look the same with every version of this package, numpy and Python.
    assert seed_of("a", 1) == 73802635449438533854961027583817151461
    assert generator("position", 0, 0, "sub-01_T1w", 0).integers(0, 1000, 5).tolist() == [719, 74, 578, 250, 819]


def test_every_part_its_type_and_the_order_count() -> None:
    variants = [
        ("position", 0, 0, "a", 0),
        ("position", 1, 0, "a", 0),
        ("position", 0, 1, "a", 0),
        ("position", 0, 0, "b", 0),
        ("position", 0, 0, "a", 1),
        ("transform", 0, 0, "a", 0),
        ("position", 0, 0, "a"),
        ("position", "0", 0, "a", 0),
        ("position", 0, 0, "a", 0, "axial", 0),
        ("ab", "c"),
        ("a", "bc"),
        ("a", 1),
        (1, "a"),
    ]
    seeds = {variant: seed_of(*variant) for variant in variants}
    assert all(seeds[a] != seeds[b] for a, b in combinations(variants, 2))
    assert all(0 <= seed < 2**128 for seed in seeds.values())


def test_equal_parts_give_equal_streams() -> None:
    assert generator("x", 3).random(8).tolist() == generator("x", 3).random(8).tolist()
    assert generator("x", 3).random(8).tolist() != generator("x", 4).random(8).tolist()


def test_numpys_integers_give_the_streams_of_pythons() -> None:
    # PatchKey(np.int64(2)) == PatchKey(2): a sample is a function of its key.
    for kind in (np.int64, np.uint8, np.int32):
        assert seed_of("a", kind(5)) == seed_of("a", 5)
    assert seed_of("a", -(2**80)) != seed_of("a", 2**80)
