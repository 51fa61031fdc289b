"""nnU-Net's raw folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.layouts import trees


def edit(root: Path, **changes: object) -> Path:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return root


def test_channels_classes_regions_and_splits(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "Dataset001_X", channels=("T1w", "T2w"))
    plan = recognise(root)
    assert plan.layout == "nnunet"
    assert "channel_names" in plan.why
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["T1w", "T2w", "label"]
    assert store["label"].classes == {"background": (0,), "whole": (1, 2), "core": (2,)}
    assert store.obs_meta.read()["split"].tolist() == ["train", "train", "train", "test"]
    for k, name in enumerate(("T1w", "T2w")):
        for case in (1, 2, 3, 9):
            np.testing.assert_array_equal(store[name].loc[f"case_{case}"].to_numpy(), trees.voxels(100 * k + case))
    assert store["label"].obs_subject_ids == ["case_1", "case_2", "case_3"]


def test_version_1_calls_channels_modalities_and_classes_by_number(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "Task500", described=False)
    trees.write_json(
        root / "dataset.json",
        {
            "modality": {"0": "MRI"},
            "labels": trees.HIPPOCAMPUS,
            "training": [
                {"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"} for i in (1, 2, 3)
            ],
        },
    )
    plan = recognise(root)
    assert (plan.layout, list(plan.images)) == ("nnunet", ["MRI"])
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok
    assert rl.open(tmp_path / "store")["label"].classes["Posterior"] == (2,)


def test_without_dataset_json_channels_go_by_number(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x", channels=("a", "b"), described=False)
    plan = recognise(root)
    assert (plan.layout, list(plan.images)) == ("nnunet", ["channel_0000", "channel_0001"])
    assert plan.why == (
        "files of imagesTr end in the number of a channel and those of labelsTr do not, such as case_1_0000 and case_1"
    )


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    """``case_0001`` beside a label ``case_0001`` is decathlon's first case, not a second channel."""
    for i in (1, 2):
        trees.write(tmp_path / "x" / "imagesTr" / f"case_{i:04d}.nii.gz", trees.voxels(i))
        trees.write(tmp_path / "x" / "labelsTr" / f"case_{i:04d}.nii.gz", trees.classes(i))
    plan = recognise(tmp_path / "x")
    assert plan.layout == "decathlon"
    assert list(plan.images["image"]) == ["case_0001", "case_0002"]  # type: ignore[arg-type]


def test_a_missing_channel_and_strange_files_are_told(tmp_path: Path) -> None:
    root = trees.litter(trees.nnunet(tmp_path / "x", channels=("T1w", "T2w")))
    (root / "imagesTr" / "case_2_0001.nii.gz").unlink()
    trees.write(root / "imagesTr" / "stray.nii.gz", trees.voxels(5))
    trees.write(root / "imagesTr" / "case_1_0002.nii.gz", trees.voxels(6))
    plan = recognise(root)
    assert plan.missing == {"T2w": ["case_2"], "channel_0002": ["case_2", "case_3", "case_9"], "label": ["case_9"]}
    assert plan.notes == ["dataset.json names 2 channels, and there are files of number 2"]
    assert plan.left_out == [
        (str(root / "imagesTr/stray.nii.gz"), "its name does not end in the number of a channel, such as _0000")
    ]
    assert plan.strangers == {"*.txt": 1, ".DS_Store": 2, "._*": 1, "Thumbs.db": 1}
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    assert rl.open(tmp_path / "store")["T2w"].obs_subject_ids == ["case_1", "case_3", "case_9"]


def test_other_file_endings_are_refused_by_name(tmp_path: Path) -> None:
    root = edit(trees.nnunet(tmp_path / "x"), file_ending=".nrrd")
    with pytest.raises(ConfigError, match=r"file_ending is '.nrrd', and radioloader reads NIfTI"):
        recognise(root)


def test_cases_that_dataset_json_lists_itself(tmp_path: Path) -> None:
    root = tmp_path / "x"
    for case in ("p1", "p2"):
        trees.write(root / "anywhere" / case / "t1.nii.gz", trees.voxels(len(case)))
        trees.write(root / "anywhere" / case / "t2.nii.gz", trees.voxels(5))
        trees.write(root / "else" / f"{case}.nii.gz", trees.classes(6))
    trees.write_json(
        root / "dataset.json",
        {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "a": 1, "b": 2},
            "file_ending": ".nii.gz",
            "dataset": {
                case: {
                    "images": [f"anywhere/{case}/t1.nii.gz", f"anywhere/{case}/t2.nii.gz"],
                    "label": f"else/{case}.nii.gz",
                }
                for case in ("p1", "p2", "p3")
            },
        },
    )
    plan = recognise(root)
    assert (plan.layout, plan.subjects) == ("nnunet", ["p1", "p2"])
    assert plan.notes == ["3 files that dataset.json lists are not there, such as anywhere/p3/t1.nii.gz"]
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok
    assert rl.open(tmp_path / "store")["T2"].obs_subject_ids == ["p1", "p2"]


def test_channels_of_one_name_keep_their_numbers(tmp_path: Path) -> None:
    root = trees.nnunet(tmp_path / "x", channels=("noNorm", "noNorm"))
    assert list(recognise(root).images) == ["noNorm_0", "noNorm_1"]
