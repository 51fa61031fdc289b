"""The same bytes whatever makes them: numbers of workers, ways of starting them, kinds of positions, random transforms."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

import radioloader as rl

monai = pytest.importorskip("monai.transforms")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on fewer cores

POSITIONS = {
    "uniform": rl.UniformPositions(),
    "foreground": rl.ForegroundPositions(0.5),
    "regions": rl.RegionPositions(patches=2),
    "weighted": rl.WeightedPositions("seg"),
}


def digests(loader: rl.DataLoader) -> list[str]:
    """One for each sample, in order: the batch that it came in does not matter."""
    found = []
    for batch in loader:
        for number, subject in enumerate(batch["obs_subject_id"]):
            digest = hashlib.sha256(subject.encode())
            for name in ("image", "label", "location", "affine"):
                digest.update(batch[name][number].numpy().tobytes())
            found.append(digest.hexdigest())
    return found


def test_every_number_of_workers_under_every_start_method(brains: Any, counts: Callable[[int, int], int]) -> None:
    everything = [(workers, start) for workers in (1, 2, 4) for start in ("fork", "spawn", "forkserver")]
    quick = {"uniform": [(2, "forkserver")], "foreground": [(1, "spawn")]}
    noise = monai.Compose([monai.RandGaussianNoised("image", prob=0.7), monai.RandFlipd(["image", "label"], prob=0.5)])
    expected: dict[str, list[list[str]]] = {}
    for kind, positions in POSITIONS.items():
        dataset = rl.PatchDataset(
            brains.uri,
            image="T1w",
            label="seg",
            patch_size=7,
            positions=positions,
            patches_per_volume=4,
            transform=noise,
        )
        here = rl.DataLoader(dataset, batch_size=3, shuffle=True)
        expected[kind] = [digests(here) for _ in range(2)]
        assert len({digest for epoch in expected[kind] for digest in epoch}) == 2 * 16  # nothing comes twice
        for workers, start in everything if counts(0, 1) else quick.get(kind, [(4, "fork")]):
            there = rl.DataLoader(
                dataset, batch_size=3, shuffle=True, num_workers=workers, multiprocessing_context=start, timeout=120
            )
            assert [digests(there) for _ in range(2 if workers == 2 else 1)] == expected[kind][
                : 2 if workers == 2 else 1
            ]
    # Another batch size groups the same samples.
    assert digests(rl.DataLoader(dataset, batch_size=5, shuffle=True)) == expected[kind][0]
    other = rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=7, patches_per_volume=4, seed=1)
    assert not set(digests(rl.DataLoader(other, batch_size=3, shuffle=True))) & set(expected["uniform"][0])
