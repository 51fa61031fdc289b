"""What cannot be read: named and raised, or skipped and counted; and workers that are killed."""

from __future__ import annotations

import gc
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, ReadError


@pytest.fixture
def broken(brains: Any, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The store without the image of sub-02, and with a label of sub-03 that was cut off; their URIs."""
    shutil.copytree(brains.uri, tmp_path / "store")
    store = rl.open(tmp_path / "store")
    missing, damaged = store.T1w.loc["sub-02"].uri, store.seg.loc["sub-03"].uri
    shutil.rmtree(missing)
    (data,) = Path(damaged).glob("__fragments/*/a0.tdb")
    data.write_bytes(data.read_bytes()[:20])
    return str(tmp_path / "store"), {"sub-02": missing, "sub-03": damaged}


def loader(dataset: Any, workers: int, batch_size: int | None = 2, **arguments: Any) -> rl.DataLoader:
    return rl.DataLoader(
        dataset,
        batch_size,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        timeout=60 if workers else 0,
        **arguments,
    )


def volumes(uri: str, **arguments: Any) -> rl.VolumeDataset:
    return rl.VolumeDataset(uri, **{"image": "T1w", "label": "seg", "crop_to": (12, 12, 12)} | arguments)


WHERE = {
    "sub-02": r"could not read box \[4:16, 6:18, 3:15\] of subject 'sub-02', collection 'T1w', volume 'sub-02_T1w' \({}\): ",
    "sub-03": r"could not read box \[5:17, 6:18, 3:15\] of subject 'sub-03', collection 'seg', volume 'sub-03_seg' \({}\): ",
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("subject", ["sub-02", "sub-03"])
def test_what_cannot_be_read_is_named(broken: tuple[str, dict[str, str]], workers: int, subject: str) -> None:
    uri, lost = broken
    batches = loader(volumes(uri, subjects=["sub-01", subject, "sub-04"]), workers)
    with pytest.raises(ReadError, match=WHERE[subject].format(re.escape(lost[subject]))):
        list(batches)
    assert batches.stats.skipped == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, lambda sample: sample | {"extra": 1}])
def test_skipping_shortens_batches_and_counts(
    brains: Any, broken: tuple[str, dict[str, str]], workers: int, transform: Any, caplog: pytest.LogCaptureFixture
) -> None:
    uri, lost = broken
    dataset = volumes(uri, on_error="skip", transform=transform)
    batches = loader(dataset, workers)
    with caplog.at_level(logging.WARNING, logger="radioloader"):
        found = list(batches)
    assert [batch["obs_subject_id"] for batch in found] == [["sub-01"], ["sub-04"]]
    for batch, (subject, start) in zip(found, (("sub-01", 4), ("sub-04", 5)), strict=True):
        part = brains.arrays["T1w"][subject][start : start + 12, 6:18, 3:15]
        np.testing.assert_array_equal(batch["image"].numpy(), part[None, None].astype(np.float32))
        assert batch["label"].shape == (1, 1, 12, 12, 12)
        assert ("extra" in batch) is (transform is not None)
    assert batches.stats.skipped == 2
    assert batches.stats.batches == 2
    if not workers:  # the log of a worker is its own
        text = caplog.text
        for subject in lost:
            assert re.search("skipped: " + WHERE[subject].format(re.escape(lost[subject])), text)
    list(batches)
    assert batches.stats.skipped == 4  # over all epochs


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, lambda sample: sample])
def test_a_batch_with_nothing_left_raises(broken: tuple[str, dict[str, str]], workers: int, transform: Any) -> None:
    uri, lost = broken
    for order in (["sub-02", "sub-03"], ["sub-03", "sub-02"]):
        dataset = volumes(uri, on_error="skip", subjects=order, transform=transform)
        with pytest.raises(
            ReadError,
            match="none of the 2 samples of a batch could be read; the first one: "
            + WHERE[order[0]].format(re.escape(lost[order[0]])),
        ):
            list(loader(dataset, workers))
    single = volumes(uri, on_error="skip", subjects=["sub-02"], transform=transform)
    with pytest.raises(ReadError, match="none of the 1 samples of a batch could be read"):
        single[0]


def test_different_shapes_with_a_transform_are_skipped_one_by_one(broken: tuple[str, dict[str, str]]) -> None:
    def crop(sample: dict[str, Any]) -> dict[str, Any]:
        return sample | {name: sample[name][:, :8, :8, :8] for name in ("image", "label")}

    dataset = volumes(broken[0], on_error="skip", transform=crop, crop_to=None)
    batches = loader(dataset, 0, 4)
    (batch,) = batches
    assert batch["obs_subject_id"] == ["sub-01", "sub-04"]
    assert batches.stats.skipped == 2
    with pytest.raises(
        ReadError, match="none of the 2 samples of a batch could be read; the first one: could not read box"
    ):
        list(
            loader(volumes(broken[0], on_error="skip", transform=crop, crop_to=None, subjects=["sub-02", "sub-03"]), 0)
        )


def test_a_map_that_cannot_be_read_is_skipped_as_well(brains: Any, broken: tuple[str, dict[str, str]]) -> None:
    # Choosing the place of a patch reads the map.
    uri, lost = broken
    arguments: dict[str, Any] = {"image": "seg", "positions": rl.WeightedPositions("T1w"), "patch_size": 8}
    arguments["subjects"] = ["sub-01", "sub-02", "sub-04"]
    with pytest.raises(ReadError, match=rf"subject 'sub-02', collection 'T1w', .*{re.escape(lost['sub-02'])}"):
        list(loader(rl.PatchDataset(uri, **arguments), 0, 3))
    batches = loader(rl.PatchDataset(uri, on_error="skip", **arguments), 0, 3)
    (batch,) = batches
    assert batch["obs_subject_id"] == ["sub-01", "sub-04"]
    assert batches.stats.skipped == 1
    with pytest.raises(ReadError, match=r"none of the 1 samples of a batch could be read; the first one: .*'sub-02'"):
        rl.PatchDataset(uri, on_error="skip", **arguments)[1]


def test_a_skipped_sample_is_consumed(broken: tuple[str, dict[str, str]]) -> None:
    dataset = volumes(broken[0], on_error="skip")
    batches = loader(dataset, 0)
    next(iter(batches))
    assert batches.state_dict()["samples"] == 2
    again = loader(dataset, 0)
    again.load_state_dict(batches.state_dict())
    assert [batch["obs_subject_id"] for batch in again] == [["sub-04"]]


def test_joined_reads_skip_only_what_fails(broken: tuple[str, dict[str, str]], brains: Any) -> None:
    dataset = rl.SliceDataset(broken[0], image="T1w", on_error="skip", block=8, pad_to=24, crop_to=24)
    batches = loader(dataset, 0, 36)  # 2 volumes of 18 slices in each
    found = [name for batch in batches for name in batch["obs_subject_id"]]
    assert found == [name for name in ("sub-01", "sub-03", "sub-04") for _ in range(18)]
    assert batches.stats.skipped == 18


def test_workers_end_with_the_loop_that_failed(broken: tuple[str, dict[str, str]]) -> None:
    batches = loader(volumes(broken[0]), 2, 1)
    gc.collect()
    gc.disable()
    try:
        workers = set(psutil.Process().children())
        for _ in range(2):
            with pytest.raises(ReadError, match="subject 'sub-02'"):
                for _batch in batches:
                    pass
            started = time.monotonic()
            while set(psutil.Process().children()) > workers:
                assert time.monotonic() - started < 4  # torch would kill them after 5 seconds each
                time.sleep(0.02)
    finally:
        gc.enable()


def test_wrong_on_error(brains: Any) -> None:
    with pytest.raises(ConfigError, match="on_error='ignore' is not one of 'raise', 'skip'"):
        volumes(brains.uri, on_error="ignore")


# ---- killed workers ------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, threading, time
import radioloader as rl
from radioloader.errors import WorkerError

uri, when = sys.argv[1:]
parent = os.getpid()

def transform(sample):
    if when == "reading" and sample["obs_subject_id"] == "sub-03" and os.getpid() != parent:
        time.sleep(0.5)  # until the script waits for the batch: anywhere else it gets the error of torch's signal handler
        os.kill(os.getpid(), signal.SIGKILL)
    return sample

dataset = rl.PatchDataset(uri, image="T1w", patch_size=8, patches_per_volume=4, transform=transform)
loader = rl.DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", worker_init_fn=print)
iterator = iter(loader)
started = time.monotonic()
try:
    if when == "waiting":
        next(iterator)
        time.sleep(1)
        for worker in iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)
    for batch in iterator:
        pass
except WorkerError as error:
    print("WorkerError", round(time.monotonic() - started, 1), error, flush=True)
except RuntimeError as error:
    print("RuntimeError", round(time.monotonic() - started, 1), error, flush=True)
os._exit(3)  # torch raises again in its handler of SIGCHLD, wherever the script is by then
"""


def run(script: str, tmp_path: Path, *arguments: str) -> str:
    # Into a file, because the other worker keeps a pipe open.
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], stdout=out, stderr=out, timeout=100, check=False
        )
    text = (tmp_path / "out").read_text()
    assert done.returncode == 3, text
    return text


