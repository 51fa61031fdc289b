"""Transforms of whole batches, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from radioloader._optional import require
from radioloader.errors import ConfigError
from radioloader.samplers.random import seed_of

__all__ = ["BatchTransform", "DeviceTransforms"]

BatchTransform = Callable[[dict[str, Any]], dict[str, Any]]

_overrides = require("lightning.pytorch.utilities.model_helpers", extra="lightning")


class DeviceTransforms:
    """What a data module does in ``on_after_batch_transfer``.

    Args:
        train: For training batches.
        evaluation: For all others.
        seed: Seed of what they draw from torch's generators.
    """

    def __init__(self, train: BatchTransform | None, evaluation: BatchTransform | None, *, seed: int) -> None:
        for name, transform in (("device_transform", train), ("eval_device_transform", evaluation)):
            if transform is not None and not callable(transform):
                raise ConfigError(f"{name} must be callable, got {type(transform).__name__}")
        self.train, self.evaluation, self.seed = train, evaluation, seed

    def __bool__(self) -> bool:
        return self.train is not None or self.evaluation is not None

    def __call__(self, trainer: Any, batch: Any, dataloader_idx: int) -> Any:
        """The batch after the transform of its stage and after the model's own hook, which Lightning then leaves to us."""
        training = trainer.training
        transform = self.train if training else self.evaluation
        if transform is not None:
            batch = self._seeded(trainer, transform, batch, training)
            if batch is None:
                raise TypeError("the transform of batches on the device returned None; it must return the batch")
        model = trainer.lightning_module
        if _overrides.is_overridden("on_after_batch_transfer", model):
            batch = model.on_after_batch_transfer(batch, dataloader_idx)
        return batch

    def _seeded(self, trainer: Any, transform: BatchTransform, batch: Any, training: bool) -> Any:
        """Apply a transform with torch's generators seeded by the place in the run, and put back afterwards."""
        number, epoch = 0, 0
        if training:
            number = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            epoch = 0 if trainer.overfit_batches else trainer.fit_loop.epoch_progress.current.processed
        seed = seed_of("device", self.seed, epoch, number, trainer.global_rank)
        device = trainer.strategy.root_device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed % 2**63)
            return transform(batch)
