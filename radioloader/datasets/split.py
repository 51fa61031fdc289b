"""Splitting subjects into training, validation and test."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radioloader.datasets.allot import Units, allot
from radioloader.errors import ConfigError
from radioloader.samplers.random import generator

__all__ = ["PARTS", "Split", "k_folds", "read_json", "split_by_column", "split_subjects"]

PARTS = ("train", "val", "test")
"""Names of the parts of a split."""

_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


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

    @classmethod
    def of(cls, parts: Mapping[str, Iterable[str]]) -> Split:
        """The split of a mapping with the keys ``train``, ``val`` and ``test``; those left out are empty.

        Raises:
            ConfigError: It has other keys, a part is no list, or a subject is in two parts.
        """
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise ConfigError(f"split has the parts {unknown}; expected 'train', 'val' and 'test'")
        for name, part in parts.items():
            if isinstance(part, str) or not isinstance(part, Iterable):
                raise ConfigError(f"split has {part!r} as its part {name!r}; expected a list of subjects")
        return cls(*[[str(subject) for subject in parts.get(name, ())] for name in PARTS])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the subjects as JSON. :class:`~radioloader.SplitManifest` writes what they were made of as well."""
        Path(path).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """The split in a JSON file: of :meth:`save`, of a manifest, or written by hand with ``train``, ``val`` and ``test``.

        Subjects are not compared with a store; :meth:`SplitManifest.check <radioloader.SplitManifest.check>` does that.

        Raises:
            ConfigError: The file is no split, or a subject is in two parts.
        """
        found = read_json(path)
        parts = found if not isinstance(found.get("split"), Mapping) else found["split"]
        try:
            return cls.of(parts)
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(path)}: {error}") from None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ConfigError: There is no such file, or something else is in it.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the split {os.fspath(path)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"the split {os.fspath(path)} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"the split {os.fspath(path)} holds a {type(found).__name__}; expected an object with 'train', 'val' and 'test'"
        )
    return found


def split_subjects(
    subjects: Sequence[str],
    fractions: Sequence[float],
    *,
    seed: int,
    groups: Mapping[str, Any] | None = None,
    stratify: Mapping[str, Any] | None = None,
) -> Split:
    """Split subjects at random.

    Args:
        subjects: Ids, in any order: the split depends on the set.
        fractions: Parts of (train, val, test), which add up to 1. A part that is not 0 gets at least one subject.
        seed: Decides the split.
        groups: Value by subject, such as family, site or patient; subjects of one value are never separated.
        stratify: Value by subject, such as diagnosis or sex; every part gets about its share of each value. Numbers with more than 10
            values, such as ages, count by quintile.

    Raises:
        ConfigError: The fractions are wrong, there are too few subjects or groups, or a subject has no value.
    """
    parts = [float(fraction) for fraction in fractions] if isinstance(fractions, Iterable) else []
    if len(parts) != 3 or not min(parts) >= 0 or not abs(sum(parts) - 1) <= 1e-6:  # NaN is refused as well
        raise ConfigError(
            f"split={fractions!r} must be three fractions (train, val, test) of at least 0 that add up to 1"
        )
    ordered = sorted(subjects)
    if len(ordered) < sum(part > 0 for part in parts):
        raise ConfigError(f"{len(ordered)} subjects cannot be split into parts of {tuple(parts)}: every part needs one")
    if groups is not None or stratify is not None:
        return Split(*allot(Units.of(ordered, groups, stratify), parts, seed=seed))
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


def k_folds(
    subjects: Sequence[str],
    k: int,
    *,
    seed: int,
    groups: Mapping[str, Any] | None = None,
    stratify: Mapping[str, Any] | None = None,
    test: float = 0.0,
) -> list[Split]:
    """Splits for cross-validation: each subject is validated in exactly one of the k.

    Args:
        subjects: Ids, in any order: the splits depend on the set.
        k: Number of folds, at least 2.
        seed: Decides the splits.
        groups: As in :func:`split_subjects`.
        stratify: As in :func:`split_subjects`.
        test: Share of the subjects that is held out, the same in all k splits.

    Returns:
        k splits; the validation subjects of number i are fold i.

    Raises:
        ConfigError: The numbers are wrong, there are too few subjects or groups, or a subject has no value.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise ConfigError(f"k={k!r} must be a whole number of folds, at least 2")
    if not 0 <= test < 1:
        raise ConfigError(f"test={test!r} must be a share of at least 0 and below 1")
    rest, held_out = sorted(subjects), []
    if test:
        rest, held_out = allot(Units.of(rest, groups, stratify), [1 - test, test], seed=seed)
    folds = allot(Units.of(rest, groups, stratify), [1 / k] * k, seed=seed)
    return [
        Split(sorted(s for j, fold in enumerate(folds) if j != i for s in fold), folds[i], list(held_out))
        for i in range(k)
    ]


def split_by_column(values: Mapping[str, Any]) -> Split:
    """The split that a column of ``obs_meta`` tells.

    Args:
        values: ``train``, ``val`` or ``test`` by subject; ``training``, ``valid`` and ``validation`` are understood, in any case.

    Raises:
        ConfigError: A subject has another value, or none.
    """
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    odd = {subject: value for subject, value in values.items() if str(value).strip().lower() not in _WORDS}
    if odd:
        subject, value = min(odd.items(), key=lambda item: str(item[0]))
        raise ConfigError(
            f"{len(odd)} of {len(values)} subjects have neither 'train', 'val' nor 'test' in the split column, such as {subject!r} with "
            f"{value!r}; set it, or select the subjects that have it"
        )
    for subject, value in values.items():
        parts[_WORDS[str(value).strip().lower()]].append(str(subject))
    return Split(*[sorted(parts[name]) for name in PARTS])
