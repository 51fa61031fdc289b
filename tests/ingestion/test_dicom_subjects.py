"""Whose volume it is: subject ids of DICOM files."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import CatalogError, ConfigError
from radioloader.formats.dicom.frames import SeriesFacts
from radioloader.ingestion.dicom_subject import SubjectRule
from radioloader.ingestion.identity import Pseudonyms
from tests.formats.dicom.make import uid
from tests.ingestion.dicom_files import AFFINE, same, series, stored, subject_of, voxels

Write = Callable[..., Path]
KEY = "5f1c9e02ab77d3405f1c9e02ab77d340"
A, B = subject_of("study of P1"), subject_of("study of P2")


def ingest(root: Path, **options: Any) -> rl.IngestReport:
    return rl.ingest(root / "store", {"CT": root / "dicom"}, workers=1, **options)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Patients P1 and P2, in folders site/who."""
    series(tmp_path / "dicom" / "north" / "anna", 0)
    series(tmp_path / "dicom" / "south" / "berta", 1, who="P2")
    return tmp_path


def test_by_default_a_hash_of_the_first_study(two: Path) -> None:
    series(two / "dicom", 2, study="another study")
    first = min(uid("study", "another study"), uid("study", "study of P1"))
    subject = f"sub-{hashlib.sha256(str(first).encode()).hexdigest()[:12]}"
    report = ingest(two)
    assert {item.subject for item in report.ingested} == {subject, B}
    assert any("a hash of the UID of each patient's first study" in note for note in report.notes)


@pytest.mark.parametrize(
    ("subject", "ids"),
    [
        ("PatientID", ("P1", "P2")),
        ("patientid", ("P1", "P2")),
        ("folder:1", ("north", "south")),
        ("folder:2", ("anna", "berta")),
        ({"P1": "one", "P2": "two"}, ("one", "two")),
    ],
)
def test_ids_that_a_user_chooses(subject: Any, ids: tuple[str, str], two: Path) -> None:
    report = ingest(two, subject=subject)
    assert report.ok
    assert same(stored(two / "store", "CT"), {f"{ids[0]}_CT": voxels(0), f"{ids[1]}_CT": voxels(1)})


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_mapping_file(ending: str, two: Path) -> None:
    comma = "," if ending == "csv" else "\t"
    rows = [("PatientID", "age", "obs_subject_id"), ("P1", "3", "007"), ("P2", "4", "x y"), ("P3", "5", "z")]
    (two / f"map.{ending}").write_text("\n".join(comma.join(row) for row in rows) + "\n")
    report = ingest(two, subject=two / f"map.{ending}")
    assert [item.subject for item in report.ingested] == ["007", "x y"]
    assert "subject ids of DICOM files come from the mapping" in report.notes


def test_who_is_not_in_the_mapping_is_told_of_without_the_patient_id(two: Path) -> None:
    report = ingest(two, subject={"P1": "one"})
    assert [item.subject for item in report.ingested] == ["one"]
    (failed,) = report.failed
    assert failed.reason == f"{two}/dicom/south/berta: the mapping (subject) does not hold its PatientID"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("subject_id\nx\n", CatalogError, "expected PatientID and obs_subject_id"),
        ("PatientID,subject\nP1,a\nP1,b\n", CatalogError, "gives one PatientID two subject ids, 'a' and 'b'"),
    ],
)
def test_mapping_files_that_cannot_be_used(text: str, error: type[Exception], message: str, two: Path) -> None:
    (two / "map.csv").write_text(text)
    with pytest.raises(error, match=message):
        ingest(two, subject=two / "map.csv")
    assert not (two / "store").exists()


@pytest.mark.parametrize("subject", ["folder", "folder:0", "folder:-1", "name", "map.txt", "none.csv"])
def test_rules_that_are_none(subject: str, two: Path) -> None:
    with pytest.raises(ConfigError, match="subject='"):
        ingest(two, subject=subject)
    assert not (two / "store").exists()


def test_a_folder_level_that_is_not_there_fails_that_series(two: Path) -> None:
    series(two / "dicom", 2, who="P3")
    report = ingest(two, subject="folder:2")
    assert [item.subject for item in report.ingested] == ["anna", "berta"]
    assert f"it lies less than 2 folders below {two}/dicom" in report.failed[0].reason
    files = sorted((two / "dicom" / "north" / "anna").iterdir())
    report = rl.ingest(two / "other", {"CT": files}, subject="folder:1", workers=1)
    assert "it was given as a file" in report.failed[0].reason


