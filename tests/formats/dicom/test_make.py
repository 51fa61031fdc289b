"""The DICOM that the tests make is what it should be, by dcm2niix, highdicom, nibabel and pydicom."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from scipy.ndimage import map_coordinates

from tests.formats.dicom.converter import Converted, dcm2niix, difference, same_as_converter
from tests.formats.dicom.identity import plant_identity, plant_uids
from tests.formats.dicom.make import (
    CONVERTED,
    SYNTAX,
    fit,
    real_volume,
    rescaled,
    rotation,
    tilt,
    write_bomb,
    write_capture,
    write_dicomdir,
    write_enhanced,
    write_garbage,
    write_localizer,
    write_mosaic,
    write_report,
    write_series,
    write_truncated,
)
from tests.formats.dicom.real_series import SERIES, RealSeries, stacked
from tests.formats.dicom.volumes import LPS, TURNS, Array

SMALL = (36, 32, 6)


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SMALL)
    return voxels, rotation(TURNS["oblique"]) @ affine


def by_highdicom(volume: hd.Volume) -> Converted:
    """Of highdicom's (slices against the normal, rows, columns) and LPS."""
    return np.asarray(volume.array).transpose(2, 1, 0), LPS @ np.asarray(volume.affine)[:, [2, 1, 0, 3]], {}


def test_the_volume_tells_every_direction_from_its_opposite() -> None:
    voxels, affine = real_volume()
    assert (voxels.shape, voxels.dtype) == ((40, 36, 24), np.int16)
    assert np.linalg.det(affine[:3, :3]) > 0
    for axis in range(3):
        assert np.mean(voxels != np.flip(voxels, axis)) > 0.9
    part, moved = real_volume((10, 12, 6))
    assert np.array_equal(part, voxels[15:25, 12:24, 9:15])
    assert np.allclose(moved @ [0, 0, 0, 1], affine @ [15, 12, 9, 1])


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_series_by_dcm2niix_and_highdicom(tmp_path: Path, turn: tuple[int, int, int], modality: str) -> None:
    voxels, affine = real_volume(SMALL)
    affine = rotation(turn) @ affine
    slope, intercept = (1.0, 0.0) if modality == "MR" else (0.5, -100.0)
    files = write_series(tmp_path / "in", voxels, affine, modality=modality, slope=slope, intercept=intercept)
    answer = rescaled(voxels, slope, intercept)
    (theirs,) = dcm2niix(tmp_path / "in", tmp_path / "out")
    assert same_as_converter(answer, affine, theirs)
    volume = hd.get_volume_from_series([pydicom.dcmread(file) for file in files])
    assert same_as_converter(answer, affine, by_highdicom(volume))


@SYNTAX
@pytest.mark.parametrize(
    ("bits", "signed", "junk"),
    [
        (8, False, False),
        (8, True, False),
        (12, False, True),
        (12, True, False),
        (12, True, True),
        (16, False, False),
        (16, True, False),
    ],
)
def test_every_syntax_by_pydicom(
    tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, bits: int, signed: bool, junk: bool
) -> None:
    voxels = fit(oblique[0], bits, signed)[..., :2]
    files = write_series(
        tmp_path, voxels, oblique[1], syntax=syntax, bits_stored=bits, signed=signed, high_bits_junk=junk
    )
    read = [pydicom.dcmread(file) for file in files]
    assert {ds.file_meta.TransferSyntaxUID for ds in read} == {syntax}
    assert np.array_equal(np.stack([ds.pixel_array.T for ds in read], axis=2), voxels)
    assert not junk or syntax.is_encapsulated or read[0].PixelData != voxels[..., 0].T.tobytes()


@CONVERTED
def test_every_syntax_by_dcm2niix(tmp_path: Path, oblique: tuple[Array, Array], syntax: Any) -> None:
    # dcm2niix does not read JPEG-LS in fragments; of RLE the standard allows none.
    fragments = 1 if syntax in (JPEGLSLossless, RLELossless) else 2
    write_series(tmp_path / "in", *oblique, modality="MR", syntax=syntax, fragments=fragments)
    assert same_as_converter(*oblique, *dcm2niix(tmp_path / "in", tmp_path / "out"))


