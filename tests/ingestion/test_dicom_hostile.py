"""Files that are damaged, or made to do damage: each is named with its reason, and the rest is ingested."""

from __future__ import annotations

import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid as uids

import radioloader as rl
from radioloader.errors import IngestError
from tests.formats.dicom.make import PATIENT, write_bomb, write_garbage, write_truncated
from tests.formats.dicom.segmentations import frames_of, save, seg_dataset
from tests.ingestion.dicom_files import grid_of, same, series, stored, subject_of, voxels

A, B = subject_of("study of P1"), subject_of("study of P2")
Do = Callable[[Path], Any]


def ingest(root: Path, **options: Any) -> rl.IngestReport:
    return rl.ingest(root / "store", {"CT": root / "dicom"}, workers=1, **options)


def edited(**values: Any) -> Do:
    """Sets attributes in every file of a folder; those that are None go."""

    def do(folder: Path) -> None:
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            for keyword, value in values.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)
            dataset.save_as(path)

    return do


def first(folder: Path) -> Path:
    """The file of slice 2: an inner one, so that what lacks it has a gap."""
    return next(p for p in folder.iterdir() if float(pydicom.dcmread(p).ImagePositionPatient[2]) == 12.0)


def one(**values: Any) -> Do:
    def do(folder: Path) -> None:
        path = first(folder)
        (folder.parent / "one").mkdir()
        shutil.move(path, folder.parent / "one" / path.name)
        edited(**values)(folder.parent / "one")
        shutil.move(folder.parent / "one" / path.name, path)

    return do


def cut(part: float) -> Do:
    def do(folder: Path) -> None:
        path = first(folder)
        write_truncated(path, path, part)

    return do


def frames_of_reference(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = f"1.2.3.{number % 2}"
        dataset.save_as(path)


def noise_in_the_pixels(folder: Path) -> None:
    shutil.rmtree(folder)
    series(folder, 1, who="P2", syntax=uids.RLELossless)
    path = first(folder)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\x00" * 40])
    dataset.save_as(path)


DAMAGE: dict[str, tuple[Do, str]] = {
    "truncated within its pixels": (cut(0.7), r"truncated: \d+ bytes of pixels are there, expected 960"),
    "truncated within its header": (cut(0.25), r"broken DICOM|truncated|irregular: 1 gap"),
    "no position": (edited(ImagePositionPatient=None), "it has no ImagePositionPatient"),
    "no orientation": (edited(ImageOrientationPatient=None), "it has no ImageOrientationPatient"),
    "no spacing": (edited(PixelSpacing=None), "it has no PixelSpacing"),
    "one without a position": (one(ImagePositionPatient=None), "it has no ImagePositionPatient"),
    "no rows": (edited(Rows=None), "it has no Rows and Columns"),
    "no pixels": (edited(PixelData=None), r"truncated: it ends before its pixels|it holds no pixels"),
    "no instance UID": (edited(SOPInstanceUID=None), "it has no SOPInstanceUID"),
    "no series UID": (edited(SeriesInstanceUID=None), "broken DICOM: it has no SeriesInstanceUID"),
    "crooked orientation": (edited(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "does not hold two unit vectors"),
    "no spacing at all": (edited(PixelSpacing=[0, 0]), "expected positive distances"),
    "mixed frames of reference": (frames_of_reference, "its frames lie in 2 frames of reference"),
    "more pixels than it holds": (edited(Rows=60000), r"its pixels take 960 bytes, expected 2880000"),
    "colours": (edited(PhotometricInterpretation="RGB"), r"its pixels are colours \(RGB\)"),
    "no slope": (edited(RescaleSlope="0"), "RescaleSlope is 0"),
    "noise in the pixels": (noise_in_the_pixels, "could not be decoded"),
    "a size that is none": (edited(BitsAllocated=13), "13"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_costs_its_series(damage: str, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    series(tmp_path / "dicom" / "bad", 1, who="P2")
    do, reason = DAMAGE[damage]
    do(tmp_path / "dicom" / "bad")
    report = ingest(tmp_path)
    assert [item.subject for item in report.ingested] == [A]
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})
    assert report.failed
    assert {item.subject for item in report.failed} <= {B, ""}
    assert any(re.search(reason, item.reason) for item in report.failed), str(report)
    assert all(f"{tmp_path}/dicom/bad" in item.reason for item in report.failed), str(report)


def test_files_that_are_no_dicom_at_all(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    bad = tmp_path / "dicom" / "bad"
    write_garbage(bad / "garbage")
    (bad / "only a prefix").write_bytes(b"\0" * 128 + b"DICM")
    (bad / "zeros").write_bytes(b"\0" * 10_000)
    (bad / "group 8").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(200))
    report = ingest(tmp_path)
    assert [item.subject for item in report.ingested] == [A]
    named = {item.reason.partition(":")[0].rpartition("/")[2] for item in report.failed}
    assert named == {"garbage", "only a prefix", "zeros"}
    assert any(note.startswith("1 file left out: not DICOM") for note in report.notes)


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian, uids.RLELossless])
@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (10_000, "it has 10000 frames and functional groups of 1"),
        (1, r"65535 x 65535 pixels of 16 bits|its pixels take \d+ bytes, expected 8589672450"),
    ],
)
def test_bombs_take_no_memory(frames: int, reason: str, syntax: Any, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    write_bomb(tmp_path / "dicom" / "bomb", syntax, frames=frames)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = ingest(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert [item.subject for item in report.ingested] == [A]
    (failed,) = report.failed
    assert failed.reason.startswith(f"{tmp_path}/dicom/bomb: ")
    assert re.search(reason, failed.reason), failed.reason


def test_the_same_file_many_times_and_under_two_patients(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    for number in range(3):
        shutil.copytree(tmp_path / "dicom" / "good", tmp_path / "dicom" / f"copy{number}")
    report = ingest(tmp_path)
    assert report.ok
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})
    assert any("24 frames are there in several files" in note for note in report.items[0].notes)
    # One series of two patients is nobody's
    edited(PatientID="P9")(tmp_path / "dicom" / "copy0")
    report = rl.ingest(tmp_path / "other", {"CT": tmp_path / "dicom"}, workers=1)
    assert not report.ingested
    assert "its files belong to different patients (PatientID)" in report.failed[0].reason
    assert "P9" not in report.failed[0].reason


def test_a_good_copy_of_a_broken_file_is_enough(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    path = first(tmp_path / "dicom" / "good")
    write_truncated(tmp_path / "dicom" / "again" / "x", path, 0.7)
    report = ingest(tmp_path)
    assert report.ok, str(report)
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})
    assert any("a good copy was used" in note for note in report.items[0].notes)


