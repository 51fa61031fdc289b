"""In which order samples come: pure functions of (layout, seed, epoch), the same on every rank.

An order is a small frozen object. ``order(layout, seed=..., epoch=...)`` gives the :class:`Visits` of an epoch; which rank makes
which of them is decided in ``shard.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.random import generator

__all__ = [
    "FILLER",
    "BlockShuffled",
    "ClassBalanced",
    "EqualShapes",
    "Mixing",
    "Order",
    "Sequential",
    "Shuffled",
    "Visits",
    "Weighted",
    "check_order",
    "mixing",
]

FILLER = -1
"""Stands for no sample in an order: a batch that holds it is shorter by one."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """The samples of an epoch in their order. N is their number, fillers included.

    Attributes:
        samples: (N,) int64, numbers of samples, or :data:`FILLER`.
        draws: (N,) int64, which visit of its sample (of its volume, where ``Layout.any_draw``) each one is; None: each comes once.
        unit: So many in a row belong together; divides N.
        mix: A rank that trains takes so many of its units in turn, visit by visit.
    """

    samples: Indices
    draws: Indices | None = None
    unit: int = 1
    mix: int = 1


class Order(Protocol):
    """Chooses the order of samples. ``repr`` says all that decides it: a resumed epoch is compared by it."""

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        """The visits of ``epoch``."""


def check_order(order: Any) -> None:
    """Refuse what is no order; None stands for the one that is usual.

    Raises:
        ConfigError: Not an object that can be called with (layout, seed, epoch).
    """
    if isinstance(order, type):
        raise ConfigError(f"order={order.__name__} is a class; give an object of it: {order.__name__}(...)")
    if order is not None and not callable(order):
        raise ConfigError(f"order={order!r} gives no order of samples; give an object such as radioloader.Shuffled()")


@dataclass(frozen=True, slots=True)
class Sequential:
    """Volume by volume, as the dataset numbers its samples."""

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        return Visits(np.arange(len(layout), dtype=np.int64), unit=_even_unit(layout))


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A uniformly random permutation of the samples, another one for each seed and epoch.

    Samples that are read together (the patches of a region, a block of slices) stay together: what is permuted is these units.
    """

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        units = generator("order", seed, epoch).permutation(len(layout.units[0]))
        return _in_turn(layout, units)


