"""Train on patches from the store, with an ordinary Lightning Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radioloader._optional import require
from radioloader.demo.quiet import quiet_lightning

if TYPE_CHECKING:
    from radioloader.demo.model import TissueSegmenter

__all__ = ["Training", "train"]


@dataclass(frozen=True)
class Training:
    """A trained model and how it came to be.

    Attributes:
        model: In evaluation mode.
        train, val, test: Subject ids of the split; nothing was learned or tuned on `test`.
        data: The data module; its test loader gives the held-out volumes.
    """

    model: TissueSegmenter
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    data: Any


def train(
    uri: str,
    *,
    brain_means: Mapping[str, float],
    folder: Path,
    patch_size: int = 64,
    max_steps: int = 300,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Training:
    """Train the U-Net on patches of image ``T1w`` and label ``seg``.

    Args:
        uri: The store.
        brain_means: See :class:`~radioloader.demo.model.TissueSegmenter`.
        folder: The weights go there as ``model.pt``; Lightning writes nothing anywhere.
        patch_size: Edge of the cubic patches in voxels, a multiple of 4.
        max_steps: Batches of 4 patches.
        seed: Of the split, the patches' positions and the weights.
        on_step: Called after each step with its loss.
    """
    import torch

    lightning = require("lightning", extra="demo")
    from radioloader.demo.model import TissueSegmenter
    from radioloader.lightning import PatchDataModule

    data = PatchDataModule(
        uri,
        image=["T1w"],
        label="seg",
        patch_size=(patch_size,) * 3,
        patches_per_volume=8,
        batch_size=4,
        split=(0.7, 0.1, 0.2),
        seed=seed,
        num_workers=0,
    )

    Callback: Any = lightning.Callback

    class Report(Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, module: Any, *unused: Any) -> None:
            on_step(module.train_losses[-1])

    # The caller's random state stays as it is; that of the weights comes from the seed.
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        torch.manual_seed(seed)
        model = TissueSegmenter(brain_means=brain_means, window=patch_size * 3 // 2, total_steps=max_steps)
        trainer = lightning.Trainer(
            max_steps=max_steps,
            accelerator="cpu",  # also where there is a GPU: the numbers should be the same everywhere
            callbacks=[Report()],
            check_val_every_n_epoch=5,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(model, datamodule=data)
        except SystemExit as error:
            # What Lightning makes of Ctrl-C.
            raise KeyboardInterrupt from error
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.net.state_dict(), folder / "model.pt")
    return Training(model, tuple(data.split.train), tuple(data.split.val), tuple(data.split.test), data)