def test_folder_names_are_compared_in_composed_form(tmp_path: Path, write_image: Write) -> None:
    name = "Müller"
    series(tmp_path / "dicom" / unicodedata.normalize("NFD", name), 0)
    write_image(tmp_path / "labels" / f"{name}.nii.gz", (voxels(0) > 0).astype(np.uint8), AFFINE)
    report = rl.ingest(
        tmp_path / "store", {"CT": tmp_path / "dicom", "seg": tmp_path / "labels"}, subject="folder:1", workers=1
    )
    assert [item.subject for item in report.ingested] == [name], str(report)


def test_a_mapping_from_subject_to_folder_wins_over_all(two: Path) -> None:
    root = two / "dicom"
    report = rl.ingest(
        two / "store",
        {"CT": {"x": root / "north", "y": root / "south" / "berta"}},
        subject="PatientID",
        workers=1,
    )
    assert report.ok
    assert same(stored(two / "store", "CT"), {"x_CT": voxels(0), "y_CT": voxels(1)})
    assert not any("subject ids of DICOM" in note for note in report.notes)


def test_subjects_of_a_mapping_without_files_cost_themselves(two: Path) -> None:
    root = two / "dicom"
    series(root / "mr", 2, modality="MR", who="P3")
    (root / "empty").mkdir()
    folders = {"x": root / "north", "y": root / "nowhere", "z": root / "empty", "w": root / "mr"}
    report = rl.ingest(two / "store", {"CT": folders}, workers=1)
    assert [item.subject for item in report.ingested] == ["x"]
    reasons = {item.subject: item.reason for item in report.failed}
    assert reasons == {
        "y": f"collection 'CT': {root}/nowhere does not exist",
        "z": f"collection 'CT': {root}/empty holds no volume of modality CT; it holds no image series",
        "w": f"collection 'CT': {root}/mr holds no volume of modality CT; it holds MR (1)",
    }


def test_mappings_of_both_formats_are_refused(two: Path, write_image: Write) -> None:
    image = write_image(two / "b.nii.gz", voxels(1), AFFINE)
    with pytest.raises(ConfigError, match=r"b\.nii\.gz of subject 'b' is no DICOM, but those of others are, such as"):
        rl.ingest(two / "store", {"CT": {"a": two / "dicom" / "north", "b": image}}, workers=1)


def test_images_from_dicom_and_labels_from_nifti(two: Path, write_image: Write) -> None:
    mask = (voxels(0) > 500).astype(np.uint8)
    for name in ("anna", "berta"):
        write_image(two / "labels" / f"{name}.nii.gz", mask, AFFINE)
    sources = {"CT": two / "dicom", "seg": two / "labels"}
    with pytest.raises(ConfigError, match=r"no subject has a file in every collection.*ids of DICOM files: subject="):
        rl.ingest(two / "store", sources, workers=1)
    by_hand = {"P1": "anna", "P2": "berta"}
    for number, subject in enumerate(["folder:2", by_hand]):
        report = rl.ingest(two / f"store{number}", sources, subject=subject, workers=1)
        assert report.ok, str(report)
        assert same(stored(two / f"store{number}", "seg"), {"anna_seg": mask, "berta_seg": mask})
        assert [volume.obs_subject_id for volume in rl.open(two / f"store{number}").CT] == ["anna", "berta"]


def test_pseudonyms_are_keyed_hashes_and_the_same_in_every_run(two: Path) -> None:
    (two / "key").write_text(KEY + "\n")
    wanted = [
        hmac.new(KEY.encode(), b"subject\0" + who + b"\0", hashlib.sha256).hexdigest()[:16] for who in (b"P1", b"P2")
    ]
    report = ingest(two, pseudonymize=two / "key")
    assert same(stored(two / "store", "CT"), {f"{wanted[0]}_CT": voxels(0), f"{wanted[1]}_CT": voxels(1)})
    assert "subject ids of DICOM files come from keyed hash of PatientID" in report.notes
    assert all(item.status == "skipped" for item in ingest(two, pseudonymize=two / "key").items)
    # Another study of one of them, alone, in a store of its own
    series(two / "later", 5, study="later")
    later = rl.ingest(two / "other", {"CT": two / "later"}, pseudonymize=two / "key", workers=1)
    assert [item.subject for item in later.ingested] == [wanted[0]]
    (two / "key2").write_text(KEY[::-1])
    other = rl.ingest(two / "third", {"CT": two / "dicom"}, pseudonymize=two / "key2", workers=1)
    assert not {item.subject for item in other.ingested} & set(wanted)


