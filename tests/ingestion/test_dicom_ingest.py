"""DICOM into a store: what comes out of folders as they are, how it is described, exported and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.formats.orientation import turn, turn_grid
from tests.formats.dicom.make import (
    tilt,
    uid,
    write_capture,
    write_dicomdir,
    write_enhanced,
    write_localizer,
    write_report,
    write_series,
)
from tests.ingestion.dicom_files import AFFINE, same, series, stored, subject_of, voxels

Write = Callable[..., Path]
A, B = subject_of("study of P1"), subject_of("study of P2")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with a CT (seeds 0, 1) and an MR (2, 3) each, among what lies about in such folders."""
    root = tmp_path_factory.mktemp("archive")
    series(root / "one" / "a" / "b", 0, extension="", description="thin")
    series(root / "one", 2, modality="MR", extension=".IMA", description="t1 tra")
    # Of the second patient all files lie in one folder.
    series(root / "two", 1, who="P2", names="reversed", description="thick")
    series(root / "two", 3, who="P2", modality="MR", description="T2 tra")
    write_localizer(root / "one", who="P1", study="study of P1")
    write_report(root / "two" / "report")
    write_capture(root / "capture.dcm")
    (root / "notes.txt").write_text("nothing")
    (root / "empty").touch()
    (root / ".DS_Store").write_bytes(b"\0" * 200)
    (root / ".hidden").mkdir()
    shutil.copy(next((root / "two").glob("IM*")), root / ".hidden")
    return root


@pytest.fixture(scope="module")
def ingested(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, rl.IngestReport]:
    uri = str(tmp_path_factory.mktemp("stores") / "store")
    return uri, rl.ingest(uri, {"CT": archive, "MR": archive}, workers=1)


def test_series_are_told_apart_and_each_becomes_a_volume(ingested: tuple[str, rl.IngestReport]) -> None:
    uri, report = ingested
    assert [(item.subject, item.status) for item in report.ingested] == [(s, "ingested") for s in sorted([A, B])]
    assert same(stored(uri, "CT"), {f"{A}_CT": voxels(0), f"{B}_CT": voxels(1)})
    assert same(stored(uri, "MR"), {f"{A}_MR": voxels(2), f"{B}_MR": voxels(3)})
    for name in ("CT", "MR"):
        for volume in rl.open(uri)[name]:
            np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
            assert (volume.axcodes, volume.dtype) == ("LPS", np.int16)


def test_what_is_no_image_is_counted_in_the_report(ingested: tuple[str, rl.IngestReport], archive: Path) -> None:
    notes = ingested[1].notes
    assert f"1 file left out: no volume (Basic Text SR Storage) (such as {archive}/two/report)" in notes
    assert f"1 file left out: no volume (Secondary Capture Image Storage) (such as {archive}/capture.dcm)" in notes
    assert f"1 file left out: not DICOM (such as {archive}/notes.txt)" in notes
    assert f"1 file left out: empty file (such as {archive}/empty)" in notes
    assert not any("hidden" in note or "DS_Store" in note for note in notes)


def test_the_catalog_tells_how_pictures_were_made_and_of_which_instances(ingested: tuple[str, rl.IngestReport]) -> None:
    volume = rl.open(ingested[0]).CT.loc[A]
    row = rl.open(ingested[0]).CT.obs.read().set_index("obs_id").loc[f"{A}_CT"]
    assert (row.Modality, row.ImageType, row.SliceThickness, row.BitsStored) == (
        "CT",
        "ORIGINAL\\PRIMARY\\AXIAL",
        2.5,
        16,
    )
    assert row.source == f"dicom:{uid('series', 'study of P1', 'series 0')}"
    assert json.loads(row.geometry)["status"] == "regular"
    assert (volume.geometry.status, volume.geometry.slices, volume.geometry.step) == ("regular", 8, 2.5)
    assert volume.geometry.order == "other"  # of instance numbers, which are wrong on purpose
    origin = volume.dicom
    assert (origin.grid.study, origin.grid.series) == (
        uid("study", "study of P1"),
        uid("series", "study of P1", "series 0"),
    )
    assert origin.grid.frame_of_reference == uid("frame of reference", "frame")
    assert origin.grid.sop_class == "1.2.840.10008.5.1.4.1.1.2"
    assert not origin.pseudonymized
    np.testing.assert_allclose(origin.grid.affine, AFFINE, atol=1e-9)