def test_a_worker_that_is_killed_says_what_it_was_reading(
    brains: Any, tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    for _ in range(counts(1, 20)):
        started = time.monotonic()
        text = run(KILLED, tmp_path, brains.uri, "reading")
        found = re.search(
            r"WorkerError (\S+) a worker process of the loader died: worker [01] \(pid \d+, exit code -9\) was reading "
            r"subject 'sub-03', collection 'T1w', volume 'sub-03_T1w' \((\S+)\)\. Killed \(exit code -9\) usually means out of memory",
            text,
        )
        assert found, text
        assert float(found[1]) < 15
        assert brains.uri in found[2]
        assert time.monotonic() - started < 60


def test_workers_that_are_killed_between_batches(brains: Any, tmp_path: Path) -> None:
    text = run(KILLED, tmp_path, brains.uri, "waiting")
    assert re.search(
        r"WorkerError .*\(pid \d+, exit code -9\) was between batches|RuntimeError .*DataLoader worker \(pid.*killed",
        text,
    ), text


DYING = """
import os, signal, sys, time
import radioloader as rl
from radioloader.errors import WorkerError

how, uri = sys.argv[1], sys.argv[2]


def transform(sample):
    if sample["obs_subject_id"] == "sub-03" and not os.path.exists(sys.argv[3]):
        open(sys.argv[3], "w").close()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL) if how != "exit" else os._exit(0)
    return sample


dataset = rl.VolumeDataset(uri, image="T1w", transform=transform)
options = {"num_workers": 1, "multiprocessing_context": "fork", "prefetch_factor": 4, "persistent_workers": how == "persistent"}
loader = rl.DataLoader(dataset, sampler=rl.KeySampler(dataset, shuffle=False), **options)
started = time.monotonic()
try:
    for batch in loader:
        if how == "computing":
            end = time.monotonic() + 20
            while time.monotonic() < end:  # the script's own work
                time.sleep(0.01)
except WorkerError as error:
    print(type(error).__name__, time.monotonic() - started < 15, error)
print(len(list(loader)), flush=True)  # another epoch, with another worker
os._exit(3)
"""


@pytest.mark.parametrize("how", ["computing", "exit", "persistent"])
def test_a_dead_worker_is_explained_wherever_the_script_is(brains: Any, tmp_path: Path, how: str) -> None:
    output = run(DYING, tmp_path, how, brains.uri, str(tmp_path / "died"))
    first, second = output.strip().splitlines()
    assert first.startswith("WorkerError True a worker process of the loader died: worker 0 (pid ")
    assert f"exit code {0 if how == 'exit' else -9}) was reading subject 'sub-03', collection 'T1w'" in first
    assert second == "4"
