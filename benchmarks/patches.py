"""Times reading random 64^3 patches of one volume: from a store, from a .npy memory map, from the .nii.gz.

    python benchmarks/patches.py [--source FILE.nii.gz] [--repetitions 5]

The contestants run in turn, repetition by repetition, in one process; figures are medians with minimum and maximum, and the ratio to
the store of the same run. Without --source the brain template in nilearn's wheel is used.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

import radioloader as rl

PATCH = (64, 64, 64)


def template(folder: Path) -> Path:
    """The T1w template (197x233x189, 1 mm) as int16 .nii.gz."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    data = np.asarray(image.dataobj)
    path = folder / "template.nii.gz"
    nib.save(nib.Nifti1Image((data / data.max() * 4000).astype(np.int16), image.affine), path)
    return path


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a NIfTI file of at least 64 voxels on each axis")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--patches", type=int, default=100, help="patches in each repetition (2 for the .nii.gz)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = arguments.source or template(folder)
        rl.ingest(folder / "store", {"image": [source]}, workers=1)
        array = np.asarray(nib.load(source).dataobj)
        np.save(folder / "array.npy", array)
        mapped = np.load(folder / "array.npy", mmap_mode="r")
        dataset = rl.PatchDataset(folder / "store", image="image", patch_size=PATCH)
        generator = np.random.default_rng(0)
        room = [n - size + 1 for n, size in zip(array.shape, PATCH, strict=True)]

        def box() -> tuple[slice, ...]:
            return tuple(slice(s, s + size) for s, size in zip(generator.integers(0, room), PATCH, strict=True))

        def from_store(count: int) -> None:
            for start in range(0, count, 4):
                dataset.__getitems__([rl.PatchKey(0, start + i) for i in range(4)])

        def from_npy(count: int) -> None:
            for _ in range(0, count, 4):
                torch.stack([torch.from_numpy(mapped[box()].astype(np.float32)) for _ in range(4)])

        def from_nifti(count: int) -> None:
            for _ in range(count):
                np.asarray(nib.load(source).dataobj[box()], dtype=np.float32)

        contestants: dict[str, tuple[Callable[[int], None], int]] = {
            "radioloader store": (from_store, arguments.patches),
            ".npy memory map": (from_npy, arguments.patches),
            ".nii.gz (nibabel)": (from_nifti, 2),
        }
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(arguments.repetitions):
            for name, (read, count) in contestants.items():
                started = time.perf_counter()
                read(count)
                rates[name].append(count / (time.perf_counter() - started))
        ours = statistics.median(rates["radioloader store"])
        print(f"{source.name} {array.shape} {array.dtype}, patches {PATCH}, batches of 4, float32, page cache warm")
        print(
            f"radioloader {rl.__version__}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}\n"
        )
        print("| | patches/s | min - max | store / this |\n|---|---|---|---|")
        for name, values in rates.items():
            middle = statistics.median(values)
            print(f"| {name} | {middle:.1f} | {min(values):.1f} - {max(values):.1f} | {ours / middle:.2f} |")


if __name__ == "__main__":
    main()
