"""Patches per second: the store, and the same ``.nii.gz`` files through MONAI's and TorchIO's usual loading."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radioloader._optional import require
from radioloader.demo.cohort import Cohort
from radioloader.demo.quiet import quiet_monai_readers
from radioloader.errors import ShapeError

__all__ = ["BATCH_SIZE", "WAYS", "Speed", "measure_speeds"]

BATCH_SIZE = 4
WAYS = 5  # ways of loading that are compared


@dataclass(frozen=True)
class Speed:
    """How fast one way of loading gave batches.

    Attributes:
        name: Short name for tables and pictures.
        how: The classes and settings used.
        patches_per_s: Median over the repetitions; a patch is an image and its label.
        repetitions: Patches per second of each repetition.
        cpu_ms_per_patch: Processor time of all threads for one patch, median, in milliseconds.
    """

    name: str
    how: str
    patches_per_s: float
    repetitions: tuple[float, ...]
    cpu_ms_per_patch: float


def measure_speeds(
    store: Any,
    *,
    cohort: Cohort,
    patch_size: int = 64,
    repetitions: int = 5,
    seed: int = 0,
    on_repetition: Callable[[str], None] = lambda name: None,
) -> list[Speed]:
    """Time every way of loading in turn, `repetitions` times over; the store comes first.

    All run in this process without workers, on warm files, and give batches of `BATCH_SIZE` cubic patches of image and
    label at uniformly random positions, as float32 (labels: each library's own type).
    """
    size = (patch_size,) * 3
    files = [(cohort.image(s), cohort.label(s)) for s in cohort.subject_ids]
    n = BATCH_SIZE
    # Name, how, batches without end, and how many to take each time: enough of the fast one for the clock.
    ways: list[tuple[str, str, Iterator[int], int]] = [
        (
            "radioloader",
            f"PatchDataset(UniformPositions(), patches_per_volume={n}), DataLoader(batch_size={n}, shuffle=True)",
            _store_batches(store, size=size, seed=seed),
            32,
        ),
        (
            "MONAI, 1 patch per file",
            f"Dataset, LoadImaged, EnsureChannelFirstd, RandSpatialCropd, DataLoader(batch_size={n}, shuffle=True)",
            _monai_batches(files, size=size, samples=1, seed=seed),
            2,
        ),
        (
            "TorchIO, 1 patch per file",
            f"SubjectsDataset, Queue(max_length={n}, samples_per_volume=1), UniformSampler, batch_size={n}",
            _torchio_batches(files, size=size, samples=1),
            2,
        ),
        (
            f"MONAI, {n} patches per file",
            f"Dataset, LoadImaged, EnsureChannelFirstd, RandSpatialCropSamplesd(num_samples={n}), batch_size=1",
            _monai_batches(files, size=size, samples=n, seed=seed),
            4,
        ),
        (
            f"TorchIO, {n} patches per file",
            f"SubjectsDataset, Queue(max_length={n * n}, samples_per_volume={n}), UniformSampler, batch_size={n}",
            _torchio_batches(files, size=size, samples=n),
            4,
        ),
    ]
    rates: dict[str, list[float]] = {name: [] for name, *_ in ways}
    cpu: dict[str, list[float]] = {name: [] for name, *_ in ways}
    for _, _, batches, count in ways:  # once without the clock: first calls import, open files and start threads
        _take(batches, count)
    for repetition in range(repetitions):
        # Each repetition starts with another one, so that none always runs after the same neighbour.
        turn = repetition % len(ways)
        for name, _, batches, count in ways[turn:] + ways[:turn]:
            cpu_start, start = time.process_time(), time.perf_counter()
            patches = _take(batches, count)
            rates[name].append(patches / (time.perf_counter() - start))
            cpu[name].append(1000 * (time.process_time() - cpu_start) / patches)
            on_repetition(name)
    return [
        Speed(
            name,
            how,
            round(statistics.median(rates[name]), 2),
            tuple(round(r, 2) for r in rates[name]),
            round(statistics.median(cpu[name]), 3),
        )
        for name, how, *_ in ways
    ]


def _take(batches: Iterator[int], count: int) -> int:
    return sum(next(batches) for _ in range(count))


def _store_batches(store: Any, *, size: tuple[int, int, int], seed: int) -> Iterator[int]:
    import radioloader as rl

    dataset = rl.PatchDataset(
        store,
        image=["T1w"],
        label="seg",
        patch_size=size,
        positions=rl.UniformPositions(),
        patches_per_volume=BATCH_SIZE,
        seed=seed,
    )
    loader = rl.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=0)
    while True:
        for batch in loader:
            yield _count(batch["image"], batch["label"], size=size)


def _monai_batches(
    files: Sequence[tuple[Path, Path]], *, size: tuple[int, int, int], samples: int, seed: int
) -> Iterator[int]:
    data, transforms = (require(f"monai.{name}", extra="demo") for name in ("data", "transforms"))
    keys = ["image", "label"]
    if samples == 1:
        crop = transforms.RandSpatialCropd(keys, roi_size=size, random_size=False)
    else:
        crop = transforms.RandSpatialCropSamplesd(keys, roi_size=size, num_samples=samples, random_size=False)
    with quiet_monai_readers():
        load = transforms.LoadImaged(keys, reader="NibabelReader")
    steps = transforms.Compose([load, transforms.EnsureChannelFirstd(keys), crop])
    steps.set_random_state(seed=seed)
    dataset = data.Dataset([{"image": str(image), "label": str(label)} for image, label in files], transform=steps)
    loader = data.DataLoader(dataset, batch_size=BATCH_SIZE // samples, shuffle=True, num_workers=0)
    while True:
        for batch in loader:
            yield _count(batch["image"], batch["label"], size=size)


def _torchio_batches(files: Sequence[tuple[Path, Path]], *, size: tuple[int, int, int], samples: int) -> Iterator[int]:
    tio = require("torchio", extra="demo")
    subjects = [tio.Subject(image=tio.ScalarImage(image), label=tio.LabelMap(label)) for image, label in files]
    # Files are read anew each time: the data set loads a copy of a Subject. A pass over several times the cohort, and a
    # queue that holds whole batches of whole subjects: so every measurement does the same reading.
    dataset = tio.SubjectsDataset(subjects * BATCH_SIZE)
    while True:
        queue = tio.Queue(
            dataset, max_length=BATCH_SIZE * samples, samples_per_volume=samples, sampler=tio.UniformSampler(size)
        )
        for batch in tio.SubjectsLoader(queue, batch_size=BATCH_SIZE, num_workers=0):
            yield _count(batch["image"][tio.DATA], batch["label"][tio.DATA], size=size)


def _count(image: Any, label: Any, *, size: tuple[int, int, int]) -> int:
    """Number of patches in a batch, after checking that they are what was asked for."""
    expected = (len(image), 1, *size)
    if tuple(image.shape) != expected or tuple(label.shape) != expected:
        raise ShapeError(f"timed batch has image {tuple(image.shape)}, label {tuple(label.shape)}, not {expected}")
    return len(image)
