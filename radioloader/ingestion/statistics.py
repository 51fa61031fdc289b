"""What is counted once, at ingest: intensity statistics of every volume, the foreground index of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage.catalog import FOREGROUND_COORDINATES

__all__ = ["MAX_CLASSES", "Statistics", "empty_value", "foreground", "occupied", "statistics"]

_CHUNK = 2**20
_BLOCK = 2**15
_ROW = 2**12
MAX_CLASSES = 1024
"""Classes above which a label volume gets no foreground index: it is a map of something else."""


class Statistics:
    """Statistics of a volume's values (stored ones times ``slope`` plus ``intercept``), of which the voxels come run by run.

    Integers of up to 16 bits are counted as they are, and summed exactly. All others are summed in stretches of 2^20 voxels, however they
    come.
    """

    def __init__(self, dtype: np.dtype[Any], slope: float, intercept: float) -> None:
        self._slope, self._intercept = slope, intercept
        self._floating = dtype.kind == "f"
        self._exact = dtype.kind in "iu" and dtype.itemsize <= 2
        self._buffer = np.empty(_BLOCK if self._exact else _CHUNK, np.float64)
        self._other = np.empty_like(self._buffer)
        self._ones = np.ones((_ROW, 1))
        self._filled = self._seen = 0
        self._low, self._high = np.inf, -np.inf
        self._count = self._nonzero = 0
        self._shift = 0.0  # of the values that are summed: keeps the sum of squares small where all values are large
        self._total: float = 0
        self._squares: float = 0
        if self._exact and intercept:
            every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
            self._zeros = every[every * slope + intercept == 0].astype(dtype)

    def add(self, run: npt.NDArray[Any]) -> None:
        """Count the next voxels, in the file's order (1-D)."""
        self._seen += run.size
        if self._exact:
            for start in range(0, run.size, _BLOCK):
                self._add_exactly(run[start : start + _BLOCK])
            return
        done = 0
        while done < run.size:
            part = run[done : done + self._buffer.size - self._filled]
            self._buffer[self._filled : self._filled + part.size] = part
            done += part.size
            self._filled += part.size
            if self._filled == self._buffer.size:
                self._flush()

    def _add_exactly(self, part: npt.NDArray[Any]) -> None:
        """Count integers of up to 16 bits: while they are in the cache, and without a sum that has to be rounded."""
        if not self._count:
            self._shift = int(part[0])
        self._count += part.size
        if self._intercept:
            self._nonzero += part.size - sum(int(np.count_nonzero(part == zero)) for zero in self._zeros)
        else:
            self._nonzero += int(np.count_nonzero(part))
        self._low, self._high = min(self._low, int(part.min())), max(self._high, int(part.max()))
        values = self._buffer[: -(-part.size // _ROW) * _ROW]
        values[: part.size] = part
        values[part.size :] = 0
        rows = values.reshape(-1, 1, _ROW)
        # As many products of short rows: a third of the time of multiplying and summing, and too short for BLAS to start threads, which
        # would cost more than they save.
        total = int(np.matmul(rows, self._ones).sum())
        squares = int(np.matmul(rows, rows.transpose(0, 2, 1)).sum())
        self._total += total - part.size * self._shift
        self._squares += squares - 2 * self._shift * total + part.size * self._shift**2

    def _flush(self) -> None:
        values = self._buffer[: self._filled]
        self._filled = 0
        if self._floating and not np.isfinite(values).all():
            values = values[np.isfinite(values)]
        if not values.size:
            return
        if not self._count:
            self._shift = float(values[0])
        other = self._other[: values.size]
        if self._intercept:
            scaled = np.multiply(values, self._slope, out=other)
            scaled += self._intercept
            self._nonzero += int(np.count_nonzero(scaled))
        else:
            self._nonzero += int(np.count_nonzero(values))
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        values -= self._shift
        self._total += float(values.sum())
        # Not np.dot: the last digits would depend on the number of threads that BLAS starts.
        self._squares += float(np.multiply(values, values, out=other).sum())
        self._count += values.size

    def result(self) -> dict[str, float]:
        """What :func:`statistics` returns."""
        if not self._exact:
            self._flush()
        result = {"nonfinite": self._seen - self._count, "nonzero": self._nonzero}
        if not self._count:
            return dict.fromkeys(("stat_min", "stat_max", "stat_mean", "stat_std"), float("nan")) | result
        slope, intercept = self._slope, self._intercept
        mean = self._total / self._count
        variance = max(0.0, self._squares / self._count - mean * mean)
        ends = sorted((self._low * slope + intercept, self._high * slope + intercept))
        return {
            "stat_min": ends[0],
            "stat_max": ends[1],
            "stat_mean": (mean + self._shift) * slope + intercept,
            "stat_std": abs(slope) * variance**0.5,
            **result,
        }


def statistics(voxels: npt.NDArray[Any], slope: float, intercept: float) -> dict[str, float]:
    """Statistics of a volume's values (``voxels`` times ``slope`` plus ``intercept``).

    Returns:
        ``stat_min``, ``stat_max``, ``stat_mean``, ``stat_std`` over finite voxels (NaN when there are none), ``nonfinite`` (voxels
        that are NaN or infinite) and ``nonzero``.
    """
    counted = Statistics(voxels.dtype, slope, intercept)
    for chunk in _chunks(voxels):
        counted.add(chunk)
    return counted.result()


def empty_value(kind: str, numbers: Mapping[str, float], dtype: np.dtype[Any], slope: float, intercept: float) -> float:
    """The stored value of voxels in which there is nothing: class 0 of labels, the lowest value of images."""
    lowest = numbers["stat_min" if slope > 0 else "stat_max"]
    value = ((0.0 if kind == "label" else lowest) - intercept) / slope
    return value if dtype.kind == "f" or not np.isfinite(value) else float(np.rint(value))


def occupied(voxels: npt.NDArray[Any], empty: float) -> list[npt.NDArray[np.bool_]]:
    """Which slices across each axis hold a voxel other than ``empty``.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, T), of which time points are searched together.
        empty: The stored value of background; NaN: none, so that every slice counts.

    Returns:
        Masks (X,), (Y,), (Z,).
    """
    if voxels.dtype.kind in "iu" and float(empty).is_integer():
        empty = int(empty)  # or all voxels would be compared as float64
    x = np.zeros(voxels.shape[0], np.bool_)
    plane = np.zeros(voxels.shape[1:3], np.bool_)
    for place, values in enumerate(voxels):
        mask = values != empty
        if mask.ndim == 3:
            mask = mask.any(axis=2)
        x[place] = mask.any()
        plane |= mask
    return [x, np.asarray(plane.any(axis=1)), np.asarray(plane.any(axis=0))]


def foreground(
    voxels: npt.NDArray[Any], seed: bytes, *, slope: float = 1.0, intercept: float = 0.0
) -> list[dict[str, Any]]:
    """The foreground index of a label volume: for each class its voxel count and coordinates of some of its voxels.

    A class with more voxels than :data:`FOREGROUND_COORDINATES` is sampled without replacement, uniformly.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, T), of which time points are searched together; whole numbers.
        seed: Decides the sample; the content hash of the volume, so that the index is the same wherever it is built.
        slope: Classes are stored values times ``slope`` plus ``intercept``.
        intercept: See ``slope``.

    Returns:
        Rows ``class``, ``voxels``, ``coordinates`` (int32 little endian, (n, 3) in C order, sorted); none when the volume holds values
        that are not whole, or too many of them.
    """
    if voxels.dtype.kind == "f":
        if not all((chunk == np.rint(chunk)).all() for chunk in _chunks(voxels)):  # NaN and inf fail this as well
            return []
        if max(abs(float(voxels.min())), abs(float(voxels.max()))) > 2**31:
            return []
    elif voxels.dtype == np.uint64 and voxels.max() > np.iinfo(np.int64).max:
        return []
    # First how many, then which ones, slab by slab: the places of a large background would need eight times the volume's memory.
    counts: dict[int, int] = {}
    classes_of: list[tuple[list[int], list[int]]] = []
    for slab in _slabs(voxels):
        classes_of.append(_classes(slab))
        for value, count in zip(*classes_of[-1], strict=True):
            counts[value] = counts.get(value, 0) + count
        if len(counts) > MAX_CLASSES:
            return []
    classes = {value: value * slope + intercept for value in counts}
    if not all(float(value).is_integer() and abs(value) < 2**63 for value in classes.values()):
        return []
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:16], "little")))
    ranks = {value: _sample(counts[value], generator) for value in sorted(counts)}
    seen = dict.fromkeys(counts, 0)
    found: dict[int, list[npt.NDArray[Any]]] = {value: [] for value in counts}
    for number, slab in enumerate(_slabs(voxels)):
        for value, count in zip(*classes_of[number], strict=True):
            wanted = ranks[value]
            first, last = np.searchsorted(wanted, [seen[value], seen[value] + count])
            if last > first:
                ranks_here = wanted[first:last] - seen[value]
                places = ranks_here if count == slab.size else _places(slab, value, ranks_here)
                coordinates = np.stack(np.unravel_index(places, slab.shape)[:3], axis=1).astype("<i4")
                coordinates[:, 0] += number * _SLAB
                found[value].append(coordinates)
            seen[value] += count
    return [
        {"class": int(classes[value]), "voxels": counts[value], "coordinates": np.concatenate(found[value]).tobytes()}
        for value in sorted(counts)
    ]


