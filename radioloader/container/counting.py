"""Histogram and percentiles of values that come a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError

__all__ = ["histogram", "percentiles"]

Part = npt.NDArray[Any]


def _finite(part: Part) -> Part:
    flat: Part = part.reshape(-1)
    return flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat


def histogram(
    parts: Iterable[Part], bins: int | Sequence[float], value_range: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """As ``numpy.histogram`` of the finite values of all parts; see :meth:`Volume.histogram`."""
    if not np.isfinite(value_range).all() and isinstance(bins, int | np.integer):
        value_range = (0.0, 1.0)  # of a volume without a finite value
    try:
        edges = np.histogram_bin_edges(np.empty(0), bins, value_range).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"bins={bins!r}, value_range={value_range!r}: {error}; give a number of bins, or their edges in ascending order, and a lower "
            "and an upper value"
        ) from error
    counts = np.zeros(len(edges) - 1, np.int64)
    # Bins of equal width are counted much faster than those of given edges; both give the same.
    equal: Any = (bins, value_range) if isinstance(bins, int | np.integer) else (edges, None)
    for part in parts:
        counts += np.histogram(_finite(part), *equal)[0]
    return counts, edges


def percentiles(
    parts: Callable[[], Iterable[Part]], q: float | Sequence[float], dtype: np.dtype[Any]
) -> npt.NDArray[np.float64]:
    """As ``numpy.percentile`` of the finite values of all parts; see :meth:`Volume.percentiles`.

    Integers of up to 16 bits are counted, value by value; of other values all finite ones are held, since an exact percentile needs them.
    """
    wanted = np.asarray(q, np.float64)
    if not ((wanted >= 0) & (wanted <= 100)).all():
        raise ConfigError(f"q={q!r} is outside 0 to 100")
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        values = np.concatenate([_finite(part) for part in parts()])
        return np.percentile(values, wanted) if values.size else np.full(wanted.shape, np.nan)
    lowest = int(np.iinfo(dtype).min)
    counts = np.zeros(2 ** (8 * dtype.itemsize), np.int64)
    for part in parts():
        counts += np.bincount(part.reshape(-1).astype(np.int64) - lowest, minlength=counts.size)
    ends = np.cumsum(counts)
    place = wanted / 100 * (int(ends[-1]) - 1)
    below, above = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
    low, high = (np.searchsorted(ends, at, side="right") + lowest for at in (below, above))
    # As numpy does it (linear): between the two values that the percentile lies between.
    return np.asarray(low + (place - below) * (high - low), np.float64)
