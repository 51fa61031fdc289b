"""BIDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.exporting.bids_names import _SUFFIXES, Person, image_name, label_name, person_of
from radioloader.exporting.headers import repetition_time
from radioloader.ingestion.layouts.recognise import recognise


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_sessions_series_and_labels(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    series = nib.Nifti1Image(image(9, (6, 5, 4, 3)), np.eye(4))
    series.header.set_xyzt_units("mm", "msec")
    series.header["pixdim"][4] = 720.0
    nib.save(series, tmp_path / "bold.nii.gz")
    subjects = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    uri = make_store(
        {
            "acq-highres_T1w": {subject: image(i) for i, subject in enumerate(subjects)},
            "task-rest_bold": {"sub-01_ses-1": tmp_path / "bold.nii.gz"},
            "desc-lesion_mask": {"sub-02_ses-1": label(1)},
            "dseg": {subject: label(1, 2) for subject in subjects},
        },
        labels=["desc-lesion_mask", "dseg"],
        classes={"dseg": {"grey": 1, "white": 2, "brain": [1, 2]}},
        obs_meta=pd.DataFrame({"subject_id": subjects, "sex": ["F", "F", "M"], "weight": [61.5, 63.0, None]}),
    )
    out = tmp_path / "out"
    report = rl.export(uri, out, layout="bids")
    assert files(out) == [
        "README",
        "dataset_description.json",
        "derivatives/radioloader/dataset_description.json",
        "derivatives/radioloader/dseg.tsv",
        "derivatives/radioloader/sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz",
        "derivatives/radioloader/sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz",
        "derivatives/radioloader/sub-02/ses-1/anat/sub-02_ses-1_desc-lesion_mask.nii.gz",
        "derivatives/radioloader/sub-02/ses-1/anat/sub-02_ses-1_dseg.nii.gz",
        "participants.tsv",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-highres_T1w.nii.gz",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.json",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_acq-highres_T1w.nii.gz",
        "sub-01/sub-01_sessions.tsv",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-highres_T1w.nii.gz",
    ]
    description = json.loads((out / "dataset_description.json").read_text())
    assert (description["BIDSVersion"], description["DatasetType"], description["Name"]) == ("1.9.0", "raw", "out")
    assert description["GeneratedBy"][0]["Name"] == "radioloader"
    derived = json.loads((out / "derivatives" / "radioloader" / "dataset_description.json").read_text())
    assert derived["DatasetType"] == "derivative"
    assert json.loads((out / "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.json").read_text()) == {
        "TaskName": "rest",
        "RepetitionTime": 0.72,
    }
    assert (out / "participants.tsv").read_text() == ("participant_id\tsex\tweight\nsub-01\tF\tn/a\nsub-02\tM\tn/a\n")
    assert (out / "sub-01/sub-01_sessions.tsv").read_text() == "session_id\tweight\nses-1\t61.5\nses-2\t63.0\n"
    assert (out / "derivatives/radioloader/dseg.tsv").read_text() == "index\tname\n1\tgrey\n2\twhite\n"
    assert any("1 persons have columns that differ" in note for note in report.notes)
    assert any("brain are regions" in note for note in report.notes)
    again = back(report)
    assert hashes(again) == hashes(uri)
    store = rl.open(again)
    assert {name: store[name].kind for name in store.collection_names} == {
        "acq-highres_T1w": "image",
        "task-rest_bold": "image",
        "desc-lesion_mask": "label",
        "dseg": "label",
    }
    assert store.dseg.classes == {"grey": (1,), "white": (2,)}
    assert store.obs_meta.read()["sex"].tolist() == ["F", "F", "M"]


def test_ids_and_names_that_bids_does_not_have(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    uri = make_store(
        {
            "image": {"hippocampus_001": image(0), "sub-7": image(1), "x/../../y": image(2)},
            "seg": {"sub-7": label(1)},
        },
        classes={"seg": {"tail": 1}},
        obs_meta=pd.DataFrame({"subject_id": ["hippocampus_001", "sub-7"], "age": [3, 4]}),
    )
    with pytest.raises(ConfigError, match=r"'image' is no name of BIDS.*--name image=T1w"):
        rl.export(uri, tmp_path / "out", layout="bids")
    assert not (tmp_path / "out").exists()
    report = rl.export(uri, tmp_path / "out", layout="bids", names={"image": "T1w"})
    assert [path for path in files(tmp_path / "out") if path.endswith(".nii.gz")] == [
        "derivatives/radioloader/sub-7/anat/sub-7_desc-seg_dseg.nii.gz",
        "sub-7/anat/sub-7_T1w.nii.gz",
        "sub-hippocampus001/anat/sub-hippocampus001_T1w.nii.gz",
        "sub-xy/anat/sub-xy_T1w.nii.gz",
    ]
    assert (tmp_path / "out" / "participants.tsv").read_text() == (
        "participant_id\tsource_id\tage\nsub-hippocampus001\thippocampus_001\t3\nsub-7\tn/a\t4\nsub-xy\tx/../../y\tn/a\n"
    )
    assert report.renamed == {"hippocampus_001": "sub-hippocampus001", "x/../../y": "sub-xy"}
    assert any("'seg' is called 'desc-seg_dseg'" in note for note in report.notes)
    again = back(report)
    expected = hashes(uri)
    assert hashes(again) == {
        "T1w": {report.renamed.get(subject, subject): digest for subject, digest in expected["image"].items()},
        "desc-seg_dseg": expected["seg"],
    }
    # The column is there now, and a second export does not need another.
    second = rl.export(again, tmp_path / "second", layout="bids")
    assert second.renamed == {}
    assert rl.open(again).obs_meta.read()["source_id"].isna().tolist() == [True, False, False]
    assert rl.open(again)["desc-seg_dseg"].classes == {"tail": (1,)}


@pytest.mark.parametrize(("one", "other"), [("case_1", "case1"), ("sub-a", "a"), ("sub-A", "sub-a")])
def test_subjects_that_would_be_one(make_store: Any, image: Any, tmp_path: Path, one: str, other: str) -> None:
    uri = make_store({"T1w": {one: image(0), other: image(1)}})
    with pytest.raises(ConfigError, match="would both be 'sub-") as caught:
        rl.export(uri, tmp_path / "out", layout="bids")
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


def test_several_volumes_are_runs(tmp_path: Path) -> None:
    from tests.ingestion.dicom_files import series

    series(tmp_path / "dicom", 0)
    series(tmp_path / "dicom", 1)
    rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1)
    assert len(rl.open(tmp_path / "store").CT) == 2
    report = rl.export(tmp_path / "store", tmp_path / "out", layout="bids", names={"CT": "acq-ct_part-mag_T1w"})
    names = sorted(path.name.partition("_")[2] for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert names == ["acq-ct_run-1_part-mag_T1w.nii.gz", "acq-ct_run-2_part-mag_T1w.nii.gz"]
    assert any("they are runs" in note for note in report.notes)
    with pytest.raises(ConfigError, match="names a run"):
        rl.export(tmp_path / "store", tmp_path / "no", layout="bids", names={"CT": "run-3_T1w"})


def test_a_series_without_times_is_told(make_store: Any, image: Any, tmp_path: Path) -> None:
    series = nib.Nifti1Image(image(0, (6, 5, 4, 3)), np.eye(4))
    series.header["pixdim"][4] = 0.0
    nib.save(series, tmp_path / "bold.nii.gz")
    assert repetition_time(nib.load(tmp_path / "bold.nii.gz").header.binaryblock) is None
    uri = make_store({"task-x_bold": {"sub-1": tmp_path / "bold.nii.gz"}, "dwi": {"sub-1": image(1, (6, 5, 4, 2))}})
    report = rl.export(uri, tmp_path / "out", layout="bids")
    assert json.loads((tmp_path / "out/sub-1/func/sub-1_task-x_bold.json").read_text()) == {"TaskName": "x"}
    assert (tmp_path / "out/sub-1/dwi/sub-1_dwi.nii.gz").is_file()
    assert any("the headers of 1 have none" in note for note in report.notes)
    assert any(".bval, .bvec" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "datatype"),
    [
        ("T1w", "anat"),
        ("acq-highres_run-2_FLAIR", "anat"),
        ("task-rest_bold", "func"),
        ("task-rest_sbref", "func"),
        ("dir-AP_sbref", "dwi"),
        ("dwi", "dwi"),
        ("trc-FDG_pet", "pet"),
        ("asl", "perf"),
    ],
)
def test_names_of_images(name: str, datatype: str) -> None:
    made = image_name("c", name)
    assert (str(made), made.datatype) == (name, datatype)


@pytest.mark.parametrize(
    "name", ["image", "CT", "t1w", "T1w_extra", "acq-a_acq-b_T1w", "ses-1_T1w", "acq-_T1w", "../T1w", "bold", ""]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError, match=r"image collection 'c'.*--name c="):
        image_name("c", name)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("dseg", "dseg"),
        ("desc-brain_mask", "desc-brain_mask"),
        ("seg", "desc-seg_dseg"),
        ("GTV 1/b", "desc-GTV1b_dseg"),
        ("T1w_seg", "desc-T1wseg_dseg"),
    ],
)
def test_names_of_labels(name: str, made: str) -> None:
    assert str(label_name(name)) == made
    assert label_name("task-rest_mask").datatype == "func"


def test_an_ingest_knows_every_name_that_an_export_gives(tmp_path: Path) -> None:
    suffixes = [suffix for suffixes in _SUFFIXES.values() for suffix in suffixes.split()]
    images = [str(image_name("c", f"task-x_{suffix}")) for suffix in [*suffixes, "sbref"]]
    labels = [str(label_name(name)) for name in ("dseg", "desc-brain_mask", "task-x_mask", "seg")]
    for name in images:
        path = tmp_path / "sub-1" / image_name("c", name).datatype / f"sub-1_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in labels:
        path = tmp_path / "sub-1" / label_name(name).datatype / f"sub-1_{name}.nii.gz"
        path.touch()
    plan = recognise(tmp_path, "bids")
    assert (sorted(plan.images), sorted(plan.labels), plan.left_out) == (sorted(images), sorted(labels), [])


def test_names_without_a_letter_are_told_apart() -> None:
    assert str(label_name("肝")) != str(label_name("脾"))
    assert person_of("患者一") != person_of("患者二")
    assert person_of("sub-01_ses-pre") == Person("01", "pre")
    assert person_of("sub-01_run-2") == Person("01run2")
    long = person_of("a" * 500)
    assert len(long.id) < 80
    assert long != person_of("a" * 501)
