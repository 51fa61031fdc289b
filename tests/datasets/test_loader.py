"""``radioloader.DataLoader``: the same bytes with any number of worker processes, however they are started, and clean ends."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import Dataset

import radioloader as rl
from radioloader.errors import ReadError
from radioloader.samplers.samplers import KeySampler


def digest(batch: dict[str, Any]) -> str:
    """A hash of all that a batch holds."""
    result = hashlib.sha256()
    for name, value in batch.items():
        content = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        result.update(f"{name} {getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}".encode() + content)
    return result.hexdigest()


def digests(loader: Any) -> list[str]:
    return [digest(batch) for batch in loader]


THREADS = rl.StorageConfig(read=rl.ReadConfig(max_workers=2))


@pytest.fixture
def patches(brains: Any) -> rl.PatchDataset:
    """Read by two threads, of which the first batch in this process starts the second."""
    return rl.PatchDataset(
        brains.uri,
        image="T1w",
        label="seg",
        patch_size=(8, 9, 10),
        patches_per_volume=4,
        targets=["age", "sex"],
        config=THREADS,
    )


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("radioloader-read")]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_deliver_the_bytes_of_this_process(patches: rl.PatchDataset, method: str) -> None:
    expected = digests(rl.DataLoader(patches, batch_size=3, shuffle=True))
    assert len(set(expected)) == 6
    assert reading_threads()  # this process has read, its threads and its contexts are alive
    loader = rl.DataLoader(
        patches, batch_size=3, shuffle=True, num_workers=2, multiprocessing_context=method, timeout=120
    )
    assert digests(loader) == expected


def test_workers_that_are_forked_while_this_process_reads(patches: rl.PatchDataset, counts: Any) -> None:
    expected = digests(rl.DataLoader(patches, batch_size=3, shuffle=True))
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                assert digests(rl.DataLoader(patches, batch_size=3, shuffle=True)) == expected
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(counts(3, 40)):
            loader = rl.DataLoader(
                patches, batch_size=3, shuffle=True, num_workers=2, multiprocessing_context="fork", timeout=60
            )
            assert digests(loader) == expected
    finally:
        stop.set()
        thread.join()
    assert not failures


@pytest.mark.parametrize("batch_size", [3, None])
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_are_the_same_with_and_without_workers(
    patches: rl.PatchDataset, persistent: bool, batch_size: int | None
) -> None:
    here = rl.DataLoader(patches, batch_size=batch_size, shuffle=True)
    there = rl.DataLoader(
        patches,
        batch_size=batch_size,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="fork",
        persistent_workers=persistent,
        timeout=60,
    )
    expected = [digests(here) for _ in range(3)]
    assert len({text for epoch in expected for text in epoch}) == sum(map(len, expected))  # every epoch is a new one
    assert [digests(there) for _ in range(3)] == expected
    for loader in (here, there):
        loader.set_epoch(1)
        assert digests(loader) == expected[1]
        assert digests(loader) == expected[2]
        loader.set_epoch(0)
        next(iter(loader))  # an epoch that was left early is over
        assert digests(loader) == expected[1]


def test_volumes_and_slices_through_workers(brains: Any) -> None:
    for dataset in (
        rl.VolumeDataset(brains.uri, image="T1w", label="seg"),
        rl.SliceDataset(brains.uri, image="T1w", label="seg", plane="sagittal", context=1),
    ):
        size = 1 if isinstance(dataset, rl.VolumeDataset) else 16
        expected = digests(rl.DataLoader(dataset, batch_size=size, shuffle=True))
        loader = rl.DataLoader(dataset, batch_size=size, shuffle=True, num_workers=2, multiprocessing_context="fork")
        assert digests(loader) == expected


def test_evaluation_repeats_itself(brains: Any) -> None:
    grid = rl.PatchDataset(brains.uri, image="T1w", patch_size=10, positions=rl.GridPositions())
    loader = rl.DataLoader(grid, batch_size=5)
    first = digests(loader)
    loader.set_epoch(3)
    assert digests(loader) == first == digests(loader)
    assert isinstance(loader.sampler, KeySampler)
    assert [key.epoch for key in loader.sampler] == [0] * len(grid)


def test_random_positions_are_new_in_every_epoch_without_shuffling(patches: rl.PatchDataset) -> None:
    loader = rl.DataLoader(patches, batch_size=4)
    first, second = list(loader), list(loader)
    names = [name for batch in first for name in batch["obs_subject_id"]]
    assert names == [subject for subject in patches.subjects for _ in range(4)]
    assert names == [name for batch in second for name in batch["obs_subject_id"]]
    assert not set(map(digest, first)) & set(map(digest, second))


# ---- arguments -----------------------------------------------------------------------------------------------------------


def test_drop_last(patches: rl.PatchDataset) -> None:
    assert [len(b["obs_id"]) for b in rl.DataLoader(patches, batch_size=6, drop_last=True)] == [6, 6]
    loader = rl.DataLoader(patches, batch_size=6, shuffle=True)
    assert len(loader) == 3
    assert [len(b["obs_id"]) for b in loader] == [6, 6, 4]


def test_a_sampler_or_batch_sampler_of_ones_own(patches: rl.PatchDataset) -> None:
    keys = [rl.PatchKey(3, 1, 5), rl.PatchKey(0, 2, 5), rl.PatchKey(2, 0, 5)]
    expected = digest(rl.collate(patches.__getitems__(keys)))
    assert digests(rl.DataLoader(patches, batch_size=3, sampler=keys)) == [expected]
    assert digests(rl.DataLoader(patches, batch_sampler=[keys])) == [expected]
    sampler = KeySampler(patches, seed=4)
    loader = rl.DataLoader(patches, batch_size=2, sampler=sampler)
    loader.set_epoch(6)
    assert sampler.epoch == 6
    wanted = list(KeySampler(patches, seed=4))  # epoch 0: another order than the 6th
    assert [name for b in loader for name in b["obs_subject_id"]] != [patches.subjects[k.volume] for k in wanted]


def test_each_rank_gets_its_own_samples(brains: Any, patches: rl.PatchDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_ranks(dataset: Any, world: int, **arguments: Any) -> list[list[tuple[str, str]]]:
        ranks = []
        for rank in range(world):
            monkeypatch.setattr("radioloader.samplers.samplers.rank_and_world", lambda r=rank: (r, world))
            loader = rl.DataLoader(dataset, **arguments)
            ranks.append(
                [(n, str(box.tolist())) for b in loader for n, box in zip(b["obs_id"], b["location"], strict=True)]
            )
        return ranks

    (alone,) = of_ranks(patches, 1, shuffle=True)
    training = of_ranks(patches, 3, shuffle=True)
    assert [len(part) for part in training] == [6, 6, 6]
    assert {sample for part in training for sample in part} == set(alone)
    assert [len(part) for part in of_ranks(patches, 3, shuffle=True, drop_last=True)] == [5, 5, 5]
    grid = rl.PatchDataset(brains.uri, image="T1w", patch_size=(12, 24, 18), positions=rl.GridPositions())
    evaluation = of_ranks(grid, 3)
    assert len(grid) == 8
    assert [len(part) for part in evaluation] == [4, 2, 2]  # whole volumes: 4 with 2 patches each
    assert len({sample for part in evaluation for sample in part}) == 8
    assert sum(len({name for name, _ in part}) for part in evaluation) == 4
    # drop_last drops batches that are not full, as torch does; it has no say in which samples a rank evaluates.
    assert [len(part) for part in of_ranks(grid, 3, batch_size=3, drop_last=True)] == [3, 0, 0]


class Numbers(Dataset[Any]):
    """Not a dataset of this package."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor(index), "y": str(index)}


