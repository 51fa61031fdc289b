"""A small 3D U-Net as a Lightning module. Import it late: it needs MONAI and Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from radioloader._optional import require

LightningModule: Any = require("lightning", extra="demo").LightningModule

__all__ = ["TissueSegmenter", "dice"]

N_CLASSES = 3


def dice(prediction: Any, truth: Any, *, label: int) -> float:
    """Dice overlap, ``2 |A and B| / (|A| + |B|)``, of one class in two label maps of the same shape.

    Returns:
        A number in [0, 1]; 1 when neither has the class.
    """
    a, b = prediction == label, truth == label
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else 1.0


class TissueSegmenter(LightningModule):  # type: ignore[misc]
    """MONAI's UNet with 16, 32 and 64 channels, trained with Dice and cross-entropy.

    Args:
        brain_means: For each subject the mean of its image's voxels above 0, in stored units. Images are divided by it:
            scanners differ in gain, and a single patch cannot tell gain from tissue.
        window: Edge of the sliding window in voxels, a multiple of 4.
        total_steps: Length of the learning-rate schedule.
        learning_rate: Its peak.
    """

    def __init__(
        self, *, brain_means: Mapping[str, float], window: int, total_steps: int, learning_rate: float = 0.015
    ) -> None:
        super().__init__()
        losses, inferers, nets = (
            require(f"monai.{name}", extra="demo") for name in ("losses", "inferers", "networks.nets")
        )
        self.net = nets.UNet(
            spatial_dims=3, in_channels=1, out_channels=N_CLASSES, channels=(16, 32, 64), strides=(2, 2)
        )
        self.loss = losses.DiceCELoss(to_onehot_y=True, softmax=True)
        self.inferer = inferers.SlidingWindowInferer((window,) * 3, sw_batch_size=2, overlap=0.25, mode="gaussian")
        self.brain_means = dict(brain_means)
        self.total_steps, self.learning_rate = total_steps, learning_rate
        self.train_losses: list[float] = []
        self.val_dice: list[tuple[int, float]] = []

    def scaled(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """The batch's images (B, 1, X, Y, Z), each divided by its subject's brain mean."""
        image: torch.Tensor = batch["image"]
        means = [self.brain_means[subject] for subject in batch["obs_subject_id"]]
        return image / image.new_tensor(means).view(-1, 1, 1, 1, 1)

    def training_step(self, batch: Mapping[str, Any], index: int) -> torch.Tensor:
        """Loss on a batch of patches."""
        loss: torch.Tensor = self.loss(self.net(self.scaled(batch)), batch["label"])
        self.train_losses.append(float(loss.detach()))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the last round."""
        self._scores: list[float] = []

    def validation_step(self, batch: Mapping[str, Any], index: int) -> None:
        """Dice of the two tissues on a whole volume."""
        prediction = self.segment(batch)
        self._scores += [dice(prediction, batch["label"][:, 0], label=c) for c in range(1, N_CLASSES)]

    def on_validation_epoch_end(self) -> None:
        """Keep the mean of the round."""
        self.val_dice.append((self.global_step, sum(self._scores) / max(len(self._scores), 1)))

    def segment(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Label maps (B, X, Y, Z) uint8 of whole volumes, by sliding window."""
        with torch.inference_mode():
            scores: torch.Tensor = self.inferer(self.scaled(batch), self.net)
            return scores.argmax(dim=1).to(torch.uint8)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule, stepped with every batch."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
