"""BIDS trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import radioloader as rl
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.layouts import trees


def test_collections_are_what_follows_subject_and_session_in_the_name(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    plan = recognise(root)
    assert plan.layout == "bids"
    assert plan.why == "it has a dataset_description.json, and files lie as sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"
    assert list(plan.images) == ["T1w", "acq-high_T1w", "pet", "task-rest_bold"]
    assert list(plan.labels) == ["dseg"]
    assert plan.subjects == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert dict(plan.left_out) == {
        str(root / "sub-01/ses-a/fmap/sub-01_ses-a_phasediff.nii.gz"): "fmap is none of anat, func, dwi, pet, perf",
        str(root / "derivatives/seg/sub-01/ses-a/anat/sub-01_ses-a_desc-preproc_T1w.nii.gz"): (
            "of derivatives, only segmentations and masks are taken"
        ),
        str(root / "derivatives/seg/sub-01/ses-a/anat/sub-01_ses-a_space-MNI152_dseg.nii.gz"): (
            "it lies in the space MNI152, not in that of the subject's images"
        ),
    }


def test_sessions_are_kept_apart_and_share_the_row_of_the_person(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    store = rl.open(tmp_path / "store")
    frame = store.obs_meta.read()
    assert frame["obs_subject_id"].tolist() == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert frame["age"].tolist()[:2] == [34, 34]
    assert frame["age"].isna().tolist() == [False, False, True]
    assert frame["site"].tolist() == ["0012", "0012", "0013"]
    np.testing.assert_array_equal(store["T1w"].loc["sub-01_ses-b"].to_numpy(), trees.voxels(2), strict=True)
    np.testing.assert_array_equal(store["acq-high_T1w"].loc["sub-01_ses-a"].to_numpy(), trees.voxels(3), strict=True)
    np.testing.assert_array_equal(store["dseg"].loc["sub-01_ses-a"].to_numpy(), trees.classes(8), strict=True)
    assert store["task-rest_bold"].loc["sub-01_ses-a"].shape == (*trees.SHAPE, 3)


def test_labels_of_two_pipelines_are_two_collections(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    trees.write(root / "derivatives/other/sub-02/anat/sub-02_dseg.nii.gz", trees.classes(20))
    plan = recognise(root)
    assert {name: list(files) for name, files in plan.labels.items()} == {
        "other_dseg": ["sub-02"],
        "seg_dseg": ["sub-01_ses-a"],
    }


def test_masks_of_the_raw_tree_are_labels(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    trees.write(root / "sub-02/anat/sub-02_desc-lesion_mask.nii.gz", trees.classes(20, count=2))
    assert list(recognise(root).labels) == ["desc-lesion_mask", "dseg"]


def test_a_name_that_says_another_subject_than_its_folder_is_left_out(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    path = trees.write(root / "sub-02/anat/sub-03_T1w.nii.gz", trees.voxels(20))
    plan = recognise(root)
    assert (str(path), "its name says another subject or session than its folder") in plan.left_out
    assert "sub-03" not in plan.subjects


def test_two_files_of_one_volume_are_a_failure_of_that_subject_alone(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    trees.write(root / "sub-02/anat/sub-02_T1w.nii", trees.voxels(20))
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert [item.subject for item in report.failed] == ["sub-02"]
    assert [item.subject for item in report.ingested] == ["sub-01_ses-a", "sub-01_ses-b"]


def test_a_broken_participants_table_does_not_stop_the_images(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t1\nsub-01\t2\n")
    plan = recognise(root)
    assert plan.obs_meta is None
    assert "the subjects' columns were left out" in plan.notes[0]
    assert "participant_id is not unique" in plan.notes[0]
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_a_participants_table_of_other_people_does_not_stop_the_images(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-77\t1\n")
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok
    assert any("none of its 1 rows is of a subject here" in note for note in report.notes)


def test_without_description_folders_tell(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    (root / "dataset_description.json").unlink()
    assert recognise(root).layout == "bids"


def test_source_data_and_code_are_not_data(tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    path = trees.write(root / "sourcedata/sub-02/anat/sub-02_T1w.nii.gz", trees.voxels(30))
    plan = recognise(root)
    assert (str(path), "sourcedata holds no data of BIDS") in plan.left_out
