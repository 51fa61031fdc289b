"""A subject keeps its id from one ingest to the next, and no file comes in as two subjects."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

Write = Callable[..., Path]


@pytest.fixture
def put(write_image: Write, tmp_path: Path) -> Callable[..., None]:
    """``put("CT/a_0000", ...)``: writes images below the test's folder, each with voxels of its own."""
    made: list[str] = []

    def make(*names: str) -> None:
        for name in names:
            made.append(name)
            write_image(tmp_path / f"{name}.nii.gz", np.full((3, 4, 5), len(made), np.int16))

    return make


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., rl.IngestReport]:
    """``ingest("CT", "seg")``: ingests the folders of these names into the test's store."""

    def run(*names: str, **options: Any) -> rl.IngestReport:
        images = {name: tmp_path / name for name in names} | options.pop("images", {})
        return rl.ingest(tmp_path / "store", images, workers=1, **options)

    return run


Put = Callable[..., None]
Ingest = Callable[..., rl.IngestReport]


def shown(tmp_path: Path) -> dict[str, list[tuple[str, int]]]:
    """By collection: the subjects, each with the value of its voxels."""
    store = rl.open(tmp_path / "store")
    return {
        name: [(volume.obs_subject_id, int(volume.to_numpy().max())) for volume in store[name]]
        for name in store.collection_names
    }


def statuses(report: rl.IngestReport) -> dict[str, str]:
    return {item.subject: item.status for item in report.items}


# The same ids again


