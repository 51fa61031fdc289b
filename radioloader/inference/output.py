"""What is kept of a model's output."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader.errors import ConfigError, ShapeError
from radioloader.inference.scratch import temporary
from radioloader.types import Box, Triple

__all__ = ["ACTIVATIONS", "OUTPUTS", "Output", "Spool"]

OUTPUTS = ("labels", "probabilities", "values")
ACTIVATIONS = ("softmax", "sigmoid", None)

_STEP = 2.0**-15
"""Of stored probabilities. A power of two: 0, 0.5 and 1 are exact, and so are all values as float32, also after NIfTI's float32 slope."""


@dataclass(frozen=True)
class Output:
    """How the weighted mean of what a model gave becomes what is stored.

    Attributes:
        kind: ``"labels"``, ``"probabilities"`` or ``"values"``.
        activation: What makes probabilities of the model's values; None where they are that.
    """

    kind: str
    activation: str | None

    def __post_init__(self) -> None:
        if self.kind not in OUTPUTS:
            raise ConfigError(f"output={self.kind!r} is not one of {', '.join(map(repr, OUTPUTS))}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation={self.activation!r} is not one of {', '.join(map(repr, ACTIVATIONS))}")

    @property
    def collection_kind(self) -> str:
        """Kind of the collection."""
        return "label" if self.kind == "labels" else "image"

    @property
    def slope(self) -> float:
        """Multiplied to stored values."""
        return _STEP if self.kind == "probabilities" else 1.0

    def check(self, channels: int) -> None:
        """Refuse a model that gives so many channels.

        Raises:
            ShapeError: They cannot be made into this output.
        """
        if self.kind != "values" and self.activation == "softmax" and channels == 1:
            raise ShapeError(
                "the model gives one channel, of which the softmax is 1 everywhere; give activation='sigmoid', or None where it gives "
                "probabilities"
            )

    def stored(self, shape: Triple, channels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the stored volume: (X, Y, Z), or (X, Y, Z, K) with the channels last."""
        masks = self.kind == "labels" and self.activation == "sigmoid"
        several = channels > 1 and (self.kind != "labels" or masks)
        small = masks or channels <= 256
        dtype = {"labels": "uint8" if small else "uint16", "probabilities": "uint16", "values": "float32"}[self.kind]
        return (*shape, channels) if several else shape, np.dtype(dtype)

    def __call__(self, mean: torch.Tensor) -> npt.NDArray[Any]:
        """What is stored of the weighted means (K, x, y, z): (x, y, z) or (x, y, z, K)."""
        if self.kind == "labels":
            if self.activation == "sigmoid":
                found = mean > 0
            elif len(mean) == 1:
                found = mean > 0.5
            else:
                found = _highest(mean)
        elif self.kind == "values":
            found = mean
        else:
            if self.activation == "softmax":
                mean = mean.softmax(dim=0)
            elif self.activation == "sigmoid":
                mean = mean.sigmoid()
            elif mean.min() < -_STEP or mean.max() > 1 + _STEP:
                raise ShapeError(
                    f"the model gives values from {float(mean.min()):.4g} to {float(mean.max()):.4g}, which are no probabilities; give "
                    "activation='softmax' or 'sigmoid', or output='values'"
                )
            found = mean.clamp(0, 1).mul(1 / _STEP).round_()
        _, dtype = self.stored((1, 1, 1), len(mean))
        values = found.numpy().astype(dtype, copy=False)
        return values[0] if len(values) == 1 else np.moveaxis(values, 0, 3)


class Spool:
    """A result that comes in boxes: in memory, or in a file where it is larger than ``limit`` bytes."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, limit: int) -> None:
        self._map: Any = None
        size = prod(shape) * dtype.itemsize
        if size <= limit:
            self.voxels = np.zeros(shape, dtype)
            return
        with temporary("the result of a volume", size) as file:
            if hasattr(os, "posix_fallocate"):  # a disk that gets full under a map ends the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self.voxels = np.frombuffer(self._map, dtype).reshape(shape)

    def put(self, box: Box, values: npt.NDArray[Any]) -> None:
        """Keep the values of a box."""
        self.voxels[box.slices()] = values
        self.release()

    def release(self) -> None:
        """Give pages back that the file holds as well."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _highest(mean: torch.Tensor) -> torch.Tensor:
    """(1, x, y, z) the first channel that has the highest value. torch's argmax over the slowest axis takes five times as long."""
    best = mean[0].clone()
    label = torch.zeros(mean.shape[1:], dtype=torch.int32 if len(mean) > 256 else torch.uint8)
    for channel in range(1, len(mean)):
        label.masked_fill_(mean[channel] > best, channel)
        torch.maximum(best, mean[channel], out=best)
    return label[None]
