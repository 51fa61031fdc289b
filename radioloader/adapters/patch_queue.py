"""A queue of patches that are read, not cut from volumes that were."""

from __future__ import annotations

import copy
import operator
import os
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from radioloader._checks import as_whole
from radioloader.adapters.starts import Starts, cut
from radioloader.adapters.torchio import SubjectsDataset
from radioloader.datasets import stats
from radioloader.datasets.seeding import SeededTransform
from radioloader.errors import ConfigError
from radioloader.samplers.layout import Layout
from radioloader.samplers.random import generator, seed_of
from radioloader.types import PatchKey

__all__ = ["Queue"]

_WHOLE = 2
"""Transformed subjects that are kept: a batch may begin with one and end with the next."""


class Queue(TorchDataset):  # type: ignore[type-arg]
    """Takes the place of ``tio.Queue``: the same arguments, the same patches, and each patch is read by itself.

    TorchIO's samplers choose where patches lie, on subjects that were not read. A patch depends on the epoch, the subject and its
    number alone: a loader over the queue may have any number of workers, and each patch comes once, not once per worker.

    With torch's or TorchIO's loader patches come in the order of ``tio.Queue``: subject by subject, shuffled among ``max_length``. With
    :class:`radioloader.DataLoader`, ``shuffle=True`` shuffles all, ranks get parts of their own, and an epoch can be resumed.

    Random transforms of the dataset run on the whole subject, as with ``tio.Queue``, and so all of it is read for them: each subject once
    for its patches among ``max_length``. Given as ``patch_transform`` they run on the patch.

    Args:
        subjects_dataset: A :class:`~radioloader.torchio.SubjectsDataset`; any other ``tio.SubjectsDataset`` loads whole volumes.
        max_length: Patches among which is shuffled, and, in this process, how many are read ahead at most.
        samples_per_volume: Patches of each subject in an epoch (``num_samples`` of a subject goes before).
        sampler: One of TorchIO's samplers.
        subject_sampler: Order of the subjects, such as a ``DistributedSampler``.
        num_workers: Threads of this process that read ahead where the loader has no workers.
        shuffle_subjects: Shuffle the subjects in each epoch.
        shuffle_patches: Shuffle the patches.
        start_background: As in TorchIO; reading starts with the first patch.
        verbose: As in TorchIO; the queue says nothing.
        patch_transform: Gets a patch (a ``tio.Subject``) and returns one.
        seed: Seed of everything random where keys say which patch is wanted.

    Raises:
        ConfigError: The arguments do not fit each other.
    """

    def __init__(
        self,
        subjects_dataset: Any,
        max_length: int,
        samples_per_volume: int,
        sampler: Any,
        subject_sampler: Any = None,
        num_workers: int = 0,
        shuffle_subjects: bool = True,
        shuffle_patches: bool = True,
        start_background: bool = True,
        verbose: bool = False,
        *,
        patch_transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.max_length = as_whole(max_length, "max_length", minimum=1)
        self.samples_per_volume = as_whole(samples_per_volume, "samples_per_volume", minimum=1)
        self.num_workers = as_whole(num_workers, "num_workers", minimum=0)
        self.seed = as_whole(seed, "seed")
        if shuffle_subjects and subject_sampler is not None:
            raise ConfigError("shuffle_subjects cannot be set when a subject_sampler is given")
        if not isinstance(subjects_dataset, tio.SubjectsDataset):
            raise ConfigError(f"subjects_dataset is a {type(subjects_dataset).__name__}, expected a SubjectsDataset")
        if not isinstance(sampler, tio.data.sampler.sampler.PatchSampler):
            raise ConfigError(
                f"sampler={sampler!r} is no sampler of TorchIO; give an object such as tio.UniformSampler(64)"
            )
        if patch_transform is not None and not callable(patch_transform):
            raise ConfigError(f"patch_transform must be callable, got {type(patch_transform).__name__}")
        self.subjects_dataset, self.sampler, self.subject_sampler = subjects_dataset, sampler, subject_sampler
        self.shuffle_subjects, self.shuffle_patches = shuffle_subjects, shuffle_patches
        self.verbose = verbose
        self.patch_transform = patch_transform
        subjects = subjects_dataset.dry_iter()
        self._counts = np.array([int(getattr(s, "num_samples", self.samples_per_volume)) for s in subjects], np.int64)
        self._starts = Starts(sampler)
        self._transform = None if patch_transform is None else SeededTransform(patch_transform)
        self._subject = SeededTransform(subjects_dataset.__getitem__)
        self._reset()

    def _reset(self) -> None:
        self._owner: tuple[int, int | None] | None = None
        self._base, self._last, self._in_order = 0, -1, True
        self._visits: Counter[int] = Counter()
        self._order: npt.NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._cut: dict[int, tuple[Any, int]] = {}
        self._lock, self._cutting = threading.Lock(), threading.Lock()
        self._waiting: OrderedDict[int, Future[Any]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        left = (
            "_owner",
            "_base",
            "_last",
            "_in_order",
            "_visits",
            "_order",
            "_kept",
            "_lock",
            "_cut",
            "_cutting",
            "_waiting",
            "_pool",
        )
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        return (
            f"Queue(max_length={self.max_length}, num_subjects={self.num_subjects}, samples_per_volume={self.samples_per_volume}, "
            f"iterations_per_epoch={self.iterations_per_epoch})"
        )

    # ---- what TorchIO's queue has -------------------------------------------------------------------------------------------

    @property
    def num_subjects(self) -> int:
        """Subjects of an epoch, on this rank."""
        return len(self._counts) if self.subject_sampler is None else len(self.subject_sampler)

    @property
    def iterations_per_epoch(self) -> int:
        """Patches of an epoch, on this rank."""
        if self.subject_sampler is None:
            return int(self._counts.sum())
        return int(sum(self._counts[int(subject)] for subject in self.subject_sampler))

    def __len__(self) -> int:
        return self.iterations_per_epoch

    def get_max_memory(self, subject: Any = None) -> int:
        """Bytes of the patches that are read ahead, at most."""
        first = self.subjects_dataset.dry_iter()[0] if subject is None else subject
        channels = sum(image.shape[0] for image in first.get_images(intensity_only=False))
        return int(4 * channels * np.prod([int(n) for n in self.sampler.patch_size]) * self.max_length)

    # ---- what this package's loaders ask -------------------------------------------------------------------------------------

    random = True

    @cached_property
    def layout(self) -> Layout:
        """How many patches each subject has."""
        size = [int(n) for n in self.sampler.patch_size]
        # Where a subject is read whole, its patches stay together.
        unit = 1 if self._lazy else int(self._counts.max(initial=1))
        return Layout(self._counts, unit=unit, shapes=np.broadcast_to(np.array(size, np.int64), (len(self._counts), 3)))

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> PatchKey:
        """The key of patch ``index`` of an epoch, counted subject by subject; of visit ``draw`` of its subject."""
        volume = int(np.searchsorted(self.layout.starts, index, side="right")) - 1
        return PatchKey(volume, index - int(self.layout.starts[volume]) if draw is None else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the patches, as plain values by name."""
        return {
            "dataset": "torchio.Queue",
            "volumes": len(self._counts),
            "samples": int(self._counts.sum()),
            "sampler": type(self.sampler).__name__,
            "patch_size": [int(n) for n in self.sampler.patch_size],
            "dataset seed": self.seed,
        }

    @staticmethod
    def collate(samples: Sequence[Any]) -> Any:
        """TorchIO's collate, for loaders."""
        return tio.SubjectsLoader._collate(list(samples))

    # ---- patches -----------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """A patch: a ``tio.Subject`` with ``location`` (6,), first voxel and one past the last.

        Raises:
            ReadError: Voxels could not be read; names subject, collection, URI and box.
        """
        if isinstance(index, PatchKey):
            return self.__getitems__([index])[0]
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"patch {number} is out of range, an epoch has {len(self)}")
        self._begin(number)
        waiting = self._waiting.pop(number, None)
        patch = self._numbered(number, self._common) if waiting is None else waiting.result()
        self._read_ahead(number)
        return self._finished(*patch)

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """Several patches."""
        if all(isinstance(key, PatchKey) for key in keys):
            return self.finish(self.begin(self.settled(keys)))
        return [self[key] for key in keys]

    def settled(self, keys: Sequence[Any]) -> list[Any]:
        """Keys, none of which depends on a generator."""
        return [self._key_of(key) for key in keys if key is not None]

    def begin(self, keys: Sequence[Any]) -> _Begun:
        """Choose and read patches, in any thread."""
        with stats.busy([key.volume for key in keys]), stats.timed("read"):
            return _Begun([self._patch(key.volume, key.draw, (self.seed, key.epoch)) for key in keys])

    def finish(self, begun: _Begun) -> list[Any]:
        """Transform patches that were read."""
        with stats.timed("transform"):
            patches = [self._finished(*patch) for patch in begun.patches]
        stats.count_batch()
        return patches

    def end_epoch(self) -> None:
        """For loaders."""
        self._kept.clear()

    def describe(self, volume: int) -> str:
        """A subject in words, for error messages."""
        return str(self.subjects_dataset.dry_iter()[volume])

    def _key_of(self, key: Any) -> PatchKey:
        if isinstance(key, PatchKey):
            return key
        number = operator.index(key)
        self._begin(number)
        subject, patch = self._order[number].tolist()
        return PatchKey(subject, patch, seed_of(*self._common, self._visits[number]) % 2**62)

    def _begin(self, number: int) -> None:
        """Take note of a number that is asked for. Number 0 after the numbers in their order begins a new epoch.

        In a worker process the order is that of the worker's seed, which the workers of an epoch share; so it is whatever was asked
        of the queue before the process was forked. Workers that persist keep it, and have other patches in each epoch.
        """
        info = get_worker_info()
        owner = os.getpid(), None if info is None else int(info.seed)
        if owner != self._owner:
            if self._owner is not None and self._owner[0] != owner[0]:
                self._reset()  # of the process that this one was forked from: its threads are not here
            self._owner = owner
            self._start(int(torch.randint(2**62, ()).item()) if info is None else int(info.seed) - int(info.id))
        elif info is None and number == 0 and self._in_order and self._last >= 0:
            self._start(int(torch.randint(2**62, ()).item()))
        self._in_order = self._in_order and number == self._last + 1
        self._last = number
        self._visits[number] += 1

    def _start(self, base: int) -> None:
        self._base, self._last, self._in_order = base, -1, True
        self._visits.clear()
        self._waiting.clear()
        self._kept, self._cut = OrderedDict(), {}
        self._order = self._ordered(generator("queue", *self._common))

    @property
    def _common(self) -> tuple[int | str, ...]:
        return ("torchio", self._base)

    def _ordered(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """(n, 2) subject and number of each patch, in the order of ``tio.Queue``."""
        if self.subject_sampler is not None:
            with torch.random.fork_rng(devices=[]):  # every worker is to find the same order
                torch.manual_seed(self._base % 2**63)
                subjects = np.array([int(subject) for subject in self.subject_sampler], np.int64)
        else:
            subjects = rng.permutation(len(self._counts)) if self.shuffle_subjects else np.arange(len(self._counts))
        counts = self._counts[subjects]
        first = np.cumsum(counts) - counts
        order = np.stack([np.repeat(subjects, counts), np.arange(counts.sum()) - np.repeat(first, counts)], axis=1)
        if self.shuffle_patches:
            for start in range(0, len(order), self.max_length):
                rng.shuffle(order[start : start + self.max_length])
        return order

    def _read_ahead(self, number: int) -> None:
        if not self.num_workers or not self._in_order or get_worker_info() is not None:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_workers, "radioloader-queue")
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        depth = min(2 * self.num_workers, self.max_length)
        for ahead in range(number + 1, min(number + 1 + depth, len(self._order))):
            if ahead not in self._waiting:
                self._waiting[ahead] = self._pool.submit(self._numbered, ahead, self._common, 1)

    def _numbered(self, number: int, common: tuple[int | str, ...], visit: int | None = None) -> tuple[Any, int]:
        """Patch ``number`` of the order, for the first, second, ... time that this process is asked for it."""
        visit = self._visits[number] if visit is None else visit
        if self._lazy:
            subject, patch = self._order[number].tolist()
            return self._patch(subject, patch, (*common, visit))
        with self._cutting:
            if number not in self._cut:
                self._cut = self._window(number, (*common, visit))
            return self._cut.pop(number)

    def _window(self, number: int, common: tuple[int | str, ...]) -> dict[int, tuple[Any, int]]:
        """The patches among which ``number`` was shuffled, subject by subject: each is transformed once for them."""
        start = number // self.max_length * self.max_length
        part = self._order[start : start + self.max_length]
        # Where the numbers come in their order, those before this one have been taken.
        first = number if self._in_order else start
        return {
            start + place: self._patch(int(part[place, 0]), int(part[place, 1]), common)
            for place in np.argsort(part[:, 0], kind="stable").tolist()
            if start + place >= first
        }

    @property
    def _lazy(self) -> bool:
        """Whether patches are read by themselves."""
        dataset = self.subjects_dataset
        return isinstance(dataset, SubjectsDataset) and getattr(dataset, "_transform", None) is None

    def _patch(self, subject: int, number: int, common: tuple[int | str, ...]) -> tuple[Any, int]:
        """A patch that is not transformed yet, and the seed of its transform."""
        whole, name = self._whole(subject, common)
        parts = (*common, subject, number)
        rng, seed = generator("start", *parts), seed_of("sampler", *parts)
        start = self._starts(whole, name, rng, seed)
        return cut(whole, start, [int(n) for n in self.sampler.patch_size]), seed_of("transform", *parts)

    def _whole(self, subject: int, common: tuple[int | str, ...]) -> tuple[Any, str]:
        """The subject to cut from, and its name where it is the same each time."""
        if self._lazy:
            # A copy: what a sampler loads is not to stay.
            return copy.deepcopy(self.subjects_dataset.dry_iter()[subject]), str(subject)
        with self._lock:
            if (common, subject) not in self._kept:
                while len(self._kept) >= _WHOLE:
                    self._kept.popitem(last=False)
                self._kept[common, subject] = self._subject(subject, seed_of("subject", *common, subject))
            return self._kept[common, subject], ""

    def _finished(self, patch: Any, seed: int) -> Any:
        return patch if self._transform is None else self._transform(patch, seed)


class _Begun:
    """Patches that were read."""

    def __init__(self, patches: list[tuple[Any, int]]) -> None:
        self.patches = patches

    @property
    def nbytes(self) -> int:
        """Size of their tensors in bytes."""
        return sum(image.data.nbytes for patch, _ in self.patches for image in patch.get_images(intensity_only=False))