@SYNTAX
def test_enhanced_in_every_syntax(tmp_path: Path, oblique: tuple[Array, Array], syntax: Any) -> None:
    fragments = 3 if "JPEG" in syntax.name else 1
    path = write_enhanced(tmp_path / "in" / "a.dcm", *oblique, modality="MR", syntax=syntax, fragments=fragments)
    # highdicom refuses big-endian files, dcm2niix gets several frames in one file wrong in RLE, JPEG-LS and JPEG 2000.
    if syntax.is_little_endian:
        assert same_as_converter(*oblique, by_highdicom(hd.imread(path).get_volume()))
    else:
        assert same_as_converter(*oblique, *dcm2niix(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frames": "plain", "per_frame": ("orientation", "measures", "type", "values")},
        {"stack_positions": "none", "frames": "reversed", "slope": 0.5, "intercept": -3.0},
    ],
    ids=["shared", "per frame", "no stack"],
)
def test_enhanced_by_dcm2niix(
    tmp_path: Path, oblique: tuple[Array, Array], modality: str, options: dict[str, Any]
) -> None:
    write_enhanced(tmp_path / "in" / "a.dcm", *oblique, modality=modality, **options)
    answer = rescaled(oblique[0], options.get("slope", 1.0), options.get("intercept", 0.0))
    assert same_as_converter(answer, oblique[1], *dcm2niix(tmp_path / "in", tmp_path / "out"))


