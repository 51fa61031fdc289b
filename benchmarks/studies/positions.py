"""What kinds of positions and orders of slices cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, store_of, timed

__all__ = ["measure"]


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """Patches of 64^3 in batches of 8, and slices in batches of 16, without workers."""
    uri, rounds, batches = store_of(cohort), 5 if full else 3, 12
    positions: dict[str, Any] = {
        "UniformPositions": rl.UniformPositions(),
        "ForegroundPositions(1/3)": rl.ForegroundPositions(1 / 3),
        "RegionPositions(patches=4)": rl.RegionPositions(patches=4),
        "RegionPositions(patches=8)": rl.RegionPositions(patches=8),
        "TileAlignedPositions": rl.TileAlignedPositions(),
    }
    loaders = {
        name: rl.DataLoader(
            rl.PatchDataset(uri, image="CT", label="seg", patch_size=64, positions=kind, patches_per_volume=2048),
            batch_size=8,
            shuffle=True,
        )
        for name, kind in positions.items()
    }
    rates = {name: _rate(loader, batches, 8) for name, loader in loaders.items()}
    yield from interleaved(rates, rounds, unit="patches/s", what="patches 64^3")
    for plane in ("axial", "coronal", "sagittal"):
        slices = {
            f"block={block}": rl.DataLoader(
                rl.SliceDataset(uri, image="CT", label="seg", plane=plane, block=block), batch_size=16, shuffle=True
            )
            for block in (1, 4, 16)
        }
        rates = {name: _rate(loader, 4, 16) for name, loader in slices.items()}
        yield from interleaved(rates, rounds, unit="slices/s", what=f"{plane} slices, isotropic tiles")


def _rate(loader: rl.DataLoader, batches: int, size: int) -> Callable[[], float]:
    def take() -> None:
        for number, _ in enumerate(loader, 1):
            if number == batches:
                break

    return lambda: batches * size / timed(take)
