"""MONAI's random crops, run before there are voxels: on tensors that have a shape and metadata and no memory.

The crop is MONAI's own code, so that its choice, its metadata and what it notes for inverting are MONAI's. What it looks for in voxels
(foreground, classes, weights) is looked for once, when an item is prepared, and kept as a sample of voxel positions.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import monai.transforms as mt
import numpy as np
import numpy.typing as npt
import torch
from monai.transforms.utils import map_binary_to_indices, map_classes_to_indices, weighted_patch_samples

from radioloader.adapters.identity import Identities
from radioloader.samplers.random import generator
from radioloader.types import Box

__all__ = [
    "CANDIDATES",
    "Crop",
    "Found",
    "can_push_crop",
    "can_push_pad",
    "consumed",
    "find",
    "is_unread",
    "looks_for",
]

CANDIDATES = 2048
"""Positions of each kind that are kept of an item, at most: a uniform sample of all. Of weights, so many draws."""

_FEWEST = 128
"""Of each of many classes."""

_SPATIAL = (mt.RandSpatialCropd, mt.RandSpatialCropSamplesd, mt.RandScaleCropd)
_INDEXED = (mt.RandCropByPosNegLabeld, mt.RandCropByLabelClassesd, mt.RandWeightedCropd)


def can_push_crop(transform: Any) -> bool:
    """Whether a crop can be chosen without voxels. A subclass may do something else, so only MONAI's own classes."""
    return type(transform) in (*_SPATIAL, *_INDEXED)


def can_push_pad(transform: Any) -> bool:
    """Whether padding can be left to the read: a constant around the volume."""
    if type(transform) is not mt.SpatialPadd:
        return False
    modes = {str(getattr(mode, "value", mode)) for mode in transform.mode}
    return modes == {"constant"} and set(transform.padder.kwargs) <= {"value"} and _pad_value(transform) == 0.0


def _pad_value(pad: Any) -> float:
    return float(pad.padder.kwargs.get("value", 0.0))


@dataclass(frozen=True)
class Found:
    """Where in a volume a crop may have its centre.

    Attributes:
        shape: (X, Y, Z) of the volume.
        counts: How many voxels there are of each kind (foreground and background, or each class).
        positions: Numbers of some of them, in C order, int64; equally likely ones.
        padding: Whether the voxels that padding adds are of the first, second, ... kind; None: of none.
    """

    shape: tuple[int, ...]
    counts: list[int]
    positions: list[npt.NDArray[np.int64]]
    padding: int | None = None

    def padded(self, before: Sequence[int], shape: Sequence[int], name: str) -> list[npt.NDArray[np.int64]]:
        """The positions in a padded volume."""
        if tuple(shape) == self.shape:
            return self.positions
        moved = [_moved(numbers, self.shape, before, shape) for numbers in self.positions]
        if self.padding is not None:
            moved[self.padding] = self._with_padding(moved[self.padding], before, shape, name)
        return moved

    def _with_padding(
        self, numbers: npt.NDArray[np.int64], before: Sequence[int], shape: Sequence[int], name: str
    ) -> npt.NDArray[np.int64]:
        """A uniform sample of these and the voxels that were added."""
        assert self.padding is not None
        inside, added = self.counts[self.padding], int(np.prod(shape)) - int(np.prod(self.shape))
        rng = generator("padding", name, *map(int, shape))
        from_padding = int(rng.binomial(CANDIDATES, added / (inside + added)))
        kept = numbers if len(numbers) == 0 else rng.choice(numbers, CANDIDATES - from_padding)
        around: list[npt.NDArray[np.int64]] = []
        while sum(map(len, around)) < from_padding:
            drawn = rng.integers(0, int(np.prod(shape)), 4 * CANDIDATES)
            places = np.stack(np.unravel_index(drawn, tuple(shape)), axis=1) - np.asarray(before)
            around.append(drawn[((places < 0) | (places >= self.shape)).any(axis=1)])
        return np.concatenate([kept, np.concatenate([kept[:0], *around])[:from_padding]])


def _moved(
    numbers: npt.NDArray[np.int64], shape: Sequence[int], before: Sequence[int], padded: Sequence[int]
) -> npt.NDArray[np.int64]:
    places = np.unravel_index(numbers, tuple(shape))
    moved = tuple(place + first for place, first in zip(places, before, strict=True))
    return np.ravel_multi_index(moved, tuple(padded)).astype(np.int64)


def looks_for(crop: Any) -> tuple[Any, ...]:
    """What decides :func:`find`; a crop that differs in other arguments can use what was found before."""
    if type(crop) is mt.RandCropByPosNegLabeld:
        names = (crop.label_key, crop.image_key, crop.fg_indices_key, crop.bg_indices_key)
        return ("positive and negative", *names, float(crop.cropper.image_threshold), CANDIDATES)
    if type(crop) is mt.RandCropByLabelClassesd:
        inner, keys = crop.cropper, (crop.label_key, crop.image_key, crop.indices_key)
        most = getattr(inner, "max_samples_per_class", None)
        return ("classes", *keys, float(inner.image_threshold), inner.num_classes, most, CANDIDATES)
    if type(crop) is mt.RandWeightedCropd:
        return ("weights", crop.w_key, list(crop.cropper.spatial_size), CANDIDATES)
    return ()


def consumed(crop: Any) -> list[str]:
    """Keys of a sample that only the crop uses, and takes away."""
    names = ("fg_indices_key", "bg_indices_key", "indices_key")
    return [key for name in names if (key := getattr(crop, name, None)) is not None]


