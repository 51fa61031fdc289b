"""Columns that workers map, and batches that were changed before they are collated."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.datasets import columns as module
from radioloader.datasets.columns import Columns
from radioloader.errors import StoreWriteError

Array = np.ndarray[Any, Any]
ARRAYS: dict[str, Array] = {
    "int": np.arange(7, dtype=np.int64),
    "text": np.array(["a", "bcd", "Zürich"]),
    "table": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "turned": np.arange(12, dtype=np.int16).reshape(3, 4).T,
    "nothing": np.zeros((0, 3), np.uint16),
    "flags": np.array([True, False]),
    "number": np.array(3.5),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def same(a: Any, b: Any) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("radioloader-*.columns"))


def test_they_are_a_mapping_of_read_only_arrays(folder: Path) -> None:
    columns = Columns(ARRAYS)
    same(columns, ARRAYS)
    assert len(columns) == 7
    assert "int" in columns
    with pytest.raises(KeyError):
        columns["other"]
    for copy in (columns, pickle.loads(pickle.dumps(columns))):
        with pytest.raises(ValueError, match="read-only"):
            copy["int"][0] = 9
    assert ARRAYS["int"].flags.writeable  # what they were made of is as it was


def test_what_pickles_maps_one_file_that_goes_with_its_owner(folder: Path) -> None:
    columns = Columns(ARRAYS)
    assert files(folder) == []  # nothing is written until another process wants it
    data = pickle.dumps(columns)
    assert len(data) < 1500
    (path,) = files(folder)
    assert path.stat().st_mode & 0o777 == 0o600
    copies = [pickle.loads(pickle.dumps(columns)) for _ in range(3)]
    assert files(folder) == [path]
    for copy in copies:
        same(copy, ARRAYS)
    assert pickle.loads(pickle.dumps(copies[0]))["int"].tolist() == list(range(7))
    assert files(folder) == [path]  # a copy hands the same file on
    del copies[0], columns
    gc.collect()
    assert files(folder) == []
    same(copies[0], ARRAYS)  # what is mapped stays
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def test_a_file_that_is_gone_is_written_again(folder: Path) -> None:
    columns = Columns(ARRAYS)
    pickle.dumps(columns)
    files(folder)[0].unlink()
    same(pickle.loads(pickle.dumps(columns)), ARRAYS)
    assert len(files(folder)) == 1


def test_many_bytes_are_mapped_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPILL", 100)
    columns = Columns(ARRAYS)
    (path,) = files(folder)
    same(columns, ARRAYS)
    more = Columns({**columns, "more": np.ones(2)})
    assert more["more"].tolist() == [1, 1]
    del columns
    gc.collect()
    assert path not in files(folder)
    same({name: more[name] for name in ARRAYS}, ARRAYS)


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="column 'names' holds Python objects, which every process would copy"):
        Columns({"names": np.array(["a", None], dtype=object)})


def child(columns: Any, queue: Any) -> None:
    queue.put({name: array.tolist() for name, array in columns.items()})


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_see_them_and_leave_the_file(folder: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    columns = Columns(ARRAYS)
    pickle.dumps(columns)
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(columns, queue))
    process.start()
    found = queue.get()
    process.join(30)
    assert process.exitcode == 0
    assert found == {name: array.tolist() for name, array in ARRAYS.items()}
    assert len(files(folder)) == 1
    del columns, process
    gc.collect()
    assert files(folder) == []


LEFT = """
import os, pickle, signal, sys, tempfile
import numpy as np
from radioloader.datasets.columns import Columns
from radioloader.errors import StoreWriteError
tempfile.tempdir = sys.argv[1]
columns = Columns({"x": np.arange(5)})
pickle.dumps(columns)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_killed_processes_left_is_swept(folder: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", LEFT, str(folder), "kill"], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = files(folder)
    foreign = folder / "radioloader-elsewhere-1-1-abc.columns"  # of another machine or container
    foreign.write_bytes(b"x")
    odd = folder / f"{module._prefix()}x-abc.columns"
    odd.write_bytes(b"x")
    alive = subprocess.Popen(
        [sys.executable, "-c", LEFT, str(folder), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with alive:
        assert alive.stdout is not None
        assert alive.stdout.readline() == b"ready\n"  # it swept when it wrote
        assert left not in files(folder)
        columns = Columns(ARRAYS)
        pickle.dumps(columns)
        assert len(files(folder)) == 2 + 2  # of the living, and what is not for us to judge
        alive.communicate(b"")
    assert len(files(folder)) == 1 + 2  # it took its own with it
    del columns
    gc.collect()
    assert files(folder) == [*sorted([foreign, odd])]


def test_files_tell_machines_and_containers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # A temporary folder may be shared: process ids of another machine mean nothing here.
    mine = module._prefix()
    monkeypatch.setattr("platform.node", lambda: "another-machine")
    assert module._prefix() != mine


# ---- datasets ------------------------------------------------------------------------------------------------------------


def test_a_dataset_reads_the_store_where_the_file_is_gone(brains: Any, folder: Path) -> None:
    arguments: dict[str, Any] = {"image": "T1w", "label": "seg", "targets": ["age"], "subjects": ["sub-03", "sub-01"]}
    for make, key in (
        (
            lambda: rl.PatchDataset(brains.uri, patch_size=8, positions=rl.ForegroundPositions(), **arguments),
            rl.PatchKey(1, 2),
        ),
        (lambda: rl.SliceDataset(brains.uri, skip_empty="label", **arguments), rl.SliceKey(1, "axial", 4)),
        (lambda: rl.VolumeDataset(brains.uri, crop_to=8, **arguments), rl.VolumeKey(1)),
    ):
        dataset = make()
        data = pickle.dumps(dataset)
        expected = dataset[key]
        length, shapes = len(dataset), dataset.layout.shapes.tolist()
        del dataset
        gc.collect()
        assert files(folder) == []
        again = pickle.loads(data)
        found = again[key]
        for name, value in expected.items():
            assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert (len(again), again.layout.shapes.tolist()) == (length, shapes)
        assert again.subjects == ["sub-03", "sub-01"]


def test_a_dataset_pickles_small(brains: Any) -> None:
    for dataset in (
        rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=8, positions=rl.ForegroundPositions()),
        rl.SliceDataset(brains.uri, image="T1w", skip_empty="image"),
    ):
        assert len(pickle.dumps(dataset)) < 20_000


# ---- changed batches -----------------------------------------------------------------------------------------------------


def patches(files: Any) -> rl.PatchDataset:
    return rl.PatchDataset(files.uri, image="T1w", label="seg", patch_size=8, targets=["age", "sex"])


KEYS = [rl.PatchKey(volume) for volume in range(4)]


def test_an_unchanged_batch_is_not_copied(brains: Any) -> None:
    samples = patches(brains).__getitems__(KEYS)
    batch = rl.collate(samples)
    assert batch["image"].data_ptr() == samples[0]["image"].data_ptr()
    assert batch["obs_subject_id"] == brains.subjects
    assert batch["age"].tolist() == [21, 22, 23, 24]


Change = Callable[[list[dict[str, Any]]], Any]


def replaced(samples: list[dict[str, Any]]) -> None:
    samples[1] = samples[1] | {"image": torch.full((1, 8, 8, 8), 5.0)}


def edited(samples: list[dict[str, Any]]) -> None:
    samples[2]["image"] = samples[2]["image"] * 2
    samples[0]["age"] = torch.tensor(99)
    samples[3]["sex"] = "?"


def in_place(samples: list[dict[str, Any]]) -> None:
    samples[2]["image"].mul_(2)
    samples[1]["age"].fill_(7)


def filtered(samples: list[dict[str, Any]]) -> None:
    del samples[1]


def turned(samples: list[dict[str, Any]]) -> None:
    samples.reverse()


def added(samples: list[dict[str, Any]]) -> None:
    for number, sample in enumerate(samples):
        sample["number"] = number


def removed(samples: list[dict[str, Any]]) -> None:
    for sample in samples:
        del sample["label"]


def doubled(samples: list[dict[str, Any]]) -> None:
    samples.append(samples[0])


def swapped(samples: list[dict[str, Any]]) -> None:
    samples[0], samples[3] = samples[3], samples[0]


@pytest.mark.parametrize("change", [replaced, edited, in_place, filtered, turned, added, removed, doubled, swapped])
def test_a_changed_batch_collates_to_what_it_holds(brains: Any, change: Change) -> None:
    samples = patches(brains).__getitems__(KEYS)
    change(samples)
    batch = rl.collate(samples)
    assert set(batch) == set(samples[0])
    for name, values in batch.items():
        expected = [sample[name] for sample in samples]
        if name == "number":
            assert values.tolist() == expected
        elif isinstance(values, torch.Tensor):
            assert torch.equal(values, torch.stack(expected))
        else:
            assert values == expected
    plain = rl.collate(list(patches(brains).__getitems__(KEYS)))
    assert any(str(batch.get(name)) != str(plain.get(name)) for name in {*batch, *plain})  # it was a change


def test_slices_of_a_batch_are_lists_of_samples(brains: Any) -> None:
    samples = patches(brains).__getitems__(KEYS)
    batch = rl.collate(samples[1:3])
    assert batch["obs_subject_id"] == ["sub-02", "sub-03"]
    assert torch.equal(batch["image"], torch.stack([samples[1]["image"], samples[2]["image"]]))
    copy = pickle.loads(pickle.dumps(samples))
    assert torch.equal(rl.collate(copy)["image"], rl.collate(samples)["image"])


def test_lifetime_of_the_columns_of_a_loader(brains: Any, folder: Path) -> None:
    dataset = patches(brains)
    loader = rl.DataLoader(dataset, 2, num_workers=1, multiprocessing_context="forkserver", timeout=60)
    assert len(list(loader)) == 2
    (path,) = files(folder)
    assert str(os.getpid()) in path.name
    del loader, dataset
    gc.collect()
    end = time.monotonic() + 10
    while files(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert files(folder) == []


def test_an_unusable_temporary_folder_is_named(brains: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, dataset = Columns(ARRAYS), patches(brains)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "gone"))
    for made in (columns, dataset):
        with pytest.raises(
            StoreWriteError, match=r"could not be written to the temporary folder .*/gone: .* set TMPDIR"
        ):
            pickle.dumps(made)


@pytest.mark.parametrize("left", [0, 100])
def test_a_dataset_reads_the_store_where_the_file_was_cut_off(brains: Any, folder: Path, left: int) -> None:
    dataset = patches(brains)
    data = pickle.dumps(dataset)
    (path,) = files(folder)
    os.truncate(path, left)
    again = pickle.loads(data)
    assert again.subjects == dataset.subjects
    assert torch.equal(again[rl.PatchKey(1)]["image"], dataset[rl.PatchKey(1)]["image"])
