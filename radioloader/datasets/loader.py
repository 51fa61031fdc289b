"""``radioloader.DataLoader``: torch's, with keys."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch.utils.data

from radioloader.datasets import stats
from radioloader.datasets.ahead import ReadAhead, threads_for
from radioloader.datasets.collate import collate
from radioloader.datasets.state import LoaderState
from radioloader.datasets.watch import explain, watch
from radioloader.errors import ConfigError
from radioloader.samplers.random import seed_of
from radioloader.samplers.samplers import KeySampler
from radioloader.storage._malloc import Kept, keep
from radioloader.storage.reader import VolumeReader

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
    - :meth:`state_dict` and :meth:`load_state_dict` resume within an epoch, with any number of workers and ranks.
    - A worker that is killed gives a :class:`~radioloader.errors.WorkerError` that names what it was reading.

    ``shuffle=True`` shuffles samples. Under ``torch.distributed`` each rank gets its own samples: equally many while training
    (shuffled, or with random positions), each volume on exactly one rank otherwise. A ``sampler``, ``batch_sampler`` or ``collate_fn``
    of your own is used as it is.

    Args:
        dataset: A dataset of this package (or any other, which then behaves as with torch's loader).
        batch_size: Samples in a batch, on each rank.
        shuffle: Shuffle in each epoch.
        sampler: Yields keys or integers; :class:`~radioloader.KeySampler` for other orders.
        batch_sampler: Yields lists of them.
        num_workers: Processes that read; 0 reads in this one, with threads.
        num_threads: Threads of this process that read whole batches ahead, where there are no workers: no fork, no copies between
            processes. Transforms and ``collate_fn`` then run in the thread that takes the batch. None takes as many as cores, at
            most 8, for this package's datasets (``threads`` says how many); 0 reads a batch when it is asked for.
        collate_fn: Makes a batch of samples; None takes this package's :func:`~radioloader.collate`.
        pin_memory: Copy batches into pinned memory.
        drop_last: Drop the last batch when it is not full.
        generator: Its seed takes part in the order, besides the dataset's; workers are seeded from it, as torch does it.
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
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        num_threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        ours = callable(getattr(dataset, "key", None)) and hasattr(dataset, "layout")
        if ours and sampler is None and batch_sampler is None:
            training = bool(shuffle) or dataset.random
            seed = (
                dataset.seed if generator is None else seed_of("order", dataset.seed, generator.initial_seed()) % 2**62
            )
            sampler = KeySampler(
                dataset, shuffle=bool(shuffle), training=training, drop_last=drop_last and training, seed=seed
            )
            shuffle = None
        if collate_fn is None and batch_size is not None:
            collate_fn = getattr(dataset, "collate", _collate_ours) if ours else _collate
        if isinstance(worker_init_fn, _StartWorker):  # Lightning makes a loader anew from another one's attributes
            worker_init_fn = worker_init_fn.then
        self.num_threads = num_threads  # as it was given: Lightning makes loaders anew from their attributes
        self.threads = threads_for(num_threads, num_workers, ours)
        self.stats = stats.LoaderStats(num_workers, self.threads)
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
            timeout,
            _StartWorker(self.stats, worker_init_fn, _keeps_memory(dataset)) if num_workers else worker_init_fn,
            multiprocessing_context,
            generator,
            **kwargs,
        )
        self._keys = _key_sampler(self)
        if self._keys is not None:
            self._keys.check_batch_size(self._samples_in_batch)
            if ours:
                _check_same_data(dataset, self._keys.dataset)
        self._running: _Run | None = None
        self.wait_s = 0.0
        self.waited_until = 0.0

    @property
    def _samples_in_batch(self) -> int:
        size = self.batch_size if self.batch_size is not None else getattr(self.batch_sampler, "batch_size", None)
        return 1 if size is None else int(size)

    def _batches_of(self, samples: int) -> int:
        """Batches that a rank makes of so many samples."""
        size = self._samples_in_batch
        drop_last = self.drop_last or bool(getattr(self.batch_sampler, "drop_last", False))
        return samples // size if drop_last else -(-samples // size)

    def __iter__(self) -> Any:
        return _Batches(self, *self._begin())

    def _begin(self) -> tuple[Any, _Run]:
        """torch's iterator of an epoch, and how far it is."""
        keys, given = self._keys, self.generator
        if keys is not None:
            epoch = keys.begin()
            if given is None:
                # torch draws the seed of its workers from the script's generator, which should stay as it is.
                self.generator = torch.Generator()
                self.generator.manual_seed(seed_of("workers", keys.seed, epoch, keys.rank) % 2**63)
        try:
            batches = super().__iter__()
        except (RuntimeError, OSError, EOFError) as error:
            explained = explain(error, self._iterator, self)
            self._iterator = None  # persistent workers of which one is dead: the next iteration starts others
            if explained is None:
                raise
            raise explained from error
        finally:
            self.generator = given
        self._running = _Run(self)
        return batches, self._running

    def _get_iterator(self) -> Any:
        if self.threads and not self.num_workers:
            return ReadAhead(self, self.threads)
        return super()._get_iterator()

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``. The epoch of a state that was loaded goes on where the state says."""
        for sampler in (self.sampler, self.batch_sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far the current epoch is: plain values, the same on every rank once all have taken the same number of batches.

        Counts the batches that were taken from the loader, not those that workers made in advance.

        Raises:
            ConfigError: The loader's sampler is not a :class:`~radioloader.KeySampler`.
        """
        keys = self._resumable()
        return LoaderState.of(keys, *self._position(keys)).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration what was left of the epoch when ``state`` was taken; nothing is read for what is skipped.

        The numbers of workers and ranks and the batch size may differ from what they were.

        Raises:
            ConfigError: The state is of another order of samples; says what differs.
        """
        keys = self._resumable()
        found = LoaderState.from_dict(state)
        found.check(keys)
        keys.restart(found.epoch, found.progress)
        if keys.training and found.progress and not self._batches_of(keys.left_on_this_rank()):
            keys.restart(found.epoch + 1, ())

    def _resumable(self) -> KeySampler:
        if self._keys is None:
            raise ConfigError(
                "only a loader whose sampler is a radioloader.KeySampler has a state; leave sampler and batch_sampler out, or give one"
            )
        if self.batch_size is None and self.batch_sampler is not None and not hasattr(self.batch_sampler, "batch_size"):
            raise ConfigError(
                f"{type(self.batch_sampler).__name__} has no batch_size, so that batches cannot be counted in samples: a loader with it "
                "has no state; give torch's BatchSampler, or leave batch_sampler out"
            )
        if not getattr(self, "in_order", True):
            raise ConfigError(
                "with in_order=False batches come in any order, so that a loader has no state; leave it out"
            )
        return self._keys

    def _position(self, keys: KeySampler) -> tuple[int, tuple[tuple[int, int], ...]]:
        running = self._running
        if running is None or running.generation != keys.generation:
            return keys.epoch, keys.progress
        if running.taken and running.taken >= running.batches:
            return keys.epoch + 1, ()
        return keys.epoch, running.progress()


class _Run:
    """How far an iteration is. Refers to neither loader nor iterator: in a cycle with them, the workers of an iterator that is dropped
    would live until the garbage collector came, and torch's queues be closed before the workers are told to end.

    Attributes:
        generation: The sampler's when it began; 0 where a sampler of the user's own has none.
        taken: Batches that were taken.
        batches: Batches that there are; -1 where nobody knows.
    """

    def __init__(self, loader: DataLoader) -> None:
        keys = loader._keys
        self.generation = 0 if keys is None else keys.generation
        self.taken = 0
        self.batches = -1 if keys is None else len(loader)
        self._size = loader._samples_in_batch
        self._before = () if keys is None else keys.progress
        self._world = 1 if keys is None else keys.num_replicas
        self._done = self._before[-1][1] if self._before and self._before[-1][0] == self._world else 0
        if keys is not None and self._before:
            self.batches = loader._batches_of(keys.left_on_this_rank())

    def progress(self) -> tuple[tuple[int, int], ...]:
        """What was taken of the epoch: (world size, samples of each rank), for each run that had a part of it."""
        samples = self._done + self.taken * self._size
        before = self._before[:-1] if self._done else self._before
        return (*before, (self._world, samples)) if samples else before


class _Batches(Iterator[Any]):
    """An epoch's batches, counted as they are taken."""

    def __init__(self, loader: DataLoader, batches: Any, run: _Run) -> None:
        self._loader, self._inner, self._run = loader, batches, run
        self._memory = Kept(not loader.num_workers and _keeps_memory(loader.dataset))
        if loader.num_workers:
            watch(self)

    def __getattr__(self, name: str) -> Any:
        # For those who look for the workers of torch's iterator.
        return getattr(self.__dict__["_inner"], name)

    def __iter__(self) -> _Batches:
        return self

    def __len__(self) -> int:
        return len(self._inner)

    def __next__(self) -> Any:
        started = time.perf_counter()
        try:
            if self._outdated():
                self._inner, self._run = self._loader._begin()
            if self._loader.num_workers == 0:
                stats.use(self._loader.stats.row(0))
            self._memory.open()
            batch = next(self._inner)
        except StopIteration:
            self._memory.close()
            self._use()  # also where nothing was left of it on this rank
            end_epoch = getattr(self._loader.dataset, "end_epoch", None)
            if end_epoch is not None:
                end_epoch()
            raise
        except Exception as error:
            self._memory.close()
            if self._loader.num_workers:
                # torch's frames hold the error, in a cycle that would keep this iterator and its workers.
                traceback.clear_frames(error.__traceback__)
            explained = explain(error, self._inner, self._loader)
            if explained is None:
                self._run.taken += 1  # it was its turn: whoever goes on gets the next one
                self._use()
                raise
            self._loader._iterator = None  # persistent workers are started anew
            try:
                raise explained from error
            finally:
                del explained
        finally:
            self._loader.waited_until = time.perf_counter()
            self._loader.wait_s += self._loader.waited_until - started
        self._run.taken += 1
        self._use()
        return batch

    def _outdated(self) -> bool:
        """Whether ``set_epoch`` or ``load_state_dict`` came between the iterator and its first batch, as with Lightning: workers had begun
        with another part."""
        keys, run = self._loader._keys, self._run
        return keys is not None and not run.taken and run.generation != keys.generation

    def _use(self) -> None:
        if self._loader._keys is not None:
            self._loader._keys.use(self._run.generation)


