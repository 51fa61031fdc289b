"""Which dtypes samples have, and whether they hold the values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from radioloader.datasets.table import SubjectTable
from radioloader.errors import ConfigError

__all__ = ["check_range", "fit_pad_value", "image_dtype", "label_dtype"]

_DTYPES = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
}
_TORCH = {np.dtype(value).name: key for key, value in _DTYPES.items()} | {
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
}


def image_dtype(table: SubjectTable, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of images: ``dtype``, or the stored one.

    Raises:
        ConfigError: No such dtype, or the stored one is not one and the same.
    """
    if dtype is not None:
        if dtype not in _DTYPES:
            raise ConfigError(
                f"dtype={dtype} is not one of {', '.join(map(str, _DTYPES))}, or None for the stored dtype"
            )
        return dtype
    found = table.image_dtypes()
    if len(found) > 1:
        (a, x), (b, y) = list(found.items())[:2]
        raise ConfigError(
            f"dtype=None keeps the stored dtype, but it differs: {a} in {x.describe()}, {b} in {y.describe()}; give a dtype"
        )
    (name, ref), *_ = found.items()
    if ref.scaled:
        raise ConfigError(
            f"dtype=None keeps the stored dtype, but {ref.describe()} scales its values "
            f"(slope {ref.slope}, intercept {ref.intercept}); give a dtype"
        )
    return _TORCH[name]


def check_range(table: SubjectTable, images: int, dtype: torch.dtype) -> None:
    """Refuse a dtype that would wrap values around or make them infinite, going by the statistics of ingest."""
    if dtype == torch.float64:
        return
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    for number in range(images):
        noted = table.details(number, ["stat_min", "stat_max", "nonfinite"])
        low, high, nonfinite = (noted[name] for name in ("stat_min", "stat_max", "nonfinite"))
        # As floats, the bound of 64 bits is one that the dtype does not reach any more.
        over = high >= 2.0**63 if dtype == torch.int64 else high > info.max
        bad = (low < info.min) | over | ((nonfinite > 0) & (not dtype.is_floating_point))
        if bad.any():
            volume = int(np.flatnonzero(bad)[0])
            raise ConfigError(
                f"dtype={dtype} does not hold the values of {table.images(volume)[number].describe()}: {low[volume]:g} to "
                f"{high[volume]:g}, {int(nonfinite[volume])} voxels that are not finite; give a wider dtype"
            )


def label_dtype(table: SubjectTable) -> torch.dtype:
    """The dtype that holds the labels of all volumes."""
    return _TORCH[np.result_type(*table.label_dtypes()).name]


def fit_pad_value(value: Any, dtype: torch.dtype) -> float:
    """``value`` as a float.

    Raises:
        ConfigError: Not a number, or ``dtype`` does not hold it.
    """
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ConfigError(f"pad_value={value!r} must be a number, got {type(value).__name__}")
    number = float(value)
    if dtype.is_floating_point:
        # NaN and infinity are values of every such dtype; a finite number that becomes infinite is a mistake.
        held = not math.isfinite(number) or abs(number) <= torch.finfo(dtype).max
    else:
        held = number.is_integer() and torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max
    if not held:
        raise ConfigError(
            f"pad_value={value} is no value of {dtype}, the dtype of the images; give one, or a wider dtype"
        )
    return number
