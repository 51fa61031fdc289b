"""Whose a label is: it goes to the patient of its image, and to nobody where that is not clear."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from tests.formats.dicom.make import uid
from tests.formats.dicom.structures import on_slice
from tests.ingestion.dicom_files import grid_of, same, series, stored, subject_of, write_rtstruct
from tests.ingestion.test_dicom_labels import BOX, contours, mask_of, write_seg

A, B = subject_of("study of P1"), subject_of("study of P2")
MASK = mask_of((BOX, range(2, 5), 1))


def ingest(root: Path, **options: Any) -> rl.IngestReport:
    return rl.ingest(
        root / "store",
        {"CT": root / "dicom", "roi": root / "dicom"},
        labels=["roi"],
        allow_missing=True,
        workers=1,
        **options,
    )


def draw(root: Path, folder: str, who: str, **tags: Any) -> Path:
    """A structure set of the patient ``who`` that names no images, but the frame of reference of those in a folder."""
    grid = grid_of(root / "dicom" / folder)

    def edit(dataset: Any) -> None:
        del dataset.ReferencedFrameOfReferenceSequence
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    drawn = {"GTV": [on_slice(grid, z, BOX) for z in range(2, 5)]}
    return write_rtstruct(root / "dicom" / f"rs of {folder}", grid, drawn, who=who, edit=edit, name_images=False)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Patients P1 and P2 in one frame of reference, as an anonymiser leaves it."""
    for number, who in enumerate(("P1", "P2")):
        series(tmp_path / "dicom" / who, number, who=who, frame_of_reference="constant")
    return tmp_path


@pytest.mark.parametrize("who", ["P1", "P2"])
def test_a_frame_of_reference_of_several_patients_says_nothing_of_whose_a_label_is(who: str, two: Path) -> None:
    draw(two, who, who)
    report = ingest(two)
    assert report.ok, str(report)
    assert same(stored(two / "store", "roi"), {f"{subject_of(f'study of {who}')}_roi": MASK})


def test_a_label_of_nobody_among_the_images_of_its_frame_is_refused(two: Path) -> None:
    path = draw(two, "P2", "P3", StudyInstanceUID="1.2.99")
    report = ingest(two)
    assert rl.open(two / "store").collection_names == ["CT"]
    (failed,) = report.failed
    assert failed.reason.startswith(
        f"{path}: it names no series, and what has its frame of reference ({two}/dicom/P1 (8 files)) is neither of its patient"
    )
    assert "P3" not in failed.reason


def test_a_label_without_a_patient_goes_by_its_study(two: Path) -> None:
    draw(two, "P2", "")
    assert ingest(two).ok
    assert same(stored(two / "store", "roi"), {f"{B}_roi": MASK})


def test_one_study_of_two_patients_does_not_say_whose_a_label_is(tmp_path: Path) -> None:
    for number, who in enumerate(("P1", "P2")):
        folder = tmp_path / "dicom" / who
        series(folder, number, who=who, study="constant", frame_of_reference="constant")
    path = draw(tmp_path, "P2", "")
    (failed,) = ingest(tmp_path).failed
    assert failed.reason.startswith(
        f"{path}: it fits several volumes ({tmp_path}/dicom/P1 (8 files), {tmp_path}/dicom/P2"
    )


def test_two_studies_of_a_patient_in_one_frame_are_told_apart_or_refused(tmp_path: Path) -> None:
    for number in (0, 1):
        series(tmp_path / "dicom" / f"s{number}", number, study=f"s{number}", frame_of_reference="constant")
    draw(tmp_path, "s1", "P1")
    assert ingest(tmp_path).ok
    (volume,) = rl.open(tmp_path / "store").roi
    assert volume.dicom.grid.series == grid_of(tmp_path / "dicom" / "s1").series
    draw(tmp_path, "s1", "P1", StudyInstanceUID="1.2.99")
    (failed,) = ingest(tmp_path).failed
    assert "it fits several volumes" in failed.reason


def test_a_label_of_another_patient_than_its_series_is_refused(two: Path) -> None:
    path = write_seg(two / "dicom" / "seg", grid_of(two / "dicom" / "P1"), {"x": MASK}, who="P2")
    report = ingest(two)
    (failed,) = report.failed
    assert failed.reason.startswith(
        f"{path}: it says that it is of another patient (PatientID or its issuer) than the images of the series that it refers to, "
        f"{two}/dicom/P1 (8 files)"
    )
    assert rl.open(two / "store").collection_names == ["CT"]
    write_seg(two / "dicom" / "seg", grid_of(two / "dicom" / "P1"), {"x": MASK}, who="")
    assert ingest(two).ok
    assert same(stored(two / "store", "roi"), {f"{A}_roi": MASK})


def test_reasons_hold_no_uid_of_a_pseudonymised_store(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("5f1c9e02ab77d3405f1c9e02ab77d340")
    series(tmp_path / "dicom" / "ct", 0)
    series(tmp_path / "gone", 1)
    write_seg(tmp_path / "dicom" / "seg", grid_of(tmp_path / "gone"), {"x": MASK})
    report = ingest(tmp_path, pseudonymize=tmp_path / "key")
    (failed,) = report.failed
    assert "it refers to a series of which there is no usable volume among the files" in failed.reason
    assert grid_of(tmp_path / "gone").series not in str(report)


@pytest.mark.parametrize("what", ["slices", "places"])
def test_a_label_is_made_anew_when_its_image_changed_under_the_same_affine(what: str, tmp_path: Path) -> None:
    places = [0, 1, 2, 3.2, 4, 5, 6, 7]
    step = np.array([0, 0, 2.5])

    def write(middle: float, sop: str) -> None:
        positions = [np.array([-31.5, 12.25, 7.0]) + step * place for place in [*places[:4], middle, *places[5:]]]

        def move(dataset: Any, k: int) -> None:
            dataset.ImagePositionPatient = positions[k].tolist()
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(sop, k)

        shutil.rmtree(tmp_path / "dicom" / "ct", ignore_errors=True)
        series(tmp_path / "dicom" / "ct", 0, extra=move)

    write(4, "first")
    grid = grid_of(tmp_path / "dicom" / "ct")
    write_rtstruct(tmp_path / "dicom" / "rs", grid, {"x": contours(grid, BOX, range(3))}, name_images=False)
    options = {"on_irregular": "keep"}
    report = ingest(tmp_path, **options)
    assert report.ok, str(report)
    before = rl.open(tmp_path / "store").roi.obs.read()
    write(*((4, "second") if what == "slices" else (4.3, "first")))
    report = ingest(tmp_path, **options)
    assert report.ok, str(report)
    after = rl.open(tmp_path / "store").roi.obs.read()
    assert before.source_hash.tolist() != after.source_hash.tolist()
    assert (
        rl.open(tmp_path / "store").roi.iloc[0].dicom.grid.slices
        == rl.open(tmp_path / "store").CT.iloc[0].dicom.grid.slices
    )
