"""Tilted and irregular stacks under each policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radioloader.errors import ConfigError, FormatError
from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.volumes import Policy
from tests.formats.dicom.make import real_volume, rotation, tilt, write_enhanced, write_series
from tests.formats.dicom.reading import affine_of, one, volumes
from tests.formats.dicom.test_volumes import SHAPE, moved
from tests.formats.dicom.volumes import TURNS, Array


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SHAPE)
    return voxels, rotation(TURNS["oblique"]) @ affine


@pytest.mark.parametrize("degrees", [-15.0, 20.0])
def test_tilt(tmp_path: Path, degrees: float) -> None:
    voxels, affine = real_volume(SHAPE)
    sheared = tilt(affine, degrees)
    write_series(tmp_path, voxels, sheared)
    kept = one(tmp_path)
    assert np.array_equal(read_volume(kept).voxels, voxels)
    assert np.allclose(affine_of(kept), sheared, atol=1e-5)
    (refused,) = volumes(tmp_path, on_tilt="error")
    assert refused.problem == (
        f"{tmp_path} (9 files): tilted: {abs(degrees):.2f} degrees, which on_tilt='error' refuses; choose 'keep' or 'resample' (--on-tilt)"
    )
    with pytest.raises(FormatError, match="on_tilt='error' refuses"):
        read_volume(refused)
    upright = one(tmp_path, on_tilt="resample")
    columns = affine_of(upright)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    assert np.allclose(columns.T @ columns, np.diag(lengths**2), atol=1e-5)
    assert np.allclose(lengths, [2.0, 1.5, 4.2 * np.cos(np.deg2rad(degrees))], atol=1e-5)
    assert upright.verdict is not None
    assert (upright.verdict.status, upright.verdict.changed) == ("tilted", "resampled")


def test_a_gap_is_an_error_first(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Nothing stretches space silently."""
    write_series(tmp_path, *oblique, drop=[3, 4])
    (volume,) = volumes(tmp_path)
    assert volume.problem == (
        f"{tmp_path} (7 files): irregular: 1 gap (12.6 mm after slice 3, expected 4.2 mm); fetch what is missing, or choose "
        "on_irregular='resample', 'split' or 'keep' (--on-irregular)"
    )
    with pytest.raises(FormatError, match="1 gap"):
        read_volume(volume)


