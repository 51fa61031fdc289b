"""Who a patient is does not get into a store: every identifying value of the input is searched for in all that a store holds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.formats.dicom.tags import TECHNICAL, check_keep_tags, identifying, technical_values
from radioloader.ingestion.identity import IdentityWarning, Pseudonyms
from tests.formats.dicom.make import plant_identity, plant_uids, write_series
from tests.formats.dicom.segmentations import frames_of, save, seg_dataset
from tests.formats.dicom.structures import on_slice, write_rtstruct
from tests.ingestion.dicom_files import AFFINE, grid_of, voxels
from tests.ingestion.store_text import everything, found, searchable

KEY = "5f1c9e02ab77d3405f1c9e02ab77d340"
BOX = [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)]


class Input:
    """A series, a segmentation and a structure set with identity all over, in a folder with a neutral name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.planted: dict[str, str] = {}
        self.uids: set[str] = set()

        def plant(dataset: Any, k: int) -> None:
            self.planted |= plant_identity(dataset)
            own = dataset.SOPInstanceUID
            uids = plant_uids(dataset)
            dataset.SOPInstanceUID = own
            self.uids |= {own, *(value for keyword, value in uids.items() if keyword != "SOPInstanceUID")}

        write_series(root / "ct", voxels(), AFFINE, extra=plant)
        grid = grid_of(root / "ct")
        mask = voxels(1) > 0
        dataset = seg_dataset(grid, frames_of(grid, mask), segments=[1])
        self._label(dataset, root / "seg")
        write_rtstruct(
            root / "rs", grid, {"GTV": [on_slice(grid, z, BOX) for z in (2, 3)]}, edit=lambda ds: self._label(ds, None)
        )
        # Of every text only values that cannot be there by chance: others are ages, dates, single letters.
        self.words = {
            place: value
            for place, value in self.planted.items()
            if len(value.strip()) >= 6 and place.removeprefix("label ").rpartition("/")[2] not in TECHNICAL
        }

    def _label(self, dataset: Any, path: Path | None) -> None:
        keep = {
            k: dataset[k].value
            for k in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
            if k in dataset
        }
        self.planted |= {f"label {place}": value for place, value in plant_identity(dataset).items()}
        for keyword, value in keep.items():
            setattr(dataset, keyword, value)
        self.uids |= {dataset.SOPInstanceUID, dataset.SeriesInstanceUID}
        if path is not None:
            save(dataset, path)

    def ingest(self, uri: Path, **options: Any) -> rl.IngestReport:
        report = rl.ingest(
            uri,
            {
                "CT": self.root,
                "seg": rl.DicomSource(self.root, modality="SEG"),
                "roi": rl.DicomSource(self.root, modality="RTSTRUCT", structures={"GTV": 1}),
            },
            workers=1,
            **options,
        )
        assert report.ok, str(report)
        return report


