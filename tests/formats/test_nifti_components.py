"""One 3D volume of a 4D file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import FormatError
from radioloader.formats.nifti import grid_of, read_header, read_voxels

Write = Callable[..., Path]
SERIES = np.random.default_rng(0).integers(-900, 900, (5, 4, 3, 4)).astype(np.int16)
AFFINE = np.array([[-1.5, 0.1, 0, 3], [0.1, 1.5, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1]], np.float32).astype(np.float64)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".img"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_each_volume_is_that_of_nibabel(write_image: Write, tmp_path: Path, suffix: str, big_endian: bool) -> None:
    path = write_image(tmp_path / f"a{suffix}", SERIES, AFFINE, slope=2.0, intercept=-1.0, big_endian=big_endian)
    _, _, whole = read_voxels(path)
    for k in range(4):
        header, voxels, digest = read_voxels(path, component=k)
        np.testing.assert_array_equal(voxels, SERIES[..., k], strict=True)
        assert (header.shape, header.slope, header.intercept) == ((5, 4, 3), 2.0, -1.0)
        np.testing.assert_array_equal(header.affine, nib.load(path).affine)
        np.testing.assert_array_equal(grid_of(header.block)[1], header.affine)
        assert digest == whole


def test_a_3d_file_is_its_own_first_volume(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", SERIES[..., 0])
    np.testing.assert_array_equal(read_voxels(path, component=0)[1], SERIES[..., 0], strict=True)
    with pytest.raises(
        FormatError,
        match=r"there is no volume number 1 in it \(counted from 0\): its shape is \(5, 4, 3\), so it holds 1",
    ):
        read_header(path, component=1)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("component", [0, 2, 3])
@pytest.mark.parametrize("lost", [1, 200])
def test_a_truncated_file_is_refused_whichever_volume_is_wanted(
    write_image: Write, tmp_path: Path, suffix: str, component: int, lost: int
) -> None:
    path = write_image(tmp_path / f"a{suffix}", SERIES)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(FormatError, match=r"a\.nii"):
        read_voxels(path, component=component)


def test_collections_of_one_file_are_ingested_skipped_and_exported(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", SERIES, AFFINE)
    sources = {name: f"{path}#{k}" for k, name in enumerate(("flair", "t1", "t1gd", "t2"))}
    assert rl.ingest(tmp_path / "store", sources, workers=1).ok
    assert len(rl.ingest(tmp_path / "store", sources, workers=1).skipped) == 1
    store = rl.open(tmp_path / "store")
    for k, name in enumerate(sources):
        volume = store[name].loc["a"]
        np.testing.assert_array_equal(volume.to_numpy(), SERIES[..., k], strict=True)
        volume.to_nifti(tmp_path / f"{name}.nii.gz")
        back = nib.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(back.dataobj), SERIES[..., k], strict=True)
        np.testing.assert_array_equal(back.affine, nib.load(path).affine)
    again = {name: {"a": str(tmp_path / f"{name}.nii.gz")} for name in sources}
    assert rl.ingest(tmp_path / "again", again, workers=1).ok
    for name in sources:
        hashes = [rl.open(tmp_path / uri).snapshot.detail(name, "content_hash").tolist() for uri in ("store", "again")]
        assert hashes[0] == hashes[1]


def test_another_volume_of_the_same_file_takes_the_place_of_the_old_one(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", SERIES)
    rl.ingest(tmp_path / "store", {"t1": {"a": f"{path}#0"}}, workers=1)
    assert len(rl.ingest(tmp_path / "store", {"t1": {"a": f"{path}#1"}}, workers=1).ingested) == 1
    np.testing.assert_array_equal(rl.open(tmp_path / "store")["t1"].iloc[0].to_numpy(), SERIES[..., 1], strict=True)


def test_folders_and_globs_take_a_number_too(write_image: Write, tmp_path: Path) -> None:
    for name in ("p", "q"):
        write_image(tmp_path / "i" / f"{name}.nii.gz", SERIES)
    report = rl.ingest(tmp_path / "store", {"t1": f"{tmp_path}/i#1", "t2": f"{tmp_path}/i/*.nii.gz#2"}, workers=1)
    assert report.ok
    store = rl.open(tmp_path / "store")
    assert store.obs_subject_ids == ["p", "q"]
    np.testing.assert_array_equal(store["t2"].loc["q"].to_numpy(), SERIES[..., 2], strict=True)


def test_a_file_that_is_called_so_is_meant_itself(write_image: Write, tmp_path: Path) -> None:
    odd = tmp_path / "f#1"
    odd.mkdir()
    write_image(odd / "b.nii.gz", SERIES[..., 3])
    assert rl.ingest(tmp_path / "store", {"t1": str(odd)}, workers=1).ok
    np.testing.assert_array_equal(rl.open(tmp_path / "store")["t1"].loc["b"].to_numpy(), SERIES[..., 3], strict=True)
