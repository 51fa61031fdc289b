"""``radioloader.DataLoader``: torch's, with keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.utils.data

from radioloader.datasets.collate import collate
from radioloader.samplers.samplers import KeySampler

__all__ = ["DataLoader"]

if TYPE_CHECKING:
    _Base = torch.utils.data.DataLoader[Any]
else:
    _Base = torch.utils.data.DataLoader


class DataLoader(_Base):
    """torch's ``DataLoader`` with the same arguments and these defaults for radioloader's datasets.

    - The sampler yields keys that hold the epoch (:class:`~radioloader.KeySampler`), so that samples depend neither on the number of
      workers nor on what ran before. Every iteration is a new epoch; :meth:`set_epoch` chooses one.
    - Batches are read into place, in a worker straight into shared memory; ``obs_id`` and other text collates to lists of str.

    ``shuffle=True`` shuffles samples. Under ``torch.distributed`` each rank gets its own samples: equally many while training
    (shuffled, or with random positions), each exactly once otherwise. A ``sampler``, ``batch_sampler`` or ``collate_fn`` of your own
    is used as it is.

    Args:
        dataset: A dataset of this package (or any other, which then behaves as with torch's loader).
        batch_size: Samples in a batch.
        shuffle: Shuffle in each epoch.
        sampler: Yields keys or integers.
        batch_sampler: Yields lists of them.
        num_workers: Processes that read; 0 reads in this one, with threads.
        collate_fn: Makes a batch of samples; None takes this package's :func:`~radioloader.collate`.
        pin_memory: Copy batches into pinned memory.
        drop_last: Drop the last batch when it is not full.
        **kwargs: torch's other arguments.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Any = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        **kwargs: Any,
    ) -> None:
        ours = callable(getattr(dataset, "key", None)) and hasattr(dataset, "seed")
        if ours and sampler is None and batch_sampler is None:
            training = bool(shuffle) or dataset.random
            sampler = KeySampler(dataset, shuffle=bool(shuffle), training=training, drop_last=drop_last and training)
            shuffle = None
        if collate_fn is None and batch_size is not None:
            collate_fn = _collate_ours if ours else _collate
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            drop_last,
            **kwargs,
        )

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``."""
        for sampler in (self.sampler, self.batch_sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)


def _collate_ours(samples: Any) -> Any:
    """Collate of this package, also for samples of which a transform left other keys; torch's when they are no dicts any more."""
    if isinstance(samples, list) and all(isinstance(sample, Mapping) for sample in samples):
        return collate(samples)
    return torch.utils.data.default_collate(samples)


def _collate(samples: Any) -> Any:
    """Collate of this package for its samples (of a ``Subset``, say), torch's for all others."""
    if isinstance(samples, list) and samples and isinstance(samples[0], Mapping) and "obs_id" in samples[0]:
        return _collate_ours(samples)
    return torch.utils.data.default_collate(samples)
