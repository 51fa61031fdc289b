"""Reading a batch: from places in volumes to one tensor for each part of the samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader.datasets import stats
from radioloader.datasets.collate import Batch
from radioloader.datasets.memory import allocate
from radioloader.datasets.table import SubjectTable
from radioloader.errors import ReadError, ShapeError
from radioloader.storage.reader import ReadRequest, VolumeReader
from radioloader.types import Box

__all__ = ["BatchReader", "Begun", "Placed", "skipped"]

_log = logging.getLogger("radioloader")


@dataclass(frozen=True, slots=True)
class Placed:
    """A sample whose place in its volume is settled.

    Attributes:
        volume: Position of the subject in the dataset.
        box: The sample, in voxels.
        image_box: What is read of the images; larger than ``box`` where neighbours become channels.
        axis: Array axis that a slice drops; None for a patch or volume.
        seed: Seed of the transform.
        key: The key or integer that was asked for.
        region: What is read of the images and kept for the samples after this one; None: no more than ``image_box``.
    """

    volume: int
    box: Box
    image_box: Box
    axis: int | None
    seed: int
    key: Any
    region: Box | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the sample, without the dropped axis."""
        return tuple(n for axis, n in enumerate(self.box.shape) if axis != self.axis)


@dataclass(frozen=True, slots=True)
class Begun:
    """Samples that were read, and not transformed yet.

    Attributes:
        batches: In parts of one shape each.
    """

    batches: list[Batch]

    @property
    def nbytes(self) -> int:
        """Size of their tensors in bytes."""
        return sum(batch.nbytes for batch in self.batches)


@dataclass(frozen=True, slots=True)
class BatchReader:
    """Reads the samples of a batch straight into one tensor.

    Attributes:
        table: The volumes.
        reader: Reads their voxels.
        image_dtype: dtype of images.
        label_dtype: dtype of labels; None where there are none.
        pad_value: Value of image voxels outside the volume.
        skip: Leave out samples that cannot be read, rather than raise.
    """

    table: SubjectTable
    reader: VolumeReader
    image_dtype: torch.dtype
    label_dtype: torch.dtype | None
    pad_value: float
    skip: bool

    def read(self, placed: Sequence[Placed], *, final: bool) -> Batch:
        """Read samples.

        Args:
            placed: Where they lie, all of one shape.
            final: Whether the batch is what a worker sends, without a transform.

        Raises:
            ReadError: Voxels could not be read; with ``skip``, of no sample.
            ShapeError: The shapes differ; names two volumes.
        """
        first = placed[0]
        spatial = first.shape
        for place in placed:
            if place.shape != spatial:
                raise ShapeError(
                    f"cannot stack volume {self.table.obs_id(first.volume)!r} of shape {spatial} and "
                    f"volume {self.table.obs_id(place.volume)!r} of "
                    f"shape {place.shape}; crop or pad to one size, order by shape "
                    "(radioloader.EqualShapes), or use batch_size=1"
                )
        tensors = allocate(self._layout(len(placed), first, spatial), final=final)
        requests: list[ReadRequest] = []
        owners: list[int] = []
        voxels = ("image",) if self.label_dtype is None else ("image", "label")  # without one, label may be a target
        for position, place in enumerate(placed):
            slots: dict[str, npt.NDArray[Any]] = {name: tensors[name].numpy()[position] for name in voxels}
            requests += self._requests(place, slots)
            owners += [position] * (len(requests) - len(owners))
        with stats.timed("read"):
            failures = self.reader.try_many(requests)
        if failures:
            kept = self._without({owners[place]: error for place, error in failures.items()}, placed)
            return self.read(kept, final=final)
        with stats.timed("collate"):
            return self._assembled(placed, tensors)

    def _without(self, failures: Mapping[int, ReadError], placed: Sequence[Placed]) -> list[Placed]:
        """What is left of a batch when some of it could not be read."""
        first = failures[min(failures)]
        kept = [place for position, place in enumerate(placed) if position not in failures]
        if not self.skip:
            raise first
        skipped([failures[position] for position in sorted(failures)], len(placed))
        return kept

    def _assembled(self, placed: Sequence[Placed], tensors: dict[str, torch.Tensor]) -> Batch:
        affines = self.table.columns["affines"]
        tensors["affine"].copy_(torch.from_numpy(np.stack([p.box.affine(affines[p.volume]) for p in placed])))
        tensors["location"].copy_(torch.tensor([[p.box.start, p.box.stop] for p in placed]))
        collated: dict[str, Any] = dict(tensors)
        collated["obs_subject_id"] = [self.table.subject(p.volume) for p in placed]
        collated["obs_id"] = [self.table.obs_id(p.volume) for p in placed]
        for name in self.table.targets:
            chosen = self.table.columns[f"target.{name}"][[p.volume for p in placed]]
            if chosen.dtype.kind in "biuf":
                tensors[name].copy_(torch.from_numpy(chosen))
                collated[name] = tensors[name]
            else:
                collated[name] = chosen.tolist()
        samples = [{name: values[position] for name, values in collated.items()} for position in range(len(placed))]
        return Batch(samples, collated, placed)

    def _layout(
        self, count: int, first: Placed, spatial: tuple[int, ...]
    ) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        neighbours = first.image_box.shape[first.axis] if first.axis is not None else 1
        layout = {"image": ((count, self.table.image_channels * neighbours, *spatial), self.image_dtype)}
        if self.label_dtype is not None:
            layout["label"] = ((count, self.table.label_channels, *spatial), self.label_dtype)
        layout["affine"] = ((count, 4, 4), torch.float64)
        layout["location"] = ((count, 2, 3), torch.int64)
        for name in self.table.targets:
            dtype = self.table.columns[f"target.{name}"].dtype
            if dtype.kind in "biuf":
                layout[name] = ((count,), torch.from_numpy(np.empty(0, dtype)).dtype)
        return layout

    def _requests(self, place: Placed, slots: Mapping[str, npt.NDArray[Any]]) -> list[ReadRequest]:
        requests = []
        channel = 0
        image = _as_volumes(slots["image"], self.table.image_channels, place.axis)
        for ref in self.table.images(place.volume):
            out = image[channel : channel + ref.channels] if len(ref.shape) == 4 else image[channel]
            requests.append(ReadRequest(ref, place.image_box, out, self.pad_value, place.region))
            channel += ref.channels
        if "label" in slots:
            ref = self.table.label(place.volume)
            label = _as_volumes(slots["label"], self.table.label_channels, place.axis)
            out = label if len(ref.shape) == 4 else label[0]
            requests.append(ReadRequest(ref, place.box, out, region=place.region))
        return requests


def skipped(failures: Sequence[ReadError], samples: int) -> None:
    """Count and log samples that are left out of a batch of ``samples``.

    Raises:
        ReadError: None is left.
    """
    stats.count_skipped(len(failures))
    for error in failures:
        _log.warning("skipped: %s", error)
    if failures and len(failures) == samples:
        first = failures[0]
        raise ReadError(f"none of the {samples} samples of a batch could be read; the first one: {first}") from first


def _as_volumes(slot: npt.NDArray[Any], channels: int, axis: int | None) -> npt.NDArray[Any]:
    """A batch slot as (C, X, Y, Z): a view, whose axis of neighbours lies where the volume has it."""
    if axis is None:
        return slot
    return np.moveaxis(slot.reshape(channels, -1, *slot.shape[1:]), 1, axis + 1)