def test_labels_join_the_images_of_an_nnunet_folder(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/case1_0000", "CT/case2_0000", "CT/case3_0000", "seg/case1", "seg/case2", "seg/case3")
    assert statuses(ingest("CT")) == dict.fromkeys(("case1", "case2", "case3"), "ingested")
    assert ingest("CT", "seg").ok
    assert shown(tmp_path) == {
        "CT": [("case1", 1), ("case2", 2), ("case3", 3)],
        "seg": [("case1", 4), ("case2", 5), ("case3", 6)],
    }
    assert statuses(ingest("seg")) == dict.fromkeys(("case1", "case2", "case3"), "skipped")


def test_labels_join_images_whose_ids_only_the_first_ingest_could_guess(
    tmp_path: Path, put: Put, ingest: Ingest
) -> None:
    put("CT/a_scan", "CT/b_scan", "seg/a", "seg/b")
    assert statuses(ingest("CT")) == {"a_scan": "ingested", "b_scan": "ingested"}
    report = ingest("CT", "seg")
    assert (report.ok, statuses(report)) == (True, {"a_scan": "ingested", "b_scan": "ingested"})
    assert shown(tmp_path) == {"CT": [("a_scan", 1), ("b_scan", 2)], "seg": [("a_scan", 3), ("b_scan", 4)]}
    assert report.notes[0] == (
        "2 subjects keep the ids that the store has for their files, such as 'a_scan' (by file names it would now be 'a')"
    )


def test_runs_that_are_added_to_a_bids_folder_do_not_rename_the_others(
    tmp_path: Path, put: Put, ingest: Ingest
) -> None:
    put("T1w/sub-01_acq-x_T1w", "T1w/sub-02_acq-x_T1w")
    assert statuses(ingest("T1w")) == {"sub-01": "ingested", "sub-02": "ingested"}
    put("T1w/sub-03_run-1_T1w", "T1w/sub-03_run-2_T1w", "T1w/sub-04_T1w")
    report = ingest("T1w")
    assert statuses(report) == {"sub-01": "skipped", "sub-02": "skipped", "sub-03": "failed", "sub-04": "ingested"}
    assert report.failed[0].reason.startswith("duplicate subject id 'sub-03' in collection 'T1w': ")
    assert shown(tmp_path) == {"T1w": [("sub-01", 1), ("sub-02", 2), ("sub-04", 5)]}


def test_new_names_beside_finished_ones_do_not_fail_them(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("mri/c1_x", "mri/c2_x", "seg/c1", "seg/c2")
    assert statuses(ingest("mri", "seg")) == {"c1": "ingested", "c2": "ingested"}
    put("mri/ka", "mri/kb", "mri/kc", "seg/ka", "seg/kb", "seg/kc")
    report = ingest("mri", "seg")
    assert statuses(report) == {"c1": "skipped", "c2": "skipped", "ka": "ingested", "kb": "ingested", "kc": "ingested"}
    assert [subject for subject, _ in shown(tmp_path)["mri"]] == ["c1", "c2", "ka", "kb", "kc"]


def test_one_file_first_and_its_folder_later(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/case_0000")
    assert statuses(ingest("CT")) == {"case": "ingested"}
    put("CT/case_0001", "CT/case_0002")
    assert statuses(ingest("CT")) == {"case": "skipped", "case_0001": "ingested", "case_0002": "ingested"}
    assert shown(tmp_path) == {"CT": [("case", 1), ("case_0001", 2), ("case_0002", 3)]}


def test_a_subject_whose_files_are_two_subjects_in_the_store_is_refused_whole(
    tmp_path: Path, put: Put, ingest: Ingest
) -> None:
    put("CT/a_x", "CT/b_x", "PET/a_y", "PET/b_y", "seg/a", "seg/b")
    ingest("CT")
    ingest("PET")
    report = ingest("CT", "PET", "seg", allow_missing=True)
    assert statuses(report) == {"a": "failed", "b": "failed"}
    assert [item.reason for item in report.failed] == [
        says(tmp_path, "CT/a_x", "a_x", "a"),
        says(tmp_path, "CT/b_x", "b_x", "b"),
    ]
    assert list(shown(tmp_path)) == ["CT", "PET"]


def test_ids_of_a_regular_expression_are_kept_without_it(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("T1w/sub-01_T1w", "T1w/sub-02_T1w", "seg/sub-01_seg", "seg/sub-02_seg", "seg/sub-03_seg", "T1w/sub-03_T1w")
    (tmp_path / "T1w" / "sub-03_T1w.nii.gz").rename(tmp_path / "later.nii.gz")
    ingest("T1w", subject_regex=r"sub-(\d+)")
    (tmp_path / "later.nii.gz").rename(tmp_path / "T1w" / "sub-03_T1w.nii.gz")
    report = ingest("T1w", "seg")
    assert statuses(report) == {"01": "ingested", "02": "ingested", "sub-03": "ingested"}
    assert shown(tmp_path)["seg"] == [("01", 3), ("02", 4), ("sub-03", 5)]


# The same file under another id


def says(tmp_path: Path, file: str, old: str, new: str, collection: str = "CT") -> str:
    return (
        f"{tmp_path}/{file}.nii.gz is in the store already, as subject {old!r} in collection {collection!r}; now it would come in a "
        f"second time, as subject {new!r}; give it the id that it has, with subject_regex (--subject-regex) or a mapping from subject "
        "id to path; or ingest into a new store; or, when it is another patient's, give that file a path of its own"
    )


@pytest.mark.parametrize("how", ["regex", "mapping"])
def test_ids_that_the_user_gives_do_not_bring_a_file_in_twice(
    tmp_path: Path, put: Put, ingest: Ingest, how: str
) -> None:
    put("CT/a1", "CT/b1")
    ingest("CT")
    put("CT/c1")
    if how == "regex":
        report = ingest("CT", subject_regex=r"/(\w)1\.")
    else:
        report = ingest(images={"CT": {name: tmp_path / "CT" / f"{name}1.nii.gz" for name in "abc"}})
    assert statuses(report) == {"a": "failed", "b": "failed", "c": "ingested"}
    assert [item.reason for item in report.failed] == [
        says(tmp_path, "CT/a1", "a1", "a"),
        says(tmp_path, "CT/b1", "b1", "b"),
    ]
    assert shown(tmp_path) == {"CT": [("a1", 1), ("b1", 2), ("c", 3)]}


def test_a_file_is_known_through_a_linked_folder_and_from_both_files_of_a_pair(
    tmp_path: Path, write_image: Write, ingest: Ingest
) -> None:
    write_image(tmp_path / "CT" / "a.img", np.ones((3, 4, 5), np.int16))
    (tmp_path / "link").symlink_to(tmp_path / "CT")
    ingest("CT")
    report = ingest(images={"CT": {"x": tmp_path / "link" / "a.img"}})
    assert report.failed[0].reason.startswith(
        f"{tmp_path}/link/a.img is in the store already, as subject 'a' in collection 'CT'; now it would come in a second time"
    )
    assert statuses(ingest(images={"CT": {"a": tmp_path / "link" / "a.img"}})) == {"a": "skipped"}


def test_one_file_may_be_two_subjects_when_the_user_says_so_each_time(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/template")
    images = {"CT": dict.fromkeys(("a", "b"), tmp_path / "CT/template.nii.gz")}
    assert ingest(images=images).ok
    assert statuses(ingest(images=images)) == {"a": "skipped", "b": "skipped"}
    images["CT"]["c"] = tmp_path / "CT/template.nii.gz"
    assert statuses(ingest(images=images)) == {"a": "skipped", "b": "skipped", "c": "ingested"}


# The same bytes under another id


def test_a_renamed_file_is_not_a_new_patient(
    tmp_path: Path, put: Put, ingest: Ingest, arrays: Callable[[Any], set[str]]
) -> None:
    put("CT/a", "CT/b", "seg/a", "seg/b")
    ingest("CT", "seg")
    before = arrays(tmp_path / "store")
    for name in ("CT", "seg"):
        (tmp_path / name / "a.nii.gz").rename(tmp_path / name / "patient-a.nii.gz")
    put("CT/c", "seg/c")
    report = ingest("CT", "seg")
    assert statuses(report) == {"b": "skipped", "c": "ingested", "patient-a": "failed"}
    assert report.failed[0].reason == (
        f"{tmp_path}/CT/patient-a.nii.gz is byte for byte the file that the store has as subject 'a' in collection 'CT'; that one was "
        f"{tmp_path}/CT/a.nii.gz, which is gone, so this would be the same patient a second time, as 'patient-a'; give it the id that it "
        "has, with subject_regex (--subject-regex) or a mapping from subject id to path; a mapping also tells that it is another patient"
    )
    assert len(arrays(tmp_path / "store") - before) == 2  # those of c
    assert [subject for subject, _ in shown(tmp_path)["CT"]] == ["a", "b", "c"]
    # the ways on that the message names
    again = {name: {"a": tmp_path / name / "patient-a.nii.gz"} for name in ("CT", "seg")}
    assert statuses(ingest(images=again)) == {"a": "skipped"}
    other = {name: {"z": tmp_path / name / "patient-a.nii.gz"} for name in ("CT", "seg")}
    report = ingest(images=other)
    assert (statuses(report), len(report.items[0].notes)) == ({"z": "ingested"}, 1)


def test_a_cohort_that_moved_keeps_its_ids(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/a", "CT/b")
    ingest("CT")
    (tmp_path / "CT").rename(tmp_path / "moved")
    assert statuses(ingest(images={"CT": tmp_path / "moved"})) == {"a": "skipped", "b": "skipped"}


def test_empty_masks_are_the_same_for_many_patients(tmp_path: Path, write_image: Write, ingest: Ingest) -> None:
    for number, name in enumerate("abcd"):
        write_image(tmp_path / "CT" / f"{name}.nii.gz", np.full((3, 4, 5), number, np.int16))
        write_image(tmp_path / "seg" / f"{name}.nii.gz", np.zeros((3, 4, 5), np.uint8))
    first = {name: {s: tmp_path / name / f"{s}.nii.gz" for s in "ab"} for name in ("CT", "seg")}
    assert ingest(images=first).ok
    # also when the first ones' files are gone, as long as the images tell the patients apart
    for name in ("CT", "seg"):
        (tmp_path / name / "a.nii.gz").unlink()
    report = ingest("CT", "seg")
    assert (report.ok, [item.notes for item in report.items]) == (True, [(), (), ()])
    assert rl.open(tmp_path / "store").seg.obs_subject_ids == ["a", "b", "c", "d"]


def test_masks_alone_go_in_while_the_others_are_there(tmp_path: Path, write_image: Write, ingest: Ingest) -> None:
    for name in "ab":
        write_image(tmp_path / "seg" / f"{name}.nii.gz", np.zeros((3, 4, 5), np.uint8))
    assert ingest("seg").ok
    write_image(tmp_path / "seg" / "c.nii.gz", np.zeros((3, 4, 5), np.uint8))
    report = ingest("seg")
    assert (statuses(report), report.items[-1].notes) == ({"a": "skipped", "b": "skipped", "c": "ingested"}, ())


def test_a_copy_of_an_image_goes_in_with_a_note(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/a")
    ingest("CT")
    shutil.copy(tmp_path / "CT" / "a.nii.gz", tmp_path / "CT" / "b.nii.gz")
    report = ingest("CT")
    assert statuses(report) == {"a": "skipped", "b": "ingested"}
    assert report.items[1].notes == (
        f"{tmp_path}/CT/b.nii.gz is byte for byte the file that the store has as subject 'a' in collection 'CT'; both are kept, as two "
        "subjects",
    )
    assert ingest("CT").items[1].notes == ()


def test_strict_stops_at_a_file_that_is_there_under_another_id(tmp_path: Path, put: Put, ingest: Ingest) -> None:
    put("CT/a1")
    ingest("CT")
    with pytest.raises(rl.errors.IngestError) as caught:
        ingest("CT", subject_regex=r"/(\w)1\.", strict=True)
    assert str(caught.value) == (
        f"stopped at the first failure (strict): subject 'a': {says(tmp_path, 'CT/a1', 'a1', 'a')}"
    )