def test_each_slice_names_its_instance(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "dicom", voxels(), AFFINE)  # of slice 0 first
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    slices = rl.open(tmp_path / "store").CT.iloc[0].dicom.slices
    wanted = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths]
    assert slices == tuple(((sop, 0),) for sop in wanted)


def test_paths_are_not_stored(ingested: tuple[str, rl.IngestReport], archive: Path) -> None:
    found = [
        path for path in Path(ingested[0]).rglob("*") if path.is_file() and str(archive).encode() in path.read_bytes()
    ]
    assert not found
    assert all(source.startswith("dicom:") for item in ingested[1].items for source in item.files.values())


def test_series_of_frames_in_one_file(tmp_path: Path) -> None:
    array = voxels(5, (24, 20, 8, 3))
    write_enhanced(tmp_path / "dicom" / "x", array, AFFINE, modality="MR")
    assert rl.ingest(tmp_path / "store", {"MR": tmp_path / "dicom"}, workers=1).ok
    volume = rl.open(tmp_path / "store").MR.iloc[0]
    np.testing.assert_array_equal(volume.to_numpy(), array)
    assert (volume.dicom.dimension, len(volume.dicom.values)) == ("time", 3)
    assert [len(frames) for frames in volume.dicom.slices] == [3] * 8
    numbers = sorted(number for frames in volume.dicom.slices for _, number in frames)
    assert numbers == list(range(24))


def test_a_dicomdir_and_its_files(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "from", voxels(), AFFINE)
    write_dicomdir(tmp_path / "disc", paths)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "disc"}, workers=1)
    assert report.ok
    assert f"1 file left out: DICOMDIR (such as {tmp_path}/disc/DICOMDIR)" in report.notes
    np.testing.assert_array_equal(rl.open(tmp_path / "store").CT.iloc[0].to_numpy(), voxels())


@pytest.mark.parametrize("how", ["list", "glob", "deep glob", "glob of folders", "list of folders", "one folder"])
def test_files_may_be_given_in_any_way(how: str, tmp_path: Path) -> None:
    root = tmp_path / "dicom"
    series(root / "a", 0)
    series(root / "b", 1, who="P2")
    source: Any = {
        "list": sorted(root.glob("*/*")),
        "glob": str(root / "*" / "*.dcm"),
        "deep glob": str(root / "**"),
        "glob of folders": str(root / "*"),
        "list of folders": [root / "a", root / "b"],
        "one folder": str(root),
    }[how]
    report = rl.ingest(tmp_path / "store", {"CT": source}, workers=1)
    assert report.ok, str(report)
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0), f"{B}_CT": voxels(1)})


def test_each_file_is_read_once_and_each_folder_listed_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radioloader.formats.dicom import headers
    from radioloader.ingestion import folders, kinds, scan

    read: list[str] = []
    walked: list[str] = []
    one, walk = headers.read_instance, folders.walk
    monkeypatch.setattr(headers, "read_instance", lambda path, *rest: read.append(path) or one(path, *rest))
    for module in (kinds, scan):
        monkeypatch.setattr(module, "walk", lambda folder: walked.append(folder) or walk(folder))
    # Folders that overlap, for two collections
    rl.ingest(tmp_path / "store", {"CT": archive, "MR": [archive, archive / "two"]}, workers=1)
    assert len(read) == len(set(read)) == 32 + 3 + 4
    assert len(walked) == len(set(walked)) == 2


