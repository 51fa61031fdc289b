"""What a volume gives of its voxels: by index, by plane, by time point, as tensor, as histogram; against numpy on the whole array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.config import SliceOrientation
from radioloader.errors import ConfigError
from radioloader.storage import reader as reader_module


@pytest.fixture(scope="module")
def store(write_image: Any, tmp_path_factory: pytest.TempPathFactory) -> rl.RadiObject:
    """``whole``: int16; ``series``: 4D, uint8 with a slope; ``floats``: float32 with NaN and infinities, turned to RAS from LPS."""
    root = tmp_path_factory.mktemp("voxels")
    rng = np.random.default_rng(3)
    affine = np.diag([0.8, 1.0, 2.5, 1.0])
    write_image(root / "whole" / "a.nii", rng.integers(-1024, 3000, (41, 37, 23), dtype=np.int16), affine)
    write_image(root / "series" / "a.nii", rng.integers(0, 255, (20, 18, 9, 5), dtype=np.uint8), affine, 0.5, -10.0)
    floats = rng.normal(size=(34, 33, 8)).astype(np.float32)
    floats[3, 4, 5], floats[0, 0, 0], floats[1, 1, 1] = np.nan, np.inf, -np.inf
    write_image(root / "floats" / "a.nii", floats, np.diag([-1.0, -1.0, 1.0, 1.0]))
    write = rl.WriteConfig(tile=rl.TileConfig(orientation=SliceOrientation.AXIAL))
    rl.ingest(root / "s", {"whole": root / "whole"}, workers=1)
    rl.ingest(root / "s", {"series": root / "series"}, workers=1)
    rl.ingest(
        root / "s", {"floats": root / "floats"}, workers=1, orientation="RAS", config=rl.StorageConfig(write=write)
    )
    return rl.open(root / "s")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The time points and boxes of stored voxels that were read."""
    seen: list[tuple[int, ...]] = []
    read_stored = reader_module.VolumeReader._read_stored

    def note(self: Any, ref: Any, time: int, box: Any, target: Any) -> None:
        seen.append((time, *box.start, *box.stop))
        read_stored(self, ref, time, box, target)

    monkeypatch.setattr(reader_module.VolumeReader, "_read_stored", note)
    return seen


INDEXES_3D = [
    np.s_[3],
    np.s_[3, -4, 5],
    np.s_[..., 2],
    np.s_[10:3:-2, ::5, -1],
    np.s_[:, 40:, 3],
    np.s_[-3:, :, :4],
    np.s_[np.int64(3), ..., np.uint8(2)],
]
INDEXES_4D = [
    np.s_[..., 2],
    np.s_[..., -1],
    np.s_[3, 4, 5, 1],
    np.s_[2:5, :, 3, 1:4],
    np.s_[2:5, :, 3, ::-2],
    np.s_[..., 3:3],
    np.s_[0:2],
    np.s_[:, :, :, [2][0]],
]


@pytest.mark.parametrize("index", INDEXES_3D)
def test_an_index_gives_what_numpy_gives(store: rl.RadiObject, index: Any) -> None:
    volume = store.whole.iloc[0]
    np.testing.assert_array_equal(volume[index], volume.to_numpy()[index], strict=True)


@pytest.mark.parametrize("index", INDEXES_4D)
def test_an_index_of_a_series_reads_its_time_points_only(
    store: rl.RadiObject, read: list[tuple[int, ...]], index: Any
) -> None:
    volume = store.series.iloc[0]
    whole = volume.to_numpy()
    read.clear()
    np.testing.assert_array_equal(volume[index], whole[index], strict=True)
    expected = {int(t) for t in np.broadcast_to(np.arange(5), whole.shape)[index].reshape(-1)}
    assert {time for time, *_ in read} == expected


@pytest.mark.parametrize("index", [np.s_[41], np.s_[:, -38], np.s_[0, 0, 23]])
def test_out_of_bounds(store: rl.RadiObject, index: Any) -> None:
    with pytest.raises(IndexError, match="is out of bounds for axis"):
        store.whole.iloc[0][index]


def test_planes(store: rl.RadiObject, read: list[tuple[int, ...]]) -> None:
    volume, series = store.whole.iloc[0], store.series.iloc[0]
    whole, all_times = volume.to_numpy(), series.to_numpy()
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        for name in (plane, f"{plane}_slice"):
            np.testing.assert_array_equal(getattr(volume, name)(-2), whole.take(-2, axis))
            np.testing.assert_array_equal(getattr(series, name)(3), all_times.take(3, axis))
            read.clear()
            np.testing.assert_array_equal(getattr(series, name)(3, time=-1), all_times.take(3, axis)[..., -1])
            assert {time for time, *_ in read} == {4}
    with pytest.raises(IndexError, match=r"time=1: .* is 3D, and has no time points"):
        volume.axial(3, time=1)
    with pytest.raises(IndexError, match="index 5 is out of bounds for axis 3"):
        series.axial(3, time=5)


