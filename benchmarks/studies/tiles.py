"""Tile extents and filters: what reading costs, how large the store is, what writing costs; for CT int16, MR float32 and labels uint8."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import radioloader as rl
from benchmarks.model import Cohort

__all__ = ["measure"]

EXTENTS = (24, 48, 64, 96)
FILTERS: dict[str, dict[str, Any]] = {
    **{f"zstd {level}": {"level": level, "shuffle": False} for level in (-5, -1, 1, 3, 6, 19)},
    **{f"shuffle, zstd {level}": {"level": level, "shuffle": True} for level in (-5, -1, 1, 3, 6, 19)},
    "shuffle, lz4": {"codec": "lz4", "shuffle": True},
    "none": {"codec": "none"},
}
_PATCHES = (64, 96, 128, 160)
_READS = {64: 48, 96: 16, 128: 10, 160: 6}
_ONE = rl.ReadConfig(max_workers=1)


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """Processor time of single reads in one thread, ms; MB on disk; processor time of writing from ``.nii``, ms. Tiles vary with the
    default filters, filters with the default tiles."""
    folder = cohort.folder / "tiles"
    shutil.rmtree(folder, ignore_errors=True)
    # What others are compared with comes first.
    configs = {f"{name} (preset)": rl.WriteConfig.preset(name) for name in ("balanced", "fast", "small")}
    configs |= {f"{n}^3": rl.WriteConfig(tile=rl.TileConfig(extent=n)) for n in EXTENTS}
    for plane in ("axial", "coronal", "sagittal"):
        configs[f"{plane} tiles"] = rl.WriteConfig(tile=rl.TileConfig(orientation=rl.SliceOrientation(plane)))
    configs |= {
        name: rl.WriteConfig(compression=rl.CompressionConfig(**settings)) for name, settings in FILTERS.items()
    }
    try:
        for kind, file, labels in _volumes(cohort, folder):
            found = {
                name: _one(file, write, folder / "store", labels=labels, repeats=3 if full else 1)
                for name, write in configs.items()
            }
            for what in next(iter(found.values())):
                for name in configs:
                    value, unit = found[name][what]
                    yield {"name": name, "what": f"{kind}: {what}", "value": round(value, 4), "unit": unit}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _volumes(cohort: Cohort, folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """Name and file of each, and whether it holds labels."""
    import nibabel as nib

    yield "CT int16", cohort.images(".nii")[0], False
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(_magnetic(cohort), np.eye(4)), folder / "mr.nii")
    yield "MR float32", folder / "mr.nii", False
    yield "label uint8", cohort.labels(".nii")[0], True


def _magnetic(cohort: Cohort) -> Any:
    """The brain template of nilearn's wheel on the cohort's grid with a smooth bias field and Rician noise, as float32: no two voxels of
    the head have the same bits, as after a scanner's scaling or a bias correction."""
    from benchmarks.cohort import resize, template

    brain = template(cohort.shape)
    generator = np.random.default_rng(0)
    field = resize(generator.normal(1, 0.15, (4, 4, 4)).astype(np.float32), cohort.shape)
    real, imaginary = (generator.normal(0, 0.02, cohort.shape).astype(np.float32) for _ in range(2))
    magnitude = np.hypot(brain * field + real, imaginary) * np.float32(800)
    return np.where(brain > 0, magnitude, np.float32(0))


def _one(file: Path, write: rl.WriteConfig, uri: Path, *, labels: bool, repeats: int) -> dict[str, tuple[float, str]]:
    shutil.rmtree(uri, ignore_errors=True)
    config = rl.StorageConfig(read=_ONE, write=write)
    began = time.process_time()
    report = rl.ingest(uri, {"volume": [file]}, labels=["volume"] if labels else [], workers=1, config=config)
    written = time.process_time() - began
    if not report.ok:
        raise RuntimeError(str(report))
    size = sum(part.stat().st_size for part in uri.rglob("*") if part.is_file())
    volume = rl.open(uri, config=config).volume.iloc[0]
    shape = volume.shape
    generator = np.random.default_rng(0)
    result: dict[str, tuple[float, str]] = {}
    for edge in _PATCHES:
        if edge <= min(shape):
            starts = [[int(generator.integers(n - edge + 1)) for n in shape] for _ in range(repeats * _READS[edge])]
            boxes = [tuple(slice(a, a + edge) for a in start) for start in starts]
            result[f"{edge}^3"] = _median(volume, boxes), "ms"
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        places = generator.integers(shape[axis], size=repeats * 8).tolist()
        index = [tuple(slice(p, p + 1) if a == axis else slice(None) for a in range(3)) for p in places]
        result[plane] = _median(volume, index), "ms"
    result["whole"] = _median(volume, [(slice(None),) * 3] * (repeats + 1)), "ms"
    result["on disk"] = size / 1e6, "MB"
    result["writing"] = 1000 * written, "ms"
    return result


def _median(volume: Any, boxes: Sequence[tuple[slice, ...]]) -> float:
    """Processor time of a read, ms: the median."""
    volume[boxes[0]]
    read: Callable[[tuple[slice, ...]], Any] = volume.__getitem__
    times = []
    for box in boxes:
        began = time.process_time()
        read(box)
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)
