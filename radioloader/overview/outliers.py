"""Volumes that are not like the others of their collection, each with the reason in words. Reads the catalog's facts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.overview.facts import AXES, CollectionFacts, class_names
from radioloader.overview.wording import count, figure

__all__ = ["FAR", "RULES", "find_outliers", "robust_z"]

ENOUGH = 5
"""Volumes that a collection must have before any of them is compared with the others."""
MAJORITY = 0.8
"""Share of the volumes that must agree before the rest is odd."""
FAR = 5.0
"""Robust z from which on a number is far away: 5 of a normal distribution's standard deviations."""
_SPACING_FLOOR, _EXTENT_FLOOR, _VOLUME_FLOOR = 0.05, 0.1, 0.15
"""Of logarithms, the least spread that is assumed: where all are equal, each small difference would be infinitely far."""
_INTENSITY_FLOOR = 0.1
"""Of the median of the volumes' own standard deviations, for means and standard deviations."""

RULES = (
    "NaN or infinite voxels; one value in all voxels of an image; a DICOM geometry that is not regular, or was changed: always.",
    f"Orientation, dtype, number of axes, an empty label: where at least {MAJORITY:.0%} of at least {ENOUGH} volumes agree on another one "
    f"(an empty label also among fewer than {ENOUGH}).",
    f"A class that is missing: where at least {MAJORITY:.0%} of at least {ENOUGH} volumes have it.",
    f"Spacing, extent in mm, volume of a class, mean and standard deviation of the voxels: a robust z of more than {FAR:g}, among at least "
    f"{ENOUGH} volumes. Robust z is the distance from the median, divided by 1.4826 times the median absolute deviation; lengths and "
    f"volumes are compared as logarithms. The divisor is at least {_SPACING_FLOOR:g} for spacings, {_EXTENT_FLOOR:g} for extents, "
    f"{_VOLUME_FLOOR:g} for volumes (5 times that is a factor of {np.exp(FAR * _SPACING_FLOOR):.2g}, {np.exp(FAR * _EXTENT_FLOOR):.2g} and "
    f"{np.exp(FAR * _VOLUME_FLOOR):.2g}), and {_INTENSITY_FLOOR:g} of the median standard deviation of a volume's voxels for intensities. "
    f"For volumes of a class of n voxels (median) it is the root of {_VOLUME_FLOOR:g} squared plus 1/n, as a few voxels more or less "
    "are nothing odd.",
    "Spacing, extent and orientation of a label on the grid of an image are the image's, and are judged there; other labels are "
    "compared among themselves.",
)
"""The rules in words, for the page."""

Floats = npt.NDArray[np.float64]
Found = Iterator[tuple[int, str]]


