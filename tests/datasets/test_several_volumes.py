"""Subjects with several volumes in one collection: nobody takes one of them without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.bench.choose import choose
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.snapshot import Snapshot
from tests.ingestion.dicom_files import series, voxels

VOLUMES = "subject 'P1' has 2 volumes in collection 'CT': 'P1_CT_s1', 'P1_CT_s2'"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """P1 with two CT volumes, P2 and P3 with one; each with one MR."""
    root = tmp_path_factory.mktemp("several")
    for seed, who in enumerate(("P1", "P1", "P2", "P3")):
        series(root / "dicom", seed, who=who)
    for seed, who in enumerate(("P1", "P2", "P3"), start=10):
        series(root / "dicom", seed, who=who, modality="MR")
    report = rl.ingest(root / "store", {"CT": root / "dicom", "MR": root / "dicom"}, subject="PatientID", workers=1)
    assert report.ok, str(report)
    return str(root / "store")


@pytest.mark.parametrize(
    "make",
    [
        lambda uri, **more: rl.VolumeDataset(uri, image="CT", **more),
        lambda uri, **more: rl.VolumeDataset(uri, image=["MR", "CT"], **more),
        lambda uri, **more: rl.PatchDataset(uri, image="CT", patch_size=4, **more),
        lambda uri, **more: rl.SliceDataset(uri, image="CT", **more),
    ],
)
def test_datasets_ask_which_one_is_meant(make: Callable[..., Any], uri: str) -> None:
    with pytest.raises(KeyNotFoundError) as caught:
        make(uri)
    assert str(caught.value).startswith(VOLUMES)
    assert "choose other subjects (subjects=" in str(caught.value)
    assert "narrower selection, such as DicomSource(root, description=" in str(caught.value)
    assert len(make(uri, subjects=["P2", "P3"])) > 0
    assert len(make(rl.open(uri).loc[["P3", "P2"]])) > 0


def test_those_with_one_are_read_as_ever(uri: str) -> None:
    dataset = rl.VolumeDataset(uri, image="CT", subjects=["P3", "P2"])
    np.testing.assert_array_equal(np.asarray(dataset[0]["image"])[0], voxels(3))
    np.testing.assert_array_equal(np.asarray(dataset[1]["image"])[0], voxels(2))
    assert len(rl.VolumeDataset(uri, image="MR")) == 3


def test_selections_of_a_store(uri: str) -> None:
    store = rl.open(uri)
    assert store.loc["P1"]["CT"].obs_ids == ["P1_CT_s1", "P1_CT_s2"]
    with pytest.raises(KeyNotFoundError, match="subject 'P1' has 2 volumes in 'CT'; choose one by its obs_id"):
        store.CT.loc["P1"]
    np.testing.assert_array_equal(store.CT.loc["P1_CT_s2"].to_numpy(), voxels(1))


def test_torchio_asks_too(uri: str) -> None:
    pytest.importorskip("torchio")
    from radioloader.torchio import SubjectsDataset

    with pytest.raises(KeyNotFoundError, match="subject 'P1' has 2 volumes in collection 'CT'"):
        SubjectsDataset(uri, {"ct": "CT"}, progress=False)
    assert len(SubjectsDataset(uri, {"ct": "CT"}, subjects=["P2"], progress=False)) == 1


def test_predictions_ask_too(uri: str) -> None:
    with pytest.raises(KeyNotFoundError, match="subject 'P1' has 2 volumes in collection 'CT'"):
        rl.predict(uri, lambda x: x, image="CT", patch_size=8)
    assert "pred" not in rl.open(uri).collection_names


def test_a_split_is_compared_by_all_volumes(uri: str) -> None:
    split = rl.Split(["P1"], ["P2"], ["P3"])
    made = rl.SplitManifest.of(split, uri, collections=["CT"])
    hashes = Snapshot.open(uri).detail("CT", "content_hash").tolist()
    assert made.content_hashes["CT"] == {"P1": f"{hashes[0]}+{hashes[1]}", "P2": hashes[2], "P3": hashes[3]}
    made.check(uri)


def test_a_second_volume_that_changed_is_noticed(tmp_path: Path) -> None:
    for name, changed in (("a", 1), ("b", 7)):
        series(tmp_path / name, 0, who="P1")
        series(tmp_path / name, 1, who="P1", voxels=voxels(changed))
        assert rl.ingest(tmp_path / f"store_{name}", {"CT": tmp_path / name}, subject="PatientID", workers=1).ok
    made = rl.SplitManifest.of(rl.Split(["P1"], [], []), tmp_path / "store_a", collections=["CT"])
    with pytest.raises(ConfigError, match=r"1 volumes of 'CT' have other contents, such as those of \['P1'\]"):
        made.check(str(tmp_path / "store_b"))


def test_the_bench_measures_those_with_one(uri: str) -> None:
    choice = choose(Snapshot.open(uri), image=["CT"], label=None)
    assert choice.subjects == choice.available == ("P2", "P3")
    assert "1 subjects are left out: they have several volumes in one of the collections" in choice.notes
    assert choose(Snapshot.open(uri), image=["MR"], label=None).subjects == ("P1", "P2", "P3")


def test_the_bench_says_when_there_is_nobody_with_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        series(tmp_path / "dicom", seed)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    with pytest.raises(ConfigError, match=r"no subject of .* has one volume, and not several, in each of 'CT'"):
        choose(Snapshot.open(tmp_path / "store"), image=["CT"], label=None)
