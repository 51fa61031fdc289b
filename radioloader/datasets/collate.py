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
    :func:`collate` takes what is there already, unless the list or one of its samples was changed.

    Attributes:
        placed: Where each sample lies, for whoever made the batch.
    """

    def __init__(self, samples: Sequence[dict[str, Any]], collated: dict[str, Any], placed: Sequence[Any] = ()) -> None:
        super().__init__(samples)
        self.placed = placed
        self._made = [dict(sample) for sample in samples]
        self._collated = collated

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(value.nbytes for value in self._collated.values() if isinstance(value, torch.Tensor))

    @property
    def collated(self) -> dict[str, Any] | None:
        """The batch as a dict; None when samples were added, removed, moved or given other values since."""
        same = len(self) == len(self._made) and all(
            isinstance(sample, dict)
            and len(sample) == len(made)
            and all(sample.get(name) is value for name, value in made.items())
            for sample, made in zip(self, self._made, strict=True)
        )
        return self._collated if same else None


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate samples of this package's datasets.

    Tensors and arrays are stacked, numbers become tensors (B,), everything else becomes a list.

    Args:
        samples: One dict for each sample, all with the same keys.

    Raises:
        ShapeError: Samples with different keys, or tensors of different shapes; names the key and the volumes.
    """
    if isinstance(samples, Batch) and samples.collated is not None:
        return samples.collated
    if not samples:
        raise ShapeError("there are no samples to collate")
    first = samples[0]
    for number, sample in enumerate(samples):
        odd = [name for name in (*first, *sample) if (name in first) != (name in sample)]
        if odd:
            has, lacks = (0, number) if odd[0] in first else (number, 0)
            raise ShapeError(
                f"cannot collate: {_name(samples, has)} has the key {odd[0]!r}, {_name(samples, lacks)} has not; a transform must "
                "give every sample the same keys"
            )
    return {name: _collate_values(name, [sample[name] for sample in samples], samples) for name in first}


def _collate_values(name: str, values: list[Any], samples: Sequence[Mapping[str, Any]]) -> Any:
    values = [_as_tensor(value) for value in values]
    if all(isinstance(value, torch.Tensor) for value in values):
        return _stack(name, values, samples)
    if all(isinstance(value, bool | int | float | np.number) for value in values):
        return torch.tensor(values)
    first = values[0]
    if all(isinstance(value, Mapping) and value.keys() == first.keys() for value in values):
        return {key: _collate_values(f"{name}.{key}", [value[key] for value in values], samples) for key in first}
    return values


def _as_tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
    return value


def _stack(name: str, values: list[Any], samples: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    first, dtype = values[0], values[0].dtype
    for number, value in enumerate(values):
        if value.shape != first.shape:
            raise ShapeError(
                f"cannot stack {name!r}: {_name(samples, 0)} has shape {tuple(first.shape)}, {_name(samples, number)} has "
                f"{tuple(value.shape)}; crop or pad to one size, or use batch_size=1"
            )
        dtype = torch.promote_types(dtype, value.dtype)
    # A subclass (MONAI's MetaTensor) would stack to one that says it lies where its first sample does.
    values = [value.as_subclass(torch.Tensor) for value in values]
    if any(value.device.type != "cpu" or value.requires_grad for value in values):
        return torch.stack(values)
    return torch.stack(values, out=allocate({name: ((len(values), *first.shape), dtype)})[name])


def _name(samples: Sequence[Mapping[str, Any]], number: int) -> str:
    """A sample in words; by its place in the batch where a transform left no obs_id."""
    sample = samples[number]
    return f"volume {sample['obs_id']!r}" if "obs_id" in sample else f"sample {number} of the batch (counted from 0)"
