"""Ingest with more and more processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import radioloader as rl
from benchmarks.machine import cores
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, timed

__all__ = ["measure"]


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """MB of voxels (as they are in memory) per second, from ``.nii.gz`` and from ``.nii``, starting the processes included."""
    x, y, z = cohort.shape
    megabytes = cohort.subjects * x * y * z * 3 / 1e6
    target = cohort.folder / "written"
    counts = sorted({1, 2, 4, cores()} if full else {1, cores()})

    def ingest(suffix: str, workers: int) -> Callable[[], float]:
        sources = {"CT": cohort.images(suffix)[0].parent, "seg": cohort.labels(suffix)[0].parent}

        def write() -> None:
            report = rl.ingest(target, sources, workers=workers)
            if not report.ok:
                raise RuntimeError(str(report))

        def rate() -> float:
            shutil.rmtree(target, ignore_errors=True)
            return megabytes / timed(write)

        return rate

    try:
        for suffix in (".nii.gz", ".nii"):
            rates = {f"{n} processes": ingest(suffix, n) for n in counts}
            yield from interleaved(rates, 2 if full else 1, unit="MB/s", what=f"from {suffix}")
    finally:
        shutil.rmtree(target, ignore_errors=True)
