"""TorchIO's brain segmentation tutorial, patches and all, with the dataset and the queue read from a store.

    python examples/torchio_brain.py --store demo/store --image T1w --label seg
    python examples/torchio_brain.py --demo

The preprocessing, the samplers and the aggregator are TorchIO's. ``--demo`` takes the real brain in nilearn's wheel: about two
minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchio as tio
from _brain import make_files
from torch import nn

import radioloader as rl
import radioloader.torchio

CLASSES = 3


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1),
        nn.InstanceNorm3d(16),
        nn.ReLU(),
        nn.Conv3d(16, 16, 3, padding=1),
        nn.InstanceNorm3d(16),
        nn.ReLU(),
        nn.Conv3d(16, CLASSES, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="a store with images and labels")
    parser.add_argument("--image", default="T1w", help="its image collection")
    parser.add_argument("--label", default="seg", help="its label collection")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--demo", action="store_true", help="a real brain, ingested into a store of its own")
    arguments = parser.parse_args()
    if arguments.demo:
        with tempfile.TemporaryDirectory() as folder:
            items = make_files(Path(folder) / "files")
            sources: dict[str, Any] = {
                "T1w": {f"sub-{number:02d}": item["image"] for number, item in enumerate(items)},
                "seg": {f"sub-{number:02d}": item["label"] for number, item in enumerate(items)},
            }
            rl.ingest(Path(folder) / "store", sources)
            run(f"{folder}/store", "T1w", "seg", arguments.epochs)
    elif arguments.store is None:
        parser.error("give --store, or --demo")
    else:
        run(arguments.store, arguments.image, arguments.label, arguments.epochs)


def run(store: str, image: str, label: str, epochs: int) -> None:
    torch.manual_seed(0)
    names = rl.open(store).obs_subject_ids
    # Runs once for each subject, and is kept in the store.
    preprocess = tio.Compose(
        [tio.ToCanonical(), tio.Resample(1.5), tio.ZNormalization(masking_method=tio.ZNormalization.mean)]
    )
    augment = tio.Compose([tio.RandomFlip(axes=("LR",)), tio.RandomNoise(std=0.05, p=0.5)])
    collections: dict[str, Any] = {"image": {"mri": image}, "label": {"tissue": label}, "transform": preprocess}
    training = radioloader.torchio.SubjectsDataset(store, **collections, subjects=names[:-1])
    validation = radioloader.torchio.SubjectsDataset(store, **collections, subjects=names[-1:])
    print(training.explain())

    sampler = tio.LabelSampler(patch_size=48, label_name="tissue", label_probabilities={0: 1, 1: 2, 2: 2})
    queue = radioloader.torchio.Queue(
        training, max_length=40, samples_per_volume=16, sampler=sampler, num_workers=2, patch_transform=augment
    )
    loader = tio.SubjectsLoader(queue, batch_size=4)

    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for epoch in range(epochs):
        model.train()
        started, losses = time.perf_counter(), []
        for batch in loader:
            target = batch["tissue"][tio.DATA][:, 0].long()
            loss = nn.functional.cross_entropy(model(batch["mri"][tio.DATA].float()), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}, {time.perf_counter() - started:.1f} s")

    model.eval()
    subject = validation[0]
    grid = tio.GridSampler(subject, 64, 8)  # reads patch by patch
    aggregator = tio.GridAggregator(grid, overlap_mode="hann")
    with torch.no_grad():
        for batch in tio.SubjectsLoader(grid, batch_size=4):
            aggregator.add_batch(model(batch["mri"][tio.DATA].float()).softmax(1), batch[tio.LOCATION])
    predicted = aggregator.get_output_tensor().argmax(0)
    truth = subject["tissue"].data[0] + 0
    for value, tissue in ((1, "grey matter"), (2, "white matter")):
        mine, theirs = predicted == value, truth == value
        print(
            f"{tissue}: Dice {2 * (mine & theirs).sum().item() / (mine.sum() + theirs.sum()).item():.3f} on {names[-1]}"
        )


if __name__ == "__main__":
    main()
