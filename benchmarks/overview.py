"""``python -m benchmarks.overview``: how long the cohort report of many subjects takes, its peak memory, and the size of the page.

Makes a store of phantoms (a noisy head of two tissues with a label, int16 and uint8; a few volumes are odd on purpose) the first time,
then runs ``radioloader report`` as a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import radioloader as rl

__all__ = ["main", "make_store"]

_BATCH = 100
_ODD_EVERY = 97


def make_store(uri: Path, subjects: int, shape: tuple[int, int, int]) -> None:
    """Ingest phantoms of ``shape`` (X, Y, Z) in batches, so that files of all of them never lie on the disk at once."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij"))
    noise = np.random.default_rng(0).normal(0, 25, (shape[0] * 2, *shape[1:])).astype(np.float32)
    for start in range(0, subjects, _BATCH):
        with tempfile.TemporaryDirectory() as folder:
            files = [
                _write(Path(folder), number, grid, noise) for number in range(start, min(start + _BATCH, subjects))
            ]
            sources: dict[str, Any] = {
                "T1w": {subject: image for subject, image, _ in files},
                "seg": {subject: label for subject, _, label in files},
            }
            done = rl.ingest(uri, sources, labels=["seg"], classes={"seg": {"grey": 1, "white": 2}})
            assert done.ok, str(done)


def _write(folder: Path, number: int, grid: Any, noise: Any) -> tuple[str, Path, Path]:
    generator = np.random.default_rng(number)
    radii = generator.uniform(0.72, 0.85, 3).astype(np.float32)[:, None, None, None]
    distance = np.sqrt(((grid / radii) ** 2).sum(axis=0))
    label = np.where(distance < 0.6, 2, np.where(distance < 0.85, 1, 0)).astype(np.uint8)
    shift = int(generator.integers(grid.shape[1]))
    # Other noise for each subject: a stretch of a long block of it.
    tissue = np.array([0, 500, 800], np.float32)[label] + np.where((distance >= 0.9) & (distance < 1), 350, 0)
    image = np.maximum(tissue + noise[shift : shift + grid.shape[1]], 0).astype(np.int16)
    affine = np.diag([1.0, 1.0, 3.0 if number % _ODD_EVERY == 5 else 1.0, 1.0])
    if number % _ODD_EVERY == 11:
        label[label == 2] = 1
    subject = f"sub-{number:05d}"
    paths = folder / f"{subject}_T1w.nii", folder / f"{subject}_seg.nii"
    for path, voxels in zip(paths, (image, label), strict=True):
        nib.save(nib.Nifti1Image(voxels, affine), path)
    return subject, *paths


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overview", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent / ".cache")
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(96, 112, 96))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    name = f"overview-{options.subjects}-{'x'.join(map(str, options.shape))}"
    store = options.root / name
    if not store.exists():
        started = time.monotonic()
        # In a process of its own: a child's peak memory starts with that of the process which started it.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_store, args=(store, options.subjects, options.shape)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit(maker.exitcode)
        print(f"made {store} in {time.monotonic() - started:.0f} s")
    out = options.root / f"{name}-report"
    command = [sys.executable, "-m", "radioloader", "report", str(store), "--out", str(out)]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--workers", str(options.workers)])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    size = (out / "index.html").stat().st_size
    print(
        f"{options.subjects} subjects: {seconds:.1f} s, {usage.ru_utime + usage.ru_stime:.1f} s of processor time, "
        f"peak {usage.ru_maxrss / 1024:.0f} MiB, page {size / 1e6:.1f} MB, exit status {os.waitstatus_to_exitcode(status)}"
    )


if __name__ == "__main__":
    main()
