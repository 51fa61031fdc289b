"""Tiles that are decoded into memory of any order, strides and dtype, and into nothing beside it; and what is read for them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, ReadConfig, StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.storage import _fragment
from radioloader.storage.schema import DTYPES
from tests.storage.test_tiles import blobs, handle_of

pytestmark = pytest.mark.usefixtures("tile_code")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_memory_of_any_order(
    put: Callable[..., VolumeRef],
    tmp_path: Path,
    counts: Callable[[int, int], int],
    dtype: str,
    order: tuple[int, ...],
) -> None:
    """Planes of tiles are turned, in blocks and what is left over of them, where another axis is contiguous in memory."""
    shape = (37, 41, 45)
    array = blobs(shape, dtype, seed=3)
    handle = handle_of(VolumeReader(), put(tmp_path, array, tile=TileConfig(custom=(24, 20, 28))))
    axis = st.integers(0, 36).flatmap(lambda a: st.tuples(st.just(a), st.integers(1, 45)))

    @settings(max_examples=counts(25, 400), deadline=None, derandomize=True)
    @given(st.tuples(axis, axis, axis), st.booleans())
    def check(axes: Any, backwards: bool) -> None:
        box = Box.at([a for a, _ in axes], [n for _, n in axes]).clip(shape)
        assert box is not None
        memory = np.full([box.shape[axis] + 3 for axis in order], 99, dtype).transpose(np.argsort(order))
        out = memory[1:-2, 1:-2, 1:-2]
        if backwards:
            out = out[::-1, :, ::-1]
        handle.read([(a, b - 1) for a, b in zip(box.start, box.stop, strict=True)], out)
        np.testing.assert_array_equal(out, array[box.slices()])
        out[...] = 99
        assert (memory == 99).all()  # nothing beside it was written

    check()


@pytest.mark.parametrize(
    ("stored", "wanted"), [("int16", "q"), ("uint8", "q"), ("int64", "q"), ("uint64", "Q"), ("int32", "l")]
)
def test_all_names_of_an_integer(put: Callable[..., VolumeRef], tmp_path: Path, stored: str, wanted: str) -> None:
    """numpy has two dtypes of 64 bits, which are equal and have different characters."""
    array = blobs((9, 8, 7), stored, seed=1)
    found = VolumeReader().read(put(tmp_path, array, tile=TileConfig(extent=4)), dtype=np.dtype(wanted))
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wanted", ["float32", "int64", "uint8", "float64"])
def test_memory_of_any_dtype_and_order(put: Callable[..., VolumeRef], tmp_path: Path, dtype: str, wanted: str) -> None:
    array = blobs((20, 18, 16), dtype, 3) if dtype[0] in "iu" and wanted != "uint8" else blobs((20, 18, 16), "uint8", 3)
    array = array.astype(dtype)
    ref, reader = put(tmp_path, array, tile=TileConfig(custom=(8, 6, 4))), VolumeReader()
    for box in (Box((3, 5, 2), (17, 18, 15)), Box((-2, 10, 3), (9, 21, 7))):
        expected = np.full(box.shape, 3, wanted)
        inner = box.clip(array.shape)
        assert inner is not None
        expected[inner.slices(box.start)] = array[inner.slices()].astype(wanted)
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)):
            memory = np.empty([box.shape[axis] for axis in order], wanted)
            reader.read(ref, box, out=memory.transpose(np.argsort(order)), pad_value=3)
            np.testing.assert_array_equal(memory, expected.transpose(order))


def test_memory_that_is_not_aligned(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = blobs((20, 18, 16), "int16", 3)
    ref, reader = put(tmp_path, array, tile=TileConfig(custom=(8, 6, 4))), VolumeReader()
    memory = np.empty(array.size * 4 + 1, np.uint8)[1:].view(np.float32).reshape(array.shape)
    assert not memory.flags.aligned
    reader.read(ref, out=memory)
    np.testing.assert_array_equal(memory, array.astype(np.float32))


def test_what_does_not_fit_is_refused(put: Callable[..., VolumeRef], tmp_path: Path, tile_code: str) -> None:
    """Before a byte is written beside the memory."""
    if tile_code == "python":
        pytest.skip("numpy looks itself")
    ref, reader = put(tmp_path, blobs((8, 8, 8), "int16", 1)), VolumeReader()
    handle = handle_of(reader, ref)
    ranges = [(0, 7), (0, 7), (0, 7)]
    assert handle.read(ranges, np.empty((8, 8, 8), np.int16)) is None
    for out in (np.empty((8, 8, 8), np.int32), np.empty((8, 8, 8), np.float64)):
        with pytest.raises(_fragment.UnknownLayout, match="do not fit"):
            handle.read(ranges, out)
    for wrong in ([(0, 8), (0, 7), (0, 7)], [(-1, 6), (0, 7), (0, 7)], [(3, 2), (0, 7), (0, 7)]):
        with pytest.raises(_fragment.UnknownLayout):
            handle.read(wrong, np.empty([max(b - a + 1, 0) for a, b in wrong], np.int16))


def bytes_read() -> int:
    """What this process has asked files for so far, and what asking that takes."""
    with open("/proc/self/io", "rb", buffering=0) as file:
        return int(file.read().split()[1])


@pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="needs Linux, which counts the bytes that a process reads"
)
@pytest.mark.parametrize(
    "box", [Box((9, 9, 9), (14, 15, 13)), Box((7, 7, 7), (25, 9, 17)), Box((0, 5, 0), (40, 6, 40))]
)
def test_no_more_is_read_from_disk_than_the_tiles_under_the_box(
    box: Box, put: Callable[..., VolumeRef], tmp_path: Path, tile_code: str
) -> None:
    array = np.random.default_rng(0).integers(
        -1000, 1000, (40, 40, 40), dtype=np.int16
    )  # no tile is stored as a constant
    ref = put(tmp_path, array, tile=TileConfig(extent=8))
    config = StorageConfig(read=ReadConfig(max_workers=1))
    with VolumeReader(config) as reader:
        reader.read(ref, Box((0, 0, 0), (1, 1, 1)))  # opens the array
        stored = np.diff(reader._handle(ref)[0]._fragment.offsets).reshape(5, 5, 5)
        before = bytes_read()
        counting = bytes_read() - before
        before = bytes_read()
        voxels = reader.read(ref, box)
        read = bytes_read() - before - counting
    np.testing.assert_array_equal(voxels, array[box.slices()])
    tiles = stored[tuple(slice(a // 8, -(-b // 8)) for a, b in zip(box.start, box.stop, strict=True))]
    assert 0 < read <= tiles.sum()
