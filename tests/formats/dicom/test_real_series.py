"""Real series: those in pydicom's wheel, and where they are at hand larger ones with their twins."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from radioloader.formats.dicom.pixels import hash_files, read_volume
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.reading import affine_of, ignored, instances, one, values, volumes
from tests.formats.dicom.real_series import ROOT, SERIES, RealSeries
from tests.formats.dicom.volumes import LPS

BY_NAME = {real.name: real for real in SERIES}


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    chosen = [real for real in SERIES if real.kind in kinds]
    return pytest.mark.parametrize("real", chosen, ids=[real.name for real in chosen])


@of_kind("regular")
def test_regular_series(tmp_path: Path, real: RealSeries) -> None:
    volume = one(real.paths)
    assert volume.shape == real.shape
    assert np.allclose(affine_of(volume)[:3], np.array(real.affine), atol=1e-6)
    grid, verdict = volume.laid_out
    assert np.allclose(grid.origins[:, 2], real.along, atol=1e-6)  # both are axial
    assert (verdict.status, verdict.gaps, verdict.duplicates) == ("regular", (), ())
    got = read_volume(volume)
    slices = [pydicom.dcmread(path) for path in real.paths]
    answer = [ds.pixel_array.T * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices]
    assert np.array_equal(values(got), np.stack(answer, axis=2))
    assert (got.voxels.dtype, got.slope, got.intercept) == (np.int16, 1.0, 0.0)
    assert grid.slices == tuple(((ds.SOPInstanceUID, 0),) for ds in slices)
    (tmp_path / "in").mkdir()
    for path in real.paths:
        shutil.copy(path, tmp_path / "in")
    assert same_as_converter(values(got), affine_of(volume), *dcm2niix(tmp_path / "in", tmp_path / "out"))


def test_instance_numbers_run_against_the_normal() -> None:
    assert one(BY_NAME["CT5N"].paths).laid_out[1].order == "descending"


@of_kind("gap")
def test_series_with_a_gap(real: RealSeries) -> None:
    (refused,) = volumes(real.paths)
    assert "irregular: 1 gap (202.5 mm after slice 1, expected 1.25 mm)" in refused.problem
    first, second = volumes(real.paths, on_irregular="split")
    assert (first.shape, second.shape) == ((16, 16, 1), (16, 16, 3))
    rest = BY_NAME["CT2 without its first slice"]
    assert np.allclose(affine_of(second)[:3], np.array(rest.affine), atol=1e-6)
    assert np.array_equal(read_volume(second).voxels, read_volume(one(rest.paths)).voxels)
    kept = one(real.paths, on_irregular="keep")
    assert np.allclose(kept.laid_out[0].origins[:, 2], real.along, atol=1e-6)
    even = one(real.paths, on_irregular="resample")
    assert even.shape == (16, 16, 165)
    assert np.allclose(affine_of(even)[:3, 2], [0, 0, 1.25])


@of_kind("orientations")
def test_series_of_several_orientations(real: RealSeries) -> None:
    found = volumes(real.paths)
    assert len(found) == len(real.paths)
    assert len({volume.name for volume in found}) == len(found)
    by_path = {volume.slices[0][0].path: volume for volume in found}
    for path in real.paths:
        volume = by_path[str(path)]
        ds = pydicom.dcmread(path)
        assert not volume.problem
        assert volume.laid_out[1].status == "single"
        row, column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        down, right = map(float, ds.PixelSpacing)
        lps = np.eye(4)
        depth = float(ds.get("SpacingBetweenSlices") or ds.SliceThickness)
        normal = np.cross(row, column)
        lps[:3] = np.stack(
            [row * right, column * down, normal / np.linalg.norm(normal) * depth, np.array(ds.ImagePositionPatient)],
            axis=1,
        )
        assert np.allclose(affine_of(volume), LPS @ lps, atol=1e-5)
        pixels = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        assert np.array_equal(values(read_volume(volume))[..., 0].T, pixels)


def test_planes_are_named() -> None:
    assert {volume.name for volume in volumes(BY_NAME["MR2 of 4950"].paths)} == {"axial", "sagittal", "coronal"}
    assert {volume.name for volume in volumes(BY_NAME["CT2N"].paths)} == {"sagittal", "coronal"}


def test_dose_is_no_image() -> None:
    (found,) = ignored(BY_NAME["rtdose"].paths)
    assert (found.reason, found.broken) == ("no volume (RT Dose Storage)", False)


@of_kind("copies")
def test_copies_in_many_encodings(real: RealSeries) -> None:
    volume = one(real.paths)
    assert volume.shape == real.shape
    assert np.allclose(affine_of(volume)[:3], np.array(real.affine), atol=1e-6)
    assert volume.notes == ("7 frames are there in several files with the same SOPInstanceUID; one of each was used",)
    assert np.array_equal(read_volume(volume).voxels[..., 0].T, pydicom.dcmread(real.paths[0]).pixel_array)
    for path in real.paths:
        alone = read_volume(one([path])).voxels[..., 0].T
        assert np.array_equal(alone, pydicom.dcmread(real.paths[0]).pixel_array), path


def test_a_truncated_copy() -> None:
    (volume,) = volumes([ROOT / "MR_truncated.dcm"])
    assert "truncated: 8130 bytes of pixels are there, expected 8192" in volume.problem
    fine = one([ROOT / "MR_truncated.dcm", ROOT / "MR_small.dcm"])
    assert any("a good copy was used" in note for note in fine.notes)


@of_kind("no geometry")
def test_series_without_pictures(real: RealSeries) -> None:
    (volume,) = volumes(real.paths)
    assert volume.problem == f"{real.paths[0]}: it has no Rows and Columns: no picture (and 49 more of this series)"


def test_every_file_of_pydicom_is_something() -> None:
    """An image, a label, or nothing with a reason: and whatever it is, nothing raises."""
    paths = sorted(path for path in ROOT.rglob("*") if path.is_file())
    found, other = instances(paths), ignored(paths)
    assert len(found) + len(other) == len(paths)
    assert len(paths) > 100
    assert all(one.reason for one in other)
    for instance in found:
        if instance.what != "image" or instance.problem:
            assert instance.what != "image" or len(instance.problem) > 10
            continue
        for volume in volumes([Path(instance.path)]):
            if not volume.problem:
                assert read_volume(volume).voxels.shape == volume.shape


def test_philips_ct(shared_data: Path) -> None:
    folder = shared_data / "ct_philips"
    volume = one(folder)
    got = read_volume(volume)
    assert got.voxels.shape == (512, 512, 28)
    assert (got.voxels.dtype, got.slope, got.intercept) == (np.int16, 1.0, 0.0)
    assert (got.voxels.min(), got.voxels.max()) == (-1024, 782)
    assert np.allclose(np.abs(np.diag(affine_of(volume))[:3]), [0.451171875, 0.451171875, 5.0], atol=1e-9)
    assert hash_files(volume) == got.source_hash
    reasons = {Path(one.path).name: one.reason for one in ignored(folder)}
    assert reasons == {"DIRFILE": "DICOMDIR", "LICENSE": "not DICOM"}


STS = [(patient, image) for patient in ("STS_001", "STS_002") for image in ("CT", "MR_T1", "PET")]


@pytest.mark.parametrize(("patient", "image"), STS, ids=["-".join(pair) for pair in STS])
def test_series_of_ibsi_equal_their_twins(shared_data: Path, patient: str, image: str) -> None:
    volume = one(shared_data / "ibsi_sts" / "dicom" / patient / image / "image")
    got = values(read_volume(volume))
    twin = nib.load(shared_data / "ibsi_sts" / "nifti" / patient / f"{image}_image.nii.gz")
    turn = io_orientation(np.linalg.inv(affine_of(volume)) @ twin.affine)
    theirs = apply_orientation(np.asarray(twin.dataobj), turn)
    assert np.array_equal(got, theirs)
    assert np.abs(affine_of(volume) - twin.affine @ inv_ornt_aff(turn, twin.shape)).max() < 1e-4