def _check_same_data(dataset: Any, other: Any) -> None:
    """Refuse a sampler of another dataset: its keys would read other subjects."""
    if other is dataset:
        return
    mine, theirs = dataset.fingerprint(), other.fingerprint()
    differ = [name for name in mine if mine[name] != theirs.get(name)]
    if differ:
        raise ConfigError(
            f"the sampler is of another dataset than the loader's, they differ in: {', '.join(differ)}; make it of the same one"
        )


class _StartWorker:
    """``worker_init_fn`` of our loaders: has the worker count in its row and keep its memory, then does what the user asked for."""

    def __init__(self, counters: stats.LoaderStats, then: Callable[[int], Any] | None, keep_memory: bool) -> None:
        self.counters, self.then, self.keep_memory = counters, then, keep_memory

    def __call__(self, worker: int) -> None:
        if self.keep_memory:
            keep()  # until the process ends
        stats.use(self.counters.row(worker))
        if self.then is not None:
            self.then(worker)


def _keeps_memory(dataset: Any) -> bool:
    """Whether a dataset, or what a ``Subset`` was made of, is ours and set to keep memory."""
    for _ in range(8):
        reader = getattr(dataset, "_reader", None)
        if isinstance(reader, VolumeReader):
            return reader.config.read.keep_memory
        dataset = getattr(dataset, "dataset", None)
    return False


def _key_sampler(loader: DataLoader) -> KeySampler | None:
    """The KeySampler of a loader, also where Lightning wrapped its batch sampler."""
    waiting = [loader.sampler, loader.batch_sampler]
    for _ in range(8):
        if not waiting:
            break
        sampler: Any = waiting.pop(0)
        if isinstance(sampler, KeySampler):
            return sampler
        waiting += [
            part
            for name in ("sampler", "batch_sampler", "_sampler")
            if (part := getattr(sampler, name, None)) is not None
        ]
    return None


def _collate_ours(samples: Any) -> Any:
    """Collate of this package, also for samples of which a transform left other keys; torch's when they are no dicts any more."""
    with stats.timed("collate"):
        if isinstance(samples, list) and all(isinstance(sample, Mapping) for sample in samples):
            return collate(samples)
        return torch.utils.data.default_collate(samples)


def _collate(samples: Any) -> Any:
    """Collate of this package for its samples (of a ``Subset``, say), torch's for all others."""
    if isinstance(samples, list) and samples and isinstance(samples[0], Mapping) and "obs_id" in samples[0]:
        return _collate_ours(samples)
    return torch.utils.data.default_collate(samples)