def test_echoes_and_components_are_collections_of_their_own_with_their_own_tags(tmp_path: Path) -> None:
    for echo in (1, 2):
        series(tmp_path / "dicom", 0, voxels=voxels(echo), modality="MR", echo=echo)
    for part, kind in (("M", "M"), ("P", "P")):
        series(
            tmp_path / "dicom",
            1,
            voxels=voxels(3 + (part == "P")),
            who="P2",
            modality="MR",
            image_type=("ORIGINAL", "PRIMARY", kind),
        )
    report = rl.ingest(tmp_path / "store", {"MR": tmp_path / "dicom"}, workers=1)
    assert report.ok
    became = "MR_echo1 (1), MR_echo2 (1), MR_magnitude (1), MR_phase (1)"
    assert f"what was asked for as 'MR' became the collections {became}, with their numbers of volumes" in report.notes
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["MR_echo1", "MR_echo2", "MR_magnitude", "MR_phase"]
    assert same(stored(tmp_path / "store", "MR_echo2"), {f"{A}_MR_echo2": voxels(2)})
    assert same(stored(tmp_path / "store", "MR_phase"), {f"{B}_MR_phase": voxels(4)})
    assert store.MR_echo1.obs.read().EchoTime.tolist() == [5.0]
    assert store.MR_echo2.obs.read().EchoTime.tolist() == [10.0]
    assert store.MR_phase.obs.read().ImageType.tolist() == ["ORIGINAL\\PRIMARY\\P"]
    assert {item.subject: set(item.files) for item in report.items} == {
        A: {"MR_echo1", "MR_echo2"},
        B: {"MR_magnitude", "MR_phase"},
    }


def test_collections_that_come_along_must_not_meet_others(tmp_path: Path) -> None:
    for echo in (1, 2):
        series(tmp_path / "dicom", 0, voxels=voxels(echo), modality="MR", echo=echo)
    with pytest.raises(ConfigError, match=r"'MR' brings a collection 'MR_echo1' with it .* another name"):
        rl.ingest(
            tmp_path / "store",
            {"MR": tmp_path / "dicom", "MR_echo1": rl.DicomSource(tmp_path / "dicom", modality="MR")},
            workers=1,
        )
    assert not (tmp_path / "store").exists()


def test_a_tag_that_differs_between_slices_is_no_property_of_the_volume(tmp_path: Path) -> None:
    def modulate(ds: Any, k: int) -> None:
        ds.XRayTubeCurrent, ds.KVP = 100 + k, 120

    series(tmp_path / "dicom", extra=modulate)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    row = rl.open(tmp_path / "store").CT.obs.read().iloc[0]
    assert row.KVP == 120
    assert "XRayTubeCurrent" not in row
    report = rl.ingest(tmp_path / "other", {"CT": tmp_path / "dicom"}, keep_tags=["InstanceNumber"], workers=1)
    assert any("not kept, as they differ between its files: InstanceNumber" in note for note in report.items[0].notes)


def test_several_volumes_of_a_subject_are_all_stored_and_a_dataset_asks_which(tmp_path: Path) -> None:
    series(tmp_path / "dicom", 1, description="thin")
    series(tmp_path / "dicom", 4, description="thick")
    series(tmp_path / "dicom", 7, who="P2")
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1)
    assert report.ok
    assert any(f"1 subjects have several volumes in collection 'CT', such as {A!r}" in note for note in report.notes)
    wanted = {f"{A}_CT_s2": voxels(1), f"{A}_CT_s5": voxels(4), f"{B}_CT": voxels(7)}
    assert same(stored(tmp_path / "store", "CT"), wanted)
    with pytest.raises(KeyNotFoundError, match=f"{A}.* has 2 volumes in collection 'CT': '{A}_CT_s2', '{A}_CT_s5'"):
        rl.VolumeDataset(tmp_path / "store", image="CT")
    sample = rl.VolumeDataset(tmp_path / "store", image="CT", subjects=[B])[0]
    np.testing.assert_array_equal(np.asarray(sample["image"])[0], voxels(7))


