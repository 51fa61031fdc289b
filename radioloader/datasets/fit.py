"""Bringing samples to a size: centred padding and cropping, as boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError
from radioloader.types import Box, Triple

__all__ = ["as_size", "fitted", "fitted_shapes"]


def as_size(value: int | Sequence[int] | None, name: str, axes: int) -> tuple[int, ...] | None:
    """``value`` on each of ``axes`` axes.

    Raises:
        ConfigError: Not one or ``axes`` whole numbers of at least 1.
    """
    if value is None:
        return None
    values = tuple(value) if isinstance(value, Iterable) else (value,) * axes
    if len(values) != axes or any(isinstance(v, bool) or not isinstance(v, int | np.integer) or v < 1 for v in values):
        raise ConfigError(f"{name}={value!r} must be one or {axes} whole numbers of at least 1")
    return tuple(int(v) for v in values)


def fitted_shapes(
    shapes: npt.NDArray[np.int64], pad_to: Sequence[int] | None, crop_to: Sequence[int] | None
) -> npt.NDArray[np.int64]:
    """Shapes after padding what is smaller than ``pad_to`` and cropping what is larger than ``crop_to``."""
    if pad_to is not None:
        shapes = np.maximum(shapes, np.array(pad_to, np.int64))
    return shapes if crop_to is None else np.minimum(shapes, np.array(crop_to, np.int64))


def fitted(box: Box, shape: Sequence[int]) -> Box:
    """The box of ``shape`` with the same centre (the lower voxel of two) as ``box``."""
    start = [a + (n - size) // 2 for a, n, size in zip(box.start, box.shape, shape, strict=True)]
    first: Triple = (start[0], start[1], start[2])
    return Box.at(first, shape)
