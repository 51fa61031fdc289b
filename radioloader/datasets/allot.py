"""Giving groups of subjects to parts of given shares, with each part's mixture like the whole's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError
from radioloader.samplers.random import generator

__all__ = ["Units", "allot"]

_BINS = 5
_MAX_NUMBERS = 10
_WORK = 30_000
"""About so many units are placed, in one or more attempts."""


@dataclass(frozen=True, slots=True)
class Units:
    """What is given to a part as a whole: groups of subjects.

    Attributes:
        members: The subjects of each unit, sorted; units are sorted by their first.
        strata: (n, s) how many subjects of each stratum a unit has.
        grouped: Whether units may hold several subjects.
    """

    members: list[list[str]]
    strata: npt.NDArray[np.int64]
    grouped: bool

    @classmethod
    def of(
        cls, subjects: Sequence[str], groups: Mapping[str, Any] | None = None, stratify: Mapping[str, Any] | None = None
    ) -> Units:
        """Units of subjects; see :func:`~radioloader.split_subjects`.

        Raises:
            ConfigError: A subject comes twice, or has no value.
        """
        twice = sorted(subject for subject, count in Counter(subjects).items() if count > 1)
        if twice:
            raise ConfigError(
                f"{len(twice)} subjects come more than once, such as {twice[:3]}; every subject belongs to one part"
            )
        ordered = sorted(subjects)
        group = dict(zip(ordered, ordered, strict=True)) if groups is None else _values(ordered, groups, "groups")
        gathered: dict[Any, list[str]] = {}
        for subject in ordered:
            gathered.setdefault(group[subject], []).append(subject)
        members = list(gathered.values())
        stratum = dict.fromkeys(ordered, 0)
        if stratify is not None:
            stratum = _strata(_values(ordered, stratify, "stratify"))
        table = np.zeros((len(members), max(stratum.values(), default=0) + 1), np.int64)
        for number, unit in enumerate(members):
            for subject in unit:
                table[number, stratum[subject]] += 1
        return cls(members, table, groups is not None)


def allot(units: Units, shares: Sequence[float], *, seed: int) -> list[list[str]]:
    """Give each unit to one part, at random.

    Units are placed in a random order, each where the shares of its strata and of the whole are least used up. The best of several
    such attempts is taken; where units are large, shares can only be met as well as they allow.

    Args:
        units: What is placed.
        shares: Share of each part; they add up to 1. Parts of share 0 stay empty, all others get at least one unit.
        seed: Decides.

    Returns:
        The subjects of each part, sorted.

    Raises:
        ConfigError: There are fewer units than parts.
    """
    wanted = [part for part, share in enumerate(shares) if share > 0]
    count = len(units.members)
    if count < len(wanted):
        what = "groups of subjects" if units.grouped else "subjects"
        rounded = tuple(round(float(share), 4) for share in shares)
        raise ConfigError(f"{count} {what} cannot be split into parts of {rounded}: every part needs one")
    share = np.array([shares[part] for part in wanted], np.float64)
    attempts = min(32, max(1, _WORK // max(count, 1)))
    best: tuple[float, npt.NDArray[np.int64]] | None = None
    for attempt in range(attempts):
        order = generator("allot", seed, attempt).permutation(count)
        places = _attempt(units.strata, share, order)
        cost = _cost(units.strata, share, places)
        if best is None or cost < best[0] - 1e-12:
            best = cost, places
    assert best is not None
    parts: list[list[str]] = [[] for _ in shares]
    for members, place in zip(units.members, best[1].tolist(), strict=True):
        parts[wanted[place]] += members
    return [sorted(part) for part in parts]


def _attempt(
    strata: npt.NDArray[np.int64], share: npt.NDArray[np.float64], order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The part of each unit, placed in this order. Where the next one goes is Sainte-Laguë's rule, for each stratum and for all."""
    weight = strata.sum(axis=1)
    target = share[:, None] * np.maximum(strata.sum(axis=0), 1)
    total = share * max(int(weight.sum()), 1)
    have, used = np.zeros_like(target), np.zeros_like(total)
    places = np.empty(len(strata), np.int64)
    for unit in order.tolist():
        row, size = strata[unit], weight[unit]
        of_strata = ((have + row / 2) / target) @ (row / size)
        place = int(np.argmin(of_strata + (used + size / 2) / total))
        have[place] += row
        used[place] += size
        places[unit] = place
    for part in range(len(share)):
        if not (places == part).any():
            # From the part that has most units, its smallest: of those the last one placed.
            donor = int(np.argmax(np.bincount(places, minlength=len(share))))
            candidates = [unit for unit in order.tolist() if places[unit] == donor]
            places[min(reversed(candidates), key=lambda unit: weight[unit])] = part
    return places


def _cost(strata: npt.NDArray[np.int64], share: npt.NDArray[np.float64], places: npt.NDArray[np.int64]) -> float:
    """How far the parts are from their shares: of the whole and, averaged, of the strata."""
    have = np.stack([strata[places == part].sum(axis=0) for part in range(len(share))])
    off = np.abs(have - share[:, None] * strata.sum(axis=0))
    whole = np.abs(have.sum(axis=1) - share * strata.sum())
    return float(whole.sum() + off.sum() / max(1, strata.shape[1]))


def _values(subjects: Sequence[str], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The value of each subject."""
    found = {subject: values.get(subject) for subject in subjects}
    missing = [subject for subject, value in found.items() if value is None or value != value]
    if missing:
        raise ConfigError(
            f"{what} has no value for {len(missing)} of {len(subjects)} subjects, such as {missing[:3]}; "
            "fill it in, or select the subjects that have one"
        )
    return found


def _strata(values: Mapping[str, Any]) -> dict[str, int]:
    """Number of each subject's stratum."""
    distinct = set(values.values())
    if len(distinct) > _MAX_NUMBERS and all(isinstance(v, int | float | np.number) for v in distinct):
        numbers = np.array([float(value) for value in values.values()])
        edges = np.unique(np.quantile(numbers, np.arange(1, _BINS) / _BINS))
        return dict(zip(values, np.searchsorted(edges, numbers, side="right").tolist(), strict=True))
    names = {name: number for number, name in enumerate(sorted({str(value) for value in distinct}))}
    return {subject: names[str(value)] for subject, value in values.items()}
