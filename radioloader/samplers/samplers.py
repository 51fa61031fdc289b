"""torch samplers that yield keys."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from radioloader._checks import as_whole
from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.order import (
    FILLER,
    EqualShapes,
    Mixing,
    Order,
    Sequential,
    Shuffled,
    Visits,
    check_order,
    mixing,
)
from radioloader.samplers.shard import evaluation_shard, remaining, training_shard
from radioloader.types import SampleKey

__all__ = ["KeySampler", "KeyedDataset", "rank_and_world"]

_log = logging.getLogger("radioloader")

if TYPE_CHECKING:
    _Base = DistributedSampler[Any]
else:
    _Base = DistributedSampler

Progress = tuple[tuple[int, int], ...]


class KeyedDataset(Protocol):
    """What a :class:`KeySampler` has to know of a dataset."""

    seed: int

    @property
    def layout(self) -> Layout:
        """How many samples each volume has."""

    def __len__(self) -> int: ...

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> SampleKey:
        """The key of the sample at ``index`` in ``epoch``; of visit number ``draw`` of it, where it is visited repeatedly."""

    def fingerprint(self) -> dict[str, Any]:
        """What decides the samples, as plain values by name."""


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

    The order is the same for every world size. Ranks own volumes: while training the order is cut into equal parts along volumes, so
    that a rank opens its own volumes and at most two that it shares with its neighbours; in evaluation every volume is on exactly one
    rank, with all its samples.

    Attributes:
        generation: Changes whenever the next iteration is to be another one than what is under way: another epoch, or another part of it.

    Args:
        dataset: One of this package's datasets.
        order: The order of samples; None takes :class:`~radioloader.Shuffled` or, without ``shuffle``, :class:`~radioloader.Sequential`.
        shuffle: See ``order``.
        training: Training: every rank gets equally many samples, the head of the order repeated or (``drop_last``) its tail
            dropped. Otherwise evaluation: every sample comes once, on one rank, and keys have epoch 0.
        repeat: Every epoch is epoch 0 again, random patches included: for overfitting a few batches on purpose.
        seed: Seed of the order; None takes the dataset's.
        rank: This process's rank; None asks ``torch.distributed`` when an epoch begins.
        world_size: Number of ranks; None asks ``torch.distributed``.
        drop_last: See ``training``.

    Raises:
        ConfigError: ``rank`` and ``world_size`` do not fit, or the order does not fit the dataset, or with ``drop_last`` there are more
            ranks than samples.
    """

    def __init__(
        self,
        dataset: KeyedDataset,
        *,
        order: Order | None = None,
        shuffle: bool = True,
        training: bool = True,
        repeat: bool = False,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ConfigError(f"rank={rank} and world_size={world_size}: give both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} must be at least 0 and below world_size={world_size}")
        self._given = None if rank is None or world_size is None else (rank, world_size)
        found_rank, found_world = self._where()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=found_world,
            rank=found_rank,
            shuffle=shuffle,
            seed=as_whole(dataset.seed if seed is None else seed, "seed"),
            drop_last=drop_last,
        )
        check_order(order)
        self.order: Order = order if order is not None else Shuffled() if shuffle else Sequential()
        self.training = training
        self.repeat = repeat
        self.progress: Progress = ()
        self._used = False
        self._begun = 0
        self.generation = 0
        self._told: tuple[int, int] | None = None
        self._cached: tuple[Any, Any] = (None, None)
        self._visits(0)  # an order that does not fit fails here
        if training:
            len(self)  # as do more ranks than samples

    # ---- epochs ---------------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``. The epoch that it is at already goes on where :meth:`restart` put it, unless
        samples of it were used since: then it begins anew."""
        if epoch != self.epoch or self._used:
            self.progress = ()
            self.generation += 1
        self.epoch = as_whole(epoch, "epoch")
        self._used = False

    def restart(self, epoch: int, progress: Sequence[Sequence[int]]) -> None:
        """Make the next iteration what is left of an epoch; nothing is read for what is skipped.

        Args:
            epoch: The epoch.
            progress: (world size, samples of each rank) for each run that had a part of it, in their order.
        """
        self.epoch = as_whole(epoch, "epoch")
        self.progress = tuple((int(world), int(samples)) for world, samples in progress)
        self.generation += 1
        self._used = False

    def begin(self) -> int:
        """Go to the next epoch if samples of this one were used; returns the epoch of the next iteration. For loaders, which count
        with :meth:`use`: iterators that nobody takes a batch from then use no epoch, however far their workers ran ahead."""
        self._begun += 1
        self.rank, self.num_replicas = self._where()
        if self._used:
            self._next_epoch()
        return self.epoch

    def use(self, generation: int) -> None:
        """Note that a batch was used, of an iteration that began in ``generation``."""
        if generation == self.generation:
            self._used = True

    def _next_epoch(self) -> None:
        self.epoch += 1
        self.progress = ()
        self.generation += 1
        self._used = False

    # ---- the samples of an epoch ----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that an epoch begins with its first key: torch's loader makes iterators that it does not use.
        if self._begun:  # by a loader of ours, which counts
            self._begun -= 1
        else:
            if self._used:
                self._next_epoch()
            self._used = True
        epoch = self.epoch
        visits, positions = self._mine(epoch, self.progress)
        self._tell_padding()
        number = epoch if self.training and not self.repeat else 0
        dataset: Any = self.dataset
        draws = None if visits.draws is None else visits.draws[positions].tolist()
        for place, sample in enumerate(visits.samples[positions].tolist()):
            draw = None if draws is None else draws[place]
            yield None if sample == FILLER else dataset.key(sample, epoch=number, draw=draw)

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, also where a restarted one has fewer left."""
        if self.training:
            visits, (_, world) = self._visits(self.epoch), self._where()
            units = len(visits.samples) // visits.unit
            if self.drop_last and units < world:
                raise ConfigError(
                    f"an epoch of {units * visits.unit} samples (of which {visits.unit} stay together) is too short for {world} ranks with "
                    "drop_last: every rank would train on nothing; leave drop_last out, or use fewer ranks or more samples"
                )
            return (units // world if self.drop_last else -(-units // world)) * visits.unit
        return len(self._mine(self.epoch, ())[1])

    def _tell_padding(self) -> None:
        padding, (_, world) = self.padding, self._where()
        if padding and self._told != (padding, world):
            self._told = padding, world
            what = f"{padding} come twice" if padding > 0 else f"{-padding} are left out"
            _log.info("of the samples of an epoch %s, so that %d ranks take equally many", what, world)

    def global_order(self, epoch: int) -> list[Any]:
        """All keys of ``epoch`` in their order, before they are shared among ranks: the same for every rank and world size."""
        number = epoch if self.training and not self.repeat else 0
        visits = self._visits(epoch)
        dataset: Any = self.dataset
        draws = [None] * len(visits.samples) if visits.draws is None else visits.draws.tolist()
        return [
            dataset.key(sample, epoch=number, draw=draw)
            for sample, draw in zip(visits.samples.tolist(), draws, strict=True)
            if sample != FILLER
        ]

    def digest(self, epoch: int) -> str:
        """Of the order of ``epoch``, on all ranks: tells whether columns that the order goes by are as they were."""
        visits = self._visits(epoch)
        parts = [visits.samples] if visits.draws is None else [visits.samples, visits.draws]
        return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()[:32]

    def mixing(self, batch_size: int) -> Mixing:
        """How well the order of the current epoch mixes volumes within batches of ``batch_size``, on this rank."""
        visits, positions = self._mine(self.epoch, ())
        samples = visits.samples[positions]
        return mixing(self._layout.volumes(samples[samples != FILLER]), batch_size)

    @property
    def padding(self) -> int:
        """Samples that come twice in an epoch, over all ranks, to give every rank equally many; negative: so many are dropped."""
        if not self.training:
            return 0
        _, world = self._where()
        visits = self._visits(self.epoch)
        units = len(visits.samples) // visits.unit
        return (-(units % world) if self.drop_last else -units % world) * visits.unit

    def left_on_this_rank(self) -> int:
        """Samples that the next iteration of this rank has, fillers included."""
        return len(self._mine(self.epoch, self.progress)[1])

    def samples_done(self, progress: Sequence[Sequence[int]]) -> int:
        """How many samples of the current epoch's order ``progress`` covers, over all ranks."""
        visits = self._visits(self.epoch)
        left, _ = self._left(visits, progress)
        return int((visits.samples != FILLER).sum() - (visits.samples[left] != FILLER).sum())

    @property
    def _layout(self) -> Layout:
        dataset: Any = self.dataset
        layout: Layout = dataset.layout
        return layout

    def _where(self) -> tuple[int, int]:
        """Rank and world size, asked for anew: a sampler may be made before the process group is."""
        return rank_and_world() if self._given is None else self._given

    def _visits(self, epoch: int) -> Visits:
        if self.repeat or not self.training:
            epoch = 0
        if self._cached[0] != epoch:
            self._cached = epoch, self.order(self._layout, seed=self.seed, epoch=epoch)
        visits: Visits = self._cached[1]
        return visits

    def _volumes(self, visits: Visits) -> npt.NDArray[np.int64]:
        return self._layout.volumes(visits.samples)

    def _left(self, visits: Visits, done: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], int]:
        left, unit = remaining(
            self._volumes(visits),
            [(world, samples) for world, samples in done],
            training=self.training,
            drop_last=self.drop_last,
            unit=visits.unit,
            mix=visits.mix if self.training else 1,
        )
        return (left, unit) if unit > 1 else (left[visits.samples[left] != FILLER], unit)

    def _mine(self, epoch: int, progress: Progress) -> tuple[Visits, npt.NDArray[np.int64]]:
        """The visits of an epoch, and the positions of this rank's in them that are left after ``progress``."""
        self.rank, self.num_replicas = self._where()
        visits = self._visits(epoch)
        # The last part was this world's own: each rank goes on with what it had. Parts of other worlds are taken off first.
        offset = 0
        if progress and progress[-1][0] == self.num_replicas:
            *earlier, (_, offset) = progress
        else:
            earlier = list(progress)
        left, unit = self._left(visits, earlier)
        volumes = self._volumes(visits)[left]
        if self.training:
            mine = training_shard(
                volumes,
                rank=self.rank,
                world_size=self.num_replicas,
                drop_last=self.drop_last,
                unit=unit,
                mix=visits.mix,
            )
        else:
            mine = evaluation_shard(volumes, rank=self.rank, world_size=self.num_replicas, unit=unit)
            if self.num_replicas > 1 and unit > 1:
                self._check_whole(np.delete(volumes, mine), volumes[mine])
        return visits, left[mine[offset:]]

    def _check_whole(self, others: npt.NDArray[np.int64], mine: npt.NDArray[np.int64]) -> None:
        shared = np.setdiff1d(np.intersect1d(mine, others), [FILLER])
        if shared.size:
            raise ConfigError(
                f"the batches of {self.order!r} hold samples of several volumes, so that {shared.size} volumes would be evaluated by "
                "several ranks; use another order, and pad_to or batch_size=1 for different shapes"
            )

    def check_batch_size(self, batch_size: int | None) -> None:
        """Refuse a loader's batch size that would break up batches of equal shape.

        Raises:
            ConfigError: The order makes batches of another size.
        """
        if isinstance(self.order, EqualShapes) and self.order.batch_size != batch_size:
            raise ConfigError(
                f"batch_size={batch_size}, but the order makes batches of {self.order.batch_size}; give both the same"
            )
