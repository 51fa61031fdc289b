"""Loaders for the usual purposes, in one call: thin fronts of the datasets, the sampler and the loader.

They take collections of an open store, such as ``store.T1w``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from radioloader.config import available_cores
from radioloader.datasets.collate import collate
from radioloader.datasets.loader import DataLoader
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.volume import VolumeDataset
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.samplers.centres import ForegroundPositions
from radioloader.samplers.positions import GridPositions
from radioloader.samplers.samplers import KeySampler
from radioloader.storage.snapshot import Snapshot

__all__ = [
    "create_distributed_dataloader",
    "create_inference_dataloader",
    "create_segmentation_dataloader",
    "create_training_dataloader",
    "create_validation_dataloader",
    "set_epoch",
]

Transform = Callable[[dict[str, Any]], dict[str, Any]]
Labels = str | Mapping[str, Any] | Callable[[str], Any] | None


class Collection(Protocol):
    """A collection of an open store, or a part of it."""

    snapshot: Snapshot
    name: str

    @property
    def obs_subject_ids(self) -> list[str]: ...


Collections = Collection | Sequence[Collection]


def create_training_dataloader(
    collections: Collections,
    *,
    labels: Labels = None,
    patch_size: int | Sequence[int] | None = None,
    patches_per_volume: int = 1,
    batch_size: int = 4,
    num_workers: int | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    seed: int = 0,
) -> DataLoader:
    """Shuffled random patches, or whole volumes, for training.

    Args:
        collections: One collection, or several that become channels.
        labels: What each sample's ``label`` is: a column of ``obs_meta`` (in its dtype, as ``targets`` of the datasets), a mapping
            from obs_id or subject id, or a function of the obs_id. None: no labels. Label maps: :func:`create_segmentation_dataloader`.
        patch_size: Voxels (x, y, z) of random patches; None gives whole volumes.
        patches_per_volume: Patches of each volume in an epoch.
        batch_size: Samples in a batch.
        num_workers: Worker processes; None takes 4, or the cores that there are.
        pin_memory: Copy batches into pinned memory; None: where there is an accelerator.
        persistent_workers: Keep workers from epoch to epoch.
        transform: Gets a sample and returns one.
        seed: Seed of everything random.

    Returns:
        Batches with ``image`` (B, C, X, Y, Z), ``label`` where asked for, ``affine``, ``location``, ``obs_subject_id``, ``obs_id``.

    Raises:
        RadioloaderError: Arguments and store do not fit.
    """
    dataset = _dataset(collections, labels, patch_size, patches_per_volume, transform, seed)
    workers = _workers(num_workers, persistent_workers, pin_memory)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, **workers)


def create_validation_dataloader(
    collections: Collections,
    *,
    labels: Labels = None,
    patch_size: int | Sequence[int] | None = None,
    batch_size: int = 4,
    num_workers: int | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    seed: int = 0,
) -> DataLoader:
    """Volumes in their order, or the patches of a grid that covers them, each once; see :func:`create_training_dataloader`."""
    dataset = _dataset(collections, labels, patch_size, None, transform, seed)
    return DataLoader(dataset, batch_size=batch_size, **_workers(num_workers, persistent_workers, pin_memory))


def create_inference_dataloader(
    collections: Collections,
    *,
    batch_size: int = 1,
    num_workers: int | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
    transform: Transform | None = None,
) -> DataLoader:
    """Whole volumes in their order; see :func:`create_training_dataloader`."""
    dataset = _dataset(collections, None, None, None, transform, 0)
    return DataLoader(dataset, batch_size=batch_size, **_workers(num_workers, persistent_workers, pin_memory))


def create_segmentation_dataloader(
    image: Collections,
    mask: Collection,
    *,
    patch_size: int | Sequence[int] | None = None,
    patches_per_volume: int = 1,
    foreground_sampling: bool | float = False,
    batch_size: int = 4,
    num_workers: int | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
    image_transform: Transform | None = None,
    spatial_transform: Transform | None = None,
    seed: int = 0,
) -> DataLoader:
    """Shuffled images and their label maps, as ``image`` and ``mask``.

    Args:
        image: One collection, or several that become channels.
        mask: The collection with the label maps.
        patch_size: See :func:`create_training_dataloader`.
        patches_per_volume: See :func:`create_training_dataloader`.
        foreground_sampling: Share of patches that are centred on foreground; True takes a third.
        batch_size: Samples in a batch.
        num_workers: See :func:`create_training_dataloader`.
        pin_memory: See :func:`create_training_dataloader`.
        persistent_workers: See :func:`create_training_dataloader`.
        image_transform: Gets the sample without ``mask``; after ``spatial_transform``.
        spatial_transform: Gets the whole sample.
        seed: Seed of everything random.
    """
    images = _as_list(image)
    if not _is_collection(mask):
        raise ConfigError(
            f"mask must be one collection of an open store, such as radioloader.open(uri).seg, got {type(mask).__name__}"
        )
    if foreground_sampling and patch_size is None:
        raise ConfigError("foreground_sampling needs patch_size: whole volumes have no position")
    _same_store(images, mask)
    both = image_transform is not None or spatial_transform is not None
    arguments: dict[str, Any] = {
        **_common(images, mask),
        "label": mask.name,
        "transform": _Segmentation(image_transform, spatial_transform) if both else None,
        "seed": seed,
    }
    if patch_size is None:
        dataset: Any = VolumeDataset(**arguments)
    else:
        share = 1 / 3 if foreground_sampling is True else foreground_sampling
        positions = ForegroundPositions(share) if share else None
        dataset = PatchDataset(
            **arguments, patch_size=patch_size, patches_per_volume=patches_per_volume, positions=positions
        )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        collate_fn=None if both else _collate_masks,
        **_workers(num_workers, persistent_workers, pin_memory),
    )


def create_distributed_dataloader(
    collections: Collections,
    *,
    rank: int,
    world_size: int,
    labels: Labels = None,
    patch_size: int | Sequence[int] | None = None,
    patches_per_volume: int = 1,
    batch_size: int = 4,
    num_workers: int | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
    transform: Transform | None = None,
    seed: int = 0,
) -> DataLoader:
    """This rank's part of a shuffled epoch; see :func:`create_training_dataloader`.

    Args:
        collections: See :func:`create_training_dataloader`.
        rank: This process's rank.
        world_size: Number of ranks.
        labels: See :func:`create_training_dataloader`.
        patch_size: See :func:`create_training_dataloader`.
        patches_per_volume: See :func:`create_training_dataloader`.
        batch_size: Samples in a batch of each rank.
        num_workers: See :func:`create_training_dataloader`; of each rank.
        pin_memory: See :func:`create_training_dataloader`.
        persistent_workers: See :func:`create_training_dataloader`.
        transform: See :func:`create_training_dataloader`.
        seed: Seed of everything random; the same on every rank.
    """
    dataset = _dataset(collections, labels, patch_size, patches_per_volume, transform, seed)
    sampler = KeySampler(dataset, rank=rank, world_size=world_size)
    workers = _workers(num_workers, persistent_workers, pin_memory)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **workers)


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Make the next iteration of ``loader`` that of ``epoch``."""
    loader.set_epoch(epoch)


