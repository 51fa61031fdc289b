"""Tilted and irregular stacks on upright, even grids: what is linear in mm stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.pixels import read_volume, source_grid
from radioloader.formats.dicom.resample import resample_stack, target_grid
from tests.formats.dicom.make import real_volume, rotation, tilt, write_series
from tests.formats.dicom.reading import affine_of, one
from tests.formats.dicom.volumes import Array, plane_of

SHAPE = (14, 20, 12)
TURNS = {"axial": (0, 0, 0), "oblique": (20, -10, 5), "coronal": (90, 0, 0)}
TURN = pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)


def places_of(affine: Array, shape: tuple[int, ...]) -> Array:
    """(X, Y, Z, 3) RAS mm of every voxel."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape[:3]], indexing="ij"), axis=-1)
    placed: Array = index @ affine[:3, :3].T + affine[:3, 3]
    return placed


def grid_of(affine: Array, shape: tuple[int, int, int], along: Array | None = None) -> ImageGrid:
    """A stack; ``along`` are the places of its slices in steps of the affine."""
    steps = np.arange(shape[2]) if along is None else along
    origins = affine[:3, 3] + np.asarray(steps)[:, None] * affine[:3, 2]
    return ImageGrid(shape, affine, origins, "", "", "", "", tuple(((f"1.{k}", 0),) for k in range(shape[2])))


def ramp(places: Array) -> Array:
    """Linear in mm, along every axis."""
    values: Array = places @ [2.0, -3.0, 5.0] + 1000.0
    return values


def stack_of(grid: ImageGrid) -> Array:
    return np.stack(
        [
            ramp(places_of(grid.affine, (*grid.shape[:2], 1))[:, :, 0] - grid.affine[:3, 3] + origin)
            for origin in grid.origins
        ],
        axis=2,
    )


@TURN
@pytest.mark.parametrize("degrees", [-21.0, 4.0, 30.0])
def test_a_ramp_stays_a_ramp_when_the_tilt_goes(turn: tuple[int, int, int], degrees: float) -> None:
    affine = tilt(rotation(turn) @ real_volume(SHAPE)[1], degrees)
    source = grid_of(affine, SHAPE)
    target = target_grid(source, float(plane_of(affine).gap), plane_of(affine).orientation)
    result = resample_stack(stack_of(source), source, target, -1e6)
    assert result.shape == target.shape
    inside = result > -1e5
    wanted = ramp(places_of(target.affine, target.shape))
    # At the rim there is a mixture with the fill value, of one pixel at each slice.
    inner = np.zeros_like(inside)
    index = np.linalg.inv(affine) @ np.vstack(
        [places_of(target.affine, target.shape).reshape(-1, 3).T, np.ones(inside.size)]
    )
    limits = np.array(SHAPE)[:, None] - 1
    inner.ravel()[:] = np.all((index[:3] >= -1e-9) & (index[:3] <= limits + 1e-9), axis=0)
    assert inner.mean() > 0.4
    assert np.allclose(result[inner], wanted[inner], atol=1e-6)
    # All slices are in it whole.
    assert target.shape[0] >= SHAPE[0]
    assert target.shape[1] >= SHAPE[1]
    assert target.shape[2] == SHAPE[2]
    assert inner.sum() == pytest.approx(np.prod(SHAPE), rel=0.06)


@TURN
def test_tilt_equals_scipy(turn: tuple[int, int, int]) -> None:
    """Linear interpolation along the slices' own axes: the shift is along one of them, so scipy's trilinear one in the sheared grid is
    the same."""
    voxels, affine = real_volume(SHAPE)
    affine = tilt(rotation(turn) @ affine, 17.0)
    source = grid_of(affine, SHAPE)
    target = target_grid(source, float(plane_of(affine).gap), plane_of(affine).orientation)
    result = resample_stack(voxels.astype(np.float32), source, target, 0.0)
    index = np.linalg.inv(affine) @ np.vstack(
        [places_of(target.affine, target.shape).reshape(-1, 3).T, np.ones(result.size)]
    )
    index[:3] = np.where(np.abs(index[:3] - np.rint(index[:3])) < 1e-9, np.rint(index[:3]), index[:3])
    inside = np.all((index[:3] >= 0) & (index[:3] <= np.array(SHAPE)[:, None] - 1), axis=0)
    wanted = map_coordinates(voxels.astype(np.float64), index[:3, inside], order=1)
    assert np.abs(result.ravel()[inside] - wanted).max() < 1e-3 * np.abs(wanted).max()


@TURN
@pytest.mark.parametrize(
    "along",
    [[0, 1, 2, 4, 5, 6], [0, 1, 2, 3, 6.5, 7.5], [0, 0.7, 2.1, 3, 4.4, 5], [0, 3, 4, 5, 6, 7]],
    ids=["gap", "odd gap", "jitter", "first"],
)
def test_a_ramp_stays_a_ramp_when_spacing_is_made_even(turn: tuple[int, int, int], along: list[float]) -> None:
    affine = rotation(turn) @ real_volume(SHAPE)[1]
    source = grid_of(affine, (14, 20, 6), np.array(along))
    gap = float(plane_of(affine).gap)
    target = target_grid(source, gap, plane_of(affine).orientation)
    assert target.shape == (14, 20, int(along[-1]) + 1)
    assert np.allclose(target.affine, affine, atol=1e-9)
    result = resample_stack(stack_of(source), source, target, -1e6)
    assert np.allclose(result, ramp(places_of(affine, target.shape)), atol=1e-6)


