"""Plain folders: one for each collection, one for each subject, or a single one."""

from __future__ import annotations

from pathlib import Path

import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.layouts import trees

CASES = ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_a_folder_for_each_collection(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {"T1w": CASES, "T2w": CASES[:2], "seg": [*CASES, "d.nii.gz"]})
    plan = recognise(root)
    assert plan.layout == "folders"
    assert (list(plan.images), list(plan.labels)) == (["T1w", "T2w"], ["seg"])
    assert plan.missing == {"T1w": ["d"], "T2w": ["c", "d"]}
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    assert any("labels without an image: 1 subjects (d)" in note for note in report.notes)
    assert rl.open(tmp_path / "store").obs_subject_ids == ["a", "b", "c", "d"]


def test_names_that_say_what_they_are_are_matched(tmp_path: Path) -> None:
    root = trees.plain(
        tmp_path / "x", {"images": [f"{c}_image.nii.gz" for c in "abc"], "masks": [f"{c}_mask.nii.gz" for c in "abc"]}
    )
    plan = recognise(root)
    assert plan.subjects == ["a", "b", "c"]
    assert (list(plan.images), list(plan.labels)) == (["images"], ["masks"])


def test_a_single_folder_of_files(tmp_path: Path) -> None:
    root = trees.litter(trees.plain(tmp_path / "CT", {"": CASES}))
    plan = recognise(root)
    assert (plan.layout, list(plan.images), plan.subjects) == ("folders", ["CT"], ["a", "b", "c"])
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_a_folder_for_each_subject(tmp_path: Path) -> None:
    root = trees.plain(
        tmp_path / "x",
        {
            f"BraTS_{i}": [f"BraTS_{i}_flair.nii.gz", f"BraTS_{i}_t1.nii.gz", f"BraTS_{i}_seg.nii.gz"][: 2 + i % 2]
            for i in (1, 2, 3)
        },
    )
    plan = recognise(root)
    assert plan.layout == "subjects"
    assert (list(plan.images), list(plan.labels)) == (["flair", "t1"], ["seg"])
    assert plan.subjects == ["BraTS_1", "BraTS_2", "BraTS_3"]
    assert plan.missing == {"seg": ["BraTS_2"]}
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok


def test_subjects_whose_files_have_the_same_names(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {f"p{i}": ["t1.nii.gz", "seg.nii.gz"] for i in (1, 2)})
    plan = recognise(root)
    assert (plan.layout, plan.subjects, list(plan.labels)) == ("subjects", ["p1", "p2"], ["seg"])


def test_what_may_be_both_is_asked(tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {"one": ["a.nii.gz", "b.nii.gz"], "two": ["a.nii.gz", "b.nii.gz"]})
    with pytest.raises(ConfigError) as caught:
        recognise(root)
    text = str(caught.value)
    assert "may be several things; say which:" in text
    assert (
        "--layout folders: each of its folders (one, two) is a collection: subjects such as a have a file in several"
        in text
    )
    assert "--layout subjects: most of its 2 folders hold the same files (a, b), so each is a subject" in text
    assert recognise(root, "folders").subjects == ["a", "b"]
    assert recognise(root, "subjects").subjects == ["one", "two"]


@pytest.mark.parametrize(
    "names",
    [
        {"": ["a_T1w.nii.gz", "a_seg.nii.gz", "b_T1w.nii.gz", "b_seg.nii.gz"]},
        {"train": ["a.nii.gz"], "test": ["b.nii.gz"]},
        {"one": ["a.nii.gz"], "two": ["b.nii.gz"]},
        {"deep/er": ["a.nii.gz"], "deep": ["b.nii.gz"]},
    ],
)
def test_what_is_unknown_gives_choices(tmp_path: Path, names: dict[str, list[str]]) -> None:
    root = trees.plain(tmp_path / "x", names)
    with pytest.raises(ConfigError) as caught:
        recognise(root)
    text = str(caught.value)
    assert "is of no layout that is known" in text
    assert "--image T1w=" in text
    assert "radioloader ingest STORE table.csv" in text


def test_folders_within_that_have_a_convention_are_named(tmp_path: Path) -> None:
    trees.nnunet(tmp_path / "raw" / "Dataset001_A")
    trees.decathlon(tmp_path / "raw" / "Task04")
    with pytest.raises(ConfigError) as caught:
        recognise(tmp_path / "raw")
    assert f"{tmp_path}/raw/Dataset001_A: nnunet" in str(caught.value)
    assert f"{tmp_path}/raw/Task04: decathlon" in str(caught.value)


def test_empty_missing_and_other_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="there is no file in it"):
        recognise(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    with pytest.raises(
        ConfigError, match=r"there is no NIfTI file in it, and no DICOM file, but 1 others such as a.txt"
    ):
        recognise(tmp_path / "text")
    with pytest.raises(ConfigError, match="there is no such folder or table"):
        recognise(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"for a glob say which collection it is: --image NAME="):
        recognise(tmp_path / "*.nii.gz")
    with pytest.raises(ConfigError, match="this is a file; a layout is a folder, or a table of files"):
        recognise(trees.write(tmp_path / "a.nii.gz", trees.voxels(1)))
    with pytest.raises(ConfigError, match=r"layout='nnUNet' \(--layout\) is none of auto, nnunet"):
        recognise(tmp_path, "nnUNet")
    with pytest.raises(ConfigError, match="does not look like bids: it holds 1 NIfTI files"):
        recognise(tmp_path, "bids")
    with pytest.raises(ConfigError, match="this is a folder, and a manifest is a table"):
        recognise(tmp_path, "manifest")
