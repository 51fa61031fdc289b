"""Files that are broken, or made to break readers: each is named with its reason, and memory stays bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from radioloader.errors import FormatError
from radioloader.formats.dicom.codestream import picture_size
from radioloader.formats.dicom.frames import Ignored
from radioloader.formats.dicom.headers import quiet, read_instance
from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.stacks import make_stacks
from tests.formats.dicom.make import (
    SYNTAX,
    real_volume,
    rotation,
    write_enhanced,
    write_garbage,
    write_mosaic,
    write_series,
)
from tests.formats.dicom.reading import frames_of, ignored, volumes
from tests.formats.dicom.volumes import Array

ROOT = Path(__file__).resolve().parents[3]
COMPRESSED = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
MIB = 2**20


def outcome(path: Path) -> Array | str:
    """The voxels of a file, or why there are none. Anything but FormatError comes through."""
    with quiet():
        found = read_instance(str(path))
    if isinstance(found, Ignored):
        assert found.reason
        return found.reason
    if found.what != "image":
        return found.what
    (volume, *_) = volumes([path])
    if volume.problem:
        assert str(path) in volume.problem
        return volume.problem
    try:
        return read_volume(volume).voxels
    except FormatError as error:
        said = str(error)
    assert str(path) in said
    return said


def test_garbage_with_the_prefix(tmp_path: Path) -> None:
    path = write_garbage(tmp_path / "a.dcm")
    (found,) = ignored(path)
    assert found.broken
    assert found.reason.startswith("broken DICOM")
    path.write_bytes(b"\0" * 128 + b"DICM")
    (found,) = ignored(path)
    assert (found.reason, found.broken) == ("broken DICOM: it has no SOPClassUID", True)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SeriesInstanceUID"])
def test_without_mandatory_identifiers(tmp_path: Path, keyword: str) -> None:
    voxels, affine = real_volume((8, 8, 1))
    (path,) = write_series(tmp_path, voxels, affine)
    ds = pydicom.dcmread(path)
    delattr(ds, keyword)
    del ds.file_meta.MediaStorageSOPClassUID
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    (found,) = ignored(path)
    assert (found.reason, found.broken) == (f"broken DICOM: it has no {keyword}", True)


@SYNTAX
def test_cut_anywhere(tmp_path: Path, syntax: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that lost its end is never an image with other values."""
    voxels, affine = real_volume((33, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=syntax)
    content = path.read_bytes()
    whole = outcome(path)
    assert isinstance(whole, np.ndarray)
    # The end of a compressed sequence and a padding byte may go without loss.
    for cut in [*range(0, len(content) - 12, 61), *range(len(content) - 40, len(content) - 12, 7)]:
        path.write_bytes(content[:cut])
        found = outcome(path)
        if isinstance(found, np.ndarray):
            assert np.array_equal(found, whole), cut
    capfd.readouterr()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("lost", [1, 100, 2000])
def test_cut_within_its_pixels(tmp_path: Path, syntax: Any, lost: int) -> None:
    voxels, affine = real_volume((32, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=syntax)
    path.write_bytes(path.read_bytes()[:-lost])
    assert outcome(path) == (
        f"{path}: truncated: {2048 - lost} bytes of pixels are there, expected 2048 for 1 x 32 x 32 pixels of 16 bits"
    )


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_cut_within_compressed_pixels(tmp_path: Path, syntax: Any) -> None:
    """Decoders would make a picture of what is left."""
    voxels, affine = real_volume((32, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=syntax)
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OB") + 12 + 8 + 4  # behind a table of one offset
    assert content[start : start + 4] == b"\xfe\xff\x00\xe0"
    length = int.from_bytes(content[start + 4 : start + 8], "little")
    path.write_bytes(content[: start + 8 + length - 30])
    assert outcome(path) == f"{path}: truncated: {length - 30} bytes of its pixels are there, expected {length}"


@pytest.mark.parametrize("kind", ["series", "enhanced", "mosaic"])
def test_damaged_bytes(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is in a file: a reason, or voxels."""
    voxels, affine = real_volume((32, 32, 4))
    path = tmp_path / "a.dcm"
    if kind == "series":
        (path,) = write_series(tmp_path, voxels[..., :1], affine)
    elif kind == "enhanced":
        write_enhanced(path, voxels, affine, syntax=RLELossless)
    else:
        write_mosaic(path, voxels.astype(np.uint16), affine)
    content = path.read_bytes()
    generator = np.random.default_rng(3)
    header = content.index(b"\xe0\x7f\x10\x00") + 60
    for _ in range(120):
        damaged = bytearray(content)
        for place in generator.integers(128, header, 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        assert len(outcome(path)) > 0
    capfd.readouterr()


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_damaged_compressed_pixels(tmp_path: Path, syntax: Any, capfd: pytest.CaptureFixture[str]) -> None:
    voxels, affine = real_volume((32, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=syntax)
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OB") + 28
    generator = np.random.default_rng(4)
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(start, len(content), 4):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        assert len(outcome(path)) > 0
    capfd.readouterr()


EXTREME = ["1e308", "-1e308", "1e-308", "1e30", "0", "-1", "99999999999999", "nan", "x", ""]


@pytest.mark.parametrize(
    "keyword",
    [
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
        "SliceThickness",
        "InstanceNumber",
        "NumberOfFrames",
    ],
)
@pytest.mark.parametrize("policy", [{}, {"on_irregular": "resample", "on_tilt": "resample"}, {"on_irregular": "split"}])
def test_numbers_out_of_all_proportion(tmp_path: Path, keyword: str, policy: dict[str, Any]) -> None:
    voxels, affine = real_volume((8, 8, 3))
    files = write_series(tmp_path, voxels, affine, names="plain")
    for text in EXTREME:
        for change in range(6):
            with quiet():
                ds = pydicom.dcmread(files[1])
                length = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}.get(keyword, 1)
                value = ds.get(keyword)
                parts = [str(part) for part in value] if length > 1 else [text]
                if change < length:
                    parts[change] = text
                raw = "\\".join(parts).encode()
                tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
                kind = pydicom.datadict.dictionary_VR(tag)
                ds._dict[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(raw), raw, 0, False, True)
                pydicom.dcmwrite(tmp_path / "IM00001.dcm", ds, enforce_file_format=False)
            for volume in volumes(tmp_path, **policy):
                if volume.problem:
                    continue
                assert np.prod(volume.shape) < 2**27
                try:
                    got = read_volume(volume)
                except FormatError:
                    continue
                assert got.voxels.shape == volume.shape
                assert np.isfinite(volume.laid_out[0].affine).all()
            if change >= length - 1:
                break


# Bombs


def test_sequences_within_sequences(tmp_path: Path) -> None:
    """Deeper than Python goes."""
    voxels, affine = real_volume((8, 8, 1))
    (path,) = write_series(tmp_path, voxels, affine)
    content = path.read_bytes()
    place = content.index(b"\x08\x00\x60\x00CS")
    nest = b"\x08\x00\x59\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(content[:place] + nest + content[place:])
    (found,) = ignored(path)
    assert found.reason == "broken DICOM: RecursionError: it cannot be parsed"


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\x4f\xff\x51" + b"\0" * 30, b"\0\0\0\x0cjP  \r\n"]
)
def test_pictures_without_a_size(data: bytes) -> None:
    assert picture_size(data) is None
    assert picture_size(data + b"\xff" * 3) is None


def test_thousands_of_frames_are_laid_out_quickly() -> None:
    """Nothing in it grows with the square of the number of frames."""
    affine = rotation((20, -10, 5)) @ real_volume((8, 8, 1))[1]
    frames = frames_of(affine, 5000)
    (stack,) = make_stacks(frames[::-1])
    assert [frame.path for frame in stack.frames] == [frame.path for frame in frames]
    apart = [replace(frame, kind=(("echo", f"{1.003**k:.9g}"),)) for k, frame in enumerate(frames)]
    assert len({stack.name for stack in make_stacks(apart)}) == 5000
    angles = np.linspace(0, np.pi, 5000)
    turned = [
        replace(frame, orientation=(np.cos(a), np.sin(a), 0.0, 0.0, 0.0, 1.0))
        for frame, a in zip(frames, angles, strict=True)
    ]
    assert 100 < len(make_stacks(turned[:500])) < 500
    spread = [
        replace(frame, orientation=(a, b, 0, 0, 0, 1)) for frame, a, b in zip(frames, angles, angles[::-1], strict=True)
    ]
    with pytest.raises(FormatError, match="its frames look in more than 1000 directions"):
        make_stacks(spread)