_SLAB = 16
_FEW = 6  # values, up to which looking for each of them is faster than counting all of them
_BITS = 1024


def _slabs(voxels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, voxels.shape[0], _SLAB):
        yield voxels[start : start + _SLAB]


def _classes(slab: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """The distinct values of a slab, whole numbers, and how often each occurs."""
    low, high = int(slab.min()), int(slab.max())
    flat = slab.ravel(order="K")
    if high - low < _FEW:
        counts = np.array([np.count_nonzero(flat == value) for value in range(low, high + 1)])
    elif slab.dtype == np.uint8:
        # By pairs of voxels: half as many to count, and half the memory for what numpy counts, which is whole numbers of 8 bytes.
        pairs = np.bincount(flat[: flat.size // 2 * 2].view(np.uint16), minlength=2**16).reshape(256, 256)
        counts = (pairs.sum(axis=0) + pairs.sum(axis=1))[low:]
        if flat.size % 2:
            counts[flat[-1] - low] += 1
    elif high - low < 2**16:
        counts = np.bincount(flat.astype(np.int64) - low)  # sorting is ten times slower
    else:
        values, counts = np.unique(slab, return_counts=True)
        return [int(value) for value in values], counts.tolist()
    found = np.flatnonzero(counts)
    return (found + low).tolist(), counts[found].tolist()


def _places(slab: npt.NDArray[Any], value: int, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where in a slab, in C order, the voxels of a value are that have these ranks (ascending) among them.

    Counts them in blocks first: the places of all of them, eight bytes each, would be most of the work.
    """
    mask = slab.reshape(-1) == value
    whole = mask.size // _BITS * _BITS
    # Eight voxels at a time. A byte of such a sum counts one voxel of each word, 128 at most.
    words = mask[:whole].view(np.uint64).reshape(-1, _BITS // 8).sum(axis=1)
    counts = words.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    counts = np.append(counts, np.count_nonzero(mask[whole:]))
    ends = np.cumsum(counts)
    block = np.searchsorted(ends, ranks, side="right")
    blocks, row = np.unique(block, return_inverse=True)
    padded = mask if mask.size == whole else np.append(mask, np.zeros(whole + _BITS - mask.size, np.bool_))
    inside = np.flatnonzero(padded.reshape(-1, _BITS)[blocks])  # of the blocks that matter, one after the other
    before = np.cumsum(counts[blocks]) - counts[blocks]
    found = inside[before[row] + ranks - (ends - counts)[block]]
    places: npt.NDArray[np.int64] = blocks[found // _BITS] * _BITS + found % _BITS
    return places


def _sample(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of ``count`` voxels to keep, ascending."""
    if count <= FOREGROUND_COORDINATES:
        return np.arange(count)
    return np.sort(generator.choice(count, FOREGROUND_COORDINATES, replace=False))


def _chunks(voxels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    flat = voxels.reshape(-1, order="F") if voxels.flags.f_contiguous else voxels.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]