def test_export_and_turning_of_a_sheared_volume(tmp_path: Path) -> None:
    sheared = tilt(AFFINE, 12.0)
    series(tmp_path / "dicom", affine=sheared)
    for name, orientation in (("plain", None), ("ras", "RAS")):
        report = rl.ingest(tmp_path / name, {"CT": tmp_path / "dicom"}, orientation=orientation, workers=1)
        assert report.ok
        assert any("geometry tilted: 12.00 degrees" in note for note in report.items[0].notes)
        volume = rl.open(tmp_path / name).CT.iloc[0]
        assert volume.geometry.status == "tilted"
        volume.to_nifti(tmp_path / f"{name}.nii.gz")
        image = nib.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels())
        np.testing.assert_allclose(image.affine, sheared, atol=1e-5)
    shape, affine = turn_grid((24, 20, 8), sheared, "LPS", "RAS")
    assert (volume.axcodes, volume.shape) == ("RAS", shape)
    np.testing.assert_array_equal(volume.to_numpy(), turn(voxels(), "LPS", "RAS"))
    np.testing.assert_array_equal(volume.to_numpy(), voxels()[::-1, ::-1])
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    # The map to instances stays in the order of the frames.
    np.testing.assert_allclose(volume.dicom.grid.affine, sheared, atol=1e-9)


def test_datasets_read_a_store_of_dicom(ingested: tuple[str, rl.IngestReport]) -> None:
    volumes = rl.VolumeDataset(ingested[0], image=["CT", "MR"])
    assert len(volumes) == 2
    for number, subject in enumerate(sorted([A, B])):
        image = np.asarray(volumes[number]["image"])
        ct, mr = (0, 2) if subject == A else (1, 3)
        np.testing.assert_array_equal(image, np.stack([voxels(ct), voxels(mr)]).astype(image.dtype))
    patches = rl.PatchDataset(ingested[0], image="CT", patch_size=(8, 8, 8))
    sample = next(iter(torch.utils.data.DataLoader(patches, batch_size=2)))
    assert tuple(sample["image"].shape) == (2, 1, 8, 8, 8)


def test_nifti_and_dicom_in_one_collection_and_columns_that_older_rows_lack(
    write_image: Write, tmp_path: Path, content: Callable[[Any], dict[str, Any]]
) -> None:
    write_image(tmp_path / "nifti" / "n1.nii.gz", voxels(9), AFFINE)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "nifti"}, workers=1).ok
    before = content(tmp_path / "store")
    assert rl.open(tmp_path / "store").CT.iloc[0].geometry is None
    series(tmp_path / "dicom", 0)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    # And NIfTI again, into a table that has the columns now
    write_image(tmp_path / "more" / "n2.nii.gz", voxels(8), AFFINE)
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "more"}, workers=1).ok
    store = rl.open(tmp_path / "store")
    assert same(stored(tmp_path / "store", "CT"), {"n1_CT": voxels(9), "n2_CT": voxels(8), f"{A}_CT": voxels(0)})
    rows = store.CT.obs.read().set_index("obs_id")
    assert rows.Modality.isna().tolist() == [True, True, False]
    assert rows.SliceThickness.isna().tolist() == [True, True, False]
    assert [volume.geometry is None for volume in store.CT] == [True, True, False]
    assert [volume.dicom is None for volume in store.CT] == [True, True, False]
    old = {name: rows.loc["n1_CT", name] for name in ("source_hash", "content_hash", "recipe")}
    assert all(repr(value) in before["CT"]["obs"][0] for value in old.values())
    again = rl.ingest(tmp_path / "store", {"CT": tmp_path / "nifti"}, workers=1)
    assert [item.status for item in again.items] == ["skipped"]


