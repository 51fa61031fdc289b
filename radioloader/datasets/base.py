"""What the datasets share: keys in, batches out."""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.datasets import stats
from radioloader.datasets.batch import BatchReader, Begun, Placed, skipped
from radioloader.datasets.collate import Batch
from radioloader.datasets.dtypes import check_range, fit_pad_value, image_dtype, label_dtype
from radioloader.datasets.seeding import SeededTransform
from radioloader.datasets.table import RESERVED, Store, SubjectTable, snapshot_of
from radioloader.datasets.transforms import adapted, plain
from radioloader.errors import ConfigError, ReadError, ShapeError
from radioloader.samplers.layout import Layout
from radioloader.samplers.positions import Stream
from radioloader.samplers.random import generator, seed_of
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.types import Box, SampleKey

__all__ = ["StoreDataset"]


if TYPE_CHECKING:
    _Base = Dataset[dict[str, Any]]
else:
    _Base = Dataset


class StoreDataset(_Base, abc.ABC):
    """Base of the datasets. ``dataset[key]`` is a pure function of the key; ``dataset[i]`` draws from torch's generator.

    Samples are dicts: ``image`` (C, ...) , ``label`` (L, ...) when there is one, ``affine`` (4, 4) float64 (voxel of the sample to RAS
    mm), ``location`` (2, 3) int64 (first voxel and one past the last, in the volume), ``obs_subject_id``, ``obs_id``, and the targets.

    A dataset pickles small, whatever the number of volumes: workers map the tables that this process holds.
    """

    _key_type: ClassVar[type[Any]]

    def __init__(
        self,
        store: Store,
        *,
        image: str | Sequence[str],
        label: str | None,
        targets: str | Sequence[str] | Mapping[str, str],
        subjects: Sequence[str] | None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None,
        dtype: torch.dtype | None,
        pad_value: float,
        seed: int,
        on_error: str,
        grid_tolerance_mm: float,
        config: StorageConfig | None,
        extra: Sequence[str] = (),
    ) -> None:
        snapshot, available = snapshot_of(store, config)
        names = _names(image, "image")
        if not names:
            raise ConfigError("image is empty; name at least one image collection")
        if not isinstance(label, str | None):
            raise ConfigError(f"label={label!r} must be the name of one collection, or None")
        try:
            tolerance_mm = float(grid_tolerance_mm)
        except (TypeError, ValueError):
            tolerance_mm = -1.0
        if not tolerance_mm >= 0:  # NaN as well, which no distance would exceed
            raise ConfigError(f"grid_tolerance_mm={grid_tolerance_mm!r} must be a number of mm, at least 0")
        if transform is not None and not callable(transform):
            raise ConfigError(f"transform must be callable, got {type(transform).__name__}")
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r} is not one of 'raise', 'skip'")
        if isinstance(targets, Mapping):
            columns = dict(zip(_names(targets.keys(), "targets"), _names(targets.values(), "targets"), strict=True))
        else:
            columns = {name: name for name in _names(targets, "targets")}
        # Without a label collection a target may be what the samples' label is: a class, say.
        taken = sorted(set(columns) & set(RESERVED) - ({"label"} if label is None else set()))
        if taken:
            raise ConfigError(
                f"targets cannot be called {taken[0]!r}, which is a key of every sample; "
                f"rename it: targets={{'my_{taken[0]}': '{taken[0]}'}}"
            )
        self._snapshot = snapshot
        self._chosen = _numbers(snapshot, available, subjects)
        self._table_arguments: dict[str, Any] = {
            "image": names,
            "label": label,
            "targets": columns,
            "tolerance_mm": tolerance_mm,
            "extra": list(extra),
        }
        self.image = names
        self.label = label
        self.transform = transform
        self.seed = as_whole(seed, "seed")
        self.on_error = on_error
        self.table = SubjectTable(snapshot, available, subjects=subjects, **self._table_arguments)
        self._image_dtype = image_dtype(self.table, dtype)
        self._pad_value = fit_pad_value(pad_value, self._image_dtype)
        if dtype is not None:
            check_range(self.table, len(names), dtype)
        self._label_dtype = label_dtype(self.table) if label is not None else None
        self._reader = VolumeReader(snapshot.store.config if config is None else config)
        self.table.extend(self._index())

    # ---- crossing into other processes ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("table", "layout", "_batches", "_seeded")
        }
        return state | {"_shared_table": self.table.shared()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state.pop("_shared_table")
        self.__dict__.update(state)
        try:
            self.table = SubjectTable.from_shared(self._snapshot, shared)
        except OSError:
            # Not a worker of the process that pickled it, or not on its machine: the catalog is read again, at the same version.
            everyone = self._snapshot.subject_ids
            subjects = everyone if self._chosen is None else [everyone[i] for i in self._chosen.tolist()]
            self.table = SubjectTable(self._snapshot, everyone, subjects=subjects, **self._table_arguments)
            self.table.extend(self._index())

    # ---- what there is ---------------------------------------------------------------------------------------------------

    @property
    def subjects(self) -> list[str]:
        """Ids of the subjects, in the order of the keys' ``volume``."""
        subjects: list[str] = self.table.columns["subjects"].tolist()
        return subjects

    def describe(self, volume: int) -> str:
        """A volume in words, for error messages."""
        return self.table.images(volume)[0].describe()

    @property
    @abc.abstractmethod
    def random(self) -> bool:
        """Whether samples differ from epoch to epoch even when they are not shuffled."""

    @abc.abstractmethod
    def _index(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of the table that this kind of dataset adds: ``counts`` (n,), the samples of each volume, at least."""

    @property
    def _unit(self) -> int:
        """So many samples in a row of one volume are read together."""
        return 1

    @property
    def _mix(self) -> int:
        """So many units come in turn where samples are shuffled."""
        return 1

    @property
    def _any_draw(self) -> bool:
        """Whether the samples of a volume differ by their draw alone."""
        return True

    def _shapes(self) -> npt.NDArray[np.int64]:
        """(n, k) spatial shape of each volume's samples."""
        return self.table.shapes

    @cached_property
    def layout(self) -> Layout:
        """How many samples each volume has, for samplers."""
        return Layout(
            counts=self.table.columns["counts"],
            unit=self._unit,
            mix=self._mix,
            any_draw=self._any_draw,
            shapes=self._shapes(),
            column=self.table.metadata,
        )

    def __len__(self) -> int:
        return len(self.layout)

    def key(self, index: int, *, epoch: int = 0, draw: int | None = None) -> SampleKey:
        """The key of a sample.

        Args:
            index: Number of the sample in an epoch.
            epoch: The epoch.
            draw: For orders that visit samples repeatedly: which visit this is.
        """
        volume = int(np.searchsorted(self.layout.starts, index, side="right")) - 1
        return self._key(volume, index - int(self.layout.starts[volume]), epoch, draw)

    @abc.abstractmethod
    def _key(self, volume: int, number: int, epoch: int, draw: int | None) -> SampleKey:
        """The key of a volume's sample ``number``."""

    def fingerprint(self) -> dict[str, Any]:
        """What decides the samples, as plain values by name: a resumed epoch is compared by it."""
        return {
            "dataset": type(self).__name__,
            "volumes": len(self.table),
            "data": self.table.fingerprint(),
            "image": list(self.image),
            "label": self.label,
            "dataset seed": self.seed,
            "samples": len(self),
        }

    @abc.abstractmethod
    def _place(self, key: Any, stream: Stream) -> tuple[Box, Box, int | None]:
        """Box, image box and dropped axis of a key."""

    @cached_property
    def _batches(self) -> BatchReader:
        skip = self.on_error == "skip"
        return BatchReader(self.table, self._reader, self._image_dtype, self._label_dtype, self._pad_value, skip)

    # ---- samples ---------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        if key is None:  # of a batch it would be left out
            raise TypeError(f"{type(self).__name__} takes {self._key_type.__name__}s and integers, got None")
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[SampleKey | int | None]) -> list[dict[str, Any]]:
        """Read several samples at once, straight into one batch.

        Args:
            keys: Keys of a sampler, or plain integers; None (what :class:`~radioloader.EqualShapes` fills short batches with) is
                left out.

        Returns:
            A :class:`~radioloader.datasets.collate.Batch`; what the transform returned, where there is one.

        Raises:
            ReadError: Voxels could not be read; names subject, collection, URI and box. With ``on_error="skip"``: of no sample.
            ShapeError: The samples have different shapes, and no transform that may change them; names two of them. Or there is no key.
        """
        return self.finish(self.begin(keys))

    def settled(self, keys: Sequence[Any]) -> list[Any]:
        """The same samples, none of which depends on a generator any more: what integers draw is drawn."""
        wanted = list(keys)
        if all(key is None or isinstance(key, self._key_type) for key in wanted):
            return wanted
        return list(self._resolved([key for key in wanted if key is not None]))

    def begin(self, keys: Sequence[Any]) -> Begun:
        """Read samples, in any thread. :meth:`finish` makes of them what ``__getitems__`` gives."""
        wanted = [key for key in keys if key is not None]
        if not wanted:
            raise ShapeError("there are no samples to read: a batch needs at least one key that is not None")
        placed = self._resolved(wanted)
        with stats.busy([place.volume for place in placed]):
            if self.transform is None:
                return Begun([self._batches.read(placed, final=True)])
            # A transform may bring different shapes to one, so that they need not be stackable before it.
            groups = [placed] if len({place.shape for place in placed}) == 1 else [[place] for place in placed]
            read: list[Batch] = []
            failures: list[ReadError] = []
            for group in groups:
                try:
                    read.append(self._batches.read(group, final=False))
                except ReadError as error:
                    if self.on_error == "raise":
                        raise
                    failures.append(error)
            if not read:
                if len(groups) == 1:
                    raise failures[0]
                first = failures[0].__cause__  # each was a batch of its own
                raise ReadError(
                    f"none of the {len(placed)} samples of a batch could be read; the first one: {first}"
                ) from first
            return Begun(read)

    def finish(self, begun: Begun) -> list[dict[str, Any]]:
        """Transform what was read."""
        if self.transform is None:
            stats.count_batch()
            return begun.batches[0]
        with stats.busy([place.volume for batch in begun.batches for place in batch.placed]), stats.timed("transform"):
            # Not collated here: a collate_fn of the user's may bring what has different shapes together.
            samples = [
                self._transformed(dict(sample), place)
                for batch in begun.batches
                for sample, place in zip(batch, batch.placed, strict=True)
            ]
        stats.count_batch()
        return samples

    def end_epoch(self) -> None:
        """Give back memory that served the samples of an epoch. For loaders."""
        self._reader.drop_regions()

    def _transformed(self, sample: dict[str, Any], place: Placed) -> dict[str, Any]:
        seeded = self.__dict__.get("_seeded")
        if seeded is None or seeded[0] is not self.transform:
            assert self.transform is not None
            seeded = self._seeded = self.transform, SeededTransform(adapted(self.transform))
        try:
            result: dict[str, Any] | None = seeded[1](sample, place.seed)
        except Exception as error:
            error.add_note(f"in the transform of volume {self.table.obs_id(place.volume)!r}, {place.key!r}")
            raise
        if result is None:
            raise TypeError(
                f"the transform returned None for volume {self.table.obs_id(place.volume)!r}; it must return the sample"
            )
        return plain(result) if type(result) is dict else result

    def _resolved(self, keys: Sequence[Any]) -> list[Placed]:
        """Where the samples of a batch lie; without those of which that cannot be read (a probability map), if they are to be skipped."""
        placed: list[Placed] = []
        failures: list[ReadError] = []
        for key in keys:
            try:
                placed.append(self._resolve(key))
            except ReadError as error:
                if self.on_error == "raise":
                    raise
                failures.append(error)
        skipped(failures, len(keys))
        return placed

    def _resolve(self, key: Any) -> Placed:
        if isinstance(key, Placed):
            return key
        asked = key
        if not isinstance(key, self._key_type):
            if not hasattr(key, "__index__"):
                raise TypeError(f"{type(self).__name__} takes {self._key_type.__name__}s and integers, got {key!r}")
            index = operator.index(key)
            if not -len(self) <= index < len(self):
                raise IndexError(f"sample {index} is out of range, the dataset has {len(self)}")
            key = self.key(index % len(self))
            # torch seeds this generator differently in every worker and epoch; a key's own seed would repeat itself.
            base = int(torch.randint(2**62, ()).item()) if self.random or self.transform is not None else 0
            # The volume as well: ranks that share a seed must not draw the same positions.
            common: tuple[int | str, ...] = ("torch", base, self.table.obs_id(key.volume))
            parts: tuple[int | str, ...] = (*common, key.draw)
        else:
            if not 0 <= key.volume < len(self.table):
                raise IndexError(f"{key}: the dataset has {len(self.table)} volumes")
            common = (self.seed, key.epoch, self.table.obs_id(key.volume))
            parts = (*common, key.draw, *self._extra(key))

        def stream(name: str, draw: int | None = None) -> np.random.Generator:
            return generator(name, *(parts if draw is None else (*common, draw)))

        box, image_box, axis = self._place(key, stream)
        region = self._region(key, box)
        return Placed(key.volume, box, image_box, axis, seed_of("transform", *parts), asked, region)

    def _region(self, key: Any, box: Box) -> Box | None:
        """What is read at once for all samples of a key's unit."""
        return None

    def _extra(self, key: Any) -> tuple[int | str, ...]:
        """What tells samples of one volume apart besides ``draw``."""
        return ()


def _names(value: Any, what: str) -> list[str]:
    """One name or several as a list."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ConfigError(f"{what} must be a name or several, got {odd[0]!r} of type {type(odd[0]).__name__}")
    return names


def _numbers(
    snapshot: Snapshot, available: Sequence[str], subjects: Sequence[str] | None
) -> npt.NDArray[np.int32] | None:
    """Which of the snapshot's subjects, as small numbers; None for all of them in their order. Unknown ones are left to the table."""
    chosen = list(available) if subjects is None else [subjects] if isinstance(subjects, str) else list(subjects)
    if chosen == snapshot.subject_ids:
        return None
    place = {subject: i for i, subject in enumerate(snapshot.subject_ids)}
    return np.array([place.get(str(subject), 0) for subject in chosen], np.int32)
