"""Loaders and samplers as Lightning's loops want them."""

from __future__ import annotations

from typing import Any

from torch.utils.data import SequentialSampler

from radioloader.datasets.loader import DataLoader
from radioloader.samplers.samplers import KeySampler

__all__ = ["EvaluationLoader", "OverfitSampler"]


class OverfitSampler(KeySampler, SequentialSampler):
    """The same samples in every epoch, random patches included, for ``Trainer(overfit_batches=...)``.

    Lightning replaces any sampler that is no ``SequentialSampler`` by one, whose plain numbers would draw other patches each time and,
    under ddp, repeat cases. Its order need not be that of the dataset.
    """

    def __init__(self, dataset: Any, **arguments: Any) -> None:
        KeySampler.__init__(self, dataset, repeat=True, **arguments)
        self.data_source = dataset


class EvaluationLoader(DataLoader):
    """A loader whose length is 1 on a rank that has no case of its own, where another rank has one; it then gives no batch.

    Lightning skips a loop of length 0, with all its hooks: a rank that skips leaves the others alone in what they do together there,
    such as saving a checkpoint, and the run hangs.
    """

    def __len__(self) -> int:
        dataset: Any = self.dataset
        return max(super().__len__(), min(1, len(dataset)))
