"""Segmentation on several ranks with plain PyTorch.

    torchrun --nproc-per-node 2 examples/torchrun_ddp.py --store demo/store

gloo on CPUs, nccl on GPUs. Stop it and start it again with ``--checkpoint FILE``, with any number of ranks: it goes on within the
epoch with exactly the patches that were missing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import radioloader as rl

CLASSES = 3


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.InstanceNorm3d(1),
        nn.Conv3d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(16, CLASSES, 1),
    )


def train(model: nn.Module, loader: rl.DataLoader, steps: int, device: torch.device, checkpoint: Path | None) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    step = 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])  # nothing is read for what is skipped
        step = saved["step"]
        say(
            f"going on at step {step}: epoch {saved['loader']['epoch']}, {saved['loader']['samples']} patches of it are done"
        )
    while step < steps:
        for batch in loader:  # every iteration is a new epoch with other patches
            loss = nn.functional.cross_entropy(model(batch["image"].to(device)), batch["label"][:, 0].long().to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            if step % 10 == 0 or step == steps:
                say(f"step {step}: loss {loss.item():.3f}")
                if checkpoint is not None and dist.get_rank() == 0:  # the loader's state is the same on every rank
                    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                    torch.save({**state, "loader": loader.state_dict()}, checkpoint)
            if step == steps:
                break


@torch.no_grad()
def evaluate(model: nn.Module, dataset: rl.VolumeDataset, device: torch.device) -> dict[str, float]:
    """Accuracy of each case, on every rank; ranks may have different numbers of cases."""
    accuracy = {}
    for batch in rl.DataLoader(dataset):  # neither shuffled nor random: every case is on exactly one rank
        found = model(batch["image"].to(device)).argmax(1).cpu()
        accuracy[batch["obs_subject_id"][0]] = (found == batch["label"][:, 0]).double().mean().item()
    return rl.gather_cases(accuracy, dataset)  # raises when a case is missing or came twice


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", required=True, help="URI of a store with the collections T1w and seg")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="worker processes of each rank")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()

    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)

    subjects = rl.open(arguments.store).obs_subject_ids
    split = rl.split_subjects(subjects, (0.75, 0.25, 0.0), seed=0)
    patches = rl.PatchDataset(
        arguments.store,
        image="T1w",
        label="seg",
        patch_size=arguments.patch_size,
        positions=rl.ForegroundPositions(0.5),
        patches_per_volume=8,
        subjects=split.train,
    )
    loader = rl.DataLoader(patches, batch_size=4, shuffle=True, num_workers=arguments.workers)
    torch.manual_seed(0)  # the same weights on every rank
    model = DistributedDataParallel(make_model().to(device))
    train(model, loader, arguments.steps, device, arguments.checkpoint)

    cases: dict[str, Any] = {"image": "T1w", "label": "seg", "subjects": split.val, "crop_to": 96}
    # The bare module: ranks with fewer cases make fewer forward passes, which DDP's would wait for.
    result = evaluate(model.module.eval(), rl.VolumeDataset(arguments.store, **cases), device)
    for case, accuracy in result.items():
        say(f"{case}: {100 * accuracy:.1f} % of voxels right")
    say(f"{len(result)} of {len(split.val)} cases evaluated, each once")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
