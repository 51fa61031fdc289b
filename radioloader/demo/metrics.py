"""What the demo measured, as plain numbers and sentences for ``metrics.json``, the report and the terminal."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from radioloader.demo.cohort import CLASS_NAMES
from radioloader.demo.predict import Prediction
from radioloader.demo.speed import BATCH_SIZE, Speed
from radioloader.demo.train import Training

__all__ = ["compare_with_last_run", "dice_facts", "speed_facts", "training_facts", "versions"]

_PACKAGES = ("torch", "monai", "torchio", "lightning", "nilearn", "nibabel", "numpy", "scipy", "tiledb")


def dice_facts(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """``mean``, ``classes`` (name -> mean over subjects) and ``subjects`` (id -> name -> Dice, and their ``mean``)."""
    classes = {name: statistics.mean(p.dice[name] for p in predictions) for name in CLASS_NAMES[1:]}
    return {
        "mean": round(statistics.mean(classes.values()), 4),
        "classes": {name: round(value, 4) for name, value in classes.items()},
        "subjects": {p.subject: {**p.dice, "mean": round(statistics.mean(p.dice.values()), 4)} for p in predictions},
    }


def speed_facts(speeds: Sequence[Speed], *, patch_size: int) -> dict[str, Any]:
    """``statement`` (what was compared) and ``ways`` (each Speed; ``ratio``: the first one's speed over its own)."""
    import torch

    first = speeds[0].patches_per_s
    return {
        "statement": (
            f"Batches of {BATCH_SIZE} patches of {patch_size}x{patch_size}x{patch_size} voxels, image and label, at "
            "random positions in all subjects, from the store and from the very .nii.gz files it was made of. All ran "
            f"in turn, {len(speeds[0].repetitions)} times, in one process without worker processes "
            f"({torch.get_num_threads()} PyTorch threads), on files that the system had in memory; medians are given. "
            "radioloader reads with threads, so the processor time for each patch is given as well. With 1 patch per "
            f"file a batch mixes subjects as freely as radioloader's does; taking {BATCH_SIZE} patches each time a "
            "file is read is the usual saving. Images kept decoded in memory are not compared."
        ),
        "ways": [{**asdict(s), "ratio": round(first / s.patches_per_s, 2)} for s in speeds],
    }


def training_facts(training: Training, *, patch_size: int) -> dict[str, Any]:
    """``statement``, the split by subject, the loss of each step and the validation Dice."""
    model = training.model
    steps = len(model.train_losses)
    val = f" Validation Dice at the end: {model.val_dice[-1][1]:.3f}." if model.val_dice else ""
    return {
        "statement": (
            f"MONAI's UNet with 16, 32 and 64 channels ({sum(p.numel() for p in model.parameters()):,} weights), "
            f"trained by Lightning for {steps} steps of 4 patches of {patch_size}x{patch_size}x{patch_size} voxels. "
            f"{len(training.train)} subjects for training, {len(training.val)} for validation, {len(training.test)} "
            f"held out.{val}"
        ),
        "split": {"train": training.train, "val": training.val, "test": training.test},
        "losses": [round(loss, 5) for loss in model.train_losses],
        "val_dice": [[step, round(value, 4)] for step, value in model.val_dice],
    }


def versions() -> dict[str, str]:
    """Version of radioloader and of the packages that bear on the numbers."""
    import radioloader

    found = {"radioloader": radioloader.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def compare_with_last_run(path: Path, metrics: Mapping[str, Any]) -> str:
    """Whether the predictions are those of the run that `path`, an older ``metrics.json``, tells of."""
    try:
        last = json.loads(path.read_text())
        pair = last["prediction_sha256"], metrics["prediction_sha256"]
        same_run = all(last[key] == metrics[key] for key in ("seed", "patch_size", "max_steps", "machine", "versions"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "Run the same command again: it uses the files that are there and compares its predictions with these."
    if pair[0] == pair[1]:
        return "The predictions are the same as those of the last run in this folder, voxel for voxel."
    if same_run:
        return "The predictions differ from those of the last run in this folder, with the same seed and versions."
    return "The predictions differ from those of the last run in this folder, which had other settings or versions."
