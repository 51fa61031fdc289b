"""Which visits go to which rank, and which are left of an epoch that was begun: pure functions of the order and the world.

Positions are places in the order, so that a visit that comes twice (weighted sampling) is two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["evaluation_shard", "remaining", "training_shard"]

Indices = npt.NDArray[np.int64]


def training_shard(
    volumes: npt.NDArray[Any], *, rank: int, world_size: int, drop_last: bool = False, unit: int = 1, mix: int = 1
) -> Indices:
    """The rank's part of an order, equally long on every rank.

    Ranks own volumes: the visits are cut into equal parts volume by volume, so that neighbouring ranks share at most the one volume
    that a cut goes through. Each rank then makes its visits in the order.

    Args:
        volumes: (N,) the volume of each visit, in the order; the same on every rank.
        rank: This rank.
        world_size: Number of ranks.
        drop_last: Drop the order's tail instead of repeating its head to make the parts equal.
        unit: So many visits in a row stay together; divides N.
        mix: So many units are visited in turn, visit by visit.

    Returns:
        (k,) int64 positions in the order; with ``mix=1`` ascending but for repeated ones, which come last.
    """
    return _within(_training_units(volumes[::unit], world_size, drop_last, [rank])[0], unit, mix)


def _training_units(owners: npt.NDArray[Any], world_size: int, drop_last: bool, ranks: Sequence[int]) -> list[Indices]:
    count = len(owners)
    if drop_last:
        total = count - count % world_size
    else:
        total = -(-count // world_size) * world_size
    extended = np.arange(total) % max(count, 1)
    if world_size == 1:
        return [extended for _ in ranks]
    by_volume = np.argsort(_turns(owners[extended]), kind="stable")
    each = total // world_size
    return [extended[np.sort(by_volume[rank * each : (rank + 1) * each])] for rank in ranks]


def evaluation_shard(volumes: npt.NDArray[Any], *, rank: int, world_size: int, unit: int = 1) -> Indices:
    """The rank's part of an order; every volume, with all its visits, on exactly one rank.

    Volumes are dealt in the order of their first visit, so that parts differ by at most one volume.
    """
    return _within(_evaluation_units(volumes[::unit], world_size, [rank])[0], unit)


def _evaluation_units(owners: npt.NDArray[Any], world_size: int, ranks: Sequence[int]) -> list[Indices]:
    if world_size == 1:
        return [np.arange(len(owners), dtype=np.int64) for _ in ranks]
    dealt = _turns(owners) % world_size
    return [np.flatnonzero(dealt == rank) for rank in ranks]


def _turns(owners: npt.NDArray[Any]) -> Indices:
    """The volume of each visit, numbered by first visits."""
    _, first, inverse = np.unique(owners, return_index=True, return_inverse=True)
    turns: Indices = np.argsort(np.argsort(first))[inverse]
    return turns


def _within(units: Indices, unit: int, mix: int = 1) -> Indices:
    """The visits of units, ``mix`` units in turn."""
    visits = units[:, None] * unit + np.arange(unit)
    whole = len(units) // mix * mix
    turns = visits[:whole].reshape(-1, mix, unit).swapaxes(1, 2)
    return np.concatenate([turns.ravel(), visits[whole:].T.ravel()])


def remaining(
    volumes: npt.NDArray[Any],
    done: Iterable[tuple[int, int]],
    *,
    training: bool = True,
    drop_last: bool = False,
    unit: int = 1,
    mix: int = 1,
) -> tuple[Indices, int]:
    """What is left of an order after parts of it were done, perhaps by other numbers of ranks.

    Args:
        volumes: (N,) the volume of each visit, in the order.
        done: (world size, visits of each rank), one after the other.
        training: Which kind of shard the ranks had.
        drop_last: As it was.
        unit: As it was.
        mix: As it was.

    Returns:
        Positions in the order that nobody visited, and the unit in which they still stay together.
    """
    left = np.arange(len(volumes), dtype=np.int64)
    for world_size, visits in done:
        seen = np.zeros(len(left), np.bool_)
        owners, everyone = volumes[left][::unit], range(world_size)
        if training:
            parts = _training_units(owners, world_size, drop_last, everyone)
        else:
            parts = _evaluation_units(owners, world_size, everyone)
        for part in parts:
            seen[_within(part, unit, mix)[:visits]] = True
        begun = seen.reshape(-1, unit)
        if (begun.any(axis=1) != begun.all(axis=1)).any():  # units of which a part is left
            unit = mix = 1
        left = left[~seen]
    return left, unit