def test_a_gap_kept(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels, affine = oblique
    write_series(tmp_path, voxels, affine, drop=[3, 4])
    volume = one(tmp_path, on_irregular="keep")
    left = [0, 1, 2, 5, 6, 7, 8]
    grid, verdict = volume.laid_out
    assert np.array_equal(read_volume(volume).voxels, voxels[..., left])
    # The truth is in the origins; the affine divides evenly what lies between the first slice and the last.
    assert np.allclose(grid.origins, (affine @ np.array([[0, 0, k, 1] for k in left]).T).T[:, :3], atol=1e-6)
    assert np.allclose(grid.affine[:3, 2], affine[:3, 2] * 8 / 6, atol=1e-6)
    assert (verdict.status, verdict.changed) == ("irregular", "kept")
    assert verdict.describe() == "irregular: 1 gap (12.6 mm after slice 3, expected 4.2 mm); kept"


def test_a_gap_split(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels, affine = oblique
    write_series(tmp_path, voxels, affine, drop=[3, 4])
    first, second = volumes(tmp_path, on_irregular="split")
    assert [(part.name, part.part, part.files, part.problem) for part in (first, second)] == [
        ("part1", 1, 3, ""),
        ("part2", 2, 4, ""),
    ]
    for part, start, stop in ((first, 0, 3), (second, 5, 9)):
        assert np.array_equal(read_volume(part).voxels, voxels[..., start:stop])
        assert np.allclose(affine_of(part), moved(affine, start), atol=1e-6)
        assert part.laid_out[1].changed == f"split: part {part.part} of 2"
        assert part.laid_out[1].status == "regular"


def test_a_single_slice_left_over(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """It is as deep as its SliceThickness says."""
    voxels, affine = oblique
    write_series(tmp_path, voxels, affine, drop=[1, 2])
    first, second = volumes(tmp_path, on_irregular="split")
    assert (first.shape, second.shape) == ((12, 10, 1), (12, 10, 6))
    assert np.allclose(affine_of(first), affine, atol=1e-6)
    assert np.array_equal(read_volume(first).voxels, voxels[..., :1])


@pytest.mark.parametrize("shift", [0.5, -1.0])
def test_a_slice_out_of_place(tmp_path: Path, oblique: tuple[Array, Array], shift: float) -> None:
    voxels, affine = oblique
    write_series(tmp_path, voxels, affine, shift={4: shift})
    (volume,) = volumes(tmp_path)
    assert f"irregular: slices lie up to {abs(shift):.3g} mm off a regular grid" in volume.problem
    wide = one(tmp_path, tolerance_mm=0.45) if abs(shift) < 0.42 else volumes(tmp_path, tolerance_mm=5)[0]
    # A tenth of the distance of slices is the most that any tolerance lets pass.
    assert "irregular" in wide.problem


def test_a_tolerance_lets_small_deviations_pass(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_series(tmp_path, *oblique, shift={4: 0.3})
    assert volumes(tmp_path)[0].problem
    volume = one(tmp_path, tolerance_mm=0.35)
    assert volume.laid_out[1].status == "regular"
    assert volume.laid_out[1].deviation == pytest.approx(0.3, abs=1e-5)
    assert np.allclose(affine_of(volume), oblique[1], atol=1e-6)


def test_doubled_slices(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels, affine = oblique
    write_series(tmp_path, voxels, affine, duplicate=[2], duplicate_uids=True)
    (volume,) = volumes(tmp_path)
    assert "irregular: 1 slice at the place of another (slice 4)" in volume.problem
    (resampled,) = volumes(tmp_path, on_irregular="resample")
    assert "which of the slices at one place is right is unknown, so they are not resampled" in resampled.problem
    first, second = volumes(tmp_path, on_irregular="split")
    assert np.array_equal(read_volume(first).voxels, voxels)
    assert np.allclose(affine_of(first), affine, atol=1e-6)
    assert np.array_equal(read_volume(second).voxels, voxels[..., 2:3])
    assert np.allclose(affine_of(second), moved(affine, 2), atol=1e-6)
    kept = one(tmp_path, on_irregular="keep")
    assert kept.shape == (12, 10, 10)
    assert kept.laid_out[1].duplicates == (3,)


def test_stations_that_overlap_can_be_split(tmp_path: Path) -> None:
    """Two acquisitions, the second half a slice off and three slices into the first."""
    voxels, affine = real_volume((12, 10, 12))
    write_series(tmp_path, voxels[..., :7], affine, acquisition=1)
    write_series(tmp_path, voxels[..., 4:], moved(affine, 4.5), acquisition=2)
    first, second = volumes(tmp_path)
    assert (first.name, second.name) == ("acquisition1", "acquisition2")
    assert np.array_equal(read_volume(first).voxels, voxels[..., :7])
    assert np.array_equal(read_volume(second).voxels, voxels[..., 4:])
    assert np.allclose(affine_of(second), moved(affine, 4.5), atol=1e-5)


def test_stations_with_a_gap_between_them_can_be_split(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 12))
    write_series(tmp_path, voxels[..., :6], affine, acquisition=1)
    write_series(tmp_path, voxels[..., 6:], moved(affine, 9.3), acquisition=2)
    first, second = volumes(tmp_path, on_irregular="split")
    assert np.array_equal(read_volume(first).voxels, voxels[..., :6])
    assert np.array_equal(read_volume(second).voxels, voxels[..., 6:])


def test_a_gap_over_time(tmp_path: Path) -> None:
    voxels, affine = real_volume(SHAPE)
    both = np.stack([voxels, voxels // 2], axis=3)
    write_series(tmp_path, both, affine, modality="MR", drop=[3])
    assert "1 gap (8.4 mm after slice 3" in volumes(tmp_path)[0].problem
    first, second = volumes(tmp_path, on_irregular="split")
    assert np.array_equal(read_volume(first).voxels, both[:, :, :3])
    assert np.array_equal(read_volume(second).voxels, both[:, :, 4:])
    kept = one(tmp_path, on_irregular="keep")
    assert np.array_equal(read_volume(kept).voxels, np.delete(both, 3, axis=2))


def test_enhanced_with_a_gap(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    path = write_enhanced(tmp_path / "a.dcm", *oblique, drop=[4])
    (volume,) = volumes(tmp_path)
    assert volume.problem.startswith(f"{path} (1 file): irregular: 1 gap (8.4 mm after slice 4, expected 4.2 mm)")
    first, second = volumes(tmp_path, on_irregular="split")
    assert np.array_equal(read_volume(first).voxels, oblique[0][..., :4])
    assert np.array_equal(read_volume(second).voxels, oblique[0][..., 5:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_tilt": "fix"}, "on_tilt='fix' is not one of 'keep', 'resample', 'error'"),
        ({"on_irregular": ""}, "on_irregular='' is not one of 'error', 'resample', 'split', 'keep'"),
        ({"suv": "lbm"}, "suv='lbm' is not one of 'bw'"),
        ({"tolerance_mm": -1.0}, "slice_tolerance_mm=-1.0 is not a distance in mm"),
        ({"tolerance_mm": float("nan")}, "slice_tolerance_mm=nan is not a distance in mm"),
    ],
)
def test_policies_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**values).check()
    assert str(caught.value) == message


@pytest.mark.parametrize("on_irregular", ["keep", "resample"])
def test_a_tilt_is_refused_where_slices_are_missing_too(tmp_path: Path, on_irregular: str) -> None:
    voxels, affine = real_volume(SHAPE)
    write_series(tmp_path, voxels, tilt(affine, 15.0), drop=[4])
    assert not volumes(tmp_path, on_irregular=on_irregular)[0].problem
    (volume,) = volumes(tmp_path, on_irregular=on_irregular, on_tilt="error")
    assert "15.00 degrees, which on_tilt='error' refuses" in volume.problem


def test_slices_that_turn_within_their_plane_are_off_the_grid(tmp_path: Path) -> None:
    """Nine ten-thousandths over the stack: nothing at the first pixel, and a third of a millimetre at the last one."""
    voxels, affine = real_volume((40, 36, 12))
    wide = affine.copy()
    wide[:3, :2] *= 5

    def turn(ds: Dataset, k: int) -> None:
        angle = 9e-4 * k / 11
        ds.ImageOrientationPatient = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]

    write_series(tmp_path, voxels, wide, extra=turn)
    (volume,) = volumes(tmp_path)
    assert volume.verdict is not None
    assert volume.verdict.status == "irregular"
    assert volume.verdict.deviation == pytest.approx(9e-4 * np.hypot(39 * 10, 35 * 7.5), rel=0.02)
    (volume,) = volumes(tmp_path, tolerance_mm=0.5)
    assert volume.verdict is not None
    assert volume.verdict.status == "irregular"  # a tenth of the slice distance is the most


def test_every_second_slice_missing_is_told_of(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 12))
    write_series(tmp_path, voxels, affine, drop=range(1, 12, 2))
    (volume,) = volumes(tmp_path)
    assert volume.verdict is not None
    assert volume.verdict.status == "regular"
    assert any("2 times as far apart (8.4 mm)" in note for note in volume.verdict.notes)


def test_where_nothing_is_the_lowest_value_lies_also_under_a_negative_slope(tmp_path: Path) -> None:
    voxels, affine = real_volume((32, 28, 9))
    write_series(tmp_path, voxels, tilt(affine, 14.0), slope=-1.5, intercept=0.0)
    volume = one(tmp_path, on_tilt="resample")
    read = read_volume(volume)
    values = read.voxels * read.slope + read.intercept
    assert volume.shape[1] > 28
    assert values[:, 0].min() == values.min() == -1.5 * float(voxels.max())
