"""What is counted once, at ingest: intensity statistics of every volume, the foreground index of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage.catalog import FOREGROUND_COORDINATES

__all__ = ["MAX_CLASSES", "foreground", "occupied", "statistics"]

_CHUNK = 2**20
MAX_CLASSES = 1024
"""Classes above which a label volume gets no foreground index: it is a map of something else."""


def statistics(voxels: npt.NDArray[Any], slope: float, intercept: float) -> dict[str, float]:
    """Statistics of a volume's values (``voxels`` times ``slope`` plus ``intercept``).

    Returns:
        ``stat_min``, ``stat_max``, ``stat_mean``, ``stat_std`` over finite voxels (NaN when there are none), ``nonfinite`` (voxels
        that are NaN or infinite) and ``nonzero``.
    """
    low, high = np.inf, -np.inf
    count = nonzero = 0
    total = squares = shift = 0.0
    floating = voxels.dtype.kind == "f"
    for chunk in _chunks(voxels):
        if floating:
            chunk = chunk[np.isfinite(chunk)]
        if not chunk.size:
            continue
        values = chunk.astype(np.float64)
        if not count:
            shift = float(values[0])  # keeps the sum of squares small where all values are large
        nonzero += int(np.count_nonzero(values * slope + intercept if intercept else values))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        values -= shift
        total += float(values.sum())
        squares += float(np.dot(values, values))
        count += chunk.size
    result = {"nonfinite": voxels.size - count, "nonzero": nonzero}
    if not count:
        return dict.fromkeys(("stat_min", "stat_max", "stat_mean", "stat_std"), float("nan")) | result
    mean = total / count
    variance = max(0.0, squares / count - mean * mean)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return {
        "stat_min": ends[0],
        "stat_max": ends[1],
        "stat_mean": (mean + shift) * slope + intercept,
        "stat_std": abs(slope) * variance**0.5,
        **result,
    }


def occupied(voxels: npt.NDArray[Any], empty: float) -> list[npt.NDArray[np.bool_]]:
    """Which slices across each axis hold a voxel other than ``empty``.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, T), of which time points are searched together.
        empty: The stored value of background; NaN: none, so that every slice counts.

    Returns:
        Masks (X,), (Y,), (Z,).
    """
    x, y, z = (np.zeros(n, np.bool_) for n in voxels.shape[:3])
    for start in range(0, voxels.shape[2], _SLAB):
        mask = voxels[:, :, start : start + _SLAB] != empty
        if mask.ndim == 4:
            mask = mask.any(axis=3)
        x |= mask.any(axis=(1, 2))
        y |= mask.any(axis=(0, 2))
        z[start : start + _SLAB] = mask.any(axis=(0, 1))
    return [x, y, z]


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
        if float(np.abs(voxels).max()) > 2**31:
            return []
    elif voxels.dtype == np.uint64 and voxels.max() > np.iinfo(np.int64).max:
        return []
    # First how many, then which ones, slab by slab: the places of a large background would need eight times the volume's memory.
    counts: dict[int, int] = {}
    for slab in _slabs(voxels):
        for value, count in zip(*_classes(slab), strict=True):
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
        for value, count in zip(*_classes(slab), strict=True):
            wanted = ranks[value]
            first, last = np.searchsorted(wanted, [seen[value], seen[value] + count])
            if last > first:
                places = np.flatnonzero(slab == value)[wanted[first:last] - seen[value]]
                coordinates = np.stack(np.unravel_index(places, slab.shape)[:3], axis=1).astype("<i4")
                coordinates[:, 0] += number * _SLAB
                found[value].append(coordinates)
            seen[value] += count
    return [
        {"class": int(classes[value]), "voxels": counts[value], "coordinates": np.concatenate(found[value]).tobytes()}
        for value in sorted(counts)
    ]


_SLAB = 16


def _slabs(voxels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, voxels.shape[0], _SLAB):
        yield voxels[start : start + _SLAB]


def _classes(slab: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """The distinct values of a slab and how often each occurs."""
    if slab.dtype == np.uint8:  # what labels nearly always are; sorting is ten times slower
        histogram = np.bincount(slab.ravel(order="K"), minlength=256)
        values = np.flatnonzero(histogram)
        return values.tolist(), histogram[values].tolist()
    values, counts = np.unique(slab, return_counts=True)
    return [int(value) for value in values], counts.tolist()


def _sample(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of ``count`` voxels to keep, ascending."""
    if count <= FOREGROUND_COORDINATES:
        return np.arange(count)
    return np.sort(generator.choice(count, FOREGROUND_COORDINATES, replace=False))


def _chunks(voxels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    flat = voxels.reshape(-1, order="F") if voxels.flags.f_contiguous else voxels.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]