def _as_list(collections: Collections) -> list[Collection]:
    parts = list(collections) if isinstance(collections, Sequence) else [collections]
    if not parts or not all(_is_collection(part) for part in parts):
        raise ConfigError("give collections of an open store, such as radioloader.open(uri).T1w, or a list of them")
    _same_store(parts, parts[0])
    return parts


def _is_collection(value: Any) -> bool:
    return hasattr(value, "snapshot") and hasattr(value, "name")


def _same_store(parts: Sequence[Collection], other: Collection) -> None:
    uris = {part.snapshot.store.uri for part in [*parts, other]}
    if len(uris) > 1:
        raise ConfigError(f"the collections are of different stores: {', '.join(sorted(uris))}; they must be of one")


def _common(parts: Sequence[Collection], *others: Collection) -> dict[str, Any]:
    """Arguments of a dataset of ``parts``, of the subjects that they and ``others`` have."""
    chosen = list(dict.fromkeys(parts[0].obs_subject_ids))
    for part in [*parts[1:], *others]:
        have = set(part.obs_subject_ids)
        chosen = [subject for subject in chosen if subject in have]
    if not chosen:
        names = ", ".join(repr(part.name) for part in [*parts, *others])
        raise ConfigError(
            f"no subject is in all of the collections {names} as they were given; select the same subjects of each"
        )
    return {"store": _Opened(parts[0].snapshot, chosen), "image": [part.name for part in parts]}


