"""Predictions back on the grids of the files, whatever was done to the volumes before the model saw them.

    python examples/predict_native_space.py --images 'scans/*.nii.gz' --model model.pt2 --out predictions
    python examples/predict_native_space.py --demo

Files of any orientation and spacing are turned, resampled and cropped by MONAI's transforms, once. The model sees windows of that; its
labels are a collection of the store, and each is written as NIfTI with exactly the shape and affine of its file. ``--model`` was
written by ``torch.export.save``, for batches of any size. ``--demo`` takes the real brain in nilearn's wheel, stored in four
orientations, and trains a small model first: about a minute on two cores.
"""

from __future__ import annotations

import argparse
import glob
import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from _brain import CLASSES, make_files
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
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

import radioloader as rl
import radioloader.monai

AXES = ("RAS", "LPS", "PIR", "SLA")


def make_prefix(keys: list[str], window: tuple[float, float], spacing: float) -> list[Any]:
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        Spacingd(keys, pixdim=(spacing,) * 3, mode=["bilinear", "nearest"][: len(keys)]),
        ScaleIntensityRanged("image", a_min=window[0], a_max=window[1], b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(keys, source_key="image", allow_smaller=True),
    ]


def predict_files(
    paths: list[str],
    model: torch.nn.Module,
    folder: Path,
    store: str,
    window: tuple[float, float],
    spacing: float,
    patch: int,
) -> list[Path]:
    """Write ``<name>_pred.nii.gz`` for every file, on its own grid, in folders like those of the files."""
    data = [{"image": path} for path in paths]
    prepared = radioloader.monai.Dataset(data, Compose(make_prefix(["image"], window, spacing)), store=store)
    print(prepared.explain())
    report = rl.predict(store, model, image=prepared.collections["image"], patch_size=patch, overlap=0.5, out="pred")
    print(report)
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    predictions, written = rl.open(store)["pred"], []
    for path, subject in zip(paths, prepared.subjects, strict=True):
        if subject in report.failed:
            continue
        place = folder / os.path.relpath(path, root)
        place.parent.mkdir(parents=True, exist_ok=True)
        written.append(place.with_name(place.name.replace(".nii", "_pred.nii")))
        predictions.loc[subject].to_nifti(written[-1])
    return written


def train(items: list[dict[str, Any]], store: str, window: tuple[float, float], spacing: float, patch: int) -> Any:
    """A small model, quickly."""
    keys = ["image", "label"]
    crop = RandCropByPosNegLabeld(keys, "label", (patch,) * 3, pos=1, neg=1, num_samples=4)
    dataset = radioloader.monai.Dataset(items, Compose([*make_prefix(keys, window, spacing), crop]), store=store)
    loader = rl.DataLoader(dataset, batch_size=1, shuffle=True)
    model = UNet(3, 1, len(CLASSES), (8, 16, 32), (2, 2), num_res_units=1)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for epoch in range(24):
        losses = []
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_function(model(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if epoch % 6 == 5:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    return model


def demo() -> None:
    set_determinism(seed=0)
    window, spacing, patch = (100.0, 2000.0), 2.0, 48
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        items = make_files(folder / "files")
        for item, axes in zip(items, AXES, strict=True):
            for path in item.values():
                image = nib.load(path)
                turn = nib.orientations.ornt_transform(
                    nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
                )
                nib.save(image.as_reoriented(turn), path)
        model = train(items[:2], f"{folder}/store", window, spacing, patch)
        paths = [item["image"] for item in items[2:]]
        written = predict_files(paths, model, folder / "predictions", f"{folder}/store", window, spacing, patch)
        for item, path in zip(items[2:], written, strict=True):
            prediction, source, label = nib.load(path), nib.load(item["image"]), nib.load(item["label"])
            assert prediction.shape == source.shape
            assert np.allclose(prediction.affine, source.affine, atol=1e-4)
            scores = []
            for value, name in enumerate(CLASSES[1:], start=1):
                ours, truth = np.asarray(prediction.dataobj) == value, np.asarray(label.dataobj) == value
                scores.append(f"{name} {2 * (ours & truth).sum() / (ours.sum() + truth.sum()):.3f}")
            axes = "".join(nib.aff2axcodes(prediction.affine))
            print(f"{path.name}: {axes}, {prediction.shape}, on the grid of its file; Dice {', '.join(scores)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="pattern of NIfTI files, in quotes")
    parser.add_argument("--model", help="file of torch.export: (B, 1, X, Y, Z) -> (B, classes, X, Y, Z)")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the predictions")
    parser.add_argument("--store", default="predict.store", help="where prepared volumes and labels go")
    parser.add_argument("--window", type=float, nargs=2, default=(-57.0, 164.0), help="intensities that become 0 and 1")
    parser.add_argument("--spacing", type=float, default=1.5, help="of the voxels that the model sees, in mm")
    parser.add_argument("--patch-size", type=int, default=96)
    parser.add_argument("--demo", action="store_true", help="a real brain, and a small model that is trained first")
    arguments = parser.parse_args()
    if arguments.demo:
        demo()
        return
    if not arguments.images or not arguments.model:
        parser.error("give --images and --model, or --demo")
    paths = sorted(glob.glob(arguments.images))
    if not paths:
        parser.error(f"no file matches {arguments.images!r}")
    window = (arguments.window[0], arguments.window[1])
    model = torch.export.load(arguments.model).module()
    for path in predict_files(
        paths, model, arguments.out, arguments.store, window, arguments.spacing, arguments.patch_size
    ):
        print(path)


if __name__ == "__main__":
    main()