@pytest.fixture(scope="module")
def identified(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return Input(tmp_path_factory.mktemp("identified"))


@pytest.fixture(scope="module", params=["plain", "pseudonymised", "uncompressed"])
def made(request: pytest.FixtureRequest, identified: Input, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("made")
    options: dict[str, Any] = {}
    if request.param == "pseudonymised":
        (root / "key").write_text(KEY)
        options["pseudonymize"] = root / "key"
    if request.param == "uncompressed":
        write = rl.WriteConfig(compression=rl.CompressionConfig(codec="none"))
        options["config"] = rl.StorageConfig(write=write)
    report = identified.ingest(root / "store", **options)
    return request.param, root / "store", report, searchable(root / "store")


def test_enough_was_planted(identified: Input) -> None:
    dataset = pydicom.dcmread(next((identified.root / "ct").iterdir()))
    assert dataset.PatientName == identified.planted["PatientName"]
    assert len(identified.words) > 300
    assert len(identified.uids) > 20


def test_no_identifying_value_is_in_the_store(made: Any, identified: Input) -> None:
    assert found(made[3], identified.words) == {}


def test_short_values_are_in_no_column(made: Any, identified: Input) -> None:
    """Dates, ages and the sex, which may be in voxels by chance: no value of the catalog is one."""
    short = set(identified.planted.values()) - set(identified.words.values())
    short -= {
        value
        for place, value in identified.planted.items()
        if place.removeprefix("label ").rpartition("/")[2] in TECHNICAL
    }
    assert {"F"} < short
    store = rl.open(made[1])
    for name in store.collection_names:
        for row in store[name].obs.read().to_dict("records"):
            texts = {str(value) for column, value in row.items()}
            assert not texts & short


def test_no_identifying_value_is_in_the_report(made: Any, identified: Input) -> None:
    text = (str(made[2]) + repr(made[2])).lower()
    assert [place for place, value in identified.words.items() if value.lower() in text] == []


def test_uids_are_there_unless_pseudonymised(made: Any, identified: Input) -> None:
    kind, uri, report, data = made
    wanted = {value: value for value in identified.uids}
    there = found(data, wanted)
    volume = rl.open(uri).CT.iloc[0]
    headers = [pydicom.dcmread(path) for path in (identified.root / "ct").iterdir()]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    sops = [str(header.SOPInstanceUID) for header in headers]
    kept = [frames[0][0] for frames in volume.dicom.slices]
    if kind == "pseudonymised":
        assert there == {}
        assert not any(value in str(report) + repr(report) for value in wanted)
        hidden = Pseudonyms(KEY.encode())
        assert kept == [hidden.uid(sop) for sop in sops]
        assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in kept)
        assert volume.dicom.pseudonymized
        assert volume.dicom.grid.series == hidden.uid(headers[0].SeriesInstanceUID)
        label = rl.open(uri).roi.iloc[0].dicom
        assert label.label == hidden.uid("1.2.3.5")
        assert label.slices == volume.dicom.slices
    else:
        assert kept == sops
        # What is kept is which instances these are, and nothing that only refers to others.
        assert set(sops) < set(there)
        allowed = {*sops, headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID, headers[0].FrameOfReferenceUID}
        labels = {"1.2.3.5", "1.2.3.6", "1.2.3.9", "1.2.3.9.1"}
        assert set(there) - labels <= allowed


def test_the_search_finds_what_is_there(identified: Input, tmp_path: Path) -> None:
    """The control: what the user asks for is stored, and found where it is."""
    keep = ["PatientName", "PatientID", "StudyDate", "StudyDescription", "OperatorsName", "PatientWeight", "PatientSex"]
    with pytest.warns(IdentityWarning, match="keep_tags keeps PatientName, PatientID, .* PatientSex, which may tell"):
        report = identified.ingest(tmp_path / "store", keep_tags=[*keep, "KVP", "SeriesNumber"])
    assert any(note.startswith("keep_tags keeps PatientName, PatientID") for note in report.notes)
    assert not any("KVP" in note or "SeriesNumber" in note for note in report.notes)
    there = found(searchable(tmp_path / "store"), identified.words)
    assert set(there) >= {"PatientName", "PatientID", "StudyDescription", "OperatorsName", "StudyDate"}
    for place in ("PatientName", "PatientID"):
        assert any(where.startswith(f"{place} of") for where in there[place]), there[place]
    row = rl.open(tmp_path / "store").CT.obs.read().iloc[0]
    assert row.PatientName == identified.planted["PatientName"]
    assert row.StudyDate == identified.planted["StudyDate"]
    assert row.PatientWeight == pytest.approx(float(identified.planted["PatientWeight"]))
    assert row.SeriesNumber == 1
    others = {place for place in there if place.removeprefix("label ").split("/")[0] not in keep}
    assert {place for place in others if identified.words[place] not in {identified.planted[k] for k in keep}} == set()


def test_the_search_looks_everywhere(tmp_path: Path, identified: Input) -> None:
    """In names of files, metadata and voxels."""
    import tiledb

    identified.ingest(tmp_path / "store")
    word = "ottolinequillfeather"
    assert found(searchable(tmp_path / "store"), {"": word}) == {}
    (tmp_path / "store" / f"x{word.upper()}").touch()
    with tiledb.Group(str(tmp_path / "store"), "w") as group:
        group.meta["note"] = word
    voxel_array = min((tmp_path / "store").glob("c/*/volumes/*"))
    with tiledb.open(str(voxel_array), "w") as array:
        array.meta["who"] = word
    places = found([(where, data.lower()) for where, data in everything(tmp_path / "store")], {"": word})[""]
    assert any(place.startswith("name of") for place in places)
    assert any(place == f"metadata of {tmp_path}/store" for place in places)
    assert any(place == f"metadata of {voxel_array}" for place in places)


def test_subjects_by_patient_id_are_the_users_choice_and_nothing_else_comes_with_it(
    identified: Input, tmp_path: Path
) -> None:
    identified.ingest(tmp_path / "store", subject="PatientID")
    there = found(searchable(tmp_path / "store"), identified.words)
    assert {identified.words[place] for place in there} == {identified.planted["PatientID"]}


def test_other_keys_and_stores_share_no_id(identified: Input, tmp_path: Path) -> None:
    ids = []
    for number in range(2):
        (tmp_path / f"key{number}").write_text(KEY + str(number))
        identified.ingest(tmp_path / f"s{number}", pseudonymize=tmp_path / f"key{number}")
        volume = rl.open(tmp_path / f"s{number}").CT.iloc[0]
        ids.append({volume.obs_subject_id, volume.dicom.grid.study, *(f[0][0] for f in volume.dicom.slices)})
    assert len(ids[0]) == 10
    assert not ids[0] & ids[1]


def test_a_store_has_one_key_or_none(identified: Input, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"key{number}").write_text(KEY + str(number))
    identified.ingest(tmp_path / "hidden", pseudonymize=tmp_path / "key0")
    identified.ingest(tmp_path / "plain")
    for store, options, message in (
        ("hidden", {}, r"is pseudonymised; give its key \(pseudonymize"),
        ("hidden", {"pseudonymize": tmp_path / "key1"}, "is pseudonymised with another key; give that one"),
        ("plain", {"pseudonymize": tmp_path / "key0"}, "whose UIDs are not pseudonymised; leave the key"),
    ):
        before = rl.open(tmp_path / store).version
        with pytest.raises(ConfigError, match=message):
            identified.ingest(tmp_path / store, **options)
        assert rl.open(tmp_path / store).version == before
    report = identified.ingest(tmp_path / "hidden", pseudonymize=tmp_path / "key0")
    assert [item.status for item in report.items] == ["skipped"]


def test_kept_uids_are_hashed_like_all_others(identified: Input, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    with pytest.warns(IdentityWarning, match="StudyInstanceUID"):
        identified.ingest(tmp_path / "hidden", pseudonymize=tmp_path / "key", keep_tags=["StudyInstanceUID"])
    volume = rl.open(tmp_path / "hidden").CT.iloc[0]
    kept = rl.open(tmp_path / "hidden").CT.obs.read().StudyInstanceUID[0]
    assert kept == volume.dicom.grid.study
    assert kept.startswith("2.25.")


@pytest.mark.parametrize(
    ("keyword", "yes"),
    [
        ("PatientName", True),
        ("PatientAge", True),
        ("PatientSexNeutered", True),
        ("PatientBodyMassIndex", True),
        ("StudyDate", True),
        ("AcquisitionTime", True),
        ("SeriesDescription", True),
        ("StationName", True),
        ("SOPInstanceUID", True),
        ("DeviceSerialNumber", True),
        ("ClinicalTrialSubjectID", True),
        ("KVP", False),
        ("ConvolutionKernel", False),
        ("SeriesNumber", False),
        ("SpiralPitchFactor", False),
        ("Laterality", False),
    ],
)
def test_what_may_tell_who_it_is(keyword: str, yes: bool) -> None:
    assert identifying(keyword) is yes


def test_tags_that_tell_nothing_come_without_a_warning(identified: Input, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = identified.ingest(tmp_path / "store", keep_tags="SeriesNumber")
    assert not any("keep_tags" in note for note in report.notes)


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("Nonsense", "'Nonsense' is not the keyword of a DICOM attribute"),
        ("(0010,0010)", "is not the keyword"),
        (3, "3 is not the keyword"),
        ("PixelData", "PixelData holds no plain value"),
        ("RequestAttributesSequence", "RequestAttributesSequence holds no plain value"),
        ("RedPaletteColorLookupTableData", "holds no plain value"),
    ],
)
def test_tags_that_cannot_be_kept(keyword: Any, message: str, identified: Input, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"keep_tags: {message}".replace("(", r"\(") if "(" in message else message):
        identified.ingest(tmp_path / "store", keep_tags=[keyword])
    assert not (tmp_path / "store").exists()


def test_kinds_of_kept_values_depend_on_the_standard_alone() -> None:
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientWeight, dataset.ImageType = "A^B=C", "63.5", ["ORIGINAL", "PRIMARY"]
    dataset.OtherPatientNames, dataset.SeriesNumber, dataset.PixelSpacing = ["D^E", "F^G"], 3, [1, 2]
    dataset.KVP, dataset.PatientAge, dataset.StudyDate = None, "", "20200101"
    extra = check_keep_tags(
        ["PatientName", "PatientWeight", "OtherPatientNames", "SeriesNumber", "PixelSpacing", "PatientAge", "StudyDate"]
    )
    assert technical_values(dataset, extra) == {
        "PatientName": "A^B=C",
        "PatientWeight": 63.5,
        "ImageType": "ORIGINAL\\PRIMARY",
        "OtherPatientNames": "D^E\\F^G",
        "SeriesNumber": 3.0,
        "PixelSpacing": "1.0\\2.0",
        "StudyDate": "20200101",
    }
    assert check_keep_tags("KVP") == ["KVP"]
    assert check_keep_tags(["KVP", "KVP"]) == ["KVP"]


def test_nothing_that_is_kept_by_default_is_free_text_or_about_a_person() -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword, kind in TECHNICAL.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        assert tag >> 16 not in (0x0010, 0x0012, 0x0032, 0x0038, 0x0040), keyword
        allowed = {"CS", "DS", "IS", "SH", "LO", "US", "FD", "US or SS"}
        assert dictionary_VR(tag) in allowed, keyword
        assert (kind == "float") == (dictionary_VR(tag) in {"DS", "IS", "US", "FD", "US or SS"}), keyword


def test_pseudonyms_of_nothing_and_without_a_key() -> None:
    assert Pseudonyms().uid("1.2.3") == "1.2.3"
    assert Pseudonyms(KEY.encode()).uid("") == ""
    assert not Pseudonyms()
    one = Pseudonyms(KEY.encode())
    # Ids of one kind say nothing of those of another.
    assert int(one.uid("x").removeprefix("2.25.")) >> 64 != int(one.subject("x"), 16)
    assert np.unique([one.subject(str(k)) for k in range(100)]).size == 100