class _Opened:
    """A selection of subjects of an open store."""

    def __init__(self, snapshot: Snapshot, subjects: list[str]) -> None:
        self.snapshot, self.obs_subject_ids = snapshot, subjects


def _dataset(
    collections: Collections,
    labels: Labels,
    patch_size: int | Sequence[int] | None,
    patches_per_volume: int | None,
    transform: Transform | None,
    seed: int,
) -> Any:
    parts = _as_list(collections)
    arguments: dict[str, Any] = {**_common(parts), "seed": seed}
    arguments["transform"] = transform
    if isinstance(labels, str):
        arguments["targets"] = {"label": labels}  # workers map it, and batches without a transform stay in one piece
    elif labels is not None:
        arguments["transform"] = _Labelled(_labels_of(labels, parts[0]), transform)
    if patch_size is None:
        return VolumeDataset(**arguments)
    if patches_per_volume is None:
        return PatchDataset(**arguments, patch_size=patch_size, positions=GridPositions(), pad=True)
    return PatchDataset(**arguments, patch_size=patch_size, patches_per_volume=patches_per_volume)


def _labels_of(labels: Mapping[str, Any] | Callable[[str], Any], collection: Collection) -> dict[str, Any]:
    """The label of each volume, by obs_id."""
    snapshot = collection.snapshot
    index = snapshot.index(collection.name)
    chosen = set(collection.obs_subject_ids)
    pairs = [(str(o), str(s)) for o, s in zip(index.obs_ids, index.subject_ids, strict=True) if s in chosen]
    if isinstance(labels, Mapping):
        found = {obs_id: labels.get(obs_id, labels.get(subject)) for obs_id, subject in pairs}
    elif callable(labels):
        found = {obs_id: labels(obs_id) for obs_id, _ in pairs}
    else:
        raise ConfigError(f"labels must be a column, a mapping or a function, got {type(labels).__name__}")
    missing = [obs_id for obs_id, value in found.items() if _absent(value)]
    if missing:
        raise KeyNotFoundError(f"{len(missing)} of {len(found)} volumes have no label, such as {missing[:3]}")
    return found


def _absent(value: Any) -> bool:
    """Whether a label says nothing: None, NaN, or what pandas has for them. Arrays are labels like any other."""
    if value is None:
        return True
    differs = value != value
    return differs is value or (np.ndim(differs) == 0 and bool(differs))  # pandas' NA compares to itself


class _Labelled:
    """Puts each sample's label in, then does what the user asked for."""

    def __init__(self, labels: Mapping[str, Any], then: Transform | None) -> None:
        self.labels, self.then = labels, then

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample = {**sample, "label": self.labels[sample["obs_id"]]}
        return sample if self.then is None else self.then(sample)


class _Segmentation:
    """Calls the label ``mask``; transforms of both, then of the image."""

    def __init__(self, image: Transform | None, both: Transform | None) -> None:
        self.image, self.both = image, both

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample = {"mask" if name == "label" else name: value for name, value in sample.items()}
        if self.both is not None:
            sample = self.both(sample)
        if self.image is not None:
            mask = sample["mask"]
            sample = {**self.image({name: value for name, value in sample.items() if name != "mask"}), "mask": mask}
        return sample


def _collate_masks(samples: Any) -> dict[str, Any]:
    batch = collate(samples)
    return {"mask" if name == "label" else name: value for name, value in batch.items()}


def _workers(num_workers: int | None, persistent: bool, pin_memory: bool | None) -> dict[str, Any]:
    workers = min(4, available_cores()) if num_workers is None else num_workers
    if pin_memory is None:  # torch.accelerator came with torch 2.6
        pin_memory = torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()
    return {"num_workers": workers, "persistent_workers": persistent and workers > 0, "pin_memory": pin_memory}
