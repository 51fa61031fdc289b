"""Several files of one instance, and files that change."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from radioloader.errors import FormatError
from radioloader.formats.dicom.pixels import hash_files, read_volume
from tests.formats.dicom.make import (
    SYNTAXES,
    real_volume,
    rotation,
    write_enhanced,
    write_series,
    write_truncated,
)
from tests.formats.dicom.reading import one, volumes
from tests.formats.dicom.test_pixels import SHAPE
from tests.formats.dicom.volumes import Array


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SHAPE)
    return voxels, rotation((20, -10, 5)) @ affine


@pytest.mark.parametrize("other", [None, "jpeg2000", "rle"])
def test_copies_with_the_same_pixels(tmp_path: Path, oblique: tuple[Array, Array], other: str | None) -> None:
    voxels, affine = oblique
    files = write_series(tmp_path, voxels, affine, names="plain")
    shutil.copy(files[1], tmp_path / "copy.dcm")
    if other:
        ds = pydicom.dcmread(files[1])
        ds.compress(dict(SYNTAXES)[other], generate_instance_uid=False)
        ds.save_as(tmp_path / "copy.dcm")
    volume = one(tmp_path)
    assert volume.notes == ("1 frame is there in several files with the same SOPInstanceUID; one of each was used",)
    assert np.array_equal(read_volume(volume).voxels, voxels)


@pytest.mark.parametrize("other", [None, "jpeg2000"])
def test_copies_with_other_pixels_are_refused(tmp_path: Path, oblique: tuple[Array, Array], other: str | None) -> None:
    voxels, affine = oblique
    files = write_series(tmp_path, voxels, affine, names="plain")
    ds = pydicom.dcmread(files[1])
    pixels = ds.pixel_array.copy()
    pixels[3, 4] += 1
    ds.PixelData = pixels.tobytes()
    if other:
        ds.compress(dict(SYNTAXES)[other], generate_instance_uid=False)
    ds.save_as(tmp_path / "copy.dcm")
    (volume,) = volumes(tmp_path)
    with pytest.raises(FormatError, match=r"have the same SOPInstanceUID and different pixels; remove the wrong one"):
        read_volume(volume)


@pytest.mark.parametrize("changed", [False, True])
def test_copies_of_many_frames(tmp_path: Path, oblique: tuple[Array, Array], changed: bool) -> None:
    path = write_enhanced(tmp_path / "a.dcm", *oblique)
    ds = pydicom.dcmread(path)
    ds.SeriesDescription = "sent again"
    pixels = ds.pixel_array.copy()
    pixels[2, 3, 4] += int(changed)
    ds.PixelData = pixels.tobytes()
    ds.save_as(tmp_path / "b.dcm")
    volume = one(tmp_path)
    assert volume.notes == ("3 frames are there in several files with the same SOPInstanceUID; one of each was used",)
    if changed:
        with pytest.raises(FormatError, match=f"{path} and {tmp_path / 'b.dcm'} have the same SOPInstanceUID"):
            read_volume(volume)
    else:
        assert np.array_equal(read_volume(volume).voxels, oblique[0])


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "RescaleIntercept"])
def test_copies_with_another_header_are_refused(tmp_path: Path, oblique: tuple[Array, Array], keyword: str) -> None:
    """Software that gives all slices one SOPInstanceUID would lose all but one of them."""
    files = write_series(tmp_path, *oblique, names="plain")
    ds = pydicom.dcmread(files[1])
    setattr(ds, keyword, {"ImagePositionPatient": ["1", "2", "3"], "RescaleIntercept": "7"}[keyword])
    ds.save_as(tmp_path / "copy.dcm")
    (volume,) = volumes(tmp_path)
    assert "have the same SOPInstanceUID and say different things of their frame" in volume.problem
    assert str(files[1]) in volume.problem
    assert str(tmp_path / "copy.dcm") in volume.problem


def test_the_hash_is_that_of_the_files(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path / "a", *oblique)
    volume = one(tmp_path / "a")
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    assert read_volume(volume).source_hash == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert hash_files(volume) == read_volume(volume).source_hash
    write_series(tmp_path / "b", *oblique, names="reversed")
    assert hash_files(one(tmp_path / "b")) == hash_files(volume)
    write_series(tmp_path / "c", oblique[0] + 1, oblique[1])
    assert hash_files(one(tmp_path / "c")) != hash_files(volume)


def test_files_that_go_while_they_are_read(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *oblique)
    volume = one(tmp_path)
    whole, times = files[2].read_bytes(), files[2].stat()
    write_truncated(files[2], files[2])
    with pytest.raises(FormatError, match=f"{files[2]}: it was changed after its header had been read"):
        read_volume(volume)
    # Another slice of the same size in its place
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(FormatError, match=f"{files[2]}: it was changed after its header had been read"):
        read_volume(volume)
    files[2].write_bytes(whole)
    os.utime(files[2], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.array_equal(read_volume(volume).voxels, oblique[0])
    files[2].unlink()
    for function in (read_volume, hash_files):
        with pytest.raises(FormatError, match=f"{files[2]}: could not be read: No such file"):
            function(volume)
