"""torch samplers that yield keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import DistributedSampler

from radioloader.errors import ConfigError
from radioloader.samplers.order import sequential, shuffled
from radioloader.samplers.shard import evaluation_shard, training_shard
from radioloader.types import SampleKey

__all__ = ["KeySampler", "KeyedDataset", "rank_and_world"]

if TYPE_CHECKING:
    _Base = DistributedSampler[Any]
else:
    _Base = DistributedSampler


class KeyedDataset(Protocol):
    """What a :class:`KeySampler` has to know of a dataset."""

    seed: int

    def __len__(self) -> int: ...

    def key(self, index: int, *, epoch: int = 0) -> SampleKey:
        """The key of the sample at ``index`` in ``epoch``."""


def rank_and_world() -> tuple[int, int]:
    """Rank and world size of ``torch.distributed``; (0, 1) where it is not in use."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class KeySampler(_Base):
    """Yields one key for each sample of an epoch, on each rank its own.

    It subclasses torch's ``DistributedSampler``, so that Lightning leaves it alone and calls :meth:`set_epoch`. Without
    :meth:`set_epoch`, every new iteration is the next epoch: no two epochs repeat the same random patches.

    Args:
        dataset: One of this package's datasets.
        shuffle: Shuffle the samples, anew in each epoch.
        training: Training: every rank gets equally many samples, the head of the order repeated or (``drop_last``) its tail
            dropped. Otherwise evaluation: every sample comes once, on one rank, and keys have epoch 0.
        seed: Seed of the order; None takes the dataset's.
        rank: This process's rank; None asks ``torch.distributed``.
        world_size: Number of ranks; None asks ``torch.distributed``.
        drop_last: See ``training``.
    """

    def __init__(
        self,
        dataset: KeyedDataset,
        *,
        shuffle: bool = True,
        training: bool = True,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        found_rank, found_world = rank_and_world()
        rank = found_rank if rank is None else rank
        world_size = found_world if world_size is None else world_size
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} must be at least 0 and below world_size={world_size}")
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=world_size,
            rank=rank,
            shuffle=shuffle,
            seed=dataset.seed if seed is None else seed,
            drop_last=drop_last,
        )
        self.training = training
        self._iterated = False

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``."""
        self.epoch = epoch
        self._iterated = False

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that an epoch begins with its first key: torch's loader makes iterators that it does not use.
        if self._iterated:
            self.epoch += 1
        self._iterated = True
        epoch = self.epoch if self.training else 0
        dataset: Any = self.dataset
        for index in self._shard(epoch).tolist():
            yield dataset.key(index, epoch=epoch)

    def _shard(self, epoch: int) -> Any:
        dataset: Any = self.dataset
        count = len(dataset)
        return self._part(shuffled(count, seed=self.seed, epoch=epoch) if self.shuffle else sequential(count))

    def _part(self, order: Any) -> Any:
        if self.training:
            return training_shard(order, rank=self.rank, world_size=self.num_replicas, drop_last=self.drop_last)
        return evaluation_shard(order, rank=self.rank, world_size=self.num_replicas)

    def __len__(self) -> int:
        dataset: Any = self.dataset
        return len(self._part(sequential(len(dataset))))
