"""Models of the tests of Lightning, which note what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

Seen = dict[str, list[tuple[int, str, str]]]


class Noting(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """One convolution, perhaps with BatchNorm. ``seen`` has (epoch, subject, location) of each sample by stage."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Conv3d(1, 3, 1), *([torch.nn.BatchNorm3d(3)] if norm else [])]
        self.layers = torch.nn.Sequential(*layers)
        self.seen: Seen = {"train": [], "val": [], "test": [], "predict": []}
        self.means: dict[str, list[float]] = {"train": [], "val": []}
        self.statistics: list[list[float]] = []

    def _note(self, part: str, batch: dict[str, Any]) -> None:
        for subject, location in zip(batch["obs_subject_id"], batch["location"].tolist(), strict=True):
            self.seen[part].append((self.current_epoch, subject, str(location)))

    def _loss(self, batch: dict[str, Any]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layers(batch["image"] / 1000), batch["label"][:, 0].long())

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        self._note("train", batch)
        return self._loss(batch)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._note("val", batch)
        if not self.trainer.sanity_checking:
            self.means["val"].append(float(batch["image"].mean()))
            self.statistics.append([float(v) for b in self.layers.buffers() for v in b.flatten()])
        size = len(batch["obs_id"])
        self.log("val_mean", batch["image"].mean(), batch_size=size, sync_dist=True)
        self.log("val_max", batch["image"].mean(), batch_size=size, sync_dist=True, reduce_fx="max")
        self.log("val_loss", self._loss(batch), batch_size=size, sync_dist=True)

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._note("test", batch)
        self.log("test_mean", batch["image"].mean(), batch_size=len(batch["obs_id"]), sync_dist=True)

    def predict_step(self, batch: dict[str, Any], index: int) -> list[str]:
        self._note("predict", batch)
        return list(batch["obs_subject_id"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class StopAfter(lightning.Callback):  # type: ignore[misc, name-defined]
    """Ends a run after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True


def trainer(folder: Path, **arguments: Any) -> Any:
    """A Trainer on the CPU that shows and logs nothing."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return lightning.Trainer(**defaults | arguments)
