"""Statistics and the foreground index against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from radioloader.ingestion.statistics import MAX_CLASSES, _places, foreground, statistics
from radioloader.storage.catalog import FOREGROUND_COORDINATES

Array = np.ndarray[Any, Any]
SEED = bytes(range(32))


def expected(voxels: Array, slope: float, intercept: float) -> dict[str, float]:
    values = voxels.astype(np.float64) * slope + intercept
    finite = values[np.isfinite(voxels)]
    result = {"nonfinite": voxels.size - finite.size, "nonzero": np.count_nonzero(finite)}
    if not finite.size:
        return result | dict.fromkeys(("stat_min", "stat_max", "stat_mean", "stat_std"), np.nan)
    return result | {
        "stat_min": finite.min(),
        "stat_max": finite.max(),
        "stat_mean": finite.mean(),
        "stat_std": finite.std(),
    }


def check(voxels: Array, slope: float = 1.0, intercept: float = 0.0) -> None:
    got, want = statistics(voxels, slope, intercept), expected(voxels, slope, intercept)
    assert set(got) == set(want)
    for name in ("nonfinite", "nonzero", "stat_min", "stat_max"):
        np.testing.assert_equal(got[name], want[name], err_msg=name)  # exactly; NaN equals NaN
    scale = 1.0 if np.isnan(want["stat_max"]) else max(1e-300, abs(want["stat_max"]), abs(want["stat_min"]))
    np.testing.assert_allclose(got["stat_mean"], want["stat_mean"], rtol=1e-12, atol=1e-13 * scale)
    np.testing.assert_allclose(got["stat_std"], want["stat_std"], rtol=1e-9, atol=1e-11 * scale)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1024.0), (-2.0, 3.0), (-0.25, 0.0)])
def test_statistics_of_every_dtype_and_scaling(dtype: str, slope: float, intercept: float) -> None:
    generator = np.random.default_rng(7)
    if dtype.startswith("f"):
        voxels = generator.normal(100, 50, (11, 7, 5)).astype(dtype)
    else:
        low, high = max(-1000, np.iinfo(dtype).min), min(1000, np.iinfo(dtype).max)
        voxels = generator.integers(low, high, (11, 7, 5), dtype=dtype, endpoint=True)
    voxels[2:5] = 0
    check(np.asfortranarray(voxels), slope, intercept)


def test_statistics_leave_nan_and_inf_out_and_count_them() -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    voxels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    check(voxels, 2.0, -6.0)
    assert statistics(voxels, 1.0, 0.0)["nonfinite"] == 3
    check(np.full((2, 3, 4), np.nan))


def test_statistics_of_more_than_one_chunk_and_of_large_values() -> None:
    generator = np.random.default_rng(1)
    voxels = generator.integers(-3000, 3000, (128, 128, 130), dtype=np.int16)  # over two chunks
    check(np.asfortranarray(voxels))
    check(np.ascontiguousarray(voxels).transpose(2, 0, 1))  # no order at all
    check(1e9 + generator.normal(0, 1e-3, (20, 20, 20)))  # the squares alone would lose all digits
    check(generator.normal(0, 1, (20, 20, 20)) * 1e-30)
    voxels = np.zeros((2**20 // 64 + 3, 64, 1), np.float32)
    voxels[: voxels.shape[0] // 2] = np.nan  # chunks without one finite voxel
    check(voxels)


def test_statistics_of_a_constant_volume_are_exact() -> None:
    got = statistics(np.full((9, 9, 9), 1234567, np.int32), 0.1, 7.0)
    assert got == {
        "stat_min": 1234567 * 0.1 + 7.0,
        "stat_max": 1234567 * 0.1 + 7.0,
        "stat_mean": 1234567 * 0.1 + 7.0,
        "stat_std": 0.0,
        "nonfinite": 0,
        "nonzero": 729,
    }


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    voxels=hnp.arrays(
        st.sampled_from([np.float32, np.int16, np.uint8, np.int64]),
        hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=5),
        elements={"min_value": 0, "max_value": 200},
    ),
    slope=st.sampled_from([1.0, -1.0, 0.5, 3.7]),
    intercept=st.sampled_from([0.0, -100.0, 0.125]),
)
def test_statistics_of_any_volume(voxels: Array, slope: float, intercept: float) -> None:
    check(voxels, slope, intercept)


def index_of(voxels: Array, seed: bytes = SEED) -> dict[int, tuple[int, Array]]:
    rows = foreground(voxels, seed)
    assert [row["class"] for row in rows] == sorted({row["class"] for row in rows})
    return {row["class"]: (row["voxels"], np.frombuffer(row["coordinates"], "<i4").reshape(-1, 3)) for row in rows}


def check_index(voxels: Array) -> None:
    index = index_of(voxels)
    assert list(index) == [int(value) for value in np.unique(voxels)]
    for value, (count, places) in index.items():
        where = np.argwhere(voxels == value)
        assert count == len(where)
        if count <= FOREGROUND_COORDINATES:
            np.testing.assert_array_equal(places, where[:, :3])  # all of them, in C order
        else:
            assert len(places) == FOREGROUND_COORDINATES
            flat = np.ravel_multi_index(tuple(places.T), voxels.shape[:3])
            assert (np.diff(flat) > 0).all() or voxels.ndim == 4
            if voxels.ndim == 3:
                assert (voxels[tuple(places.T)] == value).all()
            else:
                assert (voxels[tuple(places.T)] == value).any(axis=1).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_index_counts_every_class_and_its_coordinates_lie_in_it(dtype: str, order: str) -> None:
    voxels = np.random.default_rng(3).choice([0, 0, 0, 0, 1, 2, 7, 100], (37, 21, 18)).astype(dtype)
    if np.dtype(dtype).kind != "u":
        voxels[20:22] = -3
    check_index(np.asarray(voxels, order=order))  # type: ignore[call-overload]


def test_the_index_of_a_series_searches_all_time_points() -> None:
    voxels = np.zeros((19, 6, 7, 3), np.uint8)
    voxels[3, 2, 1, 2] = 5
    voxels[17, 0, 6] = 5
    index = index_of(voxels)
    assert index[5][0] == 4
    assert {tuple(place) for place in index[5][1].tolist()} == {(3, 2, 1), (17, 0, 6)}
    check_index(np.random.default_rng(0).integers(0, 3, (20, 12, 9, 2), dtype=np.uint8))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32]),
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=35),
        elements={"min_value": 0, "max_value": 3},
        fill=st.just(0),
    ).map(np.rint)
)
def test_the_index_of_any_label(voxels: Array) -> None:
    check_index(voxels)


@pytest.mark.parametrize("shape", [(16, 64, 2), (16, 65, 3), (2, 3, 5), (1, 1, 1025), (3, 32, 32, 2)])
@pytest.mark.parametrize("share", [0.0005, 0.3, 1.0])
def test_voxels_are_found_by_their_rank(shape: tuple[int, ...], share: float) -> None:
    generator = np.random.default_rng(3)
    voxels = np.where(generator.random(shape) < share, 5, 9).astype(np.int16)
    voxels.flat[-1] = 5
    every = np.flatnonzero(voxels == 5)
    ranks = np.flatnonzero(generator.random(len(every)) < 0.4)
    np.testing.assert_array_equal(_places(voxels, 5, ranks), every[ranks])
    np.testing.assert_array_equal(_places(voxels, 5, np.arange(len(every))), every)


SPANS = [(0, 2), (3, 40), (0, 255), (-4, 30), (0, 40_000), (0, 200_000)]


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (dtype, low, high)
        for dtype in ("uint8", "int16", "uint16", "int64", "float32")
        for low, high in SPANS
        if dtype == "float32" or np.iinfo(dtype).min <= low < high <= np.iinfo(dtype).max
    ],
)
def test_classes_are_counted_however_far_apart(dtype: str, low: int, high: int) -> None:
    voxels = np.random.default_rng(4).choice([low, low + 1, high], (7, 5, 3)).astype(dtype)
    values, counts = np.unique(voxels, return_counts=True)
    assert {value: count for value, (count, _) in index_of(voxels).items()} == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )


def test_a_large_class_is_sampled_uniformly() -> None:
    voxels = np.ones((40, 40, 40), np.uint8)
    voxels[5] = 0
    runs = 30
    hits = np.zeros(voxels.shape)
    for run in range(runs):
        _, places = index_of(voxels, bytes([run] * 32))[1]
        assert len(np.unique(places, axis=0)) == FOREGROUND_COORDINATES  # without replacement
        hits[tuple(places.T)] += 1
    assert hits[5].sum() == 0
    # Counts in 5x5x5 blocks of the 39 slabs: each voxel is hit with the same chance.
    kept = np.delete(hits, 5, axis=0)[:35].reshape(7, 5, 8, 5, 8, 5).sum(axis=(1, 3, 5)).ravel()
    mean = runs * FOREGROUND_COORDINATES / (39 * 1600) * 125
    chi2 = ((kept - mean) ** 2 / mean).sum()
    assert kept.size == 448
    assert abs(chi2 - kept.size) < 5 * np.sqrt(2 * kept.size)


def test_the_index_depends_on_content_and_seed_only() -> None:
    voxels = np.random.default_rng(5).integers(0, 2, (40, 30, 20), dtype=np.uint8)
    rows = foreground(np.ascontiguousarray(voxels), SEED)
    assert foreground(np.asfortranarray(voxels), SEED) == rows
    assert foreground(voxels.astype(np.int16), SEED) == rows
    assert foreground(voxels.astype(np.float64), SEED) == rows
    other = foreground(voxels, SEED[::-1])
    assert [row["voxels"] for row in other] == [row["voxels"] for row in rows]
    assert [row["coordinates"] for row in other] != [row["coordinates"] for row in rows]


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v.astype(np.float32) + 0.5,
        lambda v: np.where(v == 1, np.nan, v),
        lambda v: np.where(v == 1, np.inf, v),
        lambda v: np.where(v == 1, 1e12, v),
        lambda v: np.where(v == 1, np.uint64(2**63 + 5), v),  # no class number of a signed column
        lambda v: np.arange(v.size, dtype=np.int32).reshape(v.shape),
    ],
)
def test_volumes_that_are_no_labels_get_no_index(make: Callable[[Array], Array]) -> None:
    voxels = np.random.default_rng(5).integers(0, 3, (MAX_CLASSES // 64 + 4, 8, 9), dtype=np.uint8)
    assert foreground(make(voxels), SEED) == []


def test_as_many_classes_as_allowed_are_indexed() -> None:
    voxels = np.arange(MAX_CLASSES, dtype=np.int32).reshape(-1, 8, 8)
    assert [row["class"] for row in foreground(voxels, SEED)] == list(range(MAX_CLASSES))
    assert foreground(np.concatenate([voxels, voxels[-1:] + 1]), SEED) == []
