"""Batches that threads of this process read ahead."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from radioloader._checks import as_whole
from radioloader.config import available_cores
from radioloader.datasets import stats
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.batch import Begun
from radioloader.datasets.memory import pinned
from radioloader.errors import ConfigError
from radioloader.storage.reader import unshared

if TYPE_CHECKING:
    from radioloader.datasets.loader import DataLoader

__all__ = ["MAX_THREADS", "ReadAhead", "threads_for"]

MAX_THREADS = 8
"""Threads that read ahead where nothing was said of it, at most."""

_MOST_BYTES = 2**30
"""Of batches that wait to be taken."""


class ReadAhead(Iterator[Any]):
    """An epoch's batches. Threads read them, in their order and a few ahead; transform and ``collate_fn`` run when a batch is taken.

    They run in the taking thread because they use random generators that belong to the whole process: what the training step draws
    meanwhile would be mixed with what a transform draws.

    The threads end with the epoch, with an error, or when this is dropped.

    Args:
        loader: Gives the keys, in its batches, and what is made of them.
        threads: Batches that are read side by side.
    """

    def __init__(self, loader: DataLoader, threads: int) -> None:
        self._dataset: StoreDataset = cast(Any, loader.dataset)
        self._keys: Iterator[Any] | None = iter(loader._index_sampler)
        self._index_sampler = loader._index_sampler
        self._in_batches = loader.batch_size is not None or loader.batch_sampler is not None
        self._collate: Any = loader.collate_fn
        self._device = _pinning_device(loader)
        self._threads = threads
        self._depth = 2
        self._waiting: deque[Future[Begun]] = deque()
        numbers = itertools.count(1)
        counters = loader.stats
        self._pool = ThreadPoolExecutor(
            threads, "radioloader-batch", initializer=lambda: stats.use(counters.row(next(numbers)))
        )
        self._end = weakref.finalize(self, _end, self._pool, self._waiting)

    def __len__(self) -> int:
        return len(self._index_sampler)

    def __next__(self) -> Any:
        try:
            self._fill()
            if not self._waiting:
                raise StopIteration
            begun = self._waiting.popleft().result()
        except BaseException as error:
            if not isinstance(error, Exception) or isinstance(error, StopIteration):
                self.close()
            raise
        self._fill()  # while what was taken is finished
        samples = self._dataset.finish(begun)
        batch = self._collate(samples if self._in_batches else samples[0])
        if self._device is not None:
            batch = pin_memory(batch, self._device)  # type: ignore[no-untyped-call]
        self._depth = max(1, min(self._threads + 1, _MOST_BYTES // max(begun.nbytes, 1)))
        return batch

    def close(self) -> None:
        """End the threads, and wait for them."""
        self._keys = None
        self._end.detach()
        _end(self._pool, self._waiting)
        self._pool.shutdown(wait=True)

    def _fill(self) -> None:
        while self._keys is not None and len(self._waiting) < self._depth:
            try:
                keys = next(self._keys)
            except StopIteration:
                self._keys = None
                return
            # Integers draw from torch's generator: here and now, or the order of threads would decide.
            try:
                keys = self._dataset.settled(keys if self._in_batches else [keys])
            except Exception as error:
                failed: Future[Begun] = Future()  # raised when it is its turn
                failed.set_exception(error)
                self._waiting.append(failed)
            else:
                self._waiting.append(self._pool.submit(_begin, self._dataset, keys, self._device is not None))


def _begin(dataset: StoreDataset, keys: list[Any], pin: bool) -> Begun:
    with unshared(), pinned(pin):
        return dataset.begin(keys)


def _end(pool: ThreadPoolExecutor, waiting: deque[Future[Begun]]) -> None:
    waiting.clear()
    pool.shutdown(wait=False, cancel_futures=True)


def _pinning_device(loader: DataLoader) -> str | None:
    """The kind of device for which batches go to pinned memory, by the rules of torch's loader."""
    if not loader.pin_memory or not torch.accelerator.is_available():
        return None
    device = torch.accelerator.current_accelerator()
    return None if device is None or device.type == "mps" else device.type


def threads_for(asked: int | None, num_workers: int, ours: bool) -> int:
    """How many threads read ahead.

    Raises:
        ConfigError: Threads were asked for where they cannot be.
    """
    if asked is None:
        return min(MAX_THREADS, available_cores()) if ours and not num_workers else 0
    if as_whole(asked, "num_threads", minimum=0) and num_workers:
        raise ConfigError(
            f"num_threads={asked} and num_workers={num_workers}: batches are read by either; leave one out"
        )
    if asked and not ours:
        raise ConfigError(f"num_threads={asked} is for the datasets of this package; use num_workers for others")
    return asked
