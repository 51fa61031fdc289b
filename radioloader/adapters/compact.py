"""The smallest dtype that holds an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["compact"]


def compact(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values in the smallest dtype that holds them; whole numbers as integers."""
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return array
    # A look at one plane spares most images a copy of all of it.
    if array.dtype.kind == "f" and not (_whole(array[len(array) // 2]) and _whole(array)):
        return array
    for dtype in (np.uint8, np.int16, np.uint16, np.int32):
        if (
            np.dtype(dtype).itemsize < array.dtype.itemsize
            and np.iinfo(dtype).min <= low
            and high <= np.iinfo(dtype).max
        ):
            return array.astype(dtype)
    return array


def _whole(array: npt.NDArray[Any]) -> bool:
    return bool((array == np.rint(array)).all())
