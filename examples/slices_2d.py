"""2.5D segmentation of slices: neighbours as channels, empty slices left out, tiles decoded once a block.

python examples/slices_2d.py --store demo/store
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import radioloader as rl

CLASSES = 3


def make_model(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.InstanceNorm2d(channels),
        nn.Conv2d(channels, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.Conv2d(24, CLASSES, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", required=True, help="URI of a store with the collections T1w and seg")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=128, help="slices are padded or cropped to this many voxels")
    parser.add_argument("--plane", default="axial", choices=["axial", "coronal", "sagittal"])
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()

    split = rl.split_subjects(rl.open(arguments.store).obs_subject_ids, (0.75, 0.25, 0.0), seed=0)

    def slices(subjects: list[str], block: int) -> rl.SliceDataset:
        return rl.SliceDataset(
            arguments.store,
            image="T1w",
            label="seg",
            plane=arguments.plane,
            context=1,  # the slice and a neighbour on each side: 3 channels
            skip_empty="label",
            block=block,  # 8 neighbouring slices stay together, and are read at once
            pad_to=arguments.size,
            crop_to=arguments.size,
            subjects=subjects,
        )

    training = slices(split.train, block=8)
    loader = rl.DataLoader(training, batch_size=16, shuffle=True, num_workers=arguments.workers)
    sampler = rl.KeySampler(training)
    print(f"{len(training)} slices of {len(split.train)} subjects; mixing {sampler.mixing(16).score:.2f}")

    torch.manual_seed(0)
    model = make_model(3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    step = 0
    while step < arguments.steps:
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"][:, 0].long())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            if step % 10 == 0 or step == arguments.steps:
                print(f"step {step}: loss {loss.item():.3f}", flush=True)
            if step == arguments.steps:
                break

    right: dict[str, list[float]] = {}
    model.eval()
    with torch.no_grad():
        for batch in rl.DataLoader(slices(split.val, block=16), batch_size=16, num_workers=arguments.workers):
            hits = (model(batch["image"]).argmax(1) == batch["label"][:, 0]).double().flatten(1).mean(1)
            for subject, share in zip(batch["obs_subject_id"], hits.tolist(), strict=True):
                right.setdefault(subject, []).append(share)
    for subject, shares in right.items():
        print(f"{subject}: {100 * sum(shares) / len(shares):.1f} % of voxels right in {len(shares)} slices")


if __name__ == "__main__":
    main()
