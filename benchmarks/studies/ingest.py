"""Ingest beside decompressing the same files: processor time of one volume, and memory."""

from __future__ import annotations

import gzip
import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved

__all__ = ["measure"]

_VOLUMES = 4
"""Volumes of an ingest, at most: what it costs once (a store, a commit) is shared out among them."""


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """CPU seconds of a volume in one process, its ratio to decompressing the file, and the highest memory in volumes."""
    target = cohort.folder / "ingested"
    sources = {"image": cohort.images(".nii.gz")[:_VOLUMES], "label": cohort.labels(".nii.gz")[:_VOLUMES]}
    try:
        for kind, files in sources.items():
            contestants = {
                "gunzip with zlib": _cpu(_gunzip, files),
                "read with nibabel": _cpu(_read, files),
                "ingest": _cpu(partial(_ingest, target, kind), files),
            }
            # Ratios of figures that were taken one right after the other: what else the machine does changes all of them.
            rounds: dict[str, list[float]] = {name: [] for name in contestants}
            noted = {name: _noting(measure, rounds[name]) for name, measure in contestants.items()}
            yield from interleaved(noted, 7 if full else 5, unit="s", what=f"CPU time of one {kind}")
            for name in ("gunzip with zlib", "read with nibabel"):
                ratios = [a / b for a, b in zip(rounds["ingest"][1:], rounds[name][1:], strict=True)]
                yield {
                    "name": f"ingest / {name}",
                    "value": round(statistics.median(ratios), 3),
                    "lowest": round(min(ratios), 3),
                    "highest": round(max(ratios), 3),
                    "unit": "times",
                    "what": f"CPU time of one {kind}, in times that of its file alone",
                }
        for kind, files in sources.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                value = pool.submit(_peak, target, kind, files).result()
            yield {"name": kind, "value": value, "unit": "volumes", "what": "highest memory of an ingest"}
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _cpu(call: Callable[[Sequence[Path]], None], files: Sequence[Path]) -> Callable[[], float]:
    def seconds() -> float:
        started = time.process_time()
        call(files)
        return (time.process_time() - started) / len(files)

    return seconds


def _noting(measure: Callable[[], float], values: list[float]) -> Callable[[], float]:
    def noted() -> float:
        values.append(measure())
        return values[-1]

    return noted


def _gunzip(files: Sequence[Path]) -> None:
    buffer = bytearray(2**20)
    for file in files:
        with gzip.open(file) as stream:
            while stream.readinto(buffer):
                pass


def _read(files: Sequence[Path]) -> None:
    import nibabel as nib

    for file in files:
        np.asanyarray(nib.load(file).dataobj.get_unscaled())


def _ingest(target: Path, kind: str, files: Sequence[Path]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    sources = {kind: {file.name: str(file) for file in files}}
    report = rl.ingest(target, sources, labels=["label"] if kind == "label" else [], workers=1)
    if not report.ok:
        raise RuntimeError(str(report))


def _peak(target: Path, kind: str, files: Sequence[Path]) -> float:
    """Memory that this process had at most while it ingested, over what it had before, in volumes."""
    import nibabel as nib

    small = target.with_name("ingested-small.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)), small)
    _ingest(target, kind, [small])  # imports all that an ingest needs
    small.unlink()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest value begins anew
    _ingest(target, kind, files)
    image = nib.load(files[0])
    size = int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    peak: float = (_status("VmHWM") - before) / size
    return round(peak, 2)


def _status(name: str) -> int:
    """A size in ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
