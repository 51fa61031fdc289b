"""Which series become volumes of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from tests.formats.dicom.make import write_localizer
from tests.ingestion.dicom_files import series, subject_of, voxels

A = subject_of("study of P1")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study of one patient: two CT, two MR and a PET."""
    root = tmp_path_factory.mktemp("study")
    series(root, 0, description="Thorax 5.0 B30f")
    series(root, 1, description="Thorax 1.0 B70f")
    series(root, 2, modality="MR", description="t1_mprage_SAG")
    series(root, 3, modality="MR", description="T2 FLAIR [1mm]")
    series(root, 4, modality="PT", description="PET WB")
    return root


def chosen(
    root: Path, tmp_path: Path, images: dict[str, Any], **options: Any
) -> tuple[dict[str, int], rl.IngestReport]:
    """obs_id without the subject, and the seed of its voxels."""
    report = rl.ingest(tmp_path / "store", images, workers=1, **options)
    seeds = {voxels(seed).tobytes(): seed for seed in range(9)}
    store = rl.open(tmp_path / "store")
    return {
        volume.obs_id.removeprefix(f"{A}_"): seeds[volume.to_numpy().tobytes()]
        for name in store.collection_names
        for volume in store[name]
    }, report


@pytest.mark.parametrize(
    ("name", "choice", "wanted"),
    [
        ("CT", {}, {"CT_s1": 0, "CT_s2": 1}),
        ("ct", {}, {"ct_s1": 0, "ct_s2": 1}),
        ("MR", {}, {"MR_s3": 2, "MR_s4": 3}),
        ("MRI", {}, {"MRI_s3": 2, "MRI_s4": 3}),
        ("PT", {}, {"PT": 4}),
        ("PET", {}, {"PET": 4}),
        ("image", {"modality": "pet"}, {"image": 4}),
        ("image", {"modality": ["CT", "PT"]}, {"image_s1": 0, "image_s2": 1, "image_s5": 4}),
        ("CT", {"modality": "PT"}, {"CT": 4}),  # what is said counts, not the name
        ("image", {"description": "*t1*"}, {"image": 2}),
        ("image", {"description": "*T1*"}, {"image": 2}),
        ("CT", {"description": "Thorax 5.0*"}, {"CT": 0}),
        ("CT", {"description": ["*B30?", "*b70f"]}, {"CT_s1": 0, "CT_s2": 1}),
        ("MR", {"description": "T2 FLAIR [[]1mm]"}, {"MR": 3}),
        ("CT", {"select": lambda item: item.number == 2}, {"CT": 1}),
        ("image", {"select": lambda item: item.modality == "MR" and "mprage" in item.description}, {"image": 2}),
        ("image", {"select": lambda item: item.tags["Modality"] == "PT"}, {"image": 4}),
        ("CT", {"description": "*Thorax*", "select": lambda item: "1.0" in item.description}, {"CT": 1}),
    ],
)
def test_choices(name: str, choice: dict[str, Any], wanted: dict[str, int], study: Path, tmp_path: Path) -> None:
    found, report = chosen(study, tmp_path, {name: rl.DicomSource(study, **choice)})
    assert found == wanted
    assert report.ok
    assert any("have several volumes" in note for note in report.notes) == (len(wanted) > 1)


def test_what_a_function_is_shown(study: Path, tmp_path: Path) -> None:
    shown: list[Any] = []
    chosen(study, tmp_path, {"CT": rl.DicomSource(study, select=lambda item: shown.append(item) or item.number == 1)})
    assert [item.number for item in sorted(shown, key=lambda item: item.number)] == [1, 2]  # of the modality only
    item = shown[0]
    assert (item.what, item.modality, item.files, item.shape, item.axcodes) == ("image", "CT", 8, (24, 20, 8), "LPS")
    assert item.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert (item.verdict, item.problem, item.patient_id) == ("regular", "", "P1")
    assert item.folder == str(study)
    assert "P1" not in repr(item)


def test_several_modalities_in_one_collection_are_told_of(study: Path, tmp_path: Path) -> None:
    found, report = chosen(study, tmp_path, {"image": study})
    assert len(found) == 5
    assert any("takes volumes of several modalities (CT, MR, PT); choose with" in note for note in report.notes)


