"""A store as a Lightning ``DataModule``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from radioloader._optional import require
from radioloader.config import StorageConfig
from radioloader.container.radiobject import RadiObject
from radioloader.datasets.loader import DataLoader
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.split import Split, split_subjects
from radioloader.datasets.volume import VolumeDataset
from radioloader.errors import ConfigError
from radioloader.samplers.positions import Positions, as_whole

__all__ = ["PatchDataModule"]

_lightning = require("lightning.pytorch", extra="lightning")


class PatchDataModule(_lightning.LightningDataModule):  # type: ignore[misc, name-defined]
    """Patches for training; whole volumes, one in a batch, for validation, test and prediction.

    Subjects are split at random (by seed) or as told; a subject is never on two sides.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels.
        label: Label collection.
        patch_size: Voxels of a training patch on each axis (x, y, z); one number for a cube.
        positions: Where training patches lie; None takes :class:`~radioloader.UniformPositions`.
        patches_per_volume: Training patches of each volume in an epoch.
        batch_size: Training patches in a batch.
        split: Fractions of (train, val, test), or the subjects themselves as a :class:`~radioloader.Split` or a mapping with the keys
            ``train``, ``val`` and ``test``.
        seed: Seed of the split, the order and everything random.
        num_workers: Processes of each loader.
        transform: Applied to training samples; seeded by the sample's key.
        eval_transform: Applied to all other samples.
        targets: Columns of ``obs_meta`` that samples carry.
        pad: Allow patches larger than a volume.
        dtype: dtype of images; None keeps the stored one.
        loader_kwargs: Further arguments of every ``DataLoader``, such as ``pin_memory``.
        config: Access and threads; None takes the store's.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | RadiObject,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        patch_size: int | Sequence[int],
        positions: Positions | None = None,
        patches_per_volume: int = 1,
        batch_size: int = 1,
        split: Sequence[float] | Split | Mapping[str, Sequence[str]] = (0.7, 0.1, 0.2),
        seed: int = 0,
        num_workers: int = 0,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        eval_transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        targets: Sequence[str] | Mapping[str, str] = (),
        pad: bool = False,
        dtype: torch.dtype | None = torch.float32,
        loader_kwargs: Mapping[str, Any] | None = None,
        config: StorageConfig | None = None,
    ) -> None:
        super().__init__()
        self.store = store if isinstance(store, RadiObject) else RadiObject(store, config=config)
        self.split = _as_split(split, self.store.obs_subject_ids, seed)
        if not self.split.train:
            raise ConfigError(f"the split has no training subjects: split={split!r}")
        self._volumes: dict[str, Any] = {
            "image": image,
            "label": label,
            "targets": targets,
            "seed": seed,
            "dtype": dtype,
            "config": config,
        }
        self._patches: dict[str, Any] = {
            "patch_size": patch_size,
            "positions": positions,
            "patches_per_volume": patches_per_volume,
            "pad": pad,
            "transform": transform,
        }
        self._eval_transform = eval_transform
        self._batch_size = as_whole(batch_size, "batch_size", minimum=1)
        self._loader: dict[str, Any] = {
            "num_workers": as_whole(num_workers, "num_workers", minimum=0),
            **(loader_kwargs or {}),
        }
        # Made here, not in setup(): wrong arguments fail at once, before a Trainer exists.
        self.train_dataset = PatchDataset(self.store, subjects=self.split.train, **self._volumes, **self._patches)
        self.val_dataset = self._whole(self.split.val)
        self.test_dataset = self._whole(self.split.test)

    def _whole(self, subjects: Sequence[str]) -> VolumeDataset | None:
        if not subjects:
            return None
        return VolumeDataset(self.store, subjects=subjects, transform=self._eval_transform, **self._volumes)

    def train_dataloader(self) -> DataLoader:
        """Shuffled patches of the training subjects."""
        return DataLoader(self.train_dataset, batch_size=self._batch_size, shuffle=True, **self._loader)

    def val_dataloader(self) -> Any:
        """Whole validation volumes; none when the split has no validation subjects.

        Raises:
            ConfigError: ``Trainer.validate`` was called, and the split has no validation subjects.
        """
        if self.val_dataset is not None:
            return DataLoader(self.val_dataset, batch_size=1, **self._loader)
        if self.trainer is not None and self.trainer.state.fn == "validate":
            raise ConfigError("the split has no validation subjects, so there is nothing to validate")
        return []

    def test_dataloader(self) -> DataLoader:
        """Whole test volumes.

        Raises:
            ConfigError: The split has no test subjects.
        """
        if self.test_dataset is None:
            raise ConfigError("the split has no test subjects, so there is nothing to test or predict")
        return DataLoader(self.test_dataset, batch_size=1, **self._loader)

    def predict_dataloader(self) -> DataLoader:
        """Whole test volumes; see :meth:`test_dataloader`."""
        return self.test_dataloader()


def _as_split(
    split: Sequence[float] | Split | Mapping[str, Sequence[str]], subjects: Sequence[str], seed: int
) -> Split:
    if isinstance(split, Split):
        return split
    if isinstance(split, Mapping):
        unknown = sorted(set(split) - {"train", "val", "test"})
        if unknown:
            raise ConfigError(f"split has the parts {unknown}; expected 'train', 'val' and 'test'")
        return Split(*[list(split.get(part, ())) for part in ("train", "val", "test")])
    return split_subjects(subjects, split, seed=seed)
