"""Who is one patient and who is not, in files that say it badly; and what a store has of them."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from tests.formats.dicom.make import uid
from tests.ingestion.dicom_files import grid_of, same, series, stored, subject_of, voxels
from tests.ingestion.test_dicom_labels import BOX, mask_of, write_seg

KEY = "5f1c9e02ab77d3405f1c9e02ab77d340"


def ingest(root: Path, folder: str = "dicom", images: tuple[str, ...] = ("CT",), **options: Any) -> rl.IngestReport:
    sources = dict.fromkeys(images, root / folder)
    return rl.ingest(root / "store", sources, allow_missing=True, workers=1, **options)


def subjects(root: Path) -> list[str]:
    return list(rl.open(root / "store").obs_subject_ids)


def hashed(*parts: str) -> str:
    return f"sub-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def pseudonym(who: str, issuer: str = "") -> str:
    return hmac.new(KEY.encode(), f"subject\0{who}\0{issuer}".encode(), hashlib.sha256).hexdigest()[:16]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(KEY)
    return tmp_path / "key"


def test_two_patients_of_one_study_are_two_subjects(tmp_path: Path) -> None:
    for number, who in enumerate(("P1", "P2")):
        series(tmp_path / "dicom" / who, number, who=who, study="constant")
    study = str(uid("study", "constant"))
    ids = [hashed(study, grid_of(tmp_path / "dicom" / who).series) for who in ("P1", "P2")]
    assert ingest(tmp_path).ok
    assert same(stored(tmp_path / "store", "CT"), {f"{ids[0]}_CT": voxels(0), f"{ids[1]}_CT": voxels(1)})
    # Another series of one of them, whose UID sorts before: the ids stay.
    for number in range(2, 5):
        series(tmp_path / "dicom" / "P1", number, study="constant")
    report = ingest(tmp_path)
    assert report.ok
    assert {item.subject: item.status for item in report.items} == {ids[0]: "ingested", ids[1]: "skipped"}
    assert len(rl.open(tmp_path / "store").CT) == 5


def test_files_without_a_patient_stay_with_their_study(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0, who="P1")
    series(tmp_path / "dicom" / "b", 1, who="", study="study of P1")
    assert ingest(tmp_path).ok
    assert subjects(tmp_path) == [subject_of("study of P1")]


def of_two_hospitals(root: Path) -> None:
    for number, issuer in enumerate(("HOSP-A", "HOSP-B")):
        patient = {"IssuerOfPatientID": issuer}
        series(root / "dicom" / issuer, number, who="1234", study=issuer, patient=patient)


def test_one_patient_id_of_two_hospitals_is_no_subject_id(tmp_path: Path) -> None:
    of_two_hospitals(tmp_path)
    series(tmp_path / "dicom" / "other", 3, who="P3", patient={"IssuerOfPatientID": "HOSP-A"})
    report = ingest(tmp_path, subject="PatientID")
    assert subjects(tmp_path) == ["P3"]
    reasons = sorted(item.reason for item in report.failed)
    assert len(reasons) == 2
    for reason, issuer in zip(reasons, ("HOSP-A", "HOSP-B"), strict=True):
        assert reason.startswith(
            f"{tmp_path}/dicom/{issuer}: its PatientID was given by several issuers (IssuerOfPatientID)"
        )
        assert "1234" not in reason


def test_two_hospitals_are_told_apart_with_a_key(tmp_path: Path, key: Path) -> None:
    of_two_hospitals(tmp_path)
    assert ingest(tmp_path, pseudonymize=key).ok
    assert subjects(tmp_path) == sorted([pseudonym("1234", "HOSP-A"), pseudonym("1234", "HOSP-B")])


def test_by_hand_they_may_be_one_and_that_is_told_of(tmp_path: Path) -> None:
    of_two_hospitals(tmp_path)
    report = ingest(tmp_path, subject={"1234": "x"})
    assert report.ok
    assert subjects(tmp_path) == ["x"]
    assert any(
        note.startswith("1 subjects hold files of several patients (PatientID and its issuer): 'x'")
        for note in report.notes
    )


@pytest.mark.parametrize("rule", ["folder", "mapping"])
def test_two_patients_in_one_folder_are_told_of(rule: str, tmp_path: Path) -> None:
    for number, who in enumerate(("P1", "P2")):
        series(tmp_path / "dicom" / "p1", number, who=who)
    if rule == "folder":
        report = ingest(tmp_path, subject="folder:1")
    else:
        report = rl.ingest(tmp_path / "store", {"CT": {"p1": tmp_path / "dicom" / "p1"}}, workers=1)
    assert subjects(tmp_path) == ["p1"]
    assert any("1 subjects hold files of several patients (PatientID and its issuer): 'p1'" in n for n in report.notes)
    assert "P2" not in str(report.notes)


@pytest.mark.parametrize("rule", [None, "PatientID", "key"])
def test_an_issuer_that_one_export_left_out_makes_no_second_patient(
    rule: str | None, tmp_path: Path, key: Path
) -> None:
    options: dict[str, Any] = {"pseudonymize": key} if rule == "key" else {"subject": rule}
    series(tmp_path / "dicom" / "ct", 0, study="one", patient={"IssuerOfPatientID": "H"})
    series(tmp_path / "dicom" / "mr", 1, study="two", modality="MR")
    assert ingest(tmp_path, images=("CT", "MR"), **options).ok
    first = min("one", "two", key=lambda study: uid("study", study))
    assert subjects(tmp_path) == [{None: subject_of(first), "PatientID": "P1", "key": pseudonym("P1", "H")}[rule]]
    # Each of them alone is still the same one.
    for folder, name in (("mr", "MR"), ("ct", "CT")):
        report = ingest(tmp_path, f"dicom/{folder}", (name,), **options)
        assert [item.status for item in report.items] == ["skipped"], str(report)


@pytest.mark.parametrize("issuer_first", [True, False])
def test_a_pseudonym_of_the_store_stays_when_the_issuer_comes_or_goes(
    issuer_first: bool, tmp_path: Path, key: Path
) -> None:
    issuers = {"IssuerOfPatientID": "H"}, {}
    first, then = issuers if issuer_first else issuers[::-1]
    series(tmp_path / "dicom" / "a", 0, patient=first)
    assert ingest(tmp_path, pseudonymize=key).ok
    series(tmp_path / "dicom" / "b", 1, patient=then)
    assert ingest(tmp_path, pseudonymize=key).ok
    assert subjects(tmp_path) == [pseudonym("P1", "H" if issuer_first else "")]
    assert len(rl.open(tmp_path / "store").CT) == 2


@pytest.mark.parametrize("rule", [None, "PatientID"])
def test_a_series_that_grew_is_still_of_its_patient(rule: str | None, tmp_path: Path) -> None:
    early, late = sorted(("A", "B"), key=lambda study: uid("study", study))
    series(tmp_path / "dicom" / "1", 0, modality="MR", echo=1, study=late)
    assert ingest(tmp_path, images=("MR",)).ok
    series(tmp_path / "dicom" / "1b", 1, series="series 0", modality="MR", echo=2, study=late)
    series(tmp_path / "dicom" / "2", 2, modality="MR", study=early)
    report = ingest(tmp_path, images=("MR",), subject=rule)
    assert subjects(tmp_path) == [subject_of(late)]
    if rule is None:
        assert report.ok, str(report)
    else:
        assert f"is in the store already, as subject {subject_of(late)!r} in collection 'MR'" in report.failed[0].reason


def label_of(root: Path, folder: str) -> Path:
    return write_seg(root / "labels", grid_of(root / folder), {"x": mask_of((BOX, range(2, 5), 1))})


def test_a_label_that_comes_later_goes_to_the_subject_of_its_image(tmp_path: Path) -> None:
    series(tmp_path / "dicom", 0)
    assert ingest(tmp_path).ok
    label_of(tmp_path, "dicom")
    both = [tmp_path / "labels", tmp_path / "dicom"]
    report = rl.ingest(tmp_path / "store", {"roi": both}, labels=["roi"], subject="PatientID", workers=1)
    assert report.ok, str(report)
    subject = subject_of("study of P1")
    assert subjects(tmp_path) == [subject]
    assert same(stored(tmp_path / "store", "roi"), {f"{subject}_roi": mask_of((BOX, range(2, 5), 1))})


@pytest.mark.parametrize("together", [True, False])
def test_a_label_by_hand_for_another_subject_than_its_image_is_refused(together: bool, tmp_path: Path) -> None:
    series(tmp_path / "dicom", 0)
    label = label_of(tmp_path, "dicom")
    images = {"CT": {"x": tmp_path / "dicom"}}
    labels = {"roi": {"y": rl.DicomSource([label, tmp_path / "dicom"])}}
    if not together:
        assert rl.ingest(tmp_path / "store", images, workers=1).ok
    report = rl.ingest(
        tmp_path / "store",
        {**(images if together else {}), **labels},
        labels=["roi"],
        allow_missing=True,
        workers=1,
    )
    assert subjects(tmp_path) == ["x"]
    assert rl.open(tmp_path / "store").collection_names == ["CT"]
    (failed,) = report.failed
    assert (
        f"{'comes in now' if together else 'is in the store'} as subject 'x'; this label would be subject 'y'"
        in failed.reason
    )


@pytest.mark.parametrize(("who", "told"), [("ANON", True), ("Anonymous-01", True), ("0000", True), ("P7", False)])
def test_a_placeholder_beside_other_patients_is_told_of(who: str, told: bool, tmp_path: Path) -> None:
    for number in (0, 1):
        series(tmp_path / "dicom" / str(number), number, who=who, study=f"s{number}")
    series(tmp_path / "dicom" / "other", 2, who="P2")
    notes = ingest(tmp_path).notes
    assert any("2 studies have a PatientID that reads like a placeholder" in note for note in notes) == told
    assert np.all([who not in note for note in notes])
