"""What kinds of positions and orders of slices cost, side by side in one process.

    python benchmarks/positions.py [STORE]

STORE is a store with the collections T1w and seg, as `make demo` leaves it at demo/store; without it, six subjects are simulated.
Prints samples per second of image and label, the median of interleaved rounds, and the ratio to the first line of each table.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import radioloader as rl

ROUNDS = 5
SAMPLES = 192


def rate(loader: rl.DataLoader) -> float:
    samples = 0
    started = time.perf_counter()
    for batch in loader:
        samples += len(batch["obs_id"])
        if samples >= SAMPLES:
            break
    return samples / (time.perf_counter() - started)


def compare(title: str, loaders: dict[str, rl.DataLoader]) -> None:
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for loader in loaders.values():  # page cache and open arrays
        rate(loader)
    for _ in range(ROUNDS):
        for name, loader in loaders.items():
            found[name].append(rate(loader))
    first = statistics.median(found[next(iter(found))])
    print(f"\n{title}\n\n| | samples/s | spread | ratio |\n|---|---|---|---|")
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"| {name} | {median:.0f} | {min(rates):.0f}-{max(rates):.0f} | {median / first:.2f} |")


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    from radioloader.demo.cohort import make_cohort

    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder) / "cohort", n_subjects=6, workers=1)
        sources = {"T1w": cohort.folder / "images", "seg": cohort.folder / "labels"}
        rl.ingest(Path(folder) / "store", sources, orientation="RAS")
        measure(str(Path(folder) / "store"))


def measure(uri: str) -> None:
    cores = rl.config.available_cores()
    print(
        f"{cores} cores, {platform.machine()}, torch {torch.__version__}, radioloader {rl.__version__}; no workers, threads read"
    )

    def patches(positions: Any) -> rl.DataLoader:
        dataset = rl.PatchDataset(
            uri, image="T1w", label="seg", patch_size=64, positions=positions, patches_per_volume=16
        )
        return rl.DataLoader(dataset, batch_size=8, shuffle=True)

    compare(
        "Patches of 64^3 voxels, batches of 8",
        {
            "UniformPositions": patches(rl.UniformPositions()),
            "ForegroundPositions(1/3)": patches(rl.ForegroundPositions(1 / 3)),
            "RegionPositions(patches=4)": patches(rl.RegionPositions(patches=4)),
            "RegionPositions(patches=8)": patches(rl.RegionPositions(patches=8)),
            "TileAlignedPositions": patches(rl.TileAlignedPositions()),
        },
    )

    def slices(block: int, plane: str) -> rl.DataLoader:
        dataset = rl.SliceDataset(uri, image="T1w", label="seg", plane=plane, block=block, pad_to=256, crop_to=256)
        return rl.DataLoader(dataset, batch_size=16, shuffle=True)

    for plane in ("axial", "sagittal"):
        compare(
            f"{plane.capitalize()} slices of 64^3 tiles, batches of 16",
            {f"block={block}": slices(block, plane) for block in (1, 4, 16)},
        )


if __name__ == "__main__":
    main()
