"""What a file is, before its pixels are read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage, UltrasoundMultiFrameImageStorage

from radioloader.formats.dicom.frames import Ignored, Instance
from radioloader.formats.dicom.headers import read_instance
from tests.formats.dicom.make import (
    SYNTAX,
    SYNTAXES,
    real_volume,
    rotation,
    write_capture,
    write_dicomdir,
    write_report,
    write_series,
)
from tests.formats.dicom.reading import ignored, instances, read
from tests.formats.dicom.real_series import ROOT


def write_one(folder: Path, **options: Any) -> Path:
    """One slice of 32 x 32."""
    voxels, affine = real_volume((32, 32, 1))
    return write_series(folder, voxels, rotation((20, -10, 5)) @ affine, **options)[0]


def problem_of(folder: Path, **options: Any) -> str:
    (found,) = instances(write_one(folder, **options))
    assert found.frames == ()
    return found.problem


def setting(**values: Any) -> Any:
    """For ``extra``: attributes that are set, or taken away where the value is None."""

    def change(ds: Dataset, k: int) -> None:
        for keyword, value in values.items():
            if value is not None:
                setattr(ds, keyword, value)
            elif keyword in ds:
                delattr(ds, keyword)

    return change


@SYNTAX
def test_frame_of_a_slice(tmp_path: Path, syntax: Any) -> None:
    path = write_one(tmp_path, syntax=syntax, slope=0.5, intercept=-3, bits_stored=12, instance_numbers="right")
    (found,) = instances(path)
    assert (found.what, found.problem, found.size) == ("image", "", path.stat().st_size)
    (frame,) = found.frames
    header = pydicom.dcmread(path)
    assert frame.position == tuple(map(float, header.ImagePositionPatient))
    assert frame.orientation == tuple(map(float, header.ImageOrientationPatient))
    assert frame.spacing == (1.5, 2.0)  # between rows, then between columns
    assert (frame.slope, frame.intercept, frame.instance, frame.thickness) == (0.5, -3.0, 1, 4.2)
    assert (frame.sop, frame.frame_of_reference) == (header.SOPInstanceUID, header.FrameOfReferenceUID)
    pixels = frame.pixels
    assert (pixels.rows, pixels.columns, pixels.allocated, pixels.stored, pixels.high_bit) == (32, 32, 16, 12, 11)
    assert (pixels.signed, pixels.floating, pixels.syntax) == (True, "", syntax)
    assert found.facts.patient == ("PID-604417", "")
    assert (found.facts.series, found.facts.study) == (header.SeriesInstanceUID, header.StudyInstanceUID)


def test_decimal_strings_as_scanners_write_them(tmp_path: Path) -> None:
    path = write_one(
        tmp_path,
        extra=setting(
            PixelSpacing=["3.906250e-01", " 0.390625 "],
            ImagePositionPatient=["-1.25e+02", "+128.1", "-.5"],
            RescaleSlope="1.0E0 ",
            SliceThickness="",
        ),
    )
    (frame,) = instances(path)[0].frames
    assert frame.spacing == (0.390625, 0.390625)
    assert frame.position == (-125.0, 128.1, -0.5)
    assert (frame.slope, frame.thickness) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImagePositionPatient": None}, "it has no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "it has no ImageOrientationPatient"),
        ({"PixelSpacing": None}, "it has no PixelSpacing"),
        ({"PixelSpacing": ""}, "it has no PixelSpacing"),
        ({"PixelSpacing": ["1"]}, "PixelSpacing does not hold 2 numbers"),
        ({"ImagePositionPatient": ["1", "2"]}, "ImagePositionPatient does not hold 3 numbers"),
        ({"ImagePositionPatient": ["1", "2", "3", "4"]}, "ImagePositionPatient does not hold 3 numbers"),
        ({"Rows": None}, "it has no Rows and Columns"),
        ({"Columns": 0}, "it has no Rows and Columns"),
        ({"SOPInstanceUID": ""}, "it has no SOPInstanceUID"),
        ({"BitsAllocated": 12}, "BitsAllocated is 12; expected 8, 16, 32 or 64"),
        ({"BitsAllocated": None}, "BitsAllocated is None"),
        ({"BitsStored": 17, "HighBit": 16}, "BitsAllocated 16, BitsStored 17 and HighBit 16 contradict each other"),
        ({"HighBit": 3}, "BitsAllocated 16, BitsStored 16 and HighBit 3 contradict each other"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"its pixels are colours \(PALETTE COLOR\)"),
        ({"NumberOfFrames": 3}, "it has 3 frames, but does not say where each of them lies"),
        ({"Rows": 64}, r"its pixels take 2048 bytes, expected 4096 for 1 x 64 x 32 pixels of 16 bits"),
        ({"PixelData": None}, "it holds no pixels|it ends before its pixels"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    (found,) = instances(_raw(tmp_path, values))
    assert found.frames == ()
    assert re.search(reason, found.problem), found.problem


def _raw(folder: Path, values: dict[str, Any]) -> Path:
    """Written without pydicom's own checks."""
    path = write_one(folder)
    ds = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    return path


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "SliceThickness"])
@pytest.mark.parametrize("text", [b"one ", b"nan ", b"inf ", b"1,5 "])
def test_numbers_that_are_none(tmp_path: Path, keyword: str, text: bytes) -> None:
    path = write_one(tmp_path, extra=setting(**{keyword: "9999"}))
    content = path.read_bytes()
    assert content.count(b"9999") == 1
    path.write_bytes(content.replace(b"9999", text))
    (found,) = instances(path)
    assert found.problem == f"{keyword} is not a number"