@dataclass(frozen=True, slots=True)
class BlockShuffled:
    """Volumes in random order, in windows; the samples of a window's volumes are shuffled among themselves.

    Only ``window`` volumes are in use at a time, which object stores and cold disks like. :func:`mixing` says what it costs.

    Attributes:
        window: Volumes whose samples are mixed with each other.
    """

    window: int = 32

    def __post_init__(self) -> None:
        as_whole(self.window, "window", minimum=1)

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        random = generator("blocks", seed, epoch)
        place = np.empty(len(layout.counts), np.int64)
        place[random.permutation(len(place))] = np.arange(len(place))
        first, _ = layout.units
        window = place[layout.volumes(first)] // self.window
        units = np.lexsort((random.permutation(len(first)), window))
        return _in_turn(layout, units)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Volumes with replacement, in proportion to weights.

    An epoch visits each volume its expected number of times, rounded up or down at random (systematic resampling): over epochs the
    frequencies are exact, and within one they are off by less than one visit. Repeated visits of a volume are further draws, so
    that their patches differ; of a volume with slices, or with the patches of a grid, each visit takes one at random. Where patches
    are read in groups (:class:`~radioloader.RegionPositions`), groups are what is visited.

    Attributes:
        weights: A column of ``obs_meta`` with numbers, or a number for each volume in the dataset's order.
        samples: Visits in an epoch; None takes the number of the dataset's samples.
    """

    weights: str | tuple[float, ...]
    samples: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.weights, Mapping):
            raise ConfigError(
                "weights must be a column of obs_meta, or a number for each volume in the dataset's order"
            )
        if not isinstance(self.weights, str):
            object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        if self.samples is not None:
            as_whole(self.samples, "samples", minimum=1)

    def of(self, layout: Layout) -> npt.NDArray[np.float64]:
        """(n,) weight of each volume.

        Raises:
            ConfigError: Not one finite weight of at least 0 for each volume, or all are 0.
        """
        if isinstance(self.weights, str):
            values = layout.column(self.weights)
            if values.dtype.kind not in "biuf":
                raise ConfigError(f"weights={self.weights!r}: the column holds {values.dtype}, expected numbers")
        else:
            values = np.array(self.weights)
        if len(values) != len(layout.counts):
            raise ConfigError(f"weights has {len(values)} numbers, but the dataset has {len(layout.counts)} volumes")
        weights = values.astype(np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ConfigError("weights must be finite numbers of at least 0, and not all 0")
        return weights

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        return _resampled(layout, self.of(layout), self.samples, seed=seed, epoch=epoch)


@dataclass(frozen=True, slots=True)
class ClassBalanced:
    """Volumes with replacement, so that each value of a column is equally frequent; see :class:`Weighted`.

    Attributes:
        column: A column of ``obs_meta`` with classes.
        samples: Visits in an epoch; None takes the number of the dataset's samples.
    """

    column: str
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.samples is not None:
            as_whole(self.samples, "samples", minimum=1)

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        _, inverse = np.unique(layout.column(self.column).astype(str), return_inverse=True)
        sizes = np.bincount(inverse, weights=layout.counts > 0)[inverse]
        return _resampled(layout, 1.0 / np.maximum(sizes, 1), self.samples, seed=seed, epoch=epoch)


@dataclass(frozen=True, slots=True)
class EqualShapes:
    """Another order, rearranged so that each batch holds samples of one shape.

    A batch comes when its last sample would. The last batch of each shape may be shorter.

    Attributes:
        batch_size: Samples in a batch; the loader's has to be the same.
        order: The order that is rearranged.
    """

    batch_size: int
    order: Order = Shuffled()

    def __post_init__(self) -> None:
        as_whole(self.batch_size, "batch_size", minimum=1)
        check_order(self.order)
        if isinstance(self.order, EqualShapes):
            raise ConfigError("the order of EqualShapes is EqualShapes again; give it one that does not make batches")

    def __call__(self, layout: Layout, *, seed: int, epoch: int) -> Visits:
        visits = self.order(layout, seed=seed, epoch=epoch)
        size = self.batch_size
        _, shape = np.unique(layout.shapes[layout.volumes(visits.samples)], axis=0, return_inverse=True)
        by_shape = np.argsort(shape.ravel(), kind="stable")
        counts = np.bincount(shape.ravel())
        batches = -(-counts // size)
        slots = np.full(int(batches.sum()) * size, FILLER, np.int64)
        number = np.arange(len(by_shape)) - np.repeat(np.cumsum(counts) - counts, counts)
        slots[np.repeat((np.cumsum(batches) - batches) * size, counts) + number] = by_shape
        rows = slots.reshape(-1, size)
        place = rows[np.argsort(rows.max(axis=1), kind="stable")].ravel()
        real = place >= 0
        draws = None if visits.draws is None else np.where(real, visits.draws[place], 0)
        return Visits(np.where(real, visits.samples[place], FILLER), draws, size)


def _even_unit(layout: Layout) -> int:
    """The unit, where all units have that length."""
    return layout.unit if bool((layout.counts % layout.unit == 0).all()) else 1


def _expand(layout: Layout, units: Indices) -> Indices:
    """The samples of units, in the order of the units."""
    if layout.unit == 1:
        return units.astype(np.int64, copy=False)
    first, length = (part[units] for part in layout.units)
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return np.repeat(first, length) + within


def _in_turn(layout: Layout, units: Indices) -> Visits:
    """The samples of units, ``layout.mix`` units in turn. Where all units have one length that is left to each rank, which so mixes as
    many, however many ranks there are."""
    samples, unit = _expand(layout, units), _even_unit(layout)
    if unit > 1 or layout.mix == 1 or layout.unit == 1:
        return Visits(samples, unit=unit, mix=layout.mix if unit > 1 else 1)
    length = layout.units[1][units]
    number = np.repeat(np.arange(len(units)), length)
    within = np.arange(len(samples)) - np.repeat(np.cumsum(length) - length, length)
    return Visits(samples[_turns(number, within, layout.mix)])


def _turns(number: Indices, within: Indices, mix: int) -> Indices:
    """The order in which samples come that are number ``within`` of unit ``number``, when ``mix`` units are taken in turn."""
    return np.lexsort((number, within, number // mix))


def _resampled(
    layout: Layout, weights: npt.NDArray[np.float64], samples: int | None, *, seed: int, epoch: int
) -> Visits:
    count = len(layout) if samples is None else samples
    # Draws of one volume that are read together stay together: groups are what is visited.
    unit = layout.unit if layout.any_draw else 1
    groups = -(-count // unit)
    weights = np.where(layout.counts > 0, weights, 0.0)  # a volume without samples cannot be visited
    if not weights.any():
        raise ConfigError("the weights are 0 for all volumes that have samples")
    random = generator("weighted", seed, epoch)
    # One random offset, then steps of one: Kitagawa 1996, systematic resampling. Volumes in random order, so that which of two
    # neighbours is rounded up is not tied to their places.
    turn = random.permutation(len(weights))
    edges = np.cumsum(weights[turn]) / weights.sum() * groups
    edges[-1] = groups
    volumes = turn[np.searchsorted(edges, np.arange(groups) + random.random(), side="right").clip(max=len(turn) - 1)]
    volumes = np.repeat(volumes[random.permutation(groups)], unit)[:count]
    if layout.any_draw:
        draws = _visit_numbers(volumes)
        if count % unit == 0:
            return Visits(layout.starts[volumes], draws, unit, layout.mix)
        turn = _turns(np.arange(count) // unit, np.arange(count) % unit, layout.mix)
        return Visits(layout.starts[volumes][turn], draws[turn])
    chosen = layout.starts[volumes] + random.integers(0, layout.counts[volumes])
    return Visits(chosen, _visit_numbers(chosen))  # one by one: there is nothing to mix


def _visit_numbers(values: Indices) -> Indices:
    """How often each value occurred before."""
    by_value = np.argsort(values, kind="stable")
    counts = np.unique(values, return_counts=True)[1]
    numbers = np.empty(len(values), np.int64)
    numbers[by_value] = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers


@dataclass(frozen=True, slots=True)
class Mixing:
    """How well an order mixes volumes within batches.

    Attributes:
        volumes: Distinct volumes in a batch, on average.
        fewest: In the batch that has fewest.
        shuffled: Distinct volumes that a batch of a uniform shuffle is expected to have.
        score: ``volumes / shuffled``; about 1 for a uniform shuffle, 1 / min(batch size, volumes) where batches hold one volume each.
    """

    volumes: float
    fewest: int
    shuffled: float
    score: float


def mixing(volumes: Sequence[int] | npt.NDArray[Any], batch_size: int) -> Mixing:
    """The mixing of an order.

    Args:
        volumes: (N,) the volume of each sample, in the order.
        batch_size: Samples in a batch.
    """
    order = np.asarray(volumes)
    distinct = [len(np.unique(order[i : i + batch_size])) for i in range(0, len(order), batch_size)]
    counts = np.unique(order, return_counts=True)[1]
    size = min(batch_size, len(order))
    left = np.arange(size)
    # Probability that none of a batch's samples, drawn without replacement, is of a volume that has ``count`` of N.
    none = np.array([np.prod(np.maximum(len(order) - count - left, 0) / (len(order) - left)) for count in counts])
    expected = float((1 - none).sum())
    mean = float(np.mean(distinct))
    return Mixing(mean, min(distinct), expected, mean / expected)
