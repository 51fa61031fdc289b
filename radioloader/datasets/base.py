"""What the datasets share: keys in, batches out."""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from radioloader.config import StorageConfig
from radioloader.datasets.collate import Batch
from radioloader.datasets.memory import allocate
from radioloader.datasets.seeding import call_seeded
from radioloader.datasets.table import RESERVED, Store, SubjectTable, snapshot_of
from radioloader.errors import ConfigError, ShapeError
from radioloader.samplers.positions import as_whole
from radioloader.samplers.random import generator, seed_of
from radioloader.storage.reader import ReadRequest, VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.types import Box, SampleKey

__all__ = ["Placed", "StoreDataset"]

if TYPE_CHECKING:
    _Base = Dataset[dict[str, Any]]
else:
    _Base = Dataset

_DTYPES = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
}
_TORCH = {np.dtype(value).name: key for key, value in _DTYPES.items()} | {
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A sample whose place in its volume is settled.

    Attributes:
        volume: Position of the subject in the dataset.
        box: The sample, in voxels.
        image_box: What is read of the images; larger than ``box`` where neighbours become channels.
        axis: Array axis that a slice drops; None for a patch or volume.
        seed: Seed of the transform.
    """

    volume: int
    box: Box
    image_box: Box
    axis: int | None
    seed: int


class StoreDataset(_Base, abc.ABC):
    """Base of the datasets. ``dataset[key]`` is a pure function of the key; ``dataset[i]`` draws from torch's generator.

    Samples are dicts: ``image`` (C, ...) , ``label`` (L, ...) when there is one, ``affine`` (4, 4) float64 (voxel of the sample to RAS
    mm), ``location`` (2, 3) int64 (first voxel and one past the last, in the volume), ``obs_subject_id``, ``obs_id``, and the targets.
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
        grid_tolerance_mm: float,
        config: StorageConfig | None,
    ) -> None:
        snapshot, available = snapshot_of(store, config)
        names = [image] if isinstance(image, str) else list(image)
        if not names:
            raise ConfigError("image is empty; name at least one image collection")
        if transform is not None and not callable(transform):
            raise ConfigError(f"transform must be callable, got {type(transform).__name__}")
        targets = [targets] if isinstance(targets, str) else targets
        columns = dict(targets) if isinstance(targets, Mapping) else {name: name for name in targets}
        taken = sorted(set(columns) & set(RESERVED))
        if taken:
            raise ConfigError(
                f"targets cannot be called {taken[0]!r}, which is a key of every sample; "
                f"rename it: targets={{'my_{taken[0]}': '{taken[0]}'}}"
            )
        self.table = SubjectTable(
            snapshot,
            available,
            image=names,
            label=label,
            targets=columns,
            subjects=subjects,
            tolerance_mm=grid_tolerance_mm,
        )
        self.image = names
        self.label = label
        self.transform = transform
        self.seed = as_whole(seed, "seed")
        self._image_dtype = self._choose_image_dtype(dtype)
        self._pad_value = _fit_pad_value(pad_value, self._image_dtype)
        if dtype is not None:
            self._check_range(snapshot, dtype)
        self._label_dtype = self._choose_label_dtype() if label is not None else None
        self._reader = VolumeReader(snapshot.store.config if config is None else config)

    @property
    def subjects(self) -> list[str]:
        """Ids of the subjects, in the order of the keys' ``volume``."""
        return list(self.table.subjects)

    @property
    @abc.abstractmethod
    def random(self) -> bool:
        """Whether samples differ from epoch to epoch even when they are not shuffled."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def key(self, index: int, *, epoch: int = 0) -> SampleKey:
        """The key of the sample at ``index`` in ``epoch``."""

    @abc.abstractmethod
    def _place(self, key: Any, stream: Callable[[str], np.random.Generator]) -> tuple[Box, Box, int | None]:
        """Box, image box and dropped axis of a key; ``stream(name)`` is the sample's random stream of that name."""

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[SampleKey | int]) -> list[dict[str, Any]]:
        """Read several samples at once, straight into one batch.

        Args:
            keys: Keys of a sampler, or plain integers.

        Returns:
            A :class:`~radioloader.datasets.collate.Batch`; what the transform returned, where there is one.

        Raises:
            ReadError: Voxels could not be read; names subject, collection, URI and box.
            ShapeError: The samples have different shapes, and no transform that may change them; names two of them.
        """
        placed = [self._resolve(key) for key in keys]
        if self.transform is None:
            return self._read(placed)
        # A transform may bring different shapes to one, so that they need not be stackable before it.
        groups = [[place] for place in placed] if self._shapes_differ(placed) else [placed]
        read = [sample for group in groups for sample in self._read(group)]
        # Not collated here: a collate_fn of the user's may bring what has different shapes together.
        return [self._transformed(sample, place, key) for sample, place, key in zip(read, placed, keys, strict=True)]

    def _transformed(self, sample: dict[str, Any], place: Placed, key: SampleKey | int) -> dict[str, Any]:
        assert self.transform is not None
        try:
            result: dict[str, Any] | None = call_seeded(self.transform, sample, place.seed)
        except Exception as error:
            error.add_note(f"in the transform of volume {self.table.obs_id(place.volume)!r}, {key!r}")
            raise
        if result is None:
            raise TypeError(
                f"the transform returned None for volume {self.table.obs_id(place.volume)!r}; it must return the sample"
            )
        return result

    def _resolve(self, key: Any) -> Placed:
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
            parts: tuple[int | str, ...] = ("torch", base, self.table.obs_id(key.volume), key.draw)
        else:
            if not 0 <= key.volume < len(self.table):
                raise IndexError(f"{key}: the dataset has {len(self.table)} volumes")
            parts = (self.seed, key.epoch, self.table.obs_id(key.volume), key.draw, *self._extra(key))
        box, image_box, axis = self._place(key, lambda name: generator(name, *parts))
        return Placed(key.volume, box, image_box, axis, seed_of("transform", *parts))

    def _extra(self, key: Any) -> tuple[int | str, ...]:
        """What tells samples of one volume apart besides ``draw``."""
        return ()

    def _spatial(self, box: Box, axis: int | None) -> tuple[int, ...]:
        return tuple(n for a, n in enumerate(box.shape) if a != axis)

    def _shapes_differ(self, placed: Sequence[Placed]) -> bool:
        return len({self._spatial(place.box, place.axis) for place in placed}) > 1

    def _read(self, placed: Sequence[Placed]) -> Batch:
        first = placed[0]
        spatial = self._spatial(first.box, first.axis)
        for place in placed:
            if self._spatial(place.box, place.axis) != spatial:
                raise ShapeError(
                    f"cannot stack volume {self.table.obs_id(first.volume)!r} of shape {spatial} and "
                    f"volume {self.table.obs_id(place.volume)!r} of "
                    f"shape {self._spatial(place.box, place.axis)}; crop or pad to one size, or use batch_size=1"
                )
        tensors = allocate(self._layout(len(placed), first, spatial), final=self.transform is None)
        requests = [
            request
            for position, place in enumerate(placed)
            for request in self._requests(
                place, {name: tensors[name].numpy()[position] for name in ("image", "label") if name in tensors}
            )
        ]
        self._reader.read_many(requests)
        tensors["affine"].copy_(
            torch.from_numpy(np.stack([p.box.affine(self.table.affines[p.volume]) for p in placed]))
        )
        tensors["location"].copy_(torch.tensor([[p.box.start, p.box.stop] for p in placed]))
        collated: dict[str, Any] = dict(tensors)
        collated["obs_subject_id"] = [self.table.subjects[p.volume] for p in placed]
        collated["obs_id"] = [self.table.obs_id(p.volume) for p in placed]
        for name, values in self.table.targets.items():
            chosen = values[[p.volume for p in placed]]
            if values.dtype.kind in "biuf":
                tensors[name].copy_(torch.from_numpy(chosen))
                collated[name] = tensors[name]
            else:
                collated[name] = [str(value) for value in chosen.tolist()]
        samples = [{name: values[position] for name, values in collated.items()} for position in range(len(placed))]
        return Batch(samples, collated)

    def _layout(
        self, count: int, first: Placed, spatial: tuple[int, ...]
    ) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        neighbours = first.image_box.shape[first.axis] if first.axis is not None else 1
        layout = {"image": ((count, self.table.image_channels * neighbours, *spatial), self._image_dtype)}
        if self._label_dtype is not None:
            layout["label"] = ((count, self.table.label_channels, *spatial), self._label_dtype)
        layout["affine"] = ((count, 4, 4), torch.float64)
        layout["location"] = ((count, 2, 3), torch.int64)
        for name, values in self.table.targets.items():
            if values.dtype.kind in "biuf":
                layout[name] = ((count,), torch.from_numpy(values[:0]).dtype)
        return layout

    def _requests(self, place: Placed, slots: Mapping[str, npt.NDArray[Any]]) -> list[ReadRequest]:
        requests = []
        channel = 0
        image = _as_volumes(slots["image"], self.table.image_channels, place.axis)
        for ref in self.table.images(place.volume):
            out = image[channel : channel + ref.channels] if len(ref.shape) == 4 else image[channel]
            requests.append(ReadRequest(ref, place.image_box, out, self._pad_value))
            channel += ref.channels
        if "label" in slots:
            ref = self.table.label(place.volume)
            label = _as_volumes(slots["label"], self.table.label_channels, place.axis)
            requests.append(ReadRequest(ref, place.box, label if len(ref.shape) == 4 else label[0]))
        return requests

    def _choose_image_dtype(self, dtype: torch.dtype | None) -> torch.dtype:
        if dtype is not None:
            if dtype not in _DTYPES:
                raise ConfigError(
                    f"dtype={dtype} is not one of {', '.join(map(str, _DTYPES))}, or None for the stored dtype"
                )
            return dtype
        found = self.table.image_dtypes()
        if len(found) > 1:
            (a, x), (b, y) = list(found.items())[:2]
            raise ConfigError(
                f"dtype=None keeps the stored dtype, but it differs: {a} in {x.describe()}, {b} in {y.describe()}; give a dtype"
            )
        (name, ref), *_ = found.items()
        if ref.scaled:
            raise ConfigError(
                f"dtype=None keeps the stored dtype, but {ref.describe()} scales its values "
                f"(slope {ref.slope}, intercept {ref.intercept}); give a dtype"
            )
        return _TORCH[name]

    def _check_range(self, snapshot: Snapshot, dtype: torch.dtype) -> None:
        """Refuse a dtype that would wrap values around (or make them infinite), going by the statistics of ingest."""
        if dtype.is_floating_point and dtype != torch.float16:
            return
        info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
        for column in range(len(self.image)):
            low, high, nonfinite = (
                self.table.statistic(snapshot, column, part) for part in ("stat_min", "stat_max", "nonfinite")
            )
            bad = (low < info.min) | (high > info.max) | ((nonfinite > 0) & (not dtype.is_floating_point))
            if bad.any():
                volume = int(np.flatnonzero(bad)[0])
                raise ConfigError(
                    f"dtype={dtype} does not hold the values of {self.table.images(volume)[column].describe()}: {low[volume]:g} to "
                    f"{high[volume]:g}, {int(nonfinite[volume])} voxels that are not finite; give a wider dtype"
                )

    def _choose_label_dtype(self) -> torch.dtype:
        return _TORCH[np.result_type(*self.table.label_dtypes()).name]


def _fit_pad_value(value: float, dtype: torch.dtype) -> float:
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        if not float(value).is_integer() or not info.min <= value <= info.max:
            raise ConfigError(f"pad_value={value} is no value of {dtype}, the dtype of the images")
    return float(value)


def _as_volumes(slot: npt.NDArray[Any], channels: int, axis: int | None) -> npt.NDArray[Any]:
    """A batch slot as (C, X, Y, Z): a view, whose axis of neighbours lies where the volume has it."""
    if axis is None:
        return slot
    return np.moveaxis(slot.reshape(channels, -1, *slot.shape[1:]), 1, axis + 1)