def test_stack_positions_may_lie(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """dcm2niix believes them: what is right here is what PlanePositionSequence says."""
    path = write_enhanced(tmp_path / "in" / "a.dcm", *oblique, stack_positions="wrong")
    (theirs,) = dcm2niix(tmp_path / "in", tmp_path / "out")
    assert difference(*oblique, theirs)
    assert same_as_converter(*oblique, by_highdicom(hd.imread(path).get_volume()))


def test_slope_of_each_slice(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """By pydicom and highdicom: dcm2niix takes the first slice's for all."""
    voxels, affine = oblique
    slope, intercept = [1 + 0.25 * k for k in range(6)], [-10.0 * k for k in range(6)]
    answer = rescaled(voxels, slope, intercept)
    files = write_series(tmp_path / "s", voxels, affine, modality="PT", slope=slope, intercept=intercept)
    path = write_enhanced(tmp_path / "e.dcm", voxels, affine, modality="PT", slope=slope, intercept=intercept)
    read = [pydicom.dcmread(file) for file in files]
    values = [ds.pixel_array.T * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in read]
    assert np.allclose(np.stack(values, axis=2), answer)
    assert same_as_converter(answer, affine, by_highdicom(hd.imread(path).get_volume()))


@pytest.mark.parametrize(
    ("along", "values"),
    [("time", None), ("b_value", [0, 500, 1000]), ("phase", [0, 100, 200]), ("echo", [5, 10, 15])],
)
@pytest.mark.parametrize("volume_first", [False, True])
def test_enhanced_over_time(
    tmp_path: Path, oblique: tuple[Array, Array], along: Any, values: Any, volume_first: bool
) -> None:
    voxels = np.stack([oblique[0] // n for n in (1, 2, 3)], axis=3)
    path = tmp_path / "in" / "a.dcm"
    write_enhanced(path, voxels, oblique[1], modality="MR", along=along, values=values, volume_first=volume_first)
    theirs = dcm2niix(tmp_path / "in", tmp_path / "out")
    if along == "echo":
        assert all(same_as_converter(voxels[..., t], oblique[1], theirs[t]) for t in range(3))
    else:
        assert same_as_converter(voxels, oblique[1], *theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"b_value": [0, 500, 1000], "direction": [(0, 0, 0), (1, 0, 0), (0, 1, 0)]},
        {"acquisition": [1, 2, 3], "acquisition_time": ["101010.0", "101012.0", "101014.0"]},
        {"phase": [0, 100, 200]},
    ],
    ids=["temporal", "b-value", "acquisition", "phase"],
)
def test_series_over_time(tmp_path: Path, oblique: tuple[Array, Array], options: dict[str, Any]) -> None:
    voxels = np.stack([oblique[0] // n for n in (1, 2, 3)], axis=3)
    # dcm2niix goes by instance numbers here.
    write_series(tmp_path / "in", voxels, oblique[1], modality="MR", instance_numbers="right", **options)
    assert same_as_converter(voxels, oblique[1], *dcm2niix(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("degrees", [-15, 15])
def test_tilted_gantry(tmp_path: Path, degrees: float) -> None:
    voxels, affine = real_volume()
    tilted = tilt(affine, degrees)
    assert np.array_equal(tilted[:3, [0, 2, 3]], affine[:3, [0, 2, 3]])
    assert np.linalg.norm(tilted[:3, 1]) == pytest.approx(1.5)
    files = write_series(
        tmp_path / "in",
        voxels,
        tilted,
        instance_numbers="right",
        extra=lambda ds, k: setattr(ds, "GantryDetectorTilt", degrees),
    )
    for k, file in enumerate(files):
        ds = pydicom.dcmread(file)
        origin = np.array(ds.ImagePositionPatient, float) * [-1, -1, 1]
        assert np.allclose(origin, (tilted @ [0, 0, k, 1])[:3], atol=1e-6)
        down = np.array(ds.ImageOrientationPatient[3:], float) * [-1, -1, 1] * float(ds.PixelSpacing[0])
        assert np.allclose(down, tilted[:3, 1], atol=1e-6)
    # dcm2niix has no sheared affine: it writes the slices as if they stood above each other, and again resampled along the columns. It
    # does so rightly for one of the two directions only, whatever the sign of GantryDetectorTilt.
    plain, resampled = dcm2niix(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(plain[0][:, ::-1], voxels)
    assert "_Tilt" in resampled[2]["_name"]
    if degrees > 0:
        return
    index = np.indices(resampled[0].shape).reshape(3, -1)
    place = np.linalg.inv(tilted) @ resampled[1] @ np.vstack([index, np.ones(index.shape[1])])
    inside = np.all((place[:3] >= 0) & (place[:3] <= np.array(voxels.shape)[:, None] - 1), axis=0)
    expected = map_coordinates(voxels.astype(np.float64), place[:3, inside], order=1)
    assert inside.mean() > 0.6
    assert np.abs(expected - resampled[0].ravel()[inside]).max() < 0.6  # it rounds


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("against_normal", [False, True])
def test_mosaic_by_dcm2niix_and_nibabel(tmp_path: Path, turn: tuple[int, int, int], against_normal: bool) -> None:
    voxels, affine = real_volume((36, 32, 11))
    voxels, affine = fit(voxels, 12, False), rotation(turn) @ affine
    for number in (1, 2):
        path = write_mosaic(
            tmp_path / "in" / f"{number}", voxels + number, affine, against_normal=against_normal, number=number
        )
    both = np.stack([voxels + 1, voxels + 2], axis=3)
    assert same_as_converter(both, affine, *dcm2niix(tmp_path / "in", tmp_path / "out"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its reader experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_file

        wrapped = wrapper_from_file(path)
        theirs: Converted = (np.asarray(wrapped.get_data()), LPS @ wrapped.affine, {})
    assert same_as_converter(voxels + 2, affine, theirs)


def test_dropped_doubled_and_moved_slices(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels, affine = oblique
    files = write_series(tmp_path / "a", voxels, affine, drop=[1], duplicate=[2], shift={4: 0.5}, extension="")
    assert (len(files), len(list((tmp_path / "a").iterdir()))) == (5, 6)
    assert {path.suffix for path in files} == {""}
    headers = [pydicom.dcmread(path) for path in (tmp_path / "a").iterdir()]
    assert len({ds.SOPInstanceUID for ds in headers}) == 5
    places = np.array([pydicom.dcmread(path).ImagePositionPatient for path in files], float)
    normal = np.cross(*np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3))
    assert np.allclose(np.diff(places @ normal), [8.4, 4.2, 4.7, 3.7], atol=1e-6)
    write_series(tmp_path / "b", voxels, affine, duplicate=[2], duplicate_uids=True)
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "b").iterdir()}) == 7
    names = [path.name for path in write_series(tmp_path / "c", voxels, affine, names="reversed")]
    assert names == sorted(names, reverse=True)


def test_the_same_call_writes_the_same_bytes(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name, *oblique)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_affines_that_dicom_cannot_hold_are_refused(tmp_path: Path) -> None:
    voxels, affine = real_volume(SMALL)
    with pytest.raises(ValueError, match="against the normal"):
        write_series(tmp_path, voxels, affine * [1, 1, -1, 1])
    with pytest.raises(ValueError, match="does not fit 8 bits"):
        write_series(tmp_path, voxels, affine, bits_stored=8)


def test_other_objects(tmp_path: Path) -> None:
    assert pydicom.dcmread(write_capture(tmp_path / "c")).pixel_array.shape == (20, 30, 3)
    assert "PixelData" not in pydicom.dcmread(write_report(tmp_path / "r"))
    files = write_localizer(tmp_path / "l")
    headers = [pydicom.dcmread(path) for path in files]
    rows_and_columns = [np.array(ds.ImageOrientationPatient, float).reshape(2, 3) for ds in headers]
    normals = np.stack([np.cross(row, column) for row, column in rows_and_columns])
    assert np.allclose(normals @ normals.T, np.eye(3), atol=1e-6)
    assert len({ds.SeriesInstanceUID for ds in headers}) == 1
    index = write_dicomdir(tmp_path / "d", files)
    assert len(pydicom.dcmread(index).DirectoryRecordSequence) == 6
    assert write_garbage(tmp_path / "g").read_bytes()[128:132] == b"DICM"
    cut = write_truncated(tmp_path / "t", files[0])
    with pytest.raises(ValueError, match="bytes of pixel data"):
        _ = pydicom.dcmread(cut).pixel_array


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless, JPEGLosslessSV1])
def test_bombs_are_small(tmp_path: Path, syntax: Any) -> None:
    path = write_bomb(tmp_path / "b", **({"syntax": syntax} if syntax else {}))
    ds = pydicom.dcmread(path)
    assert path.stat().st_size < 10_000
    assert ds.Rows * ds.Columns * int(ds.NumberOfFrames) * 2 > 8e13


def test_identity_is_planted(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    planted: dict[str, str] = {}

    def plant(ds: Any, k: int) -> None:
        planted.update(plant_identity(ds) | plant_uids(ds, f"{k}"))

    path = write_series(tmp_path, oblique[0][..., :1], oblique[1], extra=plant)[0]
    content = path.read_bytes()
    assert len(planted) > 350
    assert len(set(planted.values())) == len(planted)
    assert [key for key, value in planted.items() if value.encode() not in content] == ["PregnancyStatus"]  # binary
    assert pydicom.dcmread(path).PatientName == planted["PatientName"]


@pytest.mark.parametrize("real", SERIES, ids=[real.name for real in SERIES])
def test_the_table_of_real_series(tmp_path: Path, real: RealSeries) -> None:
    assert all(path.is_file() for path in real.paths)
    if real.kind in ("regular", "gap"):
        shape, affine, along = stacked(real.paths)
        assert shape == real.shape
        assert np.allclose(along, real.along, atol=1e-6)
        assert np.all(np.diff(along) > 0)
        assert (np.ptp(np.diff(along)) < 1e-3) == (real.kind == "regular")
    if real.kind == "orientations":
        headers = [pydicom.dcmread(path) for path in real.paths]
        frames = [np.array(ds.ImageOrientationPatient, float).reshape(2, 3) for ds in headers]
        normals = np.stack([np.cross(row, column) for row, column in frames])
        assert np.all(np.abs(normals @ normals.T - np.eye(len(frames))) < 0.97)
    if real.kind == "copies":
        copies = [pydicom.dcmread(path) for path in real.paths if "padded" not in path.name]  # pydicom warns of that
        assert len({ds.SOPInstanceUID for ds in copies}) == 1
        assert all(np.array_equal(ds.pixel_array, copies[0].pixel_array) for ds in copies)
        assert np.allclose(stacked(real.paths[:1])[1][:3], np.array(real.affine), atol=1e-6)
    if real.kind == "multiframe":
        dose = pydicom.dcmread(real.paths[0])
        shape, affine, along = stacked(real.paths)
        affine[:3, 2] = [0, 0, np.diff(np.array(dose.GridFrameOffsetVector, float)).mean()]
        assert (*shape[:2], int(dose.NumberOfFrames)) == real.shape
        assert np.allclose(affine[:3], np.array(real.affine), atol=1e-6)
        assert np.allclose(along + np.array(dose.GridFrameOffsetVector, float), real.along)
    if real.kind == "no geometry":
        bare = [pydicom.dcmread(path) for path in real.paths]
        assert len({ds.SeriesInstanceUID for ds in bare}) == 1
        assert not any("Rows" in ds or "ImagePositionPatient" in ds for ds in bare)
    if real.kind != "regular":
        return
    assert real.affine is not None
    assert np.allclose(affine[:3], real.affine, atol=1e-6)
    (tmp_path / "in").mkdir()
    for path in real.paths:
        shutil.copy(path, tmp_path / "in")
    slices = [pydicom.dcmread(path) for path in real.paths]
    voxels = np.stack([ds.pixel_array.T * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices], axis=2)
    assert same_as_converter(voxels, affine, *dcm2niix(tmp_path / "in", tmp_path / "out"))
