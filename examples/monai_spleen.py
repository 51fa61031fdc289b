"""MONAI's spleen segmentation tutorial with one line changed.

    python examples/monai_spleen.py --data Task09_Spleen --store spleen.store
    python examples/monai_spleen.py --demo

The transforms, the model, the loss, the loader and the sliding window are those of MONAI's tutorial ``spleen_segmentation_3d``. What
changes is the class of the two datasets; ``--loader cache`` runs the tutorial's own. ``--demo`` takes the real brain in nilearn's
wheel in place of the spleens, small patches and a small model: about two minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _brain import make_files
from monai.data import CacheDataset, DataLoader, decollate_batch, load_decathlon_datalist
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.layers import Norm
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscrete,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
    Spacingd,
)
from monai.utils import set_determinism

import radioloader.monai

KEYS = ["image", "label"]


def make_transforms(window: tuple[float, float], spacing: tuple[float, ...], patch: tuple[int, ...]) -> tuple[Any, Any]:
    prefix = [
        LoadImaged(keys=KEYS),
        EnsureChannelFirstd(keys=KEYS),
        ScaleIntensityRanged(keys=["image"], a_min=window[0], a_max=window[1], b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(keys=KEYS, source_key="image", allow_smaller=True),
        Orientationd(keys=KEYS, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        Spacingd(keys=KEYS, pixdim=spacing, mode=("bilinear", "nearest")),
    ]
    crop = RandCropByPosNegLabeld(
        keys=KEYS,
        label_key="label",
        spatial_size=patch,
        pos=1,
        neg=1,
        num_samples=4,
        image_key="image",
        image_threshold=0,
    )
    return Compose([*prefix, crop]), Compose(prefix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the decathlon's Task09_Spleen")
    parser.add_argument("--store", default="spleen.store", help="where prepared items go")
    parser.add_argument("--loader", choices=("radioloader", "cache"), default="radioloader")
    parser.add_argument("--epochs", type=int, help="600, or 16 with --demo")
    parser.add_argument("--demo", action="store_true", help="a real brain, small patches, a few epochs")
    arguments = parser.parse_args()
    if arguments.demo:
        with tempfile.TemporaryDirectory() as folder:
            items = make_files(Path(folder) / "files")
            window, spacing, patch, channels = (100.0, 2000.0), (2.0, 2.0, 2.0), (48, 48, 48), (8, 16, 32)
            run(
                items,
                1,
                f"{folder}/store",
                arguments.loader,
                arguments.epochs or 16,
                window,
                spacing,
                patch,
                channels,
                classes=3,
            )
    elif arguments.data is None:
        parser.error("give --data, or --demo")
    else:
        items = load_decathlon_datalist(str(arguments.data / "dataset.json"), True, "training")
        window, spacing, patch, channels = (-57.0, 164.0), (1.5, 1.5, 2.0), (96, 96, 96), (16, 32, 64, 128, 256)
        run(
            items,
            9,
            arguments.store,
            arguments.loader,
            arguments.epochs or 600,
            window,
            spacing,
            patch,
            channels,
            classes=2,
        )


def run(
    items: list[dict[str, Any]],
    held_out: int,
    store: str,
    loader: str,
    epochs: int,
    window: tuple[float, float],
    spacing: tuple[float, ...],
    patch: tuple[int, ...],
    channels: tuple[int, ...],
    classes: int,
) -> None:
    set_determinism(seed=0)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    train_files, val_files = items[:-held_out], items[-held_out:]
    train_transforms, val_transforms = make_transforms(window, spacing, patch)

    started = time.perf_counter()
    train_ds: Any
    val_ds: Any
    if loader == "cache":
        train_ds = CacheDataset(data=train_files, transform=train_transforms, cache_rate=1.0, num_workers=4)
        val_ds = CacheDataset(data=val_files, transform=val_transforms, cache_rate=1.0, num_workers=4)
    else:  # the line that changes
        train_ds = radioloader.monai.Dataset(data=train_files, transform=train_transforms, store=store)
        val_ds = radioloader.monai.Dataset(data=val_files, transform=val_transforms, store=store)
        print(train_ds.explain())
    print(f"prepared in {time.perf_counter() - started:.1f} s")
    train_loader = DataLoader(train_ds, batch_size=2, shuffle=True, num_workers=2)
    val_loader = DataLoader(val_ds, batch_size=1, num_workers=1)

    strides = (2,) * (len(channels) - 1)
    model = UNet(3, 1, classes, channels, strides, num_res_units=2, norm=Norm.BATCH).to(device)
    loss_function = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4 if epochs > 100 else 3e-3)
    metric = DiceMetric(include_background=False, reduction="mean")
    to_labels = AsDiscrete(argmax=True, to_onehot=classes)
    to_onehot = AsDiscrete(to_onehot=classes)

    for epoch in range(epochs):
        model.train()
        started, losses = time.perf_counter(), []
        for batch in train_loader:
            inputs, labels = batch["image"].to(device), batch["label"].to(device)
            optimizer.zero_grad()
            loss = loss_function(model(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}, {time.perf_counter() - started:.1f} s")

    model.eval()
    with torch.no_grad():
        for batch in val_loader:
            inputs, labels = batch["image"].to(device), batch["label"].to(device)
            outputs = sliding_window_inference(inputs, patch, 4, model)
            metric(
                y_pred=[to_labels(output) for output in decollate_batch(outputs)],
                y=[to_onehot(label) for label in decollate_batch(labels)],
            )
    print(f"mean Dice of the held-out {'case' if held_out == 1 else 'cases'}: {metric.aggregate().item():.3f}")


if __name__ == "__main__":
    main()
