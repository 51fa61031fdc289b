"""What part of a volume an index like numpy's selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from radioloader.types import Box

__all__ = ["Part", "normalise"]


@dataclass(frozen=True, slots=True)
class Part:
    """What has to be read for an index.

    Attributes:
        box: The box that the index needs; None when nothing is selected.
        times: Of a series, the time points, in the order of the index; None: all, or there are none.
        rest: The index of the result in what was read.
    """

    box: Box | None
    times: tuple[int, ...] | None
    rest: tuple[Any, ...]


def normalise(index: Any, shape: tuple[int, ...]) -> Part:
    """The part of a volume of ``shape``, (X, Y, Z) or (X, Y, Z, T), that an index selects: integers, slices and one ``...``.

    Raises:
        IndexError: An integer is out of bounds, or there are too many parts.
        TypeError: The index holds something else.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    at = next((place for place, part in enumerate(parts) if part is Ellipsis), None)
    if at is not None:
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        raise IndexError(f"too many indices: the volume has {len(shape)} axes, got {len(parts)}")
    parts += [slice(None)] * (len(shape) - len(parts))
    chosen = [_places(part, n, axis) for axis, (part, n) in enumerate(zip(parts, shape, strict=True))]
    if not all(len(places) for places in chosen):
        return Part(None, None, ())
    low = tuple(min(places[0], places[-1]) for places in chosen[:3])
    high = tuple(max(places[0], places[-1]) + 1 for places in chosen[:3])
    # The box ends where the range does.
    rest = [slice(None, None, part.step) if isinstance(part, slice) else 0 for part in parts[:3]]
    times = None
    if len(shape) == 4:
        times = None if chosen[3] == range(shape[3]) else tuple(chosen[3])
        rest.append(slice(None) if isinstance(parts[3], slice) else 0)
    return Part(Box(low, high), times, tuple(rest))  # type: ignore[arg-type]


def _places(part: Any, n: int, axis: int) -> range:
    """The voxels that a part of an index selects along an axis of ``n``."""
    if isinstance(part, slice):
        return range(*part.indices(n))
    try:
        if isinstance(part, bool | np.ndarray):
            raise AttributeError
        place = part.__index__()
    except AttributeError:
        raise TypeError(
            f"a volume takes integers, slices and '...' as index, got {type(part).__name__}; index to_numpy() for more"
        ) from None
    if not -n <= place < n:
        raise IndexError(f"index {place} is out of bounds for axis {axis} with size {n}")
    return range(place % n, place % n + 1)