def test_attributes_that_may_be_absent(tmp_path: Path) -> None:
    path = _raw(
        tmp_path,
        dict.fromkeys(
            [
                "InstanceNumber",
                "RescaleSlope",
                "RescaleIntercept",
                "HighBit",
                "SamplesPerPixel",
                "PhotometricInterpretation",
                "FrameOfReferenceUID",
                "SliceThickness",
                "PatientID",
                "StudyInstanceUID",
                "SeriesNumber",
                "ImageType",
            ]
        ),
    )
    (found,) = instances(path)
    (frame,) = found.frames
    assert (frame.instance, frame.slope, frame.intercept, frame.frame_of_reference) == (None, 1.0, 0.0, "")
    assert (frame.pixels.high_bit, frame.thickness) == (15, 0.0)
    assert (found.facts.patient, found.facts.study, found.facts.number) == (("", ""), "", None)


@pytest.mark.parametrize("value", ["7", "007 ", "7.0"])
def test_whole_numbers_as_texts(tmp_path: Path, value: str) -> None:
    path = write_one(tmp_path, extra=setting(SeriesNumber="9999"))
    path.write_bytes(path.read_bytes().replace(b"9999", value.ljust(4).encode()))
    assert instances(path)[0].facts.number == 7


def test_spacing_between_slices_comes_before_thickness(tmp_path: Path) -> None:
    path = write_one(tmp_path, modality="MR", extra=setting(SpacingBetweenSlices="6", SliceThickness="5"))
    assert instances(path)[0].frames[0].thickness == 6.0


def test_negative_spacing_between_slices_is_a_direction(tmp_path: Path) -> None:
    path = write_one(tmp_path, modality="MR", extra=setting(SpacingBetweenSlices="-6", SliceThickness="5"))
    assert instances(path)[0].frames[0].thickness == 6.0


