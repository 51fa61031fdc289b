"""Tables of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import CatalogError, ConfigError
from radioloader.ingestion.layouts.recognise import recognise
from tests.ingestion.layouts import trees


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in (1, 2, 3):
        trees.write(tmp_path / "d" / f"img{i}.nii.gz", trees.voxels(i))
        trees.write(tmp_path / "d" / f"lab{i}.nii.gz", trees.classes(10 + i))
    return tmp_path / "d"


def test_a_row_for_each_subject(root: Path, tmp_path: Path) -> None:
    (root / "cohort.csv").write_text(
        f"subject_id,T1w,seg,age,site\na,img1.nii.gz,lab1.nii.gz,30,007\nb,./img2.nii.gz,,n/a,008\nc,{root}/img3.nii.gz,lab3.nii.gz,50,009\n"
    )
    plan = recognise(root / "cohort.csv")
    assert plan.layout == "manifest"
    assert plan.why == "it has a row for each subject, and paths of files in 'T1w', 'seg'"
    assert (list(plan.images), list(plan.labels), plan.missing) == (["T1w"], ["seg"], {"seg": ["b"]})
    report = rl.ingest_layout(tmp_path / "store", root / "cohort.csv", workers=1)
    assert report.ok, report
    store = rl.open(tmp_path / "store")
    frame = store.obs_meta.read()
    assert frame["age"].tolist()[::2] == [30, 50]
    assert str(frame["age"].dtype) == "Int64"
    assert frame["site"].tolist() == ["007", "008", "009"]
    np.testing.assert_array_equal(store["T1w"].loc["c"].to_numpy(), trees.voxels(3))
    np.testing.assert_array_equal(store["seg"].loc["a"].to_numpy(), trees.classes(11))


def test_a_row_for_each_volume(root: Path, tmp_path: Path) -> None:
    (root / "cohort.tsv").write_text(
        "participant_id\tmodality\tpath\tage\tquality\n"
        "a\tT1w\timg1.nii.gz\t30\tgood\na\tseg\tlab1.nii.gz\t30\tbad\nb\tT1w\timg2.nii.gz\t40\tgood\n\tT1w\timg3.nii.gz\t1\tgood\n"
    )
    plan = recognise(root / "cohort.tsv")
    assert plan.why == "its column 'path' holds a file in each row, and 'modality' says the collection"
    assert plan.notes == [
        "1 rows have no participant_id and were left out, the first is row 4",
        "the columns 'quality' differ between rows of one subject, and were left out",
    ]
    assert rl.ingest_layout(tmp_path / "store", root / "cohort.tsv", workers=1).ok
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["T1w", "seg"]
    assert store.obs_meta.read().to_dict("records") == [
        {"obs_subject_id": "a", "age": 30},
        {"obs_subject_id": "b", "age": 40},
    ]


def test_files_that_are_not_there_fail_their_subject_alone(root: Path, tmp_path: Path) -> None:
    (root / "cohort.csv").write_text("subject,CT\na,img1.nii.gz\nb,gone.nii.gz\n")
    report = rl.ingest_layout(tmp_path / "store", root / "cohort.csv", workers=1)
    assert [item.subject for item in report.ingested] == ["a"]
    assert report.failed[0].reason == f"{root}/gone.nii.gz: the file gone.nii.gz does not exist"
    assert [(p.status, p.subject) for p in rl.open(tmp_path / "store").problems()] == [("failed", "b")]


def test_two_rows_of_one_volume_fail_their_subject_alone(root: Path, tmp_path: Path) -> None:
    (root / "cohort.csv").write_text("subject,CT\na,img1.nii.gz\na,img2.nii.gz\nb,img3.nii.gz\n")
    report = rl.ingest_layout(tmp_path / "store", root / "cohort.csv", workers=1)
    assert ([item.subject for item in report.failed], [item.subject for item in report.ingested]) == (["a"], ["b"])


def test_volumes_of_4d_files(root: Path, tmp_path: Path) -> None:
    trees.write(root / "both.nii.gz", trees.voxels(5, shape=(*trees.SHAPE, 2)))
    (root / "cohort.csv").write_text(
        "subject,FLAIR,T1w\na,both.nii.gz#0,both.nii.gz#1\nb,both.nii.gz#0,both.nii.gz#2\n"
    )
    report = rl.ingest_layout(tmp_path / "store", root / "cohort.csv", workers=1)
    assert [item.subject for item in report.ingested] == ["a"]
    assert (
        "there is no volume number 2 in it (counted from 0): its shape is (6, 5, 4, 2), so it holds 2"
        in report.failed[0].reason
    )
    volume = rl.open(tmp_path / "store")["T1w"].loc["a"]
    np.testing.assert_array_equal(volume.to_numpy(), trees.voxels(5, shape=(*trees.SHAPE, 2))[..., 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,CT\na,img1.nii.gz\n", "no column holds the subject id; expected one of obs_subject_id, participant_id"),
        ("subject,age\na,3\n", "no column holds paths of NIfTI files"),
        ("subject,CT\n", "no column holds paths of NIfTI files"),
        ("subject,CT\n,img1.nii.gz\n", "no row has both a subject and a path"),
    ],
)
def test_tables_that_say_too_little(root: Path, text: str, message: str) -> None:
    (root / "cohort.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        recognise(root / "cohort.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'"a\n'])
def test_tables_that_are_none(root: Path, content: bytes) -> None:
    (root / "cohort.csv").write_bytes(content)
    with pytest.raises((CatalogError, ConfigError), match="cohort"):
        recognise(root / "cohort.csv")
