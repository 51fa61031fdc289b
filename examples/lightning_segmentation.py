"""Segmentation with Lightning: foreground patches, whole validation volumes, a checkpoint within an epoch and going on from it.

python examples/lightning_segmentation.py --store demo/store
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import radioloader as rl

CLASSES = 3


class Segmenter(pl.LightningModule):
    """A small network; what matters here is where its batches come from."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.InstanceNorm3d(1),
            nn.Conv3d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(16, CLASSES, 1),
        )

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch["image"]), batch["label"][:, 0].long())
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        middle = (..., *[slice(n // 2 - 24, n // 2 + 24) for n in batch["image"].shape[2:]])
        found = self.net(batch["image"][middle]).argmax(1)
        right = (found == batch["label"][:, 0][middle]).double().mean()
        self.log("accuracy", right, batch_size=1, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", required=True, help="URI of a store with the collections T1w and seg")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()

    data = rl.lightning.PatchDataModule(
        arguments.store,
        image="T1w",
        label="seg",
        patch_size=arguments.patch_size,
        patches_per_volume=8,
        positions=rl.ForegroundPositions(0.5),  # half of the patches are centred on a foreground class
        batch_size=4,
        split=(0.7, 0.15, 0.15),
        seed=0,
        num_workers=arguments.workers,
    )
    steps = len(data.train_dataloader())
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {
            "accelerator": "auto",
            "devices": 1,
            "logger": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": folder,
        }
        # Stopped within the first epoch, as a job that is pre-empted.
        saver = ModelCheckpoint(folder, save_last=True, every_n_train_steps=max(1, steps // 2))
        torch.manual_seed(0)
        pl.Trainer(max_steps=max(1, steps // 2), callbacks=[saver], **common).fit(Segmenter(), datamodule=data)
        # The loader's place in the epoch is in the checkpoint: the rest of the epoch is what was missing.
        trainer = pl.Trainer(max_epochs=arguments.epochs, callbacks=[rl.lightning.DataWaitMonitor()], **common)
        trainer.fit(Segmenter(), datamodule=data, ckpt_path=str(Path(folder) / "last.ckpt"))
        accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"{trainer.global_step} steps; accuracy on {len(data.split.val)} validation volumes: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
