"""From samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from radioloader.datasets.memory import allocate
from radioloader.errors import ShapeError

__all__ = ["Batch", "collate"]


class Batch(list[dict[str, Any]]):
    """The samples of a batch, as a list of dicts, which also carries them collated.

    The dicts' tensors are views of the collated ones: torch's default collate, ``Subset`` and ``ConcatDataset`` see a list, and
    :func:`collate` takes what is there already.

    Attributes:
        collated: The batch as a dict.
    """

    def __init__(self, samples: Sequence[dict[str, Any]], collated: dict[str, Any]) -> None:
        super().__init__(samples)
        self.collated = collated


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate samples of this package's datasets.

    Tensors and arrays are stacked, numbers become tensors (B,), everything else becomes a list.

    Args:
        samples: One dict for each sample, all with the same keys.

    Raises:
        ShapeError: Tensors of different shapes; names the key and the volumes.
    """
    if isinstance(samples, Batch):
        return samples.collated
    result: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        result[name] = _collate_values(name, values, samples)
    return result


def _collate_values(name: str, values: list[Any], samples: Sequence[Mapping[str, Any]]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray) and first.dtype.kind in "biuf":
        values = [torch.as_tensor(np.ascontiguousarray(value)) for value in values]
        first = values[0]
    if isinstance(first, torch.Tensor):
        for value, sample in zip(values, samples, strict=True):
            if value.shape != first.shape:
                raise ShapeError(
                    f"cannot stack {name!r}: {_name(samples[0])} has shape {tuple(first.shape)}, {_name(sample)} has "
                    f"{tuple(value.shape)}; crop or pad to one size, or use batch_size=1"
                )
        out = allocate({name: ((len(values), *first.shape), first.dtype)})[name]
        return torch.stack([value.as_subclass(torch.Tensor) for value in values], out=out)
    if isinstance(first, bool | int | float | np.number):
        return torch.tensor(values)
    if isinstance(first, Mapping) and all(
        isinstance(value, Mapping) and value.keys() == first.keys() for value in values
    ):
        return {key: _collate_values(f"{name}.{key}", [value[key] for value in values], samples) for key in first}
    return values


def _name(sample: Mapping[str, Any]) -> str:
    return f"volume {sample['obs_id']!r}" if "obs_id" in sample else "another sample"
