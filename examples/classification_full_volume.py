"""Classification of whole volumes with a target from obs_meta.

    python examples/classification_full_volume.py --store demo/store

The demo's subjects are simulated and their sexes random: there is nothing to learn, the example shows how.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import radioloader as rl


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.AvgPool3d(4),
        nn.InstanceNorm3d(1),
        nn.Conv3d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv3d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", required=True, help="URI of a store with the collection T1w")
    parser.add_argument("--column", default="sex", help="column of obs_meta with two classes")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=160, help="volumes are padded or cropped to this many voxels")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()

    store = rl.open(arguments.store)
    split = rl.split_subjects(store.obs_subject_ids, (0.75, 0.25, 0.0), seed=0)
    classes = sorted(set(store.obs_meta.read([arguments.column])[arguments.column]))

    def volumes(subjects: list[str]) -> rl.VolumeDataset:
        return rl.VolumeDataset(
            store,
            image="T1w",
            targets={"target": arguments.column},
            subjects=subjects,
            pad_to=arguments.size,  # volumes have different shapes
            crop_to=arguments.size,
        )

    training = volumes(split.train)
    sampler = rl.KeySampler(training, order=rl.ClassBalanced(arguments.column))  # each class equally often
    loader = rl.DataLoader(training, batch_size=2, sampler=sampler, num_workers=arguments.workers)

    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for epoch in range(arguments.epochs):
        losses = []
        for batch in loader:
            wanted = torch.tensor([classes.index(value) for value in batch["target"]])
            loss = nn.functional.cross_entropy(model(batch["image"]), wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}", flush=True)

    model.eval()
    right = {}
    with torch.no_grad():
        for batch in rl.DataLoader(volumes(split.val), num_workers=arguments.workers):
            found = classes[int(model(batch["image"]).argmax(1))]
            right[batch["obs_subject_id"][0]] = found == batch["target"][0]
    print(f"{sum(right.values())} of {len(right)} held-out subjects right")


if __name__ == "__main__":
    main()