def test_as_tensor_and_array(store: rl.RadiObject) -> None:
    for name in ("whole", "series", "floats"):
        volume = store[name].iloc[0]
        values = volume.to_numpy()
        tensor = volume.to_torch()
        assert tensor.dtype == torch.from_numpy(values[:0]).dtype
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), np.moveaxis(values, 3, 0) if values.ndim == 4 else values)
        np.testing.assert_array_equal(np.asarray(volume), values, strict=True)
        np.testing.assert_array_equal(np.asarray(volume, np.float32), values.astype(np.float32), strict=True)
        np.testing.assert_array_equal(torch.from_dlpack(volume).numpy(), values)
        np.testing.assert_array_equal(np.from_dlpack(volume), values)
    assert store.whole.iloc[0].to_torch(dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="copy=False cannot be"):
        np.asarray(store.whole.iloc[0], copy=False)
    assert np.asarray(store.whole.iloc[0], copy=True).shape == (41, 37, 23)


@pytest.mark.parametrize("name", ["whole", "series", "floats"])
def test_statistics_and_percentiles(store: rl.RadiObject, name: str) -> None:
    volume = store[name].iloc[0]
    values = volume.to_numpy()
    finite = values[np.isfinite(values)].astype(np.float64)
    known = volume.statistics
    assert (known["min"], known["max"]) == (finite.min(), finite.max())
    np.testing.assert_allclose([known["mean"], known["std"]], [finite.mean(), finite.std()], rtol=1e-12)
    assert (known["nonfinite"], known["nonzero"]) == (values.size - finite.size, np.count_nonzero(finite))
    wanted = [0, 0.3, 12.5, 50, 99.9, 100]
    np.testing.assert_allclose(volume.percentiles(wanted), np.percentile(finite, wanted), rtol=1e-6)
    assert volume.percentiles(50).shape == ()
    with pytest.raises(ConfigError, match="q=101 is outside 0 to 100"):
        volume.percentiles(101)


@pytest.mark.parametrize("name", ["whole", "series", "floats"])
def test_histogram(store: rl.RadiObject, name: str, read: list[tuple[int, ...]]) -> None:
    volume = store[name].iloc[0]
    values = volume.to_numpy()
    finite = values[np.isfinite(values)].astype(np.float64)
    read.clear()
    counts, edges = volume.histogram()
    expected, expected_edges = np.histogram(finite, 64)
    np.testing.assert_array_equal(edges, expected_edges)
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == finite.size
    assert max(stop - start for _, start, _, _, stop, _, _ in read) <= volume.tile[0]
    for bins, limits in ((7, (-1.0, 3.5)), ([-1.0, 0.0, 0.5, 9.0], None)):
        np.testing.assert_array_equal(volume.histogram(bins, limits)[0], np.histogram(finite, bins, limits)[0])
    for bins, limits in ((0, None), ([3.0, 1.0], None), (4, (2.0, 1.0)), ("many", None)):
        with pytest.raises(ConfigError, match="give a number of bins, or their edges in ascending order"):
            volume.histogram(bins, limits)  # type: ignore[arg-type]


def test_a_volume_without_a_finite_value(write_image: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "i" / "a.nii", np.full((3, 4, 5), np.nan, np.float32))
    rl.ingest(tmp_path / "s", {"T1": tmp_path / "i"}, workers=1)
    volume = rl.open(tmp_path / "s").T1.iloc[0]
    assert volume.histogram(3)[0].tolist() == [0, 0, 0]
    assert np.isnan(volume.percentiles([1, 2])).all()


def test_how_it_lies(store: rl.RadiObject) -> None:
    volume, turned = store.whole.iloc[0], store.floats.iloc[0]
    assert (volume.tile_orientation, turned.tile_orientation) == (SliceOrientation.ISOTROPIC, SliceOrientation.AXIAL)
    assert (volume.tile, turned.tile) == ((32, 32, 23), (34, 33, 1))
    assert (volume.orientation_info.axcodes, volume.orientation_info.source_axcodes) == ("RAS", "RAS")
    assert (turned.orientation_info.axcodes, turned.orientation_info.source_axcodes) == ("RAS", "LPS")
    assert (volume.orientation_info.is_turned, turned.orientation_info.is_turned) == (False, True)
    np.testing.assert_array_equal(turned.orientation_info.affine, turned.affine)