def test_a_folder_of_both_gives_nifti_and_says_so(write_image: Write, tmp_path: Path) -> None:
    write_image(tmp_path / "both" / "n1.nii.gz", voxels(9), AFFINE)
    series(tmp_path / "both" / "dicom", 0)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "both"}, workers=1)
    assert report.ok
    assert any("holds NIfTI files and DICOM files; the NIfTI files were taken" in note for note in report.notes)
    assert list(stored(tmp_path / "store", "CT")) == ["n1_CT"]
    report = rl.ingest(tmp_path / "store", {"CT": rl.DicomSource(tmp_path / "both")}, workers=1)
    assert report.ok
    assert same(stored(tmp_path / "store", "CT"), {"n1_CT": voxels(9), f"{A}_CT": voxels(0)})


def test_files_without_a_preamble(tmp_path: Path) -> None:
    series(tmp_path / "dicom", 0)
    for path in (tmp_path / "dicom").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})


def test_pet_as_standardized_uptake_values(tmp_path: Path) -> None:
    def inject(ds: Any, k: int) -> None:
        item = pydicom.Dataset()
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = "370000000", "6000"
        item.RadiopharmaceuticalStartTime, item.RadiopharmaceuticalStartDateTime = "090000", "20190314090000"
        ds.RadiopharmaceuticalInformationSequence = [item]
        ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["ATTN", "DECY"]
        ds.SeriesDate = ds.AcquisitionDate = "20190314"
        ds.SeriesTime = ds.AcquisitionTime = "104000"  # one half-life later
        ds.PatientWeight = "74"

    series(tmp_path / "dicom", 0, modality="PT", extra=inject, slope=2.0)
    factor = 74_000 / (370e6 / 2)
    for suv, units, scale in ((None, "BQML", 2.0), ("bw", "GML", 2.0 * factor), (None, "BQML", 2.0)):
        report = rl.ingest(tmp_path / "store", {"PET": tmp_path / "dicom"}, suv=suv, workers=1)
        assert [item.status for item in report.items] == ["ingested"]
        volume = rl.open(tmp_path / "store").PET.iloc[0]
        np.testing.assert_allclose(volume.to_numpy(), voxels(0) * scale, rtol=1e-6)
        assert rl.open(tmp_path / "store").PET.obs.read().Units.tolist() == [units]


def test_processes_give_the_same_as_one(tmp_path: Path, content: Callable[[Any], dict[str, Any]]) -> None:
    for number in range(4):
        series(tmp_path / "dicom", number, who=f"P{number}")
    for workers in (1, 2):
        assert rl.ingest(tmp_path / f"store{workers}", {"CT": tmp_path / "dicom"}, workers=workers).ok
    assert content(tmp_path / "store1") == content(tmp_path / "store2")


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_the_sarcomas_of_ibsi_equal_their_nifti_twins(modality: str, shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "ibsi_sts"
    report = rl.ingest(
        tmp_path / "store",
        {
            "image": {case: root / "dicom" / case / modality for case in ("STS_001", "STS_002")},
            "mask": {case: root / "dicom" / case / modality for case in ("STS_001", "STS_002")},
        },
        labels=["mask"],
        workers=1,
    )
    assert report.ok, str(report)
    store = rl.open(tmp_path / "store")
    for case in ("STS_001", "STS_002"):
        for name in ("image", "mask"):
            twin = nib.load(root / "nifti" / case / f"{modality}_{name}.nii.gz")
            store[name].loc[case].to_nifti(tmp_path / "out.nii")
            image = nib.load(tmp_path / "out.nii")
            to_twin = nib.orientations.ornt_transform(
                nib.orientations.io_orientation(image.affine), nib.orientations.io_orientation(twin.affine)
            )
            turned = image.as_reoriented(to_twin)
            np.testing.assert_allclose(turned.affine, twin.affine, atol=1e-3)
            np.testing.assert_array_equal(turned.get_fdata(dtype=np.float32), twin.get_fdata(dtype=np.float32))