def test_pydicom_logs_no_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor what it thinks of them: they may be names."""
    path = write_one(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"19480229", b"Quillfea").replace(b"071Y", b"7 x "))
    with caplog.at_level("DEBUG", logger="pydicom"):
        assert instances(path)[0].problem == ""
        assert read(path)[0].shape == (32, 32, 1)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["implicit", "explicit"])
def test_old_files_without_preamble_and_meta(tmp_path: Path, name: str) -> None:
    path = write_one(tmp_path, syntax=dict(SYNTAXES)[name])
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.preamble = None
    pydicom.dcmwrite(path, ds, implicit_vr=name == "implicit", little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    (found,) = instances(path)
    assert found.problem == ""
    assert found.frames[0].pixels.syntax == dict(SYNTAXES)[name]
    assert np.array_equal(read(path)[0][..., 0].T, pixels)


def test_other_things_in_a_folder(tmp_path: Path) -> None:
    files = {
        "capture": write_capture(tmp_path / "capture"),
        "report": write_report(tmp_path / "report"),
        "text": tmp_path / "text.txt",
        "empty": tmp_path / "empty.dcm",
        "folder": tmp_path / "folder.dcm",
    }
    files["text"].write_text("Exported by Marrowby, 14 March\n" * 20)
    files["empty"].touch()
    files["folder"].mkdir()
    files["index"] = write_dicomdir(tmp_path / "d", [write_one(tmp_path / "s")])
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reasons = {name: read_instance(str(path)) for name, path in {**files, "fifo": fifo}.items()}
    assert {name for name, found in reasons.items() if isinstance(found, Ignored) and found.broken} == {"empty"}
    assert {name: found.reason for name, found in reasons.items() if isinstance(found, Ignored)} == {
        "capture": "no volume (Secondary Capture Image Storage)",
        "report": "no volume (Basic Text SR Storage)",
        "text": "not DICOM",
        "empty": "broken: an empty file",
        "folder": "no regular file",
        "index": "DICOMDIR",
        "fifo": "no regular file",
    }
    gone = read_instance(str(tmp_path / "gone"))
    assert isinstance(gone, Ignored)
    assert gone.broken
    assert gone.reason == "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdose.dcm", "no volume (RT Dose Storage)"),
        ("rtplan.dcm", "no volume (RT Plan Storage)"),
        ("dicomdirtests/77654033/CR1/6154", "no volume (Computed Radiography Image Storage)"),
        ("DICOMDIR-empty.dcm", "DICOMDIR"),
        ("examples_ybr_color.dcm", "no volume (Ultrasound Multi-frame Image Storage)"),
        ("SC_rgb_jpeg_gdcm.dcm", "no volume (Secondary Capture Image Storage)"),
        ("waveform_ecg.dcm", "no volume (12-lead ECG Waveform Storage)"),
    ],
)
def test_real_files_that_are_no_volumes(name: str, reason: str) -> None:
    path = ROOT / name if (ROOT / name).is_file() else ROOT / "dicomdirtests" / name
    (found,) = ignored(path)
    assert found.reason == reason
    assert not found.broken


def test_dose_is_named_though_it_has_rows_and_a_place(tmp_path: Path) -> None:
    (found,) = ignored(write_one(tmp_path, extra=setting(SOPClassUID=RTDoseStorage, Modality="RTDOSE")))
    assert found.reason == "no volume (RT Dose Storage)"


def test_any_class_with_a_place_is_an_image(tmp_path: Path) -> None:
    """Converters keep slices as secondary captures, and private classes hold volumes."""
    change = setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    (found,) = instances(write_one(tmp_path, extra=change))
    assert (found.problem, len(found.frames)) == ("", 1)
    change = setting(SOPClassUID=UltrasoundMultiFrameImageStorage, ImagePositionPatient=None)
    (other,) = ignored(write_one(tmp_path / "b", extra=change))
    assert other.reason == "no volume (Ultrasound Multi-frame Image Storage)"


def test_nothing_that_identifies_is_in_a_reason(tmp_path: Path) -> None:
    """Damage makes pydicom put the bytes of values into its messages."""
    path = write_one(tmp_path)
    content = path.read_bytes()
    place = content.index(b"Quillfeather")
    for cut in range(140, len(content) - 2048, 37):
        path.write_bytes(content[:cut])
        found = read_instance(str(path))
        reason = found.reason if isinstance(found, Ignored) else found.problem
        assert reason
        assert "Quill" not in reason
    path.write_bytes(content[: place - 8] + b"\x10\0\x10\0DS\x18\0" + content[place:])
    assert isinstance(read_instance(str(path)), Instance | Ignored)


def test_a_wrong_transfer_syntax_does_not_lead_astray(tmp_path: Path) -> None:
    """Headers that say explicit and are implicit: pydicom reads them, so their pixels are where they are."""
    path = write_one(tmp_path, syntax=dict(SYNTAXES)["implicit"])
    ds = pydicom.dcmread(path)
    content = path.read_bytes()
    implicit, explicit = b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0"
    meta = content.index(implicit)
    # The element's length (18 -> 20), and that of the group.
    changed = bytearray(content[: meta - 2] + (20).to_bytes(2, "little") + explicit + content[meta + 18 :])
    size = int.from_bytes(changed[140:144], "little")
    changed[140:144] = (size + 2).to_bytes(4, "little")
    path.write_bytes(changed)
    (found,) = instances(path)
    assert found.problem == ""
    assert found.frames[0].pixels.syntax == "1.2.840.10008.1.2"
    assert np.array_equal(read(path)[0][..., 0].T, ds.pixel_array)


@pytest.mark.parametrize("name", ["rle", "jpeg-lossless-sv1", "jpeg2000"])
def test_decompressed_pixels_under_the_old_transfer_syntax(tmp_path: Path, name: str) -> None:
    """As some archives export them: the length of the pixels gives it away."""
    path = write_one(tmp_path)
    content = path.read_bytes()
    pixels = pydicom.dcmread(path).pixel_array
    plain, compressed = b"1.2.840.10008.1.2.1\0", dict(SYNTAXES)[name].encode()
    compressed += b"\0" * (len(compressed) % 2)
    place = content.index(plain)
    changed = bytearray(
        content[: place - 2] + len(compressed).to_bytes(2, "little") + compressed + content[place + len(plain) :]
    )
    size = int.from_bytes(changed[140:144], "little") + len(compressed) - len(plain)
    changed[140:144] = size.to_bytes(4, "little")
    path.write_bytes(changed)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == dict(SYNTAXES)[name]
    assert np.array_equal(read(path)[0][..., 0].T, pixels)


def test_compressed_pixels_that_do_not_say_so(tmp_path: Path) -> None:
    path = write_one(tmp_path, syntax=dict(SYNTAXES)["rle"])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"))
    (found,) = instances(path)
    assert found.problem == "its pixels are compressed, but it does not say how (TransferSyntaxUID)"


def test_tags_to_keep(tmp_path: Path) -> None:
    path = write_one(tmp_path)
    found = read_instance(str(path), ["PatientAge"])
    assert isinstance(found, Instance)
    assert found.facts.tags["PatientAge"] == "071Y"
    assert "PatientID" not in found.facts.tags
