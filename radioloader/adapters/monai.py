"""MONAI: a dataset that takes MONAI's datalists and transforms, and reads from a store."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from radioloader._checks import as_whole
from radioloader._optional import require
from radioloader.config import StorageConfig, get_config
from radioloader.datasets import stats
from radioloader.datasets.memory import allocate
from radioloader.datasets.seeding import SeededTransform
from radioloader.errors import ConfigError, IngestError
from radioloader.samplers.layout import Layout
from radioloader.samplers.random import seed_of
from radioloader.storage.reader import ReadRequest, VolumeReader
from radioloader.storage.store import Store
from radioloader.types import VolumeKey

require("monai", extra="monai")

from monai.data import list_data_collate  # noqa: E402

from radioloader.adapters.crops import Crop, is_unread  # noqa: E402
from radioloader.adapters.identity import Identities  # noqa: E402
from radioloader.adapters.items import STORED_AS, ItemPreparation, Unread, Wanted  # noqa: E402
from radioloader.adapters.meta_tensors import AsMetaTensors  # noqa: E402
from radioloader.adapters.prepare import prepare  # noqa: E402
from radioloader.adapters.sources import as_item  # noqa: E402
from radioloader.adapters.split import split  # noqa: E402
from radioloader.adapters.stored import Prepared  # noqa: E402

__all__ = ["AsMetaTensors", "Dataset"]

_log = logging.getLogger("radioloader")

_OF_CACHES = (
    *("cache_num", "cache_rate", "copy_cache", "as_contiguous", "hash_as_key", "hash_func", "runtime_cache"),
    *("pickle_module", "pickle_protocol", "hash_transform", "reset_ops_id", "track_meta", "weights_only"),
)
"""Arguments of MONAI's caching datasets that say how a cache is kept."""


@dataclass(frozen=True)
class _Chosen:
    """An item whose boxes are chosen and read.

    Attributes:
        volume: Its place in the dataset.
        sample: What the crop made of it, with voxels: a dict, or a list of them.
        seed: Of the transforms that follow.
        key: What was asked for.
    """

    volume: int
    sample: Any
    seed: int
    key: Any


@dataclass(frozen=True)
class _Begun:
    chosen: list[_Chosen]
    nbytes: int


@dataclass(frozen=True)
class _Asked:
    """A key, with the streams that it stands for."""

    volume: int
    parts: tuple[int | str, ...]
    key: Any


_ADVICE = "The others are in the store and will not be prepared again; mend or leave out these, or give on_error='skip'"

if TYPE_CHECKING:
    _Base = TorchDataset[Any]
else:
    _Base = TorchDataset