def test_slices_that_are_on_the_grid_are_as_they_were() -> None:
    voxels, affine = real_volume(SHAPE)
    along = np.array([0, 1, 2, 5, 6, 8])
    source = grid_of(affine, (14, 20, 6), along)
    target = target_grid(source, float(plane_of(affine).gap), plane_of(affine).orientation)
    result = resample_stack(voxels[..., :6], source, target, 0.0)
    assert result.dtype == np.int16
    assert np.array_equal(result[..., along], voxels[..., :6])
    between = np.rint(voxels[..., 2] + (voxels[..., 3].astype(float) - voxels[..., 2]) / 3)
    assert np.array_equal(result[..., 3], between)
    assert [frames[0][0] for frames in target.slices] == [f"1.{k}" for k in (0, 1, 2, 2, 3, 3, 4, 4, 5)]


@pytest.mark.parametrize("degrees", [-15.0, 15.0])
def test_from_files(tmp_path: Path, degrees: float) -> None:
    """Values and affine through the whole reader; where no slice reaches is the lowest value."""
    voxels, affine = real_volume(SHAPE)
    sheared = tilt(rotation(TURNS["oblique"]) @ affine, degrees)
    write_series(tmp_path, voxels, sheared, intercept=-100)
    volume = one(tmp_path, on_tilt="resample")
    got = read_volume(volume)
    assert got.voxels.shape == volume.shape
    assert got.voxels.dtype == np.int16
    index = np.linalg.inv(sheared) @ np.vstack(
        [places_of(affine_of(volume), volume.shape).reshape(-1, 3).T, np.ones(got.voxels.size)]
    )
    index[:3] = np.where(np.abs(index[:3] - np.rint(index[:3])) < 1e-5, np.rint(index[:3]), index[:3])
    inside = np.all((index[:3] >= 0) & (index[:3] <= np.array(SHAPE)[:, None] - 1), axis=0)
    wanted = map_coordinates(voxels.astype(np.float64) - 100, index[:3, inside], order=1)
    assert np.abs(got.voxels.ravel()[inside] - wanted).max() < 0.51
    far = np.any((index[:3] < -1) | (index[:3] > np.array(SHAPE)[:, None]), axis=0)
    assert far.any()
    assert np.all(got.voxels.ravel()[far] == voxels.min() - 100)
    source = source_grid(volume)
    assert source.shape == SHAPE
    assert np.allclose(source.affine, sheared, atol=1e-5)
    assert len(volume.laid_out[0].slices) == volume.shape[2]


def test_irregular_from_files(tmp_path: Path) -> None:
    voxels, affine = real_volume(SHAPE)
    write_series(tmp_path, voxels, affine, drop=[5], modality="PT", slope=[1.0 + k / 8 for k in range(12)])
    volume = one(tmp_path, on_irregular="resample")
    assert volume.shape == SHAPE
    assert np.allclose(affine_of(volume), affine, atol=1e-6)
    values = voxels * (1 + np.arange(12) / 8)
    values[..., 5] = (values[..., 4] + values[..., 6]) / 2
    got = read_volume(volume)
    assert got.voxels.dtype == np.float32
    assert np.allclose(got.voxels, values, rtol=1e-6)
    assert volume.verdict is not None
    assert volume.verdict.describe() == "irregular: 1 gap (8.4 mm after slice 5, expected 4.2 mm); resampled"


@pytest.mark.parametrize("policy", [{"on_tilt": "resample"}, {"on_irregular": "resample", "on_tilt": "resample"}])
def test_over_time(tmp_path: Path, policy: dict[str, Any]) -> None:
    voxels, affine = real_volume((12, 10, 6))
    drop = [3] if "on_irregular" in policy else []
    both = np.stack([voxels, voxels // 3], axis=3)
    write_series(tmp_path / "both", both, tilt(affine, 12.0), modality="MR", drop=drop)
    got = read_volume(one(tmp_path / "both", **policy)).voxels
    for t in range(2):
        write_series(tmp_path / f"{t}", both[..., t], tilt(affine, 12.0), modality="MR", drop=drop)
        alone = read_volume(one(tmp_path / f"{t}", **policy)).voxels
        # The fill value is the lowest of all times; it reaches one pixel into the pictures.
        moved = alone.shape[1] - 10
        inner = (slice(None), slice(moved + 1, 10 - 1))
        assert np.array_equal(got[..., t][inner], alone[inner])


def test_a_tilted_stack_with_a_gap(tmp_path: Path) -> None:
    """Both at once: the ramp is one after both are gone."""
    affine = tilt(real_volume((12, 16, 8))[1], 14.0)
    voxels = np.rint(ramp(places_of(affine, (12, 16, 8)))).astype(np.int16)
    write_series(tmp_path, voxels, affine, modality="MR", drop=[4])
    for policy in ({"on_irregular": "resample"}, {"on_irregular": "resample", "on_tilt": "resample"}):
        volume = one(tmp_path, **policy)
        got = read_volume(volume).voxels
        index = np.linalg.inv(affine) @ np.vstack(
            [places_of(affine_of(volume), got.shape).reshape(-1, 3).T, np.ones(got.size)]
        )
        # Slices are brought upright before they are mixed: next to the rim one of the two may not reach.
        low, high = np.array([0, 2, 0])[:, None], np.array([11, 13, 7])[:, None]
        inside = np.all((index[:3] >= low) & (index[:3] <= high), axis=0)
        wanted = ramp(places_of(affine_of(volume), got.shape)).ravel()[inside]
        assert inside.mean() > 0.4
        assert np.abs(got.ravel()[inside] - wanted).max() < 1.01
