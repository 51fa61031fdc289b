"""TorchIO's subjects: deterministic transforms of them run once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torchio as tio

from radioloader.adapters.compact import compact
from radioloader.adapters.digest import digest
from radioloader.adapters.lazy_image import StoredLabelMap, StoredScalarImage, Voxels
from radioloader.adapters.prepare import Made
from radioloader.adapters.stored import Prepared
from radioloader.adapters.values import decode, encode
from radioloader.errors import ConfigError
from radioloader.formats.nifti import header_for
from radioloader.ingestion.derived import SourceGrid
from radioloader.storage.reader import VolumeReader

_MOVES = {"Flip", "Affine", "ElasticDeformation", "RandomFlip", "RandomAffine", "RandomElasticDeformation"}
"""Transforms that move voxels and leave the affine as it was."""

__all__ = ["StoreSubject", "SubjectPreparation", "prepared_subject", "split_transform"]


@dataclass(frozen=True)
class StoreSubject:
    """A subject of a store.

    Attributes:
        id: Its id.
        images: Voxels by name, and whether it is a label map.
        contents: What tells each image's voxels from others.
        more: Columns of ``obs_meta`` by name.
        grids: The grid of the file that each image comes from.
    """

    id: str
    images: Mapping[str, tuple[Voxels, bool]]
    contents: Mapping[str, str]
    more: Mapping[str, Any]
    grids: Mapping[str, SourceGrid]

    @property
    def name(self) -> str:
        """The subject in words."""
        return f"subject {self.id!r}"

    def subject(self, hash_: str) -> str:
        """Its id: what is made of it belongs to the same subject."""
        return self.id

    def stamps(self) -> str:
        """Empty: the hash needs no file."""
        return ""

    def hash(self) -> str:
        """SHA-256 in hex of what the subject is made of."""
        grids = {name: (voxels.affine, voxels.shape, label) for name, (voxels, label) in self.images.items()}
        return digest([self.id, dict(self.contents), grids])

    def make(self, *, more: bool = True) -> Any:
        """A ``tio.Subject`` whose images were not read; without the columns of ``obs_meta`` if so asked."""
        images = {
            name: (StoredLabelMap if label else StoredScalarImage).of(voxels)
            for name, (voxels, label) in self.images.items()
        }
        return tio.Subject(obs_subject_id=self.id, **images, **(self.more if more else {}))


def split_transform(transform: Any) -> tuple[list[Any], Any, list[tuple[str, str, str]]]:
    """The deterministic transforms at the head of a pipeline, what is left of it (or None), and where each runs and why."""
    transforms = [] if transform is None else list(_flat(transform))
    end = next((number for number, part in enumerate(transforms) if _why_not_once(part)), len(transforms))
    head, tail = transforms[:end], transforms[end:]
    steps = [(_name(part), "once, at preparation", "deterministic") for part in head]
    steps += [
        (_name(part), "on every subject", _why_not_once(part) or "comes after a random transform") for part in tail
    ]
    left = None if not tail else tail[0] if len(tail) == 1 else tio.Compose(tail)
    return head, left, steps


def _flat(transform: Any) -> Any:
    if type(transform) is tio.Compose and transform.probability == 1:
        for part in transform.transforms:
            yield from _flat(part)
    else:
        yield transform


def _why_not_once(transform: Any) -> str | None:
    if not isinstance(transform, tio.Transform):
        return "a plain function"
    if type(transform).__module__.partition(".")[0] != "torchio" or isinstance(transform, tio.Lambda):
        return "a function of yours, it may be random"
    if isinstance(transform, tio.transforms.augmentation.RandomTransform):
        return "random"
    parts = getattr(transform, "transforms", None)
    if isinstance(transform, tio.OneOf) or (
        parts is not None and any(_why_not_once(part) for part in _flat(transform))
    ):
        return "random"
    return "random (p < 1)" if transform.probability < 1 else None


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", None) or type(transform).__name__


class SubjectPreparation:
    """TorchIO's deterministic transforms; see :class:`~radioloader.adapters.prepare.Preparation`.

    Args:
        transforms: The transforms.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self._transforms = list(transforms)
        self.names = [type(transform).__name__ for transform in transforms]

    def transforms(self) -> Any:
        return self._transforms

    def settings(self) -> Any:
        return "torchio"

    def __call__(self, item: StoreSubject, hash_: str) -> Made:
        subject = item.make(more=False)  # TorchIO's transforms do not look at them
        for transform in self._transforms:
            subject = transform(subject)
        images = subject.get_images_dict(intensity_only=False)
        volumes, described, grids = {}, {}, {}
        for name, image in images.items():
            tensor = image.data
            array = tensor.numpy()
            if array.dtype == bool:
                array = array.view(np.uint8)
            described[name] = {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "label": isinstance(image, tio.LabelMap),
                "affine": encode(np.asarray(image.affine, np.float64), paths={}, where="an affine"),
            }
            voxels = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
            volumes[name] = compact(np.ascontiguousarray(voxels)), np.asarray(image.affine, np.float64)
            if name in item.grids and not _MOVES & set(self.names):
                grids[name] = replace(
                    item.grids[name], header=header_for(item.grids[name].header, volumes[name][0].dtype)
                )
        rest = {
            name: encode(value, paths={}, where=repr(name)) for name, value in subject.items() if name not in images
        }
        return Made(volumes, {"volumes": described, "rest": rest, "history": _history(subject)}, grids)


def _history(subject: Any) -> str | None:
    """What TorchIO notes of its transforms; None where it holds functions."""
    try:
        return encode([list(step) for step in subject.applied_transforms], paths={}, where="the history")
    except ConfigError:
        return None


def prepared_subject(item: Prepared, reader: VolumeReader, more: Mapping[str, Any]) -> Any:
    """The ``tio.Subject`` of a prepared item, with ``more`` that it carries; its images were not read."""
    about = json.loads(item.about)
    images = {}
    for name, described in about["volumes"].items():
        affine = decode(described["affine"], paths={})
        voxels = Voxels(reader, item.volumes[name], affine, getattr(torch, described["dtype"]))
        images[name] = (StoredLabelMap if described["label"] else StoredScalarImage).of(voxels)
    rest = {name: decode(text, paths={}) for name, text in about["rest"].items()}
    subject = tio.Subject(**images, **rest, **more)
    if about["history"] is not None:
        subject.applied_transforms = [tuple(step) for step in decode(about["history"], paths={})]
    return subject
