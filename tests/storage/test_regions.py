"""Reads from regions and tiles that are kept: the same bytes, fewer queries, bounded memory."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, StorageConfig, VolumeReader, VolumeRef
from radioloader.config import ReadConfig
from radioloader.errors import ConfigError, ReadError
from radioloader.storage import regions
from radioloader.storage._tiles import TileHandle
from radioloader.storage.reader import ReadRequest
from tests.storage.test_joint import SHAPE, TILE, Array, Queries, boxes, place, queries, volumes

__all__ = ["queries", "volumes"]


def out_for(ref: VolumeRef, box: Box) -> Array:
    return np.full(place(box, ref), 99, "float64" if ref.scaled else "float32")


def kept_tiles(mb: int) -> StorageConfig:
    return StorageConfig(read=ReadConfig(cache_mb=mb, max_workers=1))


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_regions_and_tiles_give_the_bytes_of_plain_reads(
    volumes: list[tuple[VolumeRef, Array]], cache_mb: int, counts: Callable[[int, int], int]
) -> None:
    plain, reader = VolumeReader(), VolumeReader(StorageConfig(read=ReadConfig(cache_mb=cache_mb, max_workers=3)))

    @settings(max_examples=counts(60, 1500), deadline=None, derandomize=True)
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), boxes(), boxes() | st.none() | st.just(Box.whole(SHAPE))),
            min_size=1,
            max_size=8,
        )
    )
    def check(wanted: list[tuple[int, Box, Box | None]]) -> None:
        requests = [
            ReadRequest(volumes[n][0], box, out_for(volumes[n][0], box), 5.0, region) for n, box, region in wanted
        ]
        assert reader.try_many(requests) == {}
        for request in requests:
            expected = out_for(request.ref, request.whole)
            plain.read_many([ReadRequest(request.ref, request.box, expected, 5.0)])
            assert np.array_equal(request.out, expected)

    check()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_memory_of_a_region_is_cut_along_its_slices_in_one_piece(
    volumes: list[tuple[VolumeRef, Array]], axis: int, direct: bool
) -> None:
    for ref, values in volumes:
        reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=1, direct=direct)))
        start, stop = [2, 0, 3], [18, 17, 15]
        region = Box((2, 0, 3), (18, 17, 15))
        start[axis], stop[axis] = 5, 6
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        out = out_for(ref, box)
        reader.read_many([ReadRequest(ref, box, out, region=region)])
        assert np.array_equal(out, values[(..., *box.slices())])
        assert isinstance(reader._handle(ref)[0], TileHandle) == direct
        kept = reader._regions.find(ref, 0, region)
        assert kept is not None
        assert kept.shape == region.shape
        assert np.moveaxis(kept, axis, 0)[0].flags.c_contiguous


def test_a_region_is_read_once(volumes: list[tuple[VolumeRef, Array]], queries: Queries) -> None:
    ref, values = volumes[0]
    region = Box((0, 0, 0), (16, 12, 8))
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=1)))
    for start in [(0, 0, 0), (5, 3, 1), (9, 6, 2)]:
        box = Box.at(start, (7, 6, 6))
        out = out_for(ref, box)
        reader.read_many([ReadRequest(ref, box, out, region=region)])
        assert np.array_equal(out, values[box.slices()])
    assert queries.boxes == [[(0, 15), (0, 11), (0, 7)]]
    reader.drop_regions()
    reader.read_many([ReadRequest(ref, box, out, region=region)])
    assert queries.take() == 2


def test_threads_read_a_region_together(
    volumes: list[tuple[VolumeRef, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, values = volumes[0]
    region, box = Box((0, 0, 0), (16, 18, 16)), Box((3, 0, 1), (14, 18, 15))
    met = threading.Barrier(2, timeout=20)  # broken unless two threads read a part each at the same time
    plain = TileHandle.read
    parts = []

    def read(handle: TileHandle, ranges: list[tuple[int, int]], out: Array) -> None:
        met.wait()
        parts.append(ranges[0])
        plain(handle, ranges, out)

    monkeypatch.setattr(TileHandle, "read", read)
    monkeypatch.setattr(regions, "_PART", 16 * 18 * 16 * 2 // 2)
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=2)))
    out = out_for(ref, box)
    reader.read_many([ReadRequest(ref, box, out, region=region)])
    assert sorted(parts) == [(0, 7), (8, 15)]
    assert np.array_equal(out, values[box.slices()])


def test_regions_that_are_gone_again_are_not_read_for_nobody(
    volumes: list[tuple[VolumeRef, Array]], monkeypatch: pytest.MonkeyPatch, queries: Queries
) -> None:
    ref, values = volumes[0]
    wanted = [Box((0, 0, z), (16, 18, z + 4)) for z in (0, 4, 8, 12)]
    monkeypatch.setattr(regions, "_BYTES", 4 * 16 * 18 * 4 * 2)  # for one; it is dropped when the next is read
    monkeypatch.setattr(regions.BlockCache, "find", lambda cache, key: None)
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=3)))
    reader._regions._kept.limit = 16 * 18 * 4 * 2
    monkeypatch.setattr(reader._regions, "settled", lambda request: request)
    requests = [ReadRequest(ref, box, out_for(ref, box), region=box) for box in wanted]
    for _ in range(20):
        reader.read_many(requests)
        assert all(np.array_equal(r.out, values[box.slices()]) for r, box in zip(requests, wanted, strict=True))
    # A helper that comes while the region is kept or being read reads nothing of its own; later it sees that it is late.
    # Only one that the system stops between looking and reading reads for nobody; were there no looking, about 150 would.
    assert queries.take() <= 20 * 5


def test_a_region_that_does_not_hold_the_box_or_is_too_large_is_not_used(
    volumes: list[tuple[VolumeRef, Array]], queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, _ = volumes[0]
    box = Box((0, 0, 0), (8, 6, 4))
    reader = VolumeReader()
    reader.read_many([ReadRequest(ref, box, out_for(ref, box), region=Box((1, 0, 0), (16, 12, 8)))])
    monkeypatch.setattr(regions, "_BYTES", 4 * 16 * 12 * 8 * 2 - 1)
    VolumeReader().read_many([ReadRequest(ref, box, out_for(ref, box), region=Box((0, 0, 0), (16, 12, 8)))])
    assert queries.boxes == [[(0, 7), (0, 5), (0, 3)]] * 2


def test_a_tile_that_is_kept_is_not_decoded_again(volumes: list[tuple[VolumeRef, Array]], queries: Queries) -> None:
    ref, values = volumes[0]
    reader = VolumeReader(kept_tiles(1))
    reader.read(ref, Box((0, 0, 0), (9, 6, 4)))  # tiles 0 and 1 along x
    assert np.array_equal(reader.read(ref, Box((2, 1, 1), (15, 5, 3))), values[2:15, 1:5, 1:3])
    assert queries.boxes == [[(0, 15), (0, 5), (0, 3)]]
    assert np.array_equal(reader.read(ref, Box((9, 0, 0), (20, 6, 4))), values[9:20, :6, :4])
    assert queries.boxes[1:] == [[(16, 19), (0, 5), (0, 3)]]
    reader.close()
    reader.read(ref, Box((0, 0, 0), (1, 1, 1)))
    assert queries.boxes[2:] == [[(0, 7), (0, 5), (0, 3)]]
    everything = int(np.prod(SHAPE)) * 2
    small = VolumeReader(kept_tiles(0))
    small._tiles.limit = everything // 2
    for _ in range(2):
        assert np.array_equal(small.read(ref), values)
        assert small._tiles.nbytes <= everything // 2


def test_voxels_that_are_kept_do_not_cross_into_other_processes(volumes: list[tuple[VolumeRef, Array]]) -> None:
    import pickle

    reader = VolumeReader(kept_tiles(64))
    reader.read(volumes[0][0])
    assert reader._tiles.nbytes > 0
    data = pickle.dumps(reader)
    assert len(data) < 2000
    assert pickle.loads(data)._tiles.nbytes == 0


def test_damage_beside_the_box_does_not_fail_it(volumes: list[tuple[VolumeRef, Array]], tmp_path: Path) -> None:
    ref, values = volumes[0]
    shutil.copytree(ref.uri, tmp_path / "copy")
    damaged = replace(ref, uri=str(tmp_path / "copy"))
    (data,) = (tmp_path / "copy").glob("__fragments/*/a0.tdb")
    content = bytearray(data.read_bytes())
    content[-40:] = bytes(40)  # of the last tile
    data.write_bytes(content)
    reader = VolumeReader()
    good, bad = Box((0, 0, 0), TILE), Box((16, 12, 12), (20, 18, 16))
    requests = [ReadRequest(damaged, box, out_for(ref, box), region=Box.whole(SHAPE)) for box in (good, bad)]
    failures = reader.try_many(requests)
    assert list(failures) == [1]
    assert isinstance(failures[1], ReadError)
    assert str(bad) in str(failures[1])
    assert np.array_equal(requests[0].out, values[good.slices()])


def test_the_size_of_the_cache_is_checked() -> None:
    with pytest.raises(ConfigError, match="cache_mb=-1 must be a whole number of at least 0"):
        ReadConfig(cache_mb=-1)