def test_pseudonyms_of_folders_and_of_a_mapping(two: Path) -> None:
    (two / "key").write_text(KEY)
    folder = hmac.new(KEY.encode(), b"subject\0anna", hashlib.sha256).hexdigest()[:16]
    report = ingest(two, pseudonymize=two / "key", subject="folder:2")
    assert folder in {item.subject for item in report.ingested}
    report = rl.ingest(
        two / "other", {"CT": two / "dicom"}, pseudonymize=two / "key", subject={"P1": "a", "P2": "b"}, workers=1
    )
    assert [item.subject for item in report.ingested] == ["a", "b"]
    volume = rl.open(two / "other").CT.loc["a"]
    assert volume.dicom.pseudonymized
    assert volume.dicom.grid.study == Pseudonyms(KEY.encode()).uid(uid("study", "study of P1"))


@pytest.mark.parametrize(
    ("content", "message"), [(b"short", "holds 5 bytes; a key has at least 16"), (None, "cannot be read")]
)
def test_keys_that_are_none(content: bytes | None, message: str, two: Path) -> None:
    if content is not None:
        (two / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"pseudonymize='.*key' {message}"):
        ingest(two, pseudonymize=two / "key")
    assert not (two / "store").exists()


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(SubjectRule.parse(None, Pseudonyms(KEY.encode())))


@pytest.mark.parametrize("option", ["pseudonymize", "subject", "keep_tags"])
def test_options_for_dicom_are_not_ignored_where_there_is_none(option: str, tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "nifti" / "a.nii.gz", voxels(0), AFFINE)
    (tmp_path / "key").write_text(KEY)
    value: Any = {"pseudonymize": tmp_path / "key", "subject": "PatientID", "keep_tags": ["KVP"]}[option]
    with pytest.raises(ConfigError, match=rf"{option} \(--.*\) is for DICOM files, and none of the collections 'CT'"):
        rl.ingest(tmp_path / "store", {"CT": tmp_path / "nifti"}, workers=1, **{option: value})
    assert not (tmp_path / "store").exists()


def test_nifti_beside_pseudonymised_dicom_is_told_of(two: Path, write_image: Write) -> None:
    (two / "key").write_text(KEY)
    write_image(two / "labels" / "a.nii.gz", (voxels(0) > 0).astype(np.uint8), AFFINE)
    report = rl.ingest(
        two / "store",
        {"CT": {"a": two / "dicom" / "north"}, "seg": {"a": two / "labels" / "a.nii.gz"}},
        pseudonymize=two / "key",
        workers=1,
    )
    assert report.ok
    assert any("pseudonymize does not change the collections seg" in note for note in report.notes)


def facts(patient: str, study: str, number: int, issuer: str = "") -> SeriesFacts:
    return SeriesFacts((patient, issuer), study, f"1.2.{number}", "CT", None, "", {})


def test_files_without_a_study_or_a_patient_are_not_one_subject() -> None:
    rule = SubjectRule("study")
    groups = rule.groups([facts("", "", 1), facts("", "", 2), facts("P", "", 3), facts("Q", "", 4)])
    assert len(groups) == len(set(groups.values())) == 4
    groups = rule.groups([facts("", "1.5", 1), facts("", "1.5", 2), facts("P", "1.6", 3), facts("P", "1.7", 4)])
    assert len(set(groups.values())) == 2
    assert len(rule.groups([facts("P", "1.5", 1, "north"), facts("P", "1.6", 2, "south")])) == 2


@pytest.mark.parametrize("kind", ["patient", "mapping"])
def test_no_patient_id_no_subject(kind: str, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0, who="")
    series(tmp_path / "dicom" / "b", 1)
    rule: Any = {"patient": "PatientID", "mapping": {"P1": "P1"}}[kind]
    report = ingest(tmp_path, subject=rule)
    assert [item.subject for item in report.ingested] == ["P1"]
    assert report.failed[0].reason.startswith(f"{tmp_path}/dicom/a: it has no PatientID; use subject='folder:N'")


def test_one_placeholder_for_everybody_is_told_of(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0, who="ANON", study="one")
    series(tmp_path / "dicom" / "b", 1, who="ANON", study="two")
    assert any("all studies have one PatientID" in note for note in ingest(tmp_path).notes)
