"""Ingesting into a store that is there already: what is skipped, replaced and added."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl
from radioloader.config import CompressionConfig, StorageConfig, TileConfig, WriteConfig
from radioloader.errors import ConfigError
from tests.ingestion.test_ingest import Content, Write, foreground_of, sources, statuses


def test_unchanged_files_are_skipped_and_no_voxel_is_written(
    changing: Path, tmp_path: Path, content: Content, arrays: Callable[[Any], set[str]]
) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    before, files = (
        content(store),
        {file: file.stat().st_mtime_ns for file in store.rglob("*") if "/volumes/" in str(file)},
    )
    for file in changing.rglob("*.gz"):
        file.touch()  # its time does not count, its content does
    report = rl.ingest(store, sources(changing), workers=1)
    assert statuses(report) == {f"sub-{n:02d}": "skipped" for n in (1, 2, 3)}
    assert (len(report.skipped), report.ingested, report.version) == (3, [], 1)
    assert sum(item.voxel_bytes for item in report.items) == 0
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if "/volumes/" in str(file)} == files
    assert content(store) == before
    assert len(arrays(store)) == 6
    assert str(report).startswith("0 ingested, 3 skipped (unchanged), 0 failed in ")


def test_a_changed_source_replaces_its_volume_and_no_other(
    changing: Path,
    tmp_path: Path,
    write_image: Write,
    arrays: Callable[[Any], set[str]],
    shows_sources: Callable[..., list[str]],
) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    before = arrays(store)
    path = changing / "images" / "sub-02_T1w.nii.gz"
    old = nib.load(path)
    write_image(path, np.asanyarray(old.dataobj) + np.int16(7), old.affine)
    report = rl.ingest(store, sources(changing), workers=1)
    assert statuses(report) == {"sub-01": "skipped", "sub-02": "ingested", "sub-03": "skipped"}
    assert report.ingested[0].voxel_bytes == 2 * np.prod(old.shape)  # the label stays
    assert report.version == 2
    assert len(arrays(store) - before) == 1
    assert shows_sources(store, changing) == ["sub-01", "sub-02", "sub-03"]
    assert len(rl.open(store).T1w) == 3


def test_classes_that_a_replaced_label_no_longer_has_are_gone(
    changing: Path, tmp_path: Path, write_image: Write
) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    path = changing / "labels" / "sub-02_seg.nii.gz"
    label = np.asanyarray(nib.load(path).dataobj).copy()
    label[label == 2] = 0
    label[0, 0, 0] = 9
    write_image(path, label, nib.load(path).affine)
    assert statuses(rl.ingest(store, sources(changing), workers=1))["sub-02"] == "ingested"
    index = foreground_of(store)
    assert {obs_id: list(classes) for obs_id, classes in index.items()} == {
        "sub-01_seg": [0, 1, 2],
        "sub-02_seg": [0, 1, 9],
        "sub-03_seg": [0, 1, 2],
    }
    assert index["sub-02_seg"][9][1].tolist() == [[0, 0, 0]]


def test_the_content_hash_is_that_of_the_content_however_it_is_compressed(changing: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    before = rl.open(store).T1w.obs.read()
    path = changing / "images" / "sub-01_T1w.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=99))
    rl.ingest(store, sources(changing), workers=1)
    after = rl.open(store).T1w.obs.read()
    assert (before.source_hash != after.source_hash).tolist() == [True, False, False]
    assert before.content_hash.tolist() == after.content_hash.tolist()
    assert len(set(after.content_hash)) == 3
    # The same voxels uncompressed, under another name
    plain = tmp_path / "plain" / "sub-01.nii"
    plain.parent.mkdir()
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    rl.ingest(tmp_path / "other", {"CT": plain}, workers=1)
    assert rl.open(tmp_path / "other").CT.obs.read().content_hash.tolist() == after.content_hash.tolist()[:1]


@pytest.mark.parametrize("what", ["voxel", "affine", "slope", "dtype"])
def test_the_content_hash_changes_with_the_content(write_image: Write, tmp_path: Path, what: str) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_image(tmp_path / "a" / "x.nii", voxels)
    changed = voxels.copy()
    changed[2, 3, 4] += what == "voxel"
    affine = np.diag([1.0, 1.0, 1.5 if what == "affine" else 1.0, 1.0])
    write_image(
        tmp_path / "b" / "x.nii",
        changed.astype(np.int32) if what == "dtype" else changed,
        affine,
        2.0 if what == "slope" else None,
    )
    hashes = []
    for folder in "ab":
        rl.ingest(tmp_path / f"store-{folder}", {"CT": tmp_path / folder}, workers=1)
        hashes += rl.open(tmp_path / f"store-{folder}").CT.obs.read().content_hash.tolist()
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "LPS"},
        {"config": StorageConfig(write=WriteConfig(tile=TileConfig(extent=5)))},
        {"config": StorageConfig(write=WriteConfig(tile=TileConfig(orientation="axial")))},  # type: ignore[arg-type]
        {"config": StorageConfig(write=WriteConfig(compression=CompressionConfig(level=9)))},
        {"config": StorageConfig(write=WriteConfig(compression=CompressionConfig(codec="lz4")))},
        {"config": StorageConfig(write=WriteConfig(compression=CompressionConfig(checksum=True)))},
    ],
)
def test_a_changed_recipe_ingests_anew(changing: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    report = rl.ingest(store, sources(changing), workers=1, **options)
    assert {item.status for item in report.items} == {"ingested"}
    assert report.version == 2
    assert len(rl.open(store).T1w) == 3
    assert {item.status for item in rl.ingest(store, sources(changing), workers=1, **options).items} == {"skipped"}


def test_what_does_not_change_the_volumes_does_not_ingest_anew(changing: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    config = StorageConfig(read=rl.ReadConfig(concurrency=2), write=WriteConfig(max_workers=1))
    report = rl.ingest(store, sources(changing), config=config, grid_tolerance_mm=1.0, commit_interval_s=0.0)
    assert {item.status for item in report.items} == {"skipped"}


def test_an_existing_store_gains_a_collection(
    changing: Path, tmp_path: Path, arrays: Callable[[Any], set[str]], write_image: Write
) -> None:
    store = tmp_path / "store"
    rl.ingest(store, {"T1w": changing / "images"}, workers=1)
    before = arrays(store)
    report = rl.ingest(store, sources(changing), workers=1)
    assert {item.status for item in report.items} == {"ingested"}
    assert before <= arrays(store)
    assert len(arrays(store) - before) == 3  # the labels
    shown = rl.open(store)
    assert shown.collection_names == ["T1w", "seg"]
    assert (
        shown.T1w.obs_subject_ids
        == shown.seg.obs_subject_ids
        == shown.obs_subject_ids
        == ["sub-01", "sub-02", "sub-03"]
    )
    # a third one alone, for one subject, matched by the same ids
    write_image(tmp_path / "pet" / "sub-02_PET.nii.gz", np.ones((3, 3, 3), np.float32))
    report = rl.ingest(store, {"PET": tmp_path / "pet"}, workers=1)
    assert statuses(report) == {"sub-02": "ingested"}
    assert report.notes == ["subject ids come from: BIDS entities (sub-, ses-)"]
    shown = rl.open(store)
    assert shown.PET.obs_subject_ids == ["sub-02"]
    assert len(shown) == 3


def test_subjects_that_meet_none_of_the_stores_are_noted(changing: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rl.ingest(store, {"T1w": changing / "images"}, workers=1)
    for number in range(1, 5):
        (tmp_path / "more").mkdir(exist_ok=True)
        shutil.copy(changing / "labels" / "sub-01_seg.nii.gz", tmp_path / "more" / f"p{number}.nii.gz")
    report = rl.ingest(store, {"seg": tmp_path / "more"}, workers=1)
    assert report.notes[-1] == (
        "all subjects are new: the store has 'sub-01', 'sub-02', 'sub-03', these are 'p1', 'p2', 'p3', ...; if they should be the same "
        "ones, give subject_regex (--subject-regex), or mappings from subject id to path"
    )


def test_a_collection_keeps_its_kind(changing: Path, tmp_path: Path, content: Content) -> None:
    store = tmp_path / "store"
    rl.ingest(store, sources(changing), workers=1)
    before = content(store)
    with pytest.raises(ConfigError) as caught:
        rl.ingest(store, sources(changing), labels=["T1w", "seg"], workers=1)
    assert str(caught.value) == (
        f"collection 'T1w' of {store} holds images, but now it is to hold labels; use another name, or set labels"
    )
    assert content(store) == before


def test_labels_can_be_named(changing: Path, tmp_path: Path) -> None:
    images = {"T1w": changing / "images", "tissue": f"{changing}/labels/*"}
    report = rl.ingest(tmp_path / "a", images, labels=["tissue"], workers=1, subject_regex=r"sub-\d+")
    assert rl.open(tmp_path / "a").tissue.kind == "label"
    assert report.notes == [r"subject ids come from: subject_regex='sub-\\d+'"]
    rl.ingest(tmp_path / "b", sources(changing), labels=[], workers=1)
    assert rl.open(tmp_path / "b").seg.kind == "image"
    with pytest.raises(ConfigError) as caught:
        rl.ingest(tmp_path / "c", images, labels=["tissues"])
    assert str(caught.value) == "labels names ['tissues'], which are not among the collections ['T1w', 'tissue']"
