"""What the contestants ask of radioloader and give to the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from benchmarks.cohort import make_cohort
from benchmarks.model import Cohort, Job
from benchmarks.peers import PEERS, load


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two subjects, prepared for radioloader and numpy."""
    made, _ = make_cohort(tmp_path_factory.mktemp("bench"), 2, (72, 68, 66), source=None)
    for name in ("radioloader-uniform", "npy-memmap"):
        load(name)(made).prepare()
    return made


@pytest.mark.parametrize("name", ["radioloader-uniform", "npy-memmap", "nibabel", "ram"])
def test_single_reads_are_the_files(name: str, cohort: Cohort) -> None:
    peer = load(name)(cohort)
    peer.open()
    image, _ = cohort.load(1)
    everything = slice(None)
    for index in [(slice(0, 64),) * 3, (everything, everything, 7), (3, everything, everything), (everything,) * 3]:
        np.testing.assert_array_equal(peer.read(1, index), image[index])
    for call in ("volume", "axial", "coronal", "sagittal", "roi-aligned", "roi-random"):
        shape = peer.call(call)().shape
        wanted = {"volume": (72, 68, 66), "axial": (72, 68), "coronal": (72, 66), "sagittal": (68, 66)}
        assert shape == wanted.get(call, (64, 64, 64))


@pytest.mark.parametrize("name", ["radioloader-uniform", "radioloader-region", "npy-memmap"])
@pytest.mark.parametrize("workload", ["patches", "slices", "volumes"])
def test_image_and_label_are_of_one_place(name: str, workload: str, cohort: Cohort) -> None:
    size, plane = (64, "") if workload == "patches" else (0, "axial" if workload == "slices" else "")
    peer = load(name)(cohort)
    peer.open()
    feed = getattr(peer, workload)(Job(name, workload, size=size, plane=plane))
    volumes = [cohort.load(number) for number in range(cohort.subjects)]
    image, label = (np.asarray(part)[0, 0] for part in peer.parts(next(iter(feed.batches))))
    for whole, classes in volumes:
        windows = np.lib.stride_tricks.sliding_window_view(whole, image.shape) if image.ndim == 3 else None
        if windows is None:
            places = [(..., z) for z in range(whole.shape[2]) if np.array_equal(whole[..., z], image)]
        else:
            starts = np.argwhere(windows[..., 0, 0, 0] == image[0, 0, 0])
            boxes = [tuple(slice(s, s + n) for s, n in zip(start, image.shape, strict=True)) for start in starts]
            places = [box for box in boxes if np.array_equal(whole[box], image)]
        if places:
            np.testing.assert_array_equal(label, classes[places[0]])
            return
    pytest.fail("the image is of no volume")


def test_threads_workers_and_mixed_regions(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def loader(dataset: Any, batch_size: int, num_threads: int = 0, **more: Any) -> list[Any]:
        asked.update(more, batch_size=batch_size, num_threads=num_threads, positions=dataset.positions)
        return []

    class Mixed(rl.RegionPositions):
        def __init__(self, patches: int, mix: int = 1) -> None:
            super().__init__(patches)
            asked["mix"] = mix

    monkeypatch.setattr(rl, "DataLoader", loader)
    monkeypatch.setattr(rl, "RegionPositions", Mixed)
    job = Job("radioloader-region", "patches", size=64, threads=3)
    load(job.peer)(cohort).patches(job)
    assert (asked["num_threads"], asked.get("num_workers", 0), asked["batch_size"], asked["mix"]) == (3, 0, 4, 4)
    assert isinstance(asked["positions"], Mixed)
    asked.clear()
    load(job.peer)(cohort).patches(Job("radioloader-region", "patches", size=64, workers=2))
    assert (asked["num_threads"], asked["num_workers"], asked["persistent_workers"]) == (0, 2, True)


def test_slices_in_blocks_as_thick_as_a_tile(cohort: Cohort) -> None:
    slices = Job("", "slices", plane="axial", dtype="float32")
    for name, block, mix in (("radioloader-region", rl.TileConfig().extent, 4), ("radioloader-uniform", 1, 1)):
        dataset = load(name)(cohort).slices(slices).batches.dataset
        assert (dataset.block, dataset.mix) == (block, mix)


def test_float32_and_the_stored_dtype(cohort: Cohort) -> None:
    peer = load("radioloader-uniform")(cohort)
    for dtype, delivered in (("float32", torch.float32), ("stored", torch.int16)):
        batch = next(iter(peer.patches(Job("", "patches", size=64, dtype=dtype)).batches))
        assert batch["image"].dtype == delivered
        assert peer.volumes_in(batch) in (1, 2)


def test_a_store_is_made_anew_when_the_code_changes(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peer = load("radioloader-uniform")(cohort)
    before = peer.recipe()
    assert before == peer.recipe()
    assert before != load("radioloader-axial")(cohort).recipe()
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "writer.py").write_text("other")
    (tmp_path / "config.py").write_text("")
    monkeypatch.setattr(rl, "__file__", str(tmp_path / "__init__.py"))
    assert peer.recipe() != before


def test_names() -> None:
    assert len(set(PEERS.values())) == len(PEERS)
    with pytest.raises(LookupError, match="there is no contestant 'nobody'"):
        load("nobody")
