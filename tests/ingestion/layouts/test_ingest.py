"""``radioloader.ingest_layout``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.ingestion.layouts.ingest import plan_layout
from tests.ingestion.layouts import trees


def left_out(store: Path) -> list[tuple[str, str]]:
    return [(p.source, p.reason) for p in rl.open(store).problems() if p.status != "failed"]


def test_what_is_recognised_is_said_before_anything_is_written(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x")
    said: list[tuple[str, bool]] = []
    report = rl.ingest_layout(
        tmp_path / "store", root, workers=1, say=lambda line: said.append((line, (tmp_path / "store").exists()))
    )
    assert report.ok
    assert said[0] == (
        f"{root}: recognised as nnunet, since dataset.json has channel_names, and files of imagesTr end in the number of a channel, "
        "such as _0000",
        False,
    )
    assert not any(there for _, there in said)
    assert [line for line, _ in said[1:-2]] == [
        f"  image collection 'CT': 4 files, such as {root}/imagesTr/case_1_0000.nii.gz",
        f"  label collection 'label': 3 files, such as {root}/labelsTr/case_1.nii.gz, classes from {root}/dataset.json",
        f"  splits: train ({root}/imagesTr), test ({root}/imagesTs)",
        "  without 'label': 1 of 4 subjects (case_9)",
    ]
    assert said[-2][0] == "the same, spelled out:"
    quiet = rl.ingest_layout(tmp_path / "again", root, workers=1)
    assert quiet.notes[0] == said[0][0]


def test_the_same_call_skips_what_is_there_and_writes_nothing(tmp_path: Path) -> None:
    root = trees.litter(trees.nnunet(tmp_path / "x"))
    first = rl.ingest_layout(tmp_path / "store", root, workers=1)
    version = rl.open(tmp_path / "store").version
    again = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert (len(first.ingested), len(again.skipped), len(again.ingested)) == (4, 4, 0)
    assert rl.open(tmp_path / "store").version == version


def test_what_was_left_out_is_remembered_until_it_is_gone(tmp_path: Path) -> None:
    root = trees.litter(trees.nnunet(tmp_path / "x"))
    stray = trees.write(root / "imagesTr" / "stray.nii.gz", trees.voxels(9))
    rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert left_out(tmp_path / "store") == [
        (str(stray), "its name does not end in the number of a channel, such as _0000"),
        (f"{root}: *.txt", "no volumes, by their names (1 of this kind)"),
        (f"{root}: .DS_Store", "no volumes, by their names (2 of this kind)"),
        (f"{root}: ._*", "no volumes, by their names (1 of this kind)"),
        (f"{root}: Thumbs.db", "no volumes, by their names (1 of this kind)"),
    ]
    stray.unlink()
    (root / "Thumbs.db").unlink()
    rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [source for source, _ in left_out(tmp_path / "store")] == [
        f"{root}: *.txt",
        f"{root}: .DS_Store",
        f"{root}: ._*",
    ]


def test_a_failure_is_remembered_until_it_is_mended(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x", tested=False)
    good = (root / "imagesTr" / "case_2_0000.nii.gz").read_bytes()
    (root / "imagesTr" / "case_2_0000.nii.gz").write_bytes(good[:-40])
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [item.subject for item in report.failed] == ["case_2"]
    problems = rl.open(tmp_path / "store").problems()
    assert [(p.status, p.subject, p.source, p.reason) for p in problems] == [
        ("failed", "case_2", "", report.failed[0].reason)
    ]
    version = rl.open(tmp_path / "store").version
    rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert rl.open(tmp_path / "store").version == version
    (root / "imagesTr" / "case_2_0000.nii.gz").write_bytes(good)
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok
    assert rl.open(tmp_path / "store").problems() == []


def test_a_file_that_was_renamed_is_not_another_patient(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x", described=False, tested=False)
    rl.ingest_layout(tmp_path / "store", root, workers=1)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder / "hip_001.nii.gz").rename(root / folder / "renamed.nii.gz")
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [item.subject for item in report.failed] == ["renamed"]
    assert "so this would be the same patient a second time" in report.failed[0].reason


def test_collections_are_chosen_and_may_change_their_kind(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {"T1w": ["a.nii.gz"], "T2w": ["a.nii.gz"], "seg": ["a.nii.gz"]})
    rl.ingest_layout(tmp_path / "store", root, images=["T2w", "seg"], workers=1)
    store = rl.open(tmp_path / "store")
    assert {name: store[name].kind for name in store.collection_names} == {"T2w": "image", "seg": "image"}
    assert left_out(tmp_path / "store") == []
    with pytest.raises(ConfigError, match=r"has no collection 'CT'; it has 'T1w', 'T2w', 'seg'"):
        plan_layout(root, images=["CT"])
    with pytest.raises(ConfigError, match="'seg' is named among the images and among the labels"):
        plan_layout(root, images=["seg"], labels=["seg"])


def test_options_of_ingest_are_passed_on(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x")
    frame_path = tmp_path / "meta.csv"
    frame_path.write_text("subject,age\nhip_001,7\n")
    rl.ingest_layout(
        tmp_path / "store", root, workers=1, orientation="LPS", obs_meta=frame_path, classes={"label": {"x": 1}}
    )
    store = rl.open(tmp_path / "store")
    assert {volume.axcodes for volume in store["FLAIR"]} == {"LPS"}
    assert store.obs_meta.columns == ["obs_subject_id", "age", "split"]
    assert store["label"].classes == {"x": (1,)}


def test_nothing_to_take_is_an_error_that_says_what_was_seen(tmp_path: Path) -> None:
    trees.bids(tmp_path / "x")
    for path in (tmp_path / "x").rglob("*.nii.gz"):
        if "fmap" not in str(path):
            path.unlink()
    with pytest.raises(ConfigError, match="is of no layout that is known"):
        rl.ingest_layout(tmp_path / "store", tmp_path / "x")
    assert not (tmp_path / "store").exists()


def test_mixed_dtypes_and_shapes_are_told(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x", tested=False)
    trees.write(root / "imagesTr" / "hip_003.nii.gz", trees.voxels(3, np.int16, (7, 5, 4)))
    trees.write(root / "labelsTr" / "hip_003.nii.gz", np.zeros((7, 5, 4), np.uint8))
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok
    assert report.notes[-2:] == [
        "collection 'FLAIR' is mixed: dtypes int16 (2), uint8 (1); shapes from 6x5x4 to 7x5x4",
        "collection 'label' is mixed: shapes from 6x5x4 to 7x5x4",
    ]