def robust_z(values: Floats, floor: float) -> tuple[float, Floats]:
    """The median of the finite ``values`` (n,), and how far each lies from it in robust standard deviations (n,).

    Args:
        values: Numbers; those that are not finite get NaN.
        floor: The least spread that is assumed.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), np.full(len(values), np.nan)
    # Distances of the largest numbers there are may be infinite, and are far then.
    with np.errstate(over="ignore", invalid="ignore"):
        median = float(np.median(finite))
        spread = max(1.4826 * float(np.median(np.abs(finite - median))), floor)
        return median, np.where(np.isfinite(values), (values - median) / spread, np.nan)


def find_outliers(facts: CollectionFacts, on_image: Collection[int] = ()) -> dict[int, list[str]]:
    """Reasons why volumes are odd, by place in ``facts``; places that are not in it are as the others are.

    Args:
        facts: The collection.
        on_image: Places of labels that lie on an image's grid. The image is judged already: their spacing, extent and orientation are not,
            nor do those of other labels count beside them, as a collection may hold labels of CT and of PET.
    """
    own = np.array([place not in on_image for place in range(len(facts))], np.bool_)
    found: dict[int, list[str]] = {}
    rules: list[Callable[[], Found]] = [
        lambda: _damaged(facts),
        lambda: _geometry(facts),
        lambda: _orientation(facts, own),
        lambda: _minority(facts),
        lambda: _lengths(facts, own),
        lambda: _intensities(facts),
        lambda: _classes(facts),
    ]
    for rule in rules:
        for place, reason in rule():
            found.setdefault(place, []).append(reason)
    return dict(sorted(found.items()))


def _damaged(facts: CollectionFacts) -> Found:
    for place in np.flatnonzero(facts.nonfinite).tolist():
        yield place, f"{count(int(facts.nonfinite[place]), 'voxel')} NaN or infinite"
    if facts.kind == "image":
        for place in np.flatnonzero(facts.low == facts.high).tolist():
            yield place, f"constant image: every voxel is {figure(facts.low[place])}"


def _geometry(facts: CollectionFacts) -> Found:
    for place, verdict in enumerate(facts.verdicts):
        if verdict is not None and verdict.odd:
            yield place, f"geometry {verdict.describe()}"


def _orientation(facts: CollectionFacts, own: npt.NDArray[np.bool_]) -> Found:
    places = np.flatnonzero(own)
    for place, value, usual, number in _odd_ones(facts.axcodes[own]):
        yield int(places[place]), f"orientation {value}, {number} of {len(places)} are {usual}"


def _minority(facts: CollectionFacts) -> Found:
    axes = np.where(facts.index.shapes[:, 3] > 0, "4D", "3D")
    columns: list[tuple[str, npt.NDArray[Any]]] = [("dtype ", facts.dtypes), ("", axes)]
    for what, column in columns:
        for place, value, usual, number in _odd_ones(column):
            yield place, f"{what}{value}, {number} of {len(facts)} are {usual}"
    if facts.kind == "label":
        empty = np.flatnonzero(facts.nonzero == 0)
        if len(empty) <= (1 - MAJORITY) * len(facts) or len(facts) < ENOUGH:
            for place in empty.tolist():
                yield place, f"empty label, {len(facts) - len(empty)} of {len(facts)} are not"


def _odd_ones(values: npt.NDArray[Any]) -> Iterator[tuple[int, str, str, int]]:
    """Place and value of what differs from the majority, and that one's value and number."""
    if len(values) < ENOUGH:
        return
    usual, number = Counter(values.tolist()).most_common(1)[0]
    if number < MAJORITY * len(values):
        return
    for place in np.flatnonzero(values != usual).tolist():
        yield place, str(values[place]), str(usual), number


def _lengths(facts: CollectionFacts, own: npt.NDArray[np.bool_]) -> Found:
    for axis, name in enumerate(AXES):
        for what, column, floor in (
            ("spacing", facts.anatomical_spacings, _SPACING_FLOOR),
            ("extent", facts.extents, _EXTENT_FLOOR),
        ):
            for place, _, median in _far(np.where(own, column[:, axis], np.nan), floor, logarithm=True):
                yield place, f"{what} {name} {figure(column[place, axis])} mm, median {figure(median)} mm"


def _intensities(facts: CollectionFacts) -> Found:
    if facts.kind != "image":
        return
    spread = facts.std[np.isfinite(facts.std)]
    floor = _INTENSITY_FLOOR * float(np.median(spread)) if spread.size else 0.0
    for what, column in (("mean", facts.mean), ("standard deviation", facts.std)):
        for place, z, median in _far(column, floor, logarithm=False):
            yield place, f"{what} {figure(column[place])}, median of all {figure(median)} (robust z {_z(z)})"


def _classes(facts: CollectionFacts) -> Found:
    names = class_names(facts)
    for value in facts.class_values:
        ml = facts.class_ml(value)
        there = ml > 0
        known = int(np.isfinite(ml).sum())
        if known >= ENOUGH and there.sum() >= MAJORITY * known:
            for place in np.flatnonzero((ml == 0) & (facts.nonzero > 0)).tolist():
                yield place, f"class {names[value]} is missing, {int(there.sum())} of {known} have it"
        if not there.any():
            continue
        # Of n voxels, chance and the outline move about the square root.
        floor = float(np.hypot(_VOLUME_FLOOR, 1 / np.sqrt(np.median(facts.class_voxels(value)[there]))))
        for place, z, median in _far(np.where(there, ml, np.nan), floor, logarithm=True):
            yield place, f"class {names[value]} {figure(ml[place])} ml, median {figure(median)} ml (robust z {_z(z)})"


def _z(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e4 else figure(value)


def _far(values: Floats, floor: float, *, logarithm: bool) -> Iterator[tuple[int, float, float]]:
    """Place and robust z of values that are far away, with the median."""
    if np.isfinite(values).sum() < ENOUGH:
        return
    _, z = robust_z(np.log(values) if logarithm else values, max(floor, 1e-300))
    with np.errstate(over="ignore"):
        median = float(np.median(values[np.isfinite(values)]))
    for place in np.flatnonzero(np.abs(z) > FAR).tolist():
        yield place, float(z[place]), median
