"""What the data modules share: a split, datasets, loaders."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch

from radioloader._checks import as_whole
from radioloader._optional import require
from radioloader.config import StorageConfig
from radioloader.container.radiobject import RadiObject
from radioloader.datasets.loader import DataLoader
from radioloader.datasets.manifest import SplitManifest
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.lightning.device import BatchTransform, DeviceTransforms
from radioloader.lightning.evaluation import UnevenEvaluation
from radioloader.lightning.loaders import EvaluationLoader, OverfitSampler
from radioloader.lightning.splits import ColumnOrMapping, SplitLike, settle
from radioloader.samplers.order import Order
from radioloader.samplers.samplers import KeySampler

__all__ = ["Common", "StoreDataModule"]

_lightning = require("lightning.pytorch", extra="lightning")
_rank_zero = require("lightning.pytorch.utilities.rank_zero", extra="lightning")

Transform = Callable[[dict[str, Any]], dict[str, Any]]


_DECIDED = {
    "batch_size": "give batch_size= and eval_batch_size= instead",
    "batch_sampler": "give order= and batch_size= instead",
    "sampler": "give order= instead",
    "shuffle": "training is shuffled and the rest is not; order= gives training another order",
    "dataset": "leave it out",
}
"""Arguments of a loader that are none of ``loader_kwargs``, and what to do instead."""


class Common(TypedDict, total=False):
    """Arguments that all data modules take; see :class:`StoreDataModule`."""

    label: str | None
    targets: str | Sequence[str] | Mapping[str, str]
    batch_size: int
    eval_batch_size: int | None
    split: SplitLike | None
    split_column: str | None
    groups: ColumnOrMapping | None
    stratify: ColumnOrMapping | None
    folds: int | None
    fold: int | None
    held_out: float
    order: Order | None
    transform: Transform | None
    eval_transform: Transform | None
    device_transform: BatchTransform | None
    eval_device_transform: BatchTransform | None
    dtype: torch.dtype | None
    pad_value: float
    seed: int
    on_error: str
    num_workers: int
    loader_kwargs: Mapping[str, Any] | None
    grid_tolerance_mm: float
    config: StorageConfig | None


class StoreDataModule(_lightning.LightningDataModule, abc.ABC):  # type: ignore[misc, name-defined]
    """Base of the data modules: subjects are split, never on two sides; four loaders read them.

    Works with one process and with ``Trainer(strategy="ddp")``, whatever ``use_distributed_sampler`` is: each rank trains on its own
    samples, equally many, and each case is evaluated on exactly one rank. A checkpoint within an epoch resumes with what was left of it.
    With ``overfit_batches`` every epoch has the same samples.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels.
        label: Label collection.
        targets: Columns of ``obs_meta`` that samples carry.
        batch_size: Training samples in a batch, on each rank.
        eval_batch_size: Samples in a batch of validation, test and prediction; None: one volume, or ``batch_size`` slices where all have
            one size.
        split: Fractions of (train, val, test), 70, 10 and 20 % unless told otherwise; the subjects themselves as a
            :class:`~radioloader.Split` or a mapping with the keys ``train``, ``val`` and ``test``; or the path of a JSON file with them,
            such as :meth:`save_manifest` writes, which is then checked against the store.
        split_column: A column of ``obs_meta`` that says ``train``, ``val`` or ``test``, instead.
        groups: Column of ``obs_meta``, or value by subject: subjects of one value are never separated.
        stratify: Column of ``obs_meta``, or value by subject, whose proportions each part keeps.
        folds: Number of folds of a cross-validation, instead of ``split``.
        fold: Which one is validated, from 0.
        held_out: Share of the subjects that is the test part in all folds.
        order: Order of training samples, such as :class:`~radioloader.BlockShuffled`; None shuffles.
        transform: Applied to training samples; seeded by the sample's key.
        eval_transform: Applied to all other samples.
        device_transform: Applied to training batches after they were moved to the device; torch's generators are seeded from ``seed``,
            the epoch, the batch's number and the rank, and put back.
        eval_device_transform: Applied to all other batches there.
        dtype: dtype of images; None keeps the stored one.
        pad_value: Value of image voxels outside the volume.
        seed: Seed of the split, the order and everything random.
        on_error: ``"raise"``, or ``"skip"``: samples that cannot be read are left out of their batch, logged and counted.
        num_workers: Processes of each loader.
        loader_kwargs: Further arguments of every ``DataLoader``, such as ``pin_memory``. ``drop_last`` is for training only.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        ConfigError: Arguments contradict each other or the loader does not take them, no subject is left for training, or the split's
            file is of other data.
        RadioloaderError: Arguments and store do not fit.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | RadiObject,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        targets: str | Sequence[str] | Mapping[str, str] = (),
        batch_size: int = 1,
        eval_batch_size: int | None = None,
        split: SplitLike | None = None,
        split_column: str | None = None,
        groups: ColumnOrMapping | None = None,
        stratify: ColumnOrMapping | None = None,
        folds: int | None = None,
        fold: int | None = None,
        held_out: float = 0.0,
        order: Order | None = None,
        transform: Transform | None = None,
        eval_transform: Transform | None = None,
        device_transform: BatchTransform | None = None,
        eval_device_transform: BatchTransform | None = None,
        dtype: torch.dtype | None = torch.float32,
        pad_value: float = 0.0,
        seed: int = 0,
        on_error: str = "raise",
        num_workers: int = 0,
        loader_kwargs: Mapping[str, Any] | None = None,
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        super().__init__()
        # A rank whose part of the evaluation is empty is no mistake here.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.store = store if isinstance(store, RadiObject) else RadiObject(store, config=config)
        self.split, self.recipe = settle(
            self.store,
            split=split,
            split_column=split_column,
            groups=groups,
            stratify=stratify,
            folds=folds,
            fold=fold,
            held_out=held_out,
            seed=seed,
        )
        if not self.split.train:
            raise ConfigError(f"the split has no training subjects: {self.recipe}")
        self._arguments: dict[str, Any] = {
            "image": image,
            "label": label,
            "targets": targets,
            "dtype": dtype,
            "pad_value": pad_value,
            "seed": seed,
            "on_error": on_error,
            "grid_tolerance_mm": grid_tolerance_mm,
            "config": config,
        }
        self._transforms = {"train": transform, "val": eval_transform, "test": eval_transform}
        self._batch_size = as_whole(batch_size, "batch_size", minimum=1)
        if eval_batch_size is not None:
            eval_batch_size = as_whole(eval_batch_size, "eval_batch_size", minimum=1)
        self._eval_size = eval_batch_size
        self._order = order
        if not isinstance(loader_kwargs, Mapping | None):
            raise ConfigError(
                f"loader_kwargs must be a mapping, such as {{'pin_memory': True}}, got {type(loader_kwargs).__name__}"
            )
        self._loader: dict[str, Any] = {"num_workers": num_workers, **(loader_kwargs or {})}
        as_whole(self._loader["num_workers"], "num_workers", minimum=0)
        self._drop_last = bool(self._loader.pop("drop_last", False))
        self._on_device = DeviceTransforms(device_transform, eval_device_transform, seed=seed)
        if self._on_device and not _overrides(self):
            # Only then, and on this object: Lightning calls the hook of the data module instead of the model's where there is one.
            self.on_after_batch_transfer = self.transform_on_device
        # Made here, not in setup(): wrong arguments fail at once, before a Trainer exists.
        self.train_dataset: Any = self._dataset("train")
        self.val_dataset: Any = self._dataset("val") if self.split.val else None
        self.test_dataset: Any = None
        self._untestable: KeyNotFoundError | None = None
        try:
            self.test_dataset = self._dataset("test") if self.split.test else None
        except KeyNotFoundError as error:  # test cases of challenges have no labels, and training needs none of them
            self._untestable = error
        self._check_loaders()

    # ---- what the kinds differ in ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _dataset(self, part: str) -> Any:
        """The dataset of a part of the split."""

    def _eval_batch_size(self, dataset: Any) -> int:
        """Samples in a batch of evaluation, where the user did not say."""
        return 1

    def _common(self, part: str) -> dict[str, Any]:
        """Arguments of the dataset of a part that all kinds have."""
        return {**self._arguments, "subjects": getattr(self.split, part), "transform": self._transforms[part]}

    # ---- Lightning's hooks -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Have the Trainer evaluate ranks with different numbers of cases right."""
        callbacks = self.trainer.callbacks
        if not any(isinstance(callback, UnevenEvaluation) for callback in callbacks):
            callbacks.insert(0, UnevenEvaluation())  # before what saves checkpoints

    def transform_on_device(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply ``device_transform`` or ``eval_device_transform``, then the model's own ``on_after_batch_transfer``.

        A subclass with an ``on_after_batch_transfer`` of its own calls this in it.
        """
        return self._on_device(self.trainer, batch, dataloader_idx)

    def train_dataloader(self) -> DataLoader:
        """Training samples, in another order in each epoch."""
        overfit = {"sampler": OverfitSampler} if self._overfits else {}
        loader = self._train_loader(self._train_sampler(overfit))
        if self.trainer is not None:
            loader.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return loader

    def val_dataloader(self) -> Any:
        """Validation cases, each once; none when the split has no validation subjects.

        Raises:
            ConfigError: ``Trainer.validate`` was called, and the split has no validation subjects.
        """
        if self.val_dataset is not None:
            return self._evaluated(self.val_dataset, overfit=self._overfits)
        if self.trainer is not None and self.trainer.state.fn == "validate":
            raise ConfigError("the split has no validation subjects, so there is nothing to validate")
        return []

    def test_dataloader(self) -> DataLoader:
        """Test cases, each once.

        Raises:
            ConfigError: The split has no test subjects.
            KeyNotFoundError: A test subject lacks a volume, such as its label.
        """
        if self._untestable is not None:
            raise self._untestable
        if self.test_dataset is None:
            raise ConfigError("the split has no test subjects, so there is nothing to test or predict")
        return self._evaluated(self.test_dataset)

    def predict_dataloader(self) -> DataLoader:
        """Test cases; see :meth:`test_dataloader`."""
        return self.test_dataloader()

    # ---- the split ---------------------------------------------------------------------------------------------------------

    def save_manifest(self, path: str | os.PathLike[str]) -> None:
        """Write the split with what it was made of: subjects, content hashes of the volumes used, recipe.

        ``split=path`` uses it again, and refuses a store whose data differ.
        """
        collections = self.train_dataset.table.collections
        recipe = {**self.recipe, "collections": list(collections), "data module": type(self).__name__}
        SplitManifest.of(self.split, self.store, collections=collections, recipe=recipe).save(path)

    # ---- loaders -----------------------------------------------------------------------------------------------------------

    @property
    def _overfits(self) -> bool:
        return self.trainer is not None and bool(self.trainer.overfit_batches) and self.trainer.state.fn == "fit"

    def _train_sampler(self, kind: Mapping[str, type[KeySampler]]) -> KeySampler:
        sampler = kind.get("sampler", KeySampler)(self.train_dataset, order=self._order, drop_last=self._drop_last)
        if sampler.padding > 0:
            _rank_zero.rank_zero_info(
                f"{sampler.padding} of {len(sampler) * sampler.num_replicas} training samples of an epoch are repeated, so that each of "
                f"{sampler.num_replicas} ranks has equally many; loader_kwargs={{'drop_last': True}} drops some instead"
            )
        return sampler

    def _train_loader(self, sampler: KeySampler) -> DataLoader:
        return DataLoader(
            self.train_dataset,
            batch_size=self._batch_size,
            sampler=sampler,
            drop_last=self._drop_last,
            **self._loader,
        )

    def _check_loaders(self) -> None:
        """Refuse here what would fail within fit; a loader starts no worker before its first batch, so making one costs nothing.

        Raises:
            ConfigError: ``loader_kwargs`` do not fit torch's loader, or the order does not fit the dataset or the batch size.
        """
        taken = sorted(set(_DECIDED) & set(self._loader))
        if taken:
            raise ConfigError(f"loader_kwargs sets {taken[0]!r}, but the data module does: {_DECIDED[taken[0]]}")
        sampler = self._train_sampler({})  # an order that does not fit fails here
        sampler.check_batch_size(self._batch_size)
        try:
            self._train_loader(sampler)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"num_workers={self._loader['num_workers']} and loader_kwargs do not make a loader: {error}; "
                "loader_kwargs takes the arguments of torch's DataLoader"
            ) from error

    def _evaluated(self, dataset: Any, *, overfit: bool = False) -> DataLoader:
        kind = OverfitSampler if overfit else KeySampler
        sampler = kind(dataset, shuffle=False, training=False)
        size = self._eval_size or self._eval_batch_size(dataset)
        return EvaluationLoader(dataset, batch_size=size, sampler=sampler, **self._loader)


def _overrides(module: StoreDataModule) -> bool:
    """Whether a subclass has a hook of its own."""
    hook = "on_after_batch_transfer"
    return getattr(type(module), hook) is not getattr(_lightning.LightningDataModule, hook)
