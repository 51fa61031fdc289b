"""Selecting by place and by id, the same way for stores and collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.errors import KeyNotFoundError

__all__ = ["Indexer", "as_places", "draw"]

One = TypeVar("One")
Many = TypeVar("Many")


class Indexer(Generic[One, Many]):
    """What stands behind ``iloc`` and ``loc``.

    Args:
        size: Number of elements.
        one: Makes the element at a place.
        many: Makes the view of several places.
        find: Turns an id into a place; None: keys are places.
    """

    def __init__(
        self,
        size: int,
        one: Callable[[int], One],
        many: Callable[[Sequence[int]], Many],
        *,
        find: Callable[[str], int] | None = None,
    ) -> None:
        self._size, self._one, self._many, self._find = size, one, many, find

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._many(range(self._size)[self._slice(key)])
        mask = str(getattr(key, "dtype", "")) in ("bool", "boolean", "torch.bool")
        if hasattr(key, "tolist"):
            key = key.tolist()  # of numpy, torch and pandas: one value, or a list
        if isinstance(key, Iterable) and not isinstance(key, str):
            key = list(key)
            if mask or (key and all(isinstance(part, bool | np.bool_) for part in key)):
                return self._many(self._chosen(key))
            return self._many([self._place(part) for part in key])
        return self._one(self._place(key))

    def _chosen(self, mask: list[bool]) -> list[int]:
        if len(mask) != self._size:
            raise IndexError(f"the mask has shape ({len(mask)},), expected ({self._size},)")
        return np.flatnonzero(np.asarray(mask, dtype=np.bool_)).tolist()

    def _slice(self, key: slice) -> slice:
        if self._find is None:
            return key
        # By id, both ends are included, as in pandas.
        start = None if key.start is None else self._place(key.start)
        stop = None if key.stop is None else self._place(key.stop) + (1 if key.step is None or key.step > 0 else -1)
        return slice(start, None if stop == -1 else stop, key.step)

    def _place(self, key: Any) -> int:
        if self._find is not None:
            if not isinstance(key, str):
                raise KeyNotFoundError(f"loc takes ids (str), got {key!r}; use iloc for places")
            return self._find(key)
        try:
            if isinstance(key, bool):
                raise AttributeError
            place = int(key.__index__())
        except AttributeError:
            raise TypeError(
                f"iloc takes integers, slices, lists and boolean masks, got {key!r}; use loc for ids"
            ) from None
        if not -self._size <= place < self._size:
            raise IndexError(f"place {place} is out of range, there are {self._size}")
        return place % self._size


def draw(size: int, n: int, seed: int | None) -> list[int]:
    """``n`` different places of ``size`` at random, ascending; all, where there are no more."""
    count = min(as_whole(n, "n", minimum=0), size)
    if seed is not None:
        as_whole(seed, "seed", minimum=0)
    return sorted(np.random.default_rng(seed).choice(size, count, replace=False).tolist())


def as_places(positions: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) the places as an array, without a look at each number of a range."""
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop, positions.step, dtype=np.int64)
    return np.asarray(positions, np.int64)