def test_other_datasets_behave_as_with_torchs_loader() -> None:
    for arguments in ({}, {"shuffle": True}, {"batch_size": None}, {"batch_size": 4, "drop_last": True}):
        torch.manual_seed(1)
        ours = list(rl.DataLoader(Numbers(), **arguments))  # type: ignore[arg-type]
        torch.manual_seed(1)
        theirs = list(torch.utils.data.DataLoader(Numbers(), **arguments))  # type: ignore[arg-type]
        assert str(ours) == str(theirs)


# ---- ends ----------------------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("persistent", [False, True])
def test_nothing_is_left_when_a_loader_is_gone(brains: Any, persistent: bool) -> None:
    gc.collect()
    processes, threads = children(), set(threading.enumerate())
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=4, config=THREADS)
    for loader in (
        rl.DataLoader(dataset, batch_size=2),
        rl.DataLoader(
            dataset, batch_size=2, num_workers=2, multiprocessing_context="fork", persistent_workers=persistent
        ),
    ):
        iterator = iter(loader)
        next(iterator)  # left in the middle of an epoch
    assert len(children() - processes) == 2
    assert set(threading.enumerate()) - threads
    del dataset, loader, iterator
    gc.collect()
    wait_for(lambda: children() <= processes)
    wait_for(lambda: set(threading.enumerate()) <= threads)