class Dataset(_Base):
    """Takes the place of ``monai.data.Dataset``, ``CacheDataset`` and ``PersistentDataset``: the same datalist, the same transforms.

    The deterministic transforms at the head of the pipeline run once for each item, and the result goes into a store, from which it is
    read in boxes. A random crop that comes next (``RandSpatialCropd``, ``RandSpatialCropSamplesd``, ``RandScaleCropd``,
    ``RandCropByPosNegLabeld``, ``RandCropByLabelClassesd``, ``RandWeightedCropd``, with ``SpatialPadd`` before it) chooses its place before
    anything is read, and only that is read. All else runs on the patch. :meth:`explain` tells which transform went where. Nothing is
    kept in RAM.

    Items are known by the content of their files, the transforms by their arguments and code: what changed is prepared anew, and what
    is there is used, also by other scripts and after an interrupted preparation.

    Samples are what MONAI's pipeline makes: dicts of ``MetaTensor`` (C, X, Y, Z) with the patch's affine, and lists of them where the crop
    makes several. ``dataset[i]`` draws from torch's generator; with :class:`radioloader.DataLoader` samples depend on seed, epoch and
    item alone.

    Args:
        data: Dicts, such as ``{"image": path, "label": path}``.
        transform: A ``Compose`` of dict transforms, or one of them.
        store: URI of the store in which prepared items lie; it is made where there is none. Also as ``cache_dir``.
        num_workers: Processes that prepare; None takes as many as cores.
        progress: Show a progress bar while items are prepared.
        seed: Seed of everything random.
        prefix_id: Names the deterministic transforms, where they cannot be hashed (a lambda): give another one when you change them.
        on_error: ``"raise"`` when items could not be prepared (after all others were), or ``"skip"``: they are left out, with a warning.
        config: Tiles, compression, access; None takes the process's defaults.
        **cache: Arguments of MONAI's datasets about their caches, which have no meaning here.

    Raises:
        IngestError: Items could not be prepared; names them.
        ConfigError: An argument is wrong, or a transform cannot be hashed.
        RadioloaderError: The store cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any] | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        num_workers: int | None = None,
        progress: bool = True,
        seed: int = 0,
        prefix_id: str | None = None,
        on_error: str = "raise",
        config: StorageConfig | None = None,
        **cache: Any,
    ) -> None:
        store = store if store is not None else cache.pop("cache_dir", None)
        unknown = sorted(set(cache) - set(_OF_CACHES))
        if unknown:
            raise TypeError(f"Dataset got an unexpected argument {unknown[0]!r}")
        if cache:
            _log.info("%s: nothing is cached in RAM, so these have no meaning here", ", ".join(sorted(cache)))
        if store is None:
            raise ConfigError(
                "store is missing: give the URI of a folder or bucket for the prepared items, store='...'"
            )
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r} is not one of 'raise', 'skip'")
        self.seed = as_whole(seed, "seed")
        self.transform = transform
        self.plan = split(transform)
        if isinstance(data, str | Mapping) or not isinstance(data, Sequence):
            raise ConfigError(f"data is a {type(data).__name__}, expected a list of dicts such as {{'image': path}}")
        items = [as_item(entry) if isinstance(entry, Mapping) else None for entry in data]
        for number, item in enumerate(items):
            if item is None:
                raise ConfigError(
                    f"data[{number}] is a {type(data[number]).__name__}, expected a dict such as {{'image': path}}"
                )
        if transform is None and any(item is not None and item.files for item in items):
            raise ConfigError(
                "transform is missing: it must load the files, with LoadImaged and EnsureChannelFirstd at least"
            )
        config = get_config() if config is None else config
        self.store = Store.open_or_create(store, config=config).uri
        prepared, failures = prepare(
            Store.open(self.store, config=config),
            [item for item in items if item is not None],
            ItemPreparation(self.plan),
            prefix_id=prefix_id,
            workers=as_whole(num_workers or 0, "num_workers", minimum=0) or None,
            progress=progress,
            config=config,
        )
        if failures:
            self._failed(failures, len(items), skip=on_error == "skip")
        self.data = [entry for i, entry in enumerate(data) if i not in failures]
        self._items: list[Prepared] = [item for item in prepared if item is not None]
        self._streams = _streams(self._items)
        self._unread = Unread(
            self._items, [dict(as_item(entry).files) for entry in self.data], Identities(self.plan.prefix)
        )
        self._crop = Crop(self.plan.pads, self.plan.crop)
        self._rest = self.plan.finish()
        self._identities = Identities([*self.plan.pads, *self.plan.rest])
        self._reader = VolumeReader(config)
        self._seeded = None if self._rest is None else SeededTransform(self._rest)
        self._own_draws: np.random.RandomState | None = None

    def _failed(self, failures: Mapping[int, str], count: int, *, skip: bool) -> None:
        some = "; ".join(failures[number] for number in sorted(failures)[:3])
        text = f"{len(failures)} of {count} items could not be prepared: {some}" + (
            "; ..." if len(failures) > 3 else ""
        )
        if not skip or len(failures) == count:
            raise IngestError(f"{text}. {_ADVICE if len(failures) < count else 'Nothing was prepared.'}")
        _log.warning("%s; left out", text)

    def explain(self) -> str:
        """Which transform runs where, and why: one line each."""
        return str(self.plan)

    @property
    def collections(self) -> dict[str, str]:
        """By key, the collection of :attr:`store` that holds the prepared volumes, such as for :func:`radioloader.predict`."""
        return {key: ref.collection for item in self._items[:1] for key, ref in item.volumes.items()}

    @property
    def subjects(self) -> list[str]:
        """The subject of :attr:`store` that each item is."""
        return [next(iter(item.volumes.values())).obs_subject_id for item in self._items]

    # ---- what samplers and loaders ask -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._items)

    @property
    def random(self) -> bool:
        """Whether samples differ from epoch to epoch even when they are not shuffled."""
        return self.plan.random

    @cached_property
    def layout(self) -> Layout:
        """One sample of each item."""
        shapes = [next(iter(item.volumes.values())).spatial_shape for item in self._items]
        return Layout(np.ones(len(self), np.int64), shapes=np.array(shapes, np.int64).reshape(-1, 3))

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> VolumeKey:
        """The key of item ``index`` in ``epoch``; of visit ``draw``, where it is visited repeatedly."""
        return VolumeKey(index, 0 if draw is None else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the samples, as plain values by name."""
        return {
            "dataset": "monai.Dataset",
            "volumes": len(self),
            "data": f"{seed_of(*[item.hash for item in self._items]):032x}",
            "transforms": [
                type(part).__name__ for part in (*self.plan.prefix, *self.plan.pads, self.plan.crop, *self.plan.rest)
            ],
            "dataset seed": self.seed,
            "samples": len(self),
        }

    @staticmethod
    def collate(samples: Sequence[Any]) -> Any:
        """MONAI's collate, for loaders: lists of samples become one batch."""
        return list_data_collate(samples)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Dataset:
        """What MONAI's loaders call: ``dataset[i]`` draws from here on, instead of from torch's generator."""
        self._own_draws = np.random.RandomState(seed) if state is None else state
        return self

    # ---- samples -------------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        if isinstance(index, Sequence) and not isinstance(index, str):
            return Subset(self, index)
        return self.__getitems__([index])[0]

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        """Read several samples at once.

        Raises:
            ReadError: Voxels could not be read; names the item's volume, URI and box.
        """
        return self.finish(self.begin(self.settled(keys)))

    def settled(self, keys: Sequence[Any]) -> list[Any]:
        """The same samples, none of which depends on a generator any more."""
        return [self._asked(key) for key in keys if key is not None]

    def begin(self, keys: Sequence[Any]) -> _Begun:
        """Choose boxes and read them, in any thread. :meth:`finish` makes samples of them."""
        asked = [self._asked(key) for key in keys]
        with stats.busy([one.volume for one in asked]):
            requests: list[ReadRequest] = []
            chosen = [self._choose(one, requests) for one in asked]
            with stats.timed("read"):
                self._reader.read_many(requests)
            return _Begun([_read(one) for one in chosen], sum(request.out.nbytes for request in requests))

    def finish(self, begun: _Begun) -> list[Any]:
        """Transform what was read."""
        with stats.busy([one.volume for one in begun.chosen]), stats.timed("transform"):
            samples = [self._finished(one) for one in begun.chosen]
        stats.count_batch()
        return samples

    def _finished(self, chosen: _Chosen) -> Any:
        if self._seeded is None:
            self._identities.correct(chosen.sample)
            return chosen.sample
        try:
            sample = self._seeded(chosen.sample, chosen.seed)
            self._identities.correct(sample)
            return sample
        except Exception as error:
            error.add_note(f"in the transforms of {self.describe(chosen.volume)}, {chosen.key!r}")
            raise

    def end_epoch(self) -> None:
        """For loaders."""
        self._reader.drop_regions()

    def describe(self, volume: int) -> str:
        """An item in words, for error messages."""
        return as_item(self.data[volume]).name

    def _asked(self, key: Any) -> _Asked:
        if isinstance(key, _Asked):
            return key
        if isinstance(key, VolumeKey):
            if not 0 <= key.volume < len(self):
                raise IndexError(f"{key}: the dataset has {len(self)} items")
            return _Asked(key.volume, (self.seed, key.epoch, *self._streams[key.volume], key.draw), key)
        if not hasattr(key, "__index__"):
            raise TypeError(f"Dataset takes integers, slices and VolumeKeys, got {key!r}")
        index = operator.index(key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} is out of range, the dataset has {len(self)}")
        base = 0
        if self.random:
            own = self._own_draws
            base = int(torch.randint(2**62, ()).item() if own is None else own.randint(2**62))
        return _Asked(index % len(self), ("torch", base, *self._streams[index % len(self)]), key)

    def _choose(self, asked: _Asked, requests: list[ReadRequest]) -> _Chosen:
        item = self._items[asked.volume]
        about, unread = self._unread.about(asked.volume), self._unread.sample(asked.volume)
        try:
            result, box = self._crop(unread, about["found"], seed=seed_of("crop", *asked.parts), name=item.hash)
        except Exception as error:
            error.add_note(f"while a box was chosen in {self.describe(asked.volume)}, {asked.key!r}")
            raise
        for sample in result if isinstance(result, list) else [result]:
            for key, ref in item.volumes.items():
                value = sample.get(key)
                if not is_unread(value):
                    continue
                place = box(key, value)
                dtype = STORED_AS.get(value.dtype, value.dtype)
                tensor = allocate({key: (tuple(value.shape), dtype)}, final=self._seeded is None)[key]
                out = tensor.numpy()
                requests.append(ReadRequest(ref, place, out if len(ref.shape) == 4 else out[0]))
                sample[key] = Wanted(value, tensor, self._as_array(key, about))
        return _Chosen(asked.volume, result, seed_of("transform", *asked.parts), asked.key)

    def _as_array(self, key: str, about: Mapping[str, Any]) -> bool:
        cropped = [part for part in (*self.plan.pads, self.plan.crop) if part is not None and key in part.keys]
        return about["volumes"][key]["kind"] == "array" and not cropped


def _read(chosen: _Chosen) -> _Chosen:
    for sample in chosen.sample if isinstance(chosen.sample, list) else [chosen.sample]:
        for key, value in sample.items():
            if isinstance(value, Wanted):
                sample[key] = value.wrapped()
    return chosen


def _streams(items: Sequence[Prepared]) -> list[tuple[str, int]]:
    """What the random streams of each item are keyed by: its content, and which of those with the same content it is."""
    seen: dict[str, int] = {}
    streams = []
    for item in items:
        number = seen.get(item.hash, 0)
        seen[item.hash] = number + 1
        streams.append((item.hash, number))
    return streams
