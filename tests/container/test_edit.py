"""Removing, renaming, and giving up old versions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError, ReadError, StoreLockedError
from radioloader.storage.store import Store
from radioloader.storage.vacuum import vacuum
from tests.container.content import content


@pytest.fixture
def store(store_uri: str, tmp_path: Path) -> rl.RadiObject:
    """Four subjects, T1w and seg, with age, sex and score."""
    shutil.copytree(store_uri, tmp_path / "s")
    return rl.open(tmp_path / "s")


def arrays(store: rl.RadiObject, name: str) -> int:
    folder = Path(store.snapshot.store.collection_uri(store.snapshot.collection(name).id)) / "volumes"
    return sum(not child.name.startswith("__") for child in folder.iterdir())


def test_removing_subjects(store: rl.RadiObject) -> None:
    before, view, other = content(store), store.iloc[:2], rl.open(store.uri)
    assert store.remove(["sub-03", "sub-01"]) == 2
    after = content(store)
    assert after["subjects"] == ["sub-02", "sub-04"]
    assert after["meta"] == [before["meta"][1], before["meta"][3]]
    assert after["T1w"] == {f"sub-{n}_T1w": before["T1w"][f"sub-{n}_T1w"] for n in ("02", "04")}
    assert list(after["seg"]) == ["sub-02_seg", "sub-04_seg"]
    assert content(rl.open(store.uri)) == after
    assert content(rl.open(store.uri, at=1)) == content(other) == before
    assert view.obs_subject_ids == view.T1w.obs_subject_ids == ["sub-01", "sub-02"]
    assert [commit["message"] for commit in store.history()][1] == "removed 2 subjects and 4 volumes"
    assert store.remove("sub-02", message="consent was withdrawn") == 3
    assert store.history()[-1]["message"] == "consent was withdrawn"
    assert store.history()[-1]["changes"]["removed"] == {"subjects": 1, "collections": [], "volumes": 2}
    assert store.remove() == 3, "nothing to do makes no version"


def test_removing_collections_and_volumes(store: rl.RadiObject) -> None:
    before = content(store)
    store.remove(collections="seg", volumes={"T1w": ["sub-02_T1w"]})
    assert store.collection_names == ["T1w"]
    assert store.T1w.obs_subject_ids == ["sub-01", "sub-03", "sub-04"]
    assert store.obs_subject_ids == before["subjects"]
    assert content(rl.open(store.uri, at=1)) == before
    store.remove(volumes={"T1w": store.T1w.obs_ids})
    assert len(store.T1w) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.remove("sub-9"), r"has no subject 'sub-9'; nothing was changed"),
        (lambda s: s.remove(["sub-01", "x", "y"]), r"has no subject 'x' \(nor 1 others of 3\); nothing was changed"),
        (lambda s: s.remove(collections=["T1w", "FLAIR"]), "has no collection 'FLAIR'; it has 'T1w', 'seg'"),
        (
            lambda s: s.remove("sub-01", volumes={"T1w": "sub-9_T1w"}),
            "collection 'T1w' of .* has no volume 'sub-9_T1w'",
        ),
        (lambda s: s.rename(collections={"FLAIR": "x"}), "has no collection 'FLAIR'"),
        (lambda s: s.rename(subjects={"sub-9": "x"}), "has no subject 'sub-9'; nothing was changed"),
    ],
)
def test_what_is_not_there(store: rl.RadiObject, change: Callable[[rl.RadiObject], Any], message: str) -> None:
    before = content(store)
    with pytest.raises(KeyNotFoundError, match=message):
        change(store)
    assert (store.version, content(rl.open(store.uri))) == (1, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.rename(collections={"T1w": "seg"}),
            "has a collection 'seg' already, so 'T1w' cannot be called that",
        ),
        (lambda s: s.rename(subjects={"sub-01": "a", "sub-02": "a"}), "subjects 'sub-01' and 'sub-02' cannot both be"),
        (lambda s: s.rename(subjects={"sub-01": ""}), "subject 'sub-01' cannot be called ''"),
        (lambda s: s.rename(subjects={"sub-01": "a\0b"}), "a name is text, not empty, without NUL"),
        (lambda s: s.iloc[:2].remove("sub-01"), "remove is for a whole store, and this is a selection"),
        (lambda s: s.select_collections("T1w").rename(), "rename is for a whole store"),
        (
            lambda s: rl.open(s.uri, at=1).remove("sub-01"),
            "remove is for the newest version, and this is .* at version 1",
        ),
        (lambda s: s.vacuum(keep=0), "keep=0 must be a whole number of at least 1"),
    ],
)
def test_refusals(store: rl.RadiObject, change: Callable[[rl.RadiObject], Any], message: str) -> None:
    before = content(store)
    with pytest.raises(ConfigError, match=message):
        change(store)
    assert (store.version, content(rl.open(store.uri))) == (1, before)


def test_renaming(store: rl.RadiObject) -> None:
    before = content(store)
    names = {"sub-01": "sub-02", "sub-02": "sub-01", "sub-04": "é /.."}
    assert store.rename(collections={"T1w": "seg", "seg": "labels"}, subjects=names) == 2
    after = content(store)
    order = ["sub-02", "sub-01", "sub-03", "sub-04"]
    assert after["subjects"] == ["sub-01", "sub-02", "sub-03", "é /.."]
    assert [row[1:] for row in after["meta"]] == [
        next(row[1:] for row in before["meta"] if row[0] == subject) for subject in order
    ]
    assert (store.seg.kind, store.labels.kind) == ("image", "label")
    for old, new in ((subject, names.get(subject, subject)) for subject in order):
        assert after["seg"][f"{new}_seg"] == (new, before["T1w"][f"{old}_T1w"][1])
        assert after["labels"][f"{new}_labels"] == (new, before["seg"][f"{old}_seg"][1])
        assert after["labels index"][f"{new}_labels"] == before["seg index"][f"{old}_seg"]
    assert content(rl.open(store.uri, at=1)) == before
    assert store.history()[-1]["message"].startswith(
        "renamed collection 'T1w' to 'seg', collection 'seg' to 'labels', subject"
    )
    back = {new: old for old, new in names.items()}
    store.rename(collections={"seg": "T1w", "labels": "seg"}, subjects=back)
    assert content(store) == before
    assert store.rename(subjects={"sub-01": "sub-01"}) == 3


def test_an_ingest_goes_on_under_the_new_names(make_cohort: Any, tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    sources = {"T1w": cohort / "images", "seg": cohort / "labels"}
    rl.ingest(tmp_path / "s", sources, workers=1)
    store = rl.open(tmp_path / "s")
    store.rename(collections={"T1w": "T1"}, subjects={"sub-01": "patient-1"})
    again = rl.ingest(tmp_path / "s", {"T1": cohort / "images"}, workers=1)
    assert [(item.subject, item.status) for item in again.items] == [
        (subject, "skipped") for subject in ("patient-1", "sub-02", "sub-03", "sub-04")
    ]
    first = {"patient-1": cohort / "images" / "sub-01_T1w.nii.gz"}
    assert [item.status for item in rl.ingest(tmp_path / "s", {"T1": first}, workers=1).items] == ["skipped"]
    shutil.copy(cohort / "images" / "sub-04_T1w.nii.gz", first["patient-1"])
    shutil.copy(cohort / "labels" / "sub-04_seg.nii.gz", cohort / "labels" / "sub-01_seg.nii.gz")
    both = {"T1": first, "seg": {"patient-1": cohort / "labels" / "sub-01_seg.nii.gz"}}
    assert [item.status for item in rl.ingest(tmp_path / "s", both, workers=1).items] == ["ingested"]
    assert store.refresh().T1.obs_ids == ["patient-1_T1", "sub-02_T1", "sub-03_T1", "sub-04_T1"]
    np.testing.assert_array_equal(store.T1.loc["patient-1"].to_numpy(), store.T1.loc["sub-04"].to_numpy())


def test_a_name_that_is_free_again_is_another_one(make_cohort: Any, tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    rl.ingest(tmp_path / "s", {"T1w": cohort / "images"}, obs_meta=cohort / "participants.tsv", workers=1)
    store = rl.open(tmp_path / "s")
    old = store.T1w.loc["sub-01"].to_numpy()
    store.rename(subjects={"sub-01": "was-01"})
    other = make_cohort(tmp_path / "other", subjects=1, seed=9)
    ages = pd.DataFrame({"subject": ["sub-01"], "age": [80]})
    rl.ingest(tmp_path / "s", {"T1w": other / "images"}, obs_meta=ages, workers=1)
    store.refresh()
    assert store.obs_meta.read(["obs_subject_id", "age"]).to_numpy().tolist() == [
        ["sub-01", 80],
        ["sub-02", 22],
        ["sub-03", 23],
        ["sub-04", 24],
        ["was-01", 21],
    ]
    np.testing.assert_array_equal(store.T1w.loc["was-01"].to_numpy(), old)
    assert not np.array_equal(store.T1w.loc["sub-01"].to_numpy(), old)


def test_vacuum_keeps_what_versions_need(store: rl.RadiObject) -> None:
    first = content(store)
    store.remove("sub-01", collections="seg")
    second = content(store)
    done = store.vacuum()
    assert (done.volumes, done.collections, done.bytes, done.forgotten, store.version) == (0, 0, 0, 0, 2)
    assert content(rl.open(store.uri, at=1)) == first
    size = sum(file.stat().st_size for file in Path(store.uri).rglob("*") if file.is_file())
    done = store.vacuum(keep=1, message="enough")
    assert (done.volumes, done.collections, done.forgotten, store.version) == (1, 1, 1, 3)
    now = sum(file.stat().st_size for file in Path(store.uri).rglob("*") if file.is_file())
    assert 0 < done.bytes <= size - now + 20_000
    assert arrays(store, "T1w") == 3
    for version in (None, 2, 3):
        assert content(rl.open(store.uri, at=version)) == second
    with pytest.raises(
        KeyNotFoundError, match=r"has no version 1; it has versions 2 to 3 \(see history\(\)\); those before 2 were"
    ):
        rl.open(store.uri, at=1)
    with pytest.raises(KeyNotFoundError, match="its first is of"):
        rl.open(store.uri, at=store.history()[0]["time"])
    assert [commit["message"] for commit in store.history()][2] == "enough"
    assert store.vacuum(keep=9) == store.vacuum()
    assert store.version == 3


def test_a_reader_of_a_version_that_is_given_up_is_told(store: rl.RadiObject) -> None:
    old = rl.open(store.uri)
    store.remove("sub-01")
    store.vacuum(keep=1)
    assert old.T1w.iloc[1].to_numpy().shape == (21, 24, 18)
    with pytest.raises(ReadError, match="subject 'sub-01', collection 'T1w'"):
        old.T1w.iloc[0].to_numpy()


def test_vacuum_removes_what_writers_left(store: rl.RadiObject) -> None:
    before = content(store)
    inner = store.snapshot.store
    folder = Path(inner.collection_uri(store.snapshot.collection("T1w").id)) / "volumes"
    some = next(child for child in folder.iterdir() if not child.name.startswith("__"))
    shutil.copytree(some, folder / ("0" * 24))
    shutil.copytree(folder.parent, folder.parent.parent / "abandoned")
    done = vacuum(inner, keep=None)
    assert (done.volumes, done.collections) == (0, 0), "it may be about to be committed"
    done = vacuum(inner, keep=None, grace_s=0.0)
    assert (done.volumes, done.collections) == (1, 1)
    assert content(rl.open(store.uri)) == before
    assert arrays(store, "T1w") == 4


def test_a_change_waits_for_another_writer(store: rl.RadiObject) -> None:
    patient = rl.open(store.uri, config=rl.StorageConfig(write=rl.WriteConfig(wait_s=30)))
    released = threading.Event()

    def write() -> None:
        with Store.open(store.uri).write():
            started.set()
            time.sleep(0.5)
            released.set()

    started = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    started.wait()
    with pytest.raises(
        StoreLockedError, match=r"is writing to .*; wait until it has finished, or set WriteConfig\.wait_s"
    ):
        store.remove("sub-01")
    assert patient.remove("sub-01") == 2
    assert released.is_set()
    writer.join()
    with pytest.raises(ConfigError, match=r"WriteConfig\.wait_s=-1 must be a number of seconds"):
        rl.WriteConfig(wait_s=-1)