def test_file_descriptors_do_not_pile_up(patches: rl.PatchDataset) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    loader = rl.DataLoader(patches, batch_size=2, num_workers=1, multiprocessing_context="fork")
    digests(loader)
    gc.collect()
    before = descriptors()
    kept = list(loader)
    assert descriptors() - before <= 4 * len(kept) + 4
    del kept
    for _ in range(3):
        digests(loader)
    gc.collect()
    wait_for(lambda: descriptors() <= before)


KILLED = """
import os, signal, sys, time
import radioloader as rl

dataset = rl.PatchDataset(sys.argv[1], image="T1w", patch_size=8, patches_per_volume=50)
loader = rl.DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=30)
iterator = iter(loader)
next(iterator)
time.sleep(1)  # the workers wait: one that dies in the middle of a message blocks its reader, whoever wrote the worker
try:
    os.kill(iterator._workers[0].pid, signal.SIGKILL)
    for batch in iterator:
        pass
except (RuntimeError, OSError, EOFError) as error:  # OSError: the dead worker had a batch's memory to hand over
    print(type(error).__name__, error, flush=True)
os._exit(3)  # torch raises again in its handler of SIGCHLD, wherever the script is by then
"""


def test_a_killed_worker_is_an_error(brains: Any, tmp_path: Path) -> None:
    # In a process of its own, because torch raises in a signal handler; into a file, because the other worker keeps a pipe open.
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, brains.uri], stdout=out, stderr=out, timeout=120, check=False
        )
    text = (tmp_path / "out").read_text()
    assert done.returncode == 3, text
    # torch's handler of SIGCHLD may raise between two batches, where nobody can say more.
    assert re.search(
        r"WorkerError .*worker 0 \(pid \d+, exit code -9\)|DataLoader worker \(pid.*killed by signal", text
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_voxel_array_is_named(brains: Any, tmp_path: Path, workers: int) -> None:
    shutil.copytree(brains.uri, tmp_path / "store")
    store = rl.open(tmp_path / "store")
    dataset = rl.PatchDataset(store, image="T1w", label="seg", patch_size=(20, 24, 18), subjects=["sub-01"])
    lost = store.seg.loc["sub-01"].uri
    shutil.rmtree(lost)
    loader = rl.DataLoader(
        dataset, num_workers=workers, multiprocessing_context="fork" if workers else None, timeout=60 if workers else 0
    )
    with pytest.raises(ReadError) as caught:
        next(iter(loader))
    text = str(caught.value)
    assert (
        f"could not read box [0:20, 0:24, 0:18] of subject 'sub-01', collection 'seg', volume 'sub-01_seg' ({lost})"
        in text
    )
    assert ("in DataLoader worker process" in text) is bool(workers)
    assert isinstance(caught.value, OSError)


def test_workers_end_with_their_iterator_and_not_with_the_garbage_collector(patches: rl.PatchDataset) -> None:
    loader = rl.DataLoader(patches, batch_size=2, num_workers=2, multiprocessing_context="fork")
    gc.collect()
    gc.disable()
    try:
        before = children()
        for _ in range(3):
            for _batch in loader:
                break
            wait_for(lambda: children() <= before, 30)  # were the iterator in a cycle, they would stay
            loader.state_dict()
    finally:
        gc.enable()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_transform_keeps_its_cause(brains: Any, workers: int) -> None:
    def broken(sample: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("no such filter") from KeyError("filter")

    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, transform=broken)
    loader = rl.DataLoader(dataset, num_workers=workers, multiprocessing_context="fork" if workers else None)
    with pytest.raises(RuntimeError, match="no such filter") as caught:
        next(iter(loader))
    assert not isinstance(caught.value, rl.RadioloaderError)
    if not workers:  # torch sends the text of it only
        assert isinstance(caught.value.__cause__, KeyError)
        assert "in the transform of volume 'sub-01_T1w'" in caught.value.__notes__[0]