def test_collections_from_one_folder(study: Path, tmp_path: Path) -> None:
    found, _ = chosen(
        study,
        tmp_path,
        {"T1w": rl.DicomSource(study, description="t1*"), "flair": rl.DicomSource(study, description="*flair*")},
    )
    assert found == {"T1w": 2, "flair": 3}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"modality": "US"},
            r"collection 'CT': .* holds no volume of modality US; it holds CT \(2\), MR \(2\), PT \(1\)",
        ),
        ({"description": "none"}, "holds no volume of modality CT that its selection takes; it holds CT"),
        ({"select": 3}, "collection 'CT': select=3 is not a function"),
        ({"on_overlap": "last"}, "on_overlap='last' is not 'error' or 'separate'"),
        ({"on_overlap": "separate"}, "on_overlap='separate' makes a collection for each class"),
        ({"structures": {"a": 0}}, "structures maps 'a' to 0; expected a pattern and a class from 1 to 65535"),
        ({"structures": {"a": True}}, "structures maps 'a' to True"),
        ({"structures": {1: 1}}, "structures maps 1 to 1"),
    ],
)
def test_choices_that_are_none(source: dict[str, Any], message: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        rl.ingest(tmp_path / "store", {"CT": rl.DicomSource(study, **source)}, workers=1)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("where", ["nowhere", []])
def test_places_that_are_none(where: Any, tmp_path: Path) -> None:
    source = rl.DicomSource([] if where == [] else tmp_path / where)
    with pytest.raises(ConfigError, match=r"nowhere does not exist|the list of DICOM folders is empty"):
        rl.ingest(tmp_path / "store", {"CT": source}, workers=1)


def test_localizers_are_left_out_where_there_is_something_else(tmp_path: Path) -> None:
    root = tmp_path / "dicom"
    series(root, 2, modality="MR", patient={"PatientID": "PID-604417"}, study="study")
    write_localizer(root)
    # One that is no volume at all: two planes of uneven distance
    series(
        root,
        5,
        modality="MR",
        study="study",
        patient={"PatientID": "PID-604417"},
        drop=(1, 3, 4),
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    report = rl.ingest(tmp_path / "store", {"MR": root}, workers=1)
    assert report.ok, str(report)
    assert any(note.startswith("4 localizers were left out of collection 'MR'") for note in report.notes)
    assert [volume.shape for volume in rl.open(tmp_path / "store").MR] == [(24, 20, 8)]
    scouts = rl.DicomSource(
        root, select=lambda item: "LOCALIZER" in item.tags["ImageType"] and item.shape == (40, 36, 1)
    )
    report = rl.ingest(tmp_path / "scouts", {"MR": scouts}, workers=1)
    assert report.ok, str(report)
    assert rl.open(tmp_path / "scouts").collection_names == ["MR_axial", "MR_coronal", "MR_sagittal"]


def test_a_localizer_alone_is_ingested(tmp_path: Path) -> None:
    series(tmp_path / "dicom", 1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    assert len(rl.open(tmp_path / "store").CT) == 1


@pytest.mark.parametrize(("allow", "ingested"), [(False, ["both"]), (True, ["both", "one"])])
def test_subjects_that_lack_a_modality(allow: bool, ingested: list[str], tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "both", 0)
    series(tmp_path / "dicom" / "both", 1, modality="MR")
    series(tmp_path / "dicom" / "one", 2, who="P2")
    sources = {name: rl.DicomSource(tmp_path / "dicom", modality=name) for name in ("CT", "MR")}
    report = rl.ingest(tmp_path / "store", sources, subject="folder:1", allow_missing=allow, workers=1)
    assert [item.subject for item in report.ingested] == ingested
    if not allow:
        assert "missing 'MR': no file of subject 'one' in collection 'MR'" in report.failed[0].reason


def test_a_subject_whose_only_volume_cannot_be_used_is_told_why(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0)
    series(tmp_path / "dicom" / "a", 1, modality="MR", drop=(3,))
    report = rl.ingest(
        tmp_path / "store", dict.fromkeys(("CT", "MR"), tmp_path / "dicom"), subject="folder:1", workers=1
    )
    assert not report.ingested
    assert any("irregular: 1 gap (5 mm after slice 3, expected 2.5 mm)" in item.reason for item in report.failed)


def test_progress_counts_everything_that_is_told_of(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0)
    series(tmp_path / "dicom" / "b", 1, drop=(3,))
    (tmp_path / "dicom" / "bad").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    seen: list[tuple[int, int]] = []
    rl.ingest(
        tmp_path / "store",
        {"CT": tmp_path / "dicom"},
        workers=1,
        progress=lambda item, done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