def find(crop: Any, sample: Mapping[Any, Any], name: str) -> Found | None:
    """Look in a sample's voxels for what a crop goes by.

    Args:
        crop: The crop.
        sample: What the deterministic transforms made.
        name: Seeds which positions are kept.
    """
    if type(crop) is mt.RandWeightedCropd:
        weights = sample[crop.w_key]
        shape = tuple(int(n) for n in weights.shape[1:])
        state = np.random.RandomState(int(generator("weights", name).integers(2**32)))
        drawn = weighted_patch_samples(crop.cropper.spatial_size, weights[0], CANDIDATES, state)
        places = np.array([[int(n) for n in place] for place in drawn], np.int64)
        return Found(shape, [CANDIDATES], [np.ravel_multi_index(tuple(places.T), shape).astype(np.int64)])
    padding: int | None = None
    given: Any
    if type(crop) is mt.RandCropByPosNegLabeld:
        label, image, inner = sample[crop.label_key], sample.get(crop.image_key), crop.cropper
        given = [sample.get(crop.fg_indices_key), sample.get(crop.bg_indices_key)]
        if any(part is None for part in given):
            given = list(map_binary_to_indices(label, image, inner.image_threshold))
            padding = 1 if image is None or inner.image_threshold < 0 else None
    elif type(crop) is mt.RandCropByLabelClassesd:
        label, image, inner = sample[crop.label_key], sample.get(crop.image_key), crop.cropper
        given = sample.get(crop.indices_key)
        if given is None:
            most = getattr(inner, "max_samples_per_class", None)
            given = map_classes_to_indices(label, inner.num_classes, image, inner.image_threshold, most)
            padding = 0 if label.shape[0] == 1 and (image is None or inner.image_threshold < 0) else None
    else:
        return None
    numbers = [np.asarray(part, np.int64).ravel() for part in given]
    most = max(_FEWEST, min(CANDIDATES, 8 * CANDIDATES // max(len(numbers), 1)))
    kept = [
        part if len(part) <= most else generator("candidates", name, k).choice(part, most, replace=False)
        for k, part in enumerate(numbers)
    ]
    return Found(tuple(int(n) for n in label.shape[1:]), [len(part) for part in numbers], kept, padding)


class Crop:
    """Padding and a random crop of volumes that were not read yet.

    Args:
        pads: ``SpatialPadd`` transforms that come before the crop.
        crop: The crop; None takes whole volumes.
    """

    def __init__(self, pads: Sequence[Any], crop: Any) -> None:
        self._pads, self._crop = list(pads), crop
        self._identities = Identities([crop])
        self._own = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = threading.local()

    def __call__(
        self, sample: Mapping[Any, Any], found: Found | None, *, seed: int, name: str
    ) -> tuple[Any, Callable[[Any, torch.Tensor], Box]]:
        """Choose.

        Args:
            sample: Volumes as tensors (C, X, Y, Z) on the device ``meta``.
            found: What :func:`find` found.
            seed: Decides the choice.
            name: The item in words.

        Returns:
            What the crop makes of the sample, still without voxels, and a function that gives the box of a key's tensor in it, in
            voxels of the volume: it may reach over the border.
        """
        data = dict(sample)
        before = {key: [0, 0, 0] for key, value in data.items() if is_unread(value)}
        for pad in self._pads:
            for key in pad.key_iterator(data):
                if key in before:
                    width = pad.padder.compute_pad_width(data[key].shape[1:])
                    before[key] = [n + int(w[0]) for n, w in zip(before[key], list(width)[1:], strict=True)]
            data = pad(data)
        # deepcopy would give the copies of uncropped volumes memory of their own, which they have none of.
        shapes = {key: tuple(data[key].shape) for key in before}
        result = data if self._crop is None else self._cropped(data, before, found, seed, name)

        def box(key: Any, value: torch.Tensor) -> Box:
            place = np.unravel_index(int(value.storage_offset()), shapes[key])
            first = [int(p) - n for p, n in zip(place[1:], before[key], strict=True)]
            return Box.at((first[0], first[1], first[2]), tuple(value.shape[1:]))

        return result, box

    def _cropped(
        self, data: dict[Any, Any], before: Mapping[Any, Sequence[int]], found: Found | None, seed: int, name: str
    ) -> Any:
        identities = self._copy()
        crop = identities.transforms[0]
        crop.set_random_state(seed=seed % 2**32)
        kind = type(crop)
        if kind is mt.RandWeightedCropd:
            assert found is not None
            numbers = found.positions[0]
            shape, inner = tuple(data[crop.w_key].shape[1:]), crop.cropper

            def choose(weight_map: Any) -> None:
                chosen = numbers[inner.R.randint(len(numbers), size=inner.num_samples)]
                inner.centers = [np.array(np.unravel_index(number, shape)) for number in chosen]

            inner.randomize = choose
        elif found is not None:
            label = crop.label_key
            positions = found.padded(before[label], data[label].shape[1:], name)
            if kind is mt.RandCropByPosNegLabeld:
                crop.fg_indices_key, crop.bg_indices_key = "radioloader.fg", "radioloader.bg"
                data |= {crop.fg_indices_key: positions[0], crop.bg_indices_key: positions[1]}
            else:
                crop.indices_key = "radioloader.classes"
                data[crop.indices_key] = positions
        result = crop(data)
        identities.correct(result)
        return result

    def _copy(self) -> Identities:
        """A crop for this thread: drawing changes it."""
        if getattr(self._own, "of", None) is not self._crop:
            self._own.of, self._own.identities = self._crop, copy.deepcopy(self._identities)
        found: Identities = self._own.identities
        return found


def is_unread(value: Any) -> bool:
    """Whether a value is a volume without voxels."""
    return isinstance(value, torch.Tensor) and value.device.type == "meta"
