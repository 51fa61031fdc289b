"""Which samples go to which rank: pure functions of (order, rank, world size)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["evaluation_shard", "training_shard"]


def training_shard(order: npt.NDArray[Any], *, rank: int, world_size: int, drop_last: bool = False) -> npt.NDArray[Any]:
    """The rank's part of a global order, equally long on every rank.

    Args:
        order: (n,) global order, the same on every rank.
        rank: This rank.
        world_size: Number of ranks.
        drop_last: Drop the order's tail instead of repeating its head to make the parts equal.
    """
    count = len(order)
    if drop_last:
        total = count - count % world_size
    else:
        total = -(-count // world_size) * world_size
    return order[np.arange(rank, total, world_size) % count] if count else order


def evaluation_shard(order: npt.NDArray[Any], *, rank: int, world_size: int) -> npt.NDArray[Any]:
    """The rank's part of a global order; every sample on exactly one rank, so parts may differ by one in length."""
    return order[rank::world_size]
