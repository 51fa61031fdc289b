"""Where TorchIO's samplers put patches, without reading volumes for it."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from radioloader.datasets.seeding import SeededTransform
from radioloader.samplers.random import generator

__all__ = ["Starts", "cut"]

_KEPT = 512
_DRAWN = 2048


class Starts:
    """Chooses the first voxel of patches, as a sampler of TorchIO does.

    A ``WeightedSampler`` or ``LabelSampler`` looks at a whole probability map for each patch. Here it does so once for each subject and
    process, and draws 2048 centres, from which patches take theirs: the same distribution.

    Args:
        sampler: The sampler.
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._reset()

    def _reset(self) -> None:
        self._kept: OrderedDict[str, npt.NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()
        self._seeded = SeededTransform(self._own)

    def __getstate__(self) -> dict[str, Any]:
        return {"_sampler": self._sampler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._sampler = state["_sampler"]
        self._reset()

    def __call__(self, subject: Any, name: str, rng: np.random.Generator, torch_seed: int) -> tuple[int, int, int]:
        """First voxel of a patch.

        Args:
            subject: A subject that nobody else uses: its images may be loaded.
            name: Tells subjects apart whose voxels differ; empty where they may differ under one name.
            rng: Decides the choice among centres.
            torch_seed: Decides what the sampler draws itself.
        """
        if name and type(self._sampler) in (tio.WeightedSampler, tio.LabelSampler):
            drawn = self._drawn(subject, name)
            x, y, z = drawn[rng.integers(len(drawn))].tolist()
            return (x, y, z)
        start: tuple[int, int, int] = self._seeded(subject, torch_seed)
        return start

    def _own(self, subject: Any) -> tuple[int, int, int]:
        """What the sampler chooses by itself."""
        sampler = copy.copy(self._sampler)
        sampler.crop = lambda subject, index_ini, patch_size: index_ini
        x, y, z = (int(n) for n in next(iter(sampler(subject))))
        return (x, y, z)

    def _drawn(self, subject: Any, name: str) -> npt.NDArray[np.int64]:
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
                return found
        sampler = self._sampler
        rng = generator("centres", name, type(sampler).__name__)
        centres = _labelled(sampler, subject, rng) if type(sampler) is tio.LabelSampler else None
        if centres is None:
            weights = sampler.process_probability_map(sampler.get_probability_map(subject), subject)
            edges = np.cumsum(weights.ravel())
            places = np.searchsorted(edges, (1.0 - rng.random(_DRAWN)) * edges[-1])
            centres = np.stack(np.unravel_index(places, weights.shape), axis=1)
        starts: npt.NDArray[np.int64] = centres - np.asarray(sampler.patch_size, np.int64) // 2
        with self._lock:
            self._kept[name] = starts
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return starts


def _labelled(sampler: Any, subject: Any, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
    """Centres (n, 3) as a ``LabelSampler`` draws them, without its map of probabilities, which takes eight bytes for each voxel.

    None where it is to be asked itself: several channels, or nothing to draw from.
    """
    label = sampler.get_probability_map_image(subject).data.numpy()
    if len(label) != 1:
        return None
    size = np.asarray(sampler.patch_size, np.int64)
    first = size // 2
    stop = np.asarray(label.shape[1:]) - (size - 1) // 2
    inside = label[0][tuple(slice(a, b) for a, b in zip(first, stop, strict=True))]
    shares = sampler.label_probabilities_dict
    values = [None] if shares is None else list(shares)
    weights = np.array([1.0] if shares is None else list(shares.values()), np.float64)
    # Voxels of each kind in each plane: one of them is then found by its rank. One kind is looked at at a time: they may be many.
    planes = [_is(inside, value).sum(axis=(1, 2)) for value in values]
    weights *= [counts.sum() > 0 for counts in planes]
    if not weights.sum() > 0:
        return None
    chosen = rng.choice(len(values), _DRAWN, p=weights / weights.sum())
    centres = np.empty((_DRAWN, 3), np.int64)
    for number, (value, counts) in enumerate(zip(values, planes, strict=True)):
        wanted = np.flatnonzero(chosen == number)
        ranks = rng.integers(0, max(int(counts.sum()), 1), len(wanted))
        ends = np.cumsum(counts)
        xs = np.searchsorted(ends, ranks, side="right")
        for x in np.unique(xs).tolist():
            here = wanted[xs == x]
            places = np.flatnonzero(_is(inside[x], value))[ranks[xs == x] - (ends[x] - counts[x])]
            centres[here] = np.stack([np.full(len(here), x), *np.unravel_index(places, inside.shape[1:])], axis=1)
    return centres + first


def _is(label: npt.NDArray[Any], value: int | None) -> npt.NDArray[np.bool_]:
    """Where a label has a value; None: any above 0."""
    found: npt.NDArray[np.bool_] = label > 0 if value is None else label == value
    return found


def cut(subject: Any, start: Sequence[int], size: Sequence[int]) -> Any:
    """The patch (a ``tio.Subject``) that a sampler of TorchIO would cut.

    A transform of TorchIO that is called draws from torch's generator, also where nothing is random: in threads it would mix with what
    others draw. So this does what ``PatchSampler.crop`` does without the call.
    """
    edges = [(a, n - a - k) for a, n, k in zip(start, subject.spatial_shape, size, strict=True)]
    crop = tio.Crop(tuple(edge for pair in edges for edge in pair))
    patch = crop.apply_transform(subject)
    crop._add_transform_to_subject_history(patch)
    patch[tio.LOCATION] = torch.tensor([*start, *[a + k for a, k in zip(start, size, strict=True)]])
    patch.update_attributes()
    return patch
