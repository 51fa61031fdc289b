"""Boxes, locators and keys."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radioloader import Box, PatchKey, SliceKey, VolumeKey, VolumeRef
from radioloader.errors import ShapeError

coordinates = st.tuples(*[st.integers(-30, 30)] * 3)
sizes = st.tuples(*[st.integers(1, 20)] * 3)


def test_boxes_are_half_open_and_printable() -> None:
    box = Box((-1, 2, 3), (4, 5, 10))
    assert box.shape == (5, 3, 7)
    assert str(box) == "[-1:4, 2:5, 3:10]"
    assert Box.whole((4, 5, 6, 7)) == Box((0, 0, 0), (4, 5, 6))
    assert Box.at((1, 2, 3), (4, 5, 6)) == Box((1, 2, 3), (5, 7, 9))


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ((0, 0), (1, 1), r"a box has 3 axes \(x, y, z\), got start=\(0, 0\) and stop=\(1, 1\)"),
        ((0, 0, 0), (1, 0, 1), r"start < stop on every axis, got start=\(0, 0, 0\) and stop=\(1, 0, 1\)"),
        ((0, 5, 0), (1, 4, 1), r"start < stop on every axis"),
    ],
)
def test_boxes_without_voxels_are_refused(start: tuple[int, ...], stop: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Box(start, stop)  # type: ignore[arg-type]


def test_numpy_integers_become_plain_ones() -> None:
    given_, plain = Box(tuple(np.arange(3)), tuple(np.array([5, 6, 7], np.uint8))), Box((0, 1, 2), (5, 6, 7))
    assert given_ == plain
    assert hash(given_) == hash(plain)
    assert pickle.dumps(given_) == pickle.dumps(plain)
    assert {type(v) for v in (*given_.start, *given_.stop)} == {int}
    assert type(Box.at(np.array([1, 2, 3]), np.array([1, 1, 1])).start[0]) is int


@given(coordinates, sizes, sizes)
def test_clip_and_slices_agree_with_numpy(
    start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    box = Box.at(start, size)
    ranges = [set(range(a, a + n)) & set(range(m)) for a, n, m in zip(start, size, shape, strict=True)]
    inner = box.clip(shape)
    if inner is None:
        assert not all(ranges)
        return
    assert [set(range(a, b)) for a, b in zip(inner.start, inner.stop, strict=True)] == ranges
    volume = np.arange(np.prod(shape)).reshape(shape)
    canvas = np.full(box.shape, -1)
    canvas[inner.slices(box.start)] = volume[inner.slices()]
    assert (canvas >= 0).sum() == np.prod(inner.shape)
    first = tuple(a - b for a, b in zip(inner.start, box.start, strict=True))
    assert canvas[first] == volume[inner.start]


@given(coordinates, sizes)
def test_the_affine_of_a_box_keeps_its_voxels_in_place(start: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    affine = np.array([[0.0, -1.5, 0.1, 4.0], [1.1, 0.0, 0.0, -5.0], [0.2, 0.0, 2.0, 6.0], [0.0, 0.0, 0.0, 1.0]])
    before = affine.copy()
    moved = Box.at(start, size).affine(affine)
    np.testing.assert_allclose(moved @ [0, 0, 0, 1], affine @ [*start, 1], atol=1e-12)
    np.testing.assert_allclose(moved @ [1, 2, 3, 1], affine @ [start[0] + 1, start[1] + 2, start[2] + 3, 1], atol=1e-12)
    np.testing.assert_array_equal(affine, before)


def test_locators() -> None:
    plain = VolumeRef("/s/v", (4, 5, 6), "int16", obs_id="a_T1w", obs_subject_id="a", collection="T1w")
    assert (plain.spatial_shape, plain.channels, plain.scaled) == ((4, 5, 6), 1, False)
    assert plain.value_dtype == np.int16
    assert plain.describe() == "subject 'a', collection 'T1w', volume 'a_T1w' (/s/v)"
    series = VolumeRef("/s/v", (4, 5, 6, 7), "uint8", slope=2.0)
    assert (series.spatial_shape, series.channels, series.scaled) == ((4, 5, 6), 7, True)
    assert series.value_dtype == np.float64
    assert VolumeRef("/s/v", (4, 5, 6), "float32", intercept=1.0).scaled


@pytest.mark.parametrize(
    "value",
    [
        Box((0, 0, 0), (1, 2, 3)),
        VolumeRef("/s/v", (4, 5, 6), "int16"),
        VolumeKey(3, draw=1, epoch=2),
        PatchKey(3, draw=1, epoch=2),
        SliceKey(3, "axial", 7),
    ],
)
def test_values_are_frozen_hashable_and_small(value: object) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)
    assert len(pickle.dumps(value)) < 300
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, 9)  # type: ignore[arg-type]


def test_keys_of_different_kinds_differ() -> None:
    assert VolumeKey(1) != PatchKey(1)
    assert (PatchKey(1).draw, PatchKey(1).epoch) == (0, 0)
