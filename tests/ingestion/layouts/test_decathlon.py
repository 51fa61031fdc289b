"""Folders of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.layouts import trees


def edit(root: Path, **changes: object) -> Path:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return root


def test_pairs_classes_and_splits_come_from_dataset_json(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "Task04")
    plan = recognise(root)
    assert plan.layout == "decathlon"
    assert plan.why == "dataset.json lists pairs of image and label that are there, such as imagesTr/hip_001.nii.gz"
    assert list(plan.images) == ["FLAIR"]
    assert plan.images["FLAIR"]["hip_009"] == [str(root / "imagesTs/hip_009.nii.gz")]  # type: ignore[index]
    assert list(plan.labels["label"]) == ["hip_001", "hip_002", "hip_003"]  # type: ignore[arg-type]
    assert plan.missing == {"label": ["hip_009"]}
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    store = rl.open(tmp_path / "store")
    assert store.obs_subject_ids == ["hip_001", "hip_002", "hip_003", "hip_009"]
    assert store.obs_meta.read()["split"].tolist() == ["train", "train", "train", "test"]
    assert store["label"].classes == {"background": (0,), "Anterior": (1,), "Posterior": (2,)}
    assert {v.obs_subject_id: v.ref.dtype for v in store["FLAIR"]} == {
        "hip_001": "int16",
        "hip_002": "uint8",
        "hip_003": "float32",
        "hip_009": "int16",
    }
    np.testing.assert_array_equal(store["label"].loc["hip_002"].to_numpy(), trees.classes(12), strict=True)


def test_modalities_of_the_fourth_axis_become_collections(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "Task01", channels=4)
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["FLAIR", "T1w", "T2w", "label", "t1gd"]
    for k, name in enumerate(("FLAIR", "T1w", "t1gd", "T2w")):
        for volume in store[name]:
            source = nib.load(
                root
                / ("imagesTs" if volume.obs_subject_id == "hip_009" else "imagesTr")
                / f"{volume.obs_subject_id}.nii.gz"
            )
            np.testing.assert_array_equal(volume.to_numpy(), np.asarray(source.dataobj)[..., k], strict=True)
            np.testing.assert_array_equal(volume.affine, source.affine)
            assert volume.shape == trees.SHAPE
    assert store["T2w"].obs.read()["source"].tolist()[0] == f"{root}/imagesTr/hip_001.nii.gz#3"


def test_without_dataset_json_files_are_matched_by_name(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "task", described=False, tested=False)
    plan = recognise(root)
    assert (plan.layout, list(plan.images), list(plan.labels), plan.splits) == ("decathlon", ["image"], ["label"], {})
    assert plan.notes == ["there is no dataset.json: files are matched by name, and channels and classes have no names"]
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_4d_images_whose_channels_have_no_names_stay_4d(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "task", channels=2, described=False, tested=False)
    plan = recognise(root)
    assert list(plan.images) == ["image"]
    assert any("the images are 4D with 2 volumes, and dataset.json names 0 of them" in note for note in plan.notes)


def test_a_broken_dataset_json_does_not_stop_the_files(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "task", tested=False)
    (root / "dataset.json").write_text('{"training": [')
    plan = recognise(root)
    assert plan.layout == "decathlon"
    assert plan.notes[0].startswith("dataset.json could not be read (")
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_listed_files_that_are_not_there_and_files_that_are_not_listed_are_told(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "task")
    (root / "imagesTr" / "hip_002.nii.gz").unlink()
    trees.write(root / "imagesTr" / "more.nii.gz", trees.voxels(50))
    plan = recognise(root)
    assert plan.notes == ["1 files that dataset.json lists are not there, such as imagesTr/hip_002.nii.gz"]
    assert plan.left_out == [(str(root / "imagesTr/more.nii.gz"), "dataset.json does not list it")]
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok
    store = rl.open(tmp_path / "store")
    assert store["FLAIR"].obs_subject_ids == ["hip_001", "hip_003", "hip_009"]
    assert store["label"].obs_subject_ids == ["hip_001", "hip_002", "hip_003"]
    assert [(p.status, p.source, p.reason) for p in store.problems()] == [
        ("left out", str(root / "imagesTr/more.nii.gz"), "dataset.json does not list it")
    ]


@pytest.mark.parametrize("path", ["../secret.nii.gz", "/etc/x.nii.gz", "..\\secret.nii.gz"])
def test_paths_that_leave_the_folder_are_no_files_of_it(tmp_path: Path, path: str) -> None:
    trees.write(tmp_path / "secret.nii.gz", trees.voxels(1))
    root = trees.decathlon(tmp_path / "task")
    edit(root, test=[path])
    plan = recognise(root)
    assert all(files[0].startswith(str(root)) for files in plan.images["FLAIR"].values())  # type: ignore[union-attr]
    assert len(plan.images["FLAIR"]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [{"1": "a", "2": "a"}, {"x": "y"}, "labels", {"a": None}, []])
def test_names_of_classes_that_cannot_be_used_are_left_out(tmp_path: Path, labels: object) -> None:
    root = edit(trees.decathlon(tmp_path / "task"), labels=labels)
    plan = recognise(root)
    assert plan.classes == {}
    assert "names of classes were left out" in plan.notes[0]
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"training": "all"},
        {"training": [1, None, {"image": 3}]},
        {"test": {"a": 1}},
        {"modality": ["MR"]},
        {"modality": {"a": 1}},
    ],
)
def test_nonsense_in_dataset_json_is_lived_with(tmp_path: Path, changes: dict[str, object]) -> None:
    root = edit(trees.decathlon(tmp_path / "task"), **changes)
    assert recognise(root).layout == "decathlon"
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_channels_of_one_name_keep_their_numbers(tmp_path: Path) -> None:
    root = edit(trees.decathlon(tmp_path / "task", channels=2), modality={"0": "MRI", "1": "MRI"})
    assert list(recognise(root).images) == ["MRI_0", "MRI_1"]


def test_one_name_in_two_folders_is_a_failure_of_that_subject_alone(tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "task", described=False)
    trees.write(root / "imagesTs" / "hip_001.nii.gz", trees.voxels(77))
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [item.subject for item in report.failed] == ["hip_001"]
    assert "duplicate subject id 'hip_001'" in report.failed[0].reason
    assert [item.subject for item in report.ingested] == ["hip_002", "hip_003", "hip_009"]


def test_hippocampus(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "hippocampus"
    report = rl.ingest_layout(tmp_path / "store", root)
    assert report.ok
    store = rl.open(tmp_path / "store")
    assert (len(store["image"]), len(store["label"])) == (40, 40)
    assert {volume.ref.dtype for volume in store["image"]} == {"float32", "uint8"}
    assert {volume.ref.dtype for volume in store["label"]} == {"uint8"}
    for volume in list(store["label"])[:5]:
        source = np.asarray(nib.load(root / "labelsTr" / f"{volume.obs_subject_id}.nii.gz").dataobj)
        np.testing.assert_array_equal(volume.to_numpy(), source)
