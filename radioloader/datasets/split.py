"""Splitting subjects into training, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from radioloader.errors import ConfigError
from radioloader.samplers.random import generator

__all__ = ["Split", "split_subjects"]


@dataclass(frozen=True, slots=True)
class Split:
    """Subjects by purpose; no subject is in two.

    Attributes:
        train: For training.
        val: For validation.
        test: Held out.
    """

    train: list[str]
    val: list[str]
    test: list[str]

    def __post_init__(self) -> None:
        counts = Counter([*self.train, *self.val, *self.test])
        twice = sorted(subject for subject, count in counts.items() if count > 1)
        if twice:
            raise ConfigError(
                f"the split has {len(twice)} subjects more than once, such as {twice[:3]}; every subject belongs to one part"
            )


def split_subjects(subjects: Sequence[str], fractions: Sequence[float], *, seed: int) -> Split:
    """Split subjects at random.

    Args:
        subjects: Ids, in any order: the split depends on the set.
        fractions: Parts of (train, val, test), which add up to 1. A part that is not 0 gets at least one subject.
        seed: Decides the split.

    Raises:
        ConfigError: The fractions are wrong, or there are too few subjects.
    """
    parts = [float(fraction) for fraction in fractions] if isinstance(fractions, Iterable) else []
    if len(parts) != 3 or not min(parts) >= 0 or not abs(sum(parts) - 1) <= 1e-6:  # NaN is refused as well
        raise ConfigError(
            f"split={fractions!r} must be three fractions (train, val, test) of at least 0 that add up to 1"
        )
    ordered = sorted(subjects)
    if len(ordered) < sum(part > 0 for part in parts):
        raise ConfigError(f"{len(ordered)} subjects cannot be split into parts of {tuple(parts)}: every part needs one")
    sizes = [int(part * len(ordered)) for part in parts]
    while sum(sizes) < len(ordered):  # what rounding down left goes to the part that is furthest below its share
        sizes[max(range(3), key=lambda i: parts[i] * len(ordered) - sizes[i])] += 1
    for i in (2, 1, 0):
        if parts[i] > 0 and sizes[i] == 0:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[i] = 1
    shuffled = [ordered[i] for i in generator("split", seed).permutation(len(ordered))]
    train, val = sizes[0], sizes[0] + sizes[1]
    return Split(sorted(shuffled[:train]), sorted(shuffled[train:val]), sorted(shuffled[val:]))