def test_a_series_that_is_damaged_beside_a_good_one_of_the_same_subject(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    series(tmp_path / "dicom" / "bad", 1)
    cut(0.7)(tmp_path / "dicom" / "bad")
    report = ingest(tmp_path)
    assert sorted((item.subject, item.status) for item in report.items) == [(A, "failed"), (A, "ingested")]
    assert same(stored(tmp_path / "store", "CT"), {f"{A}_CT": voxels(0)})
    assert not report.ok


def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "good", 0)
    write_garbage(tmp_path / "dicom" / "garbage")
    with pytest.raises(IngestError, match="garbage: broken DICOM"):
        ingest(tmp_path, strict=True)


def test_nothing_but_damage(tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "bad", 1, drop=(2,))
    report = ingest(tmp_path)
    assert (len(report.ingested), len(report.failed)) == (0, 1)
    assert rl.open(tmp_path / "store").collection_names == []


def test_messages_hold_nothing_of_the_patient(tmp_path: Path) -> None:
    for number, (do, _) in enumerate(DAMAGE.values()):
        folder = tmp_path / "dicom" / str(number) / "x"
        series(folder, number, who="PID-604417")
        do(folder)
    report = ingest(tmp_path)
    text = (str(report) + repr(report)).lower()
    for keyword, value in PATIENT.items():
        if len(value) > 5:
            assert value.lower() not in text, keyword


def test_files_that_go_between_scan_and_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from radioloader.ingestion import pipeline

    series(tmp_path / "dicom" / "good", 0)
    series(tmp_path / "dicom" / "bad", 1, who="P2")
    discover = pipeline.discover

    def then_lose(*args: Any, **more: Any) -> Any:
        cohort = discover(*args, **more)
        first(tmp_path / "dicom" / "bad").unlink()
        return cohort

    monkeypatch.setattr(pipeline, "discover", then_lose)
    report = ingest(tmp_path)
    assert [item.subject for item in report.ingested] == [A]
    assert [item.subject for item in report.failed] == [B]
    assert "could not be read: No such file or directory" in report.failed[0].reason


def test_damaged_labels_cost_their_subject(tmp_path: Path) -> None:
    for seed, who in ((0, "P1"), (1, "P2")):
        folder = tmp_path / "dicom" / f"ct{seed}"
        series(folder, seed, who=who)
        grid = grid_of(folder)
        dataset = seg_dataset(grid, frames_of(grid, voxels(5) > 0))
        dataset.SOPInstanceUID, dataset.PatientID = f"1.2.3.9.{seed}", who
        save(dataset, tmp_path / "dicom" / f"seg{seed}")
    path = tmp_path / "dicom" / "seg1"
    write_truncated(path, path, 0.9)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom", "seg": tmp_path / "dicom"}, workers=1)
    assert [item.subject for item in report.ingested] == [A]
    assert any(f"{path}" in item.reason for item in report.failed), str(report)
    assert same(stored(tmp_path / "store", "seg"), {f"{A}_seg": (voxels(5) > 0).astype(np.uint8)})
