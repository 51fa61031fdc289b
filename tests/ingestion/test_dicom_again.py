"""DICOM into a store that exists: the same again, what changed, what is new, and other policies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import radioloader as rl
from tests.formats.dicom.make import tilt, uid
from tests.ingestion.dicom_files import AFFINE, same, series, stored, subject_of, voxels

Content = Callable[[Any], dict[str, Any]]
A, B = subject_of("study of P1"), subject_of("study of P2")


def ingest(root: Path, folder: str = "dicom", **options: Any) -> rl.IngestReport:
    return rl.ingest(root / "store", {"CT": root / folder}, workers=1, **options)


def statuses(report: rl.IngestReport) -> dict[str, str]:
    return {item.subject: item.status for item in report.items}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    series(tmp_path / "dicom" / "a", 0)
    series(tmp_path / "dicom" / "b", 1, who="P2")
    assert ingest(tmp_path).ok
    return tmp_path


def test_the_same_again_is_skipped_wherever_the_files_lie(two: Path, content: Content) -> None:
    before = content(two / "store")
    assert statuses(ingest(two)) == {A: "skipped", B: "skipped"}
    # Under other names, in other folders
    for number, file in enumerate(sorted((two / "dicom").rglob("*.dcm"))):
        (two / "moved" / str(number % 3)).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, two / "moved" / str(number % 3) / f"{99 - number}")
    assert statuses(ingest(two, "moved")) == {A: "skipped", B: "skipped"}
    assert content(two / "store") == before


def test_a_file_that_changed_replaces_its_volume(two: Path) -> None:
    file = next(iter(sorted((two / "dicom" / "a").iterdir())))
    dataset = pydicom.dcmread(file)
    place = round((float(dataset.ImagePositionPatient[2]) - 7.0) / 2.5)
    changed = voxels(0)
    changed[:, :, place] = 11
    dataset.PixelData = np.ascontiguousarray(changed[:, :, place].T).tobytes()
    dataset.save_as(file)
    assert statuses(ingest(two)) == {A: "ingested", B: "skipped"}
    assert same(stored(two / "store", "CT"), {f"{A}_CT": changed, f"{B}_CT": voxels(1)})


def test_a_slice_that_comes_later_replaces_the_volume(tmp_path: Path) -> None:
    series(tmp_path / "dicom", 0, voxels=voxels(0)[:, :, :7])
    assert ingest(tmp_path).ok
    assert stored(tmp_path / "store", "CT")[f"{A}_CT"].shape == (24, 20, 7)
    shutil.rmtree(tmp_path / "dicom")
    series(tmp_path / "dicom", 0)
    assert statuses(ingest(tmp_path)) == {A: "ingested"}
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})


@pytest.mark.parametrize("together", [True, False])
def test_a_new_series_of_a_known_subject_comes_beside_the_stored_one(together: bool, two: Path) -> None:
    series(two / ("dicom" if together else "new"), 7)
    report = ingest(two, "dicom" if together else "new")
    assert statuses(report) == ({A: "ingested", B: "skipped"} if together else {A: "ingested"})
    wanted = {f"{A}_CT": voxels(0), f"{A}_CT_s8": voxels(7), f"{B}_CT": voxels(1)}
    assert same(stored(two / "store", "CT"), wanted)
    assert any(f"1 subjects have several volumes in collection 'CT', such as {A!r}" in note for note in report.notes)
    assert set(statuses(ingest(two)).values()) == {"skipped"}
    if not together:
        assert statuses(ingest(two, "new")) == {A: "skipped"}
    assert same(stored(two / "store", "CT"), wanted)


def test_a_known_patient_keeps_the_id_when_studies_come_that_sort_before(tmp_path: Path) -> None:
    names = sorted(("s1", "s2", "s3"), key=lambda name: uid("study", name))
    series(tmp_path / "first", 0, study=names[2])
    subject = subject_of(names[2])
    assert statuses(ingest(tmp_path, "first")) == {subject: "ingested"}
    series(tmp_path / "both", 0, study=names[2])
    series(tmp_path / "both", 1, study=names[0])
    assert statuses(ingest(tmp_path, "both")) == {subject: "ingested"}
    assert same(stored(tmp_path / "store", "CT"), {f"{subject}_CT": voxels(0), f"{subject}_CT_s2": voxels(1)})


def test_a_patient_who_came_in_twice_stays_two_subjects_and_is_told_of(tmp_path: Path, content: Content) -> None:
    for number in (0, 1):
        series(tmp_path / f"dicom{number}", number, study=f"s{number}")
        assert ingest(tmp_path, f"dicom{number}").ok
    subjects = sorted(map(subject_of, ("s0", "s1")))
    before = content(tmp_path / "store")
    report = rl.ingest(tmp_path / "store", {"CT": [tmp_path / "dicom0", tmp_path / "dicom1"]}, workers=1)
    assert statuses(report) == dict.fromkeys(subjects, "skipped")
    assert any(f"the subjects {subjects[0]!r}, {subjects[1]!r} of the store are one patient" in n for n in report.notes)
    assert content(tmp_path / "store") == before
    # What is new of the patient goes to one of them.
    series(tmp_path / "dicom0", 5, study="s0")
    report = rl.ingest(tmp_path / "store", {"CT": [tmp_path / "dicom0", tmp_path / "dicom1"]}, workers=1)
    assert report.ok
    assert len(rl.open(tmp_path / "store").CT) == 3


def test_the_same_series_under_another_subject_is_refused(two: Path, content: Content) -> None:
    before = content(two / "store")
    report = ingest(two, subject="PatientID")
    assert statuses(report) == {"P1": "failed", "P2": "failed"}
    assert f"is in the store already, as subject {A!r} in collection 'CT'" in report.failed[0].reason
    assert "with subject (--subject) as it was given then" in report.failed[0].reason
    assert content(two / "store") == before


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"on_tilt": "resample"}),
        ({}, {"orientation": "RAS"}),
        ({}, {"slice_tolerance_mm": 0.2}),
        ({}, {"keep_tags": ["KVP", "SeriesNumber"]}),
    ],
)
def test_other_policies_ingest_again(first: dict[str, Any], then: dict[str, Any], tmp_path: Path) -> None:
    series(tmp_path / "dicom", 0, affine=tilt(AFFINE, 10.0))
    assert ingest(tmp_path, **first).ok
    assert statuses(ingest(tmp_path, **first)) == {A: "skipped"}
    assert statuses(ingest(tmp_path, **then)) == {A: "ingested"}
    assert statuses(ingest(tmp_path, **then)) == {A: "skipped"}
    volume = rl.open(tmp_path / "store").CT.iloc[0]
    assert volume.geometry.changed == ("resampled" if "on_tilt" in then else "")
    assert volume.axcodes == then.get("orientation", "LPS")
    if "keep_tags" in then:
        assert rl.open(tmp_path / "store").CT.obs.read().SeriesNumber.tolist() == [1.0]


def test_parts_and_the_whole_take_each_others_place(tmp_path: Path) -> None:
    array = series(tmp_path / "dicom", 0, voxels=voxels(0, (24, 20, 12)), drop=(5,))
    kept = np.delete(array, 5, axis=2)
    parts = {f"{A}_CT_part1": array[:, :, :5], f"{A}_CT_part2": array[:, :, 6:]}
    whole = {f"{A}_CT": kept}
    assert ingest(tmp_path, on_irregular="keep").ok
    assert same(stored(tmp_path / "store", "CT"), whole)
    versions = [rl.open(tmp_path / "store").version]
    for options, wanted in (("split", parts), ("keep", whole), ("split", parts)):
        assert statuses(ingest(tmp_path, on_irregular=options)) == {A: "ingested"}
        assert same(stored(tmp_path / "store", "CT"), wanted)
        assert statuses(ingest(tmp_path, on_irregular=options)) == {A: "skipped"}
        versions.append(rl.open(tmp_path / "store").version)
    assert versions == sorted(set(versions))


def test_what_can_no_longer_be_used_stays_as_it_is(two: Path, content: Content) -> None:
    before = content(two / "store")
    for file in (two / "dicom" / "a").iterdir():
        if float(pydicom.dcmread(file).ImagePositionPatient[2]) == 7.0 + 3 * 2.5:
            file.unlink()
    report = ingest(two)
    assert statuses(report) == {A: "failed", B: "skipped"}
    assert "irregular: 1 gap (5 mm after slice 3, expected 2.5 mm)" in report.failed[0].reason
    assert content(two / "store") == before


def test_labels_come_later(two: Path) -> None:
    from tests.formats.dicom.segmentations import frames_of, save, seg_dataset
    from tests.ingestion.dicom_files import grid_of

    grid = grid_of(two / "dicom" / "a")
    mask = voxels(3) > 0
    (two / "labels").mkdir()
    dataset = seg_dataset(grid, frames_of(grid, mask))
    dataset.PatientID = "P1"
    save(dataset, two / "labels" / "seg")
    report = rl.ingest(
        two / "store", {"seg": [two / "labels", two / "dicom"]}, labels=["seg"], workers=1, allow_missing=True
    )
    assert statuses(report) == {A: "ingested"}
    assert same(stored(two / "store", "seg"), {f"{A}_seg": mask.astype(np.uint8)})


def test_echoes_that_come_later_take_the_place_of_the_one(tmp_path: Path) -> None:
    options = {"modality": "MR", "series": "mr"}
    series(tmp_path / "dicom" / "1", 0, echo=1, **options)
    series(tmp_path / "dicom" / "other", 5, who="P2", modality="MR")
    sources = {"MR": tmp_path / "dicom"}
    assert rl.ingest(tmp_path / "store", sources, workers=1).ok
    assert rl.open(tmp_path / "store").collection_names == ["MR"]
    series(tmp_path / "dicom" / "2", 1, echo=2, **options)
    report = rl.ingest(tmp_path / "store", sources, allow_missing=True, workers=1)
    assert statuses(report) == {A: "ingested", B: "skipped"}
    assert same(stored(tmp_path / "store", "MR"), {f"{B}_MR": voxels(5)})
    assert same(stored(tmp_path / "store", "MR_echo1"), {f"{A}_MR_echo1": voxels(0)})
    assert same(stored(tmp_path / "store", "MR_echo2"), {f"{A}_MR_echo2": voxels(1)})
    assert statuses(rl.ingest(tmp_path / "store", sources, workers=1)) == {A: "skipped", B: "skipped"}
    # Files that are not all there take nothing away.
    shutil.rmtree(tmp_path / "dicom" / "2")
    report = rl.ingest(tmp_path / "store", sources, workers=1)
    assert statuses(report) == {A: "failed", B: "skipped"}
    assert report.failed[0].reason == (
        f"{tmp_path}/dicom/1 (8 files): the store has several volumes of this series (MR_echo1, MR_echo2), and these files make one: "
        "give all files of the series, or ingest into a new store"
    )
    assert same(stored(tmp_path / "store", "MR"), {f"{B}_MR": voxels(5)})
    assert same(stored(tmp_path / "store", "MR_echo2"), {f"{A}_MR_echo2": voxels(1)})


def test_echoes_that_are_chosen_one_after_the_other_stay(tmp_path: Path) -> None:
    for echo in (1, 2):
        series(tmp_path / "dicom" / "mr", echo, echo=echo, modality="MR", series="mr")
    for echo in ("echo1", "echo2"):
        source = rl.DicomSource(tmp_path / "dicom", select=lambda item, echo=echo: item.name == echo)
        assert rl.ingest(tmp_path / "store", {"MR": source}, workers=1).ok
    assert same(stored(tmp_path / "store", "MR_echo1"), {f"{A}_MR_echo1": voxels(1)})
    assert same(stored(tmp_path / "store", "MR_echo2"), {f"{A}_MR_echo2": voxels(2)})


def test_a_collection_with_a_name_that_begins_alike_is_left_alone(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "1", 0, echo=1, modality="MR", series="mr")
    for name in ("MR_first", "MR"):
        assert rl.ingest(tmp_path / "store", {name: tmp_path / "dicom"}, workers=1).ok
    series(tmp_path / "dicom" / "2", 1, echo=2, modality="MR", series="mr")
    assert rl.ingest(tmp_path / "store", {"MR": tmp_path / "dicom"}, workers=1).ok
    assert same(stored(tmp_path / "store", "MR_first"), {f"{A}_MR_first": voxels(0)})


def test_nifti_does_not_take_the_place_of_dicom(two: Path, write_image: Callable[..., Path], content: Content) -> None:
    before = content(two / "store")
    file = write_image(two / "nifti" / "x.nii.gz", voxels(9), AFFINE)
    report = rl.ingest(two / "store", {"CT": {A: file}}, workers=1)
    (failed,) = report.failed
    assert failed.reason.startswith(
        f"{file} would take the place of a volume from DICOM files, which the store has as '{A}_CT'; use another collection"
    )
    assert content(two / "store") == before
    assert rl.ingest(two / "store", {"other": {A: file}}, workers=1).ok
