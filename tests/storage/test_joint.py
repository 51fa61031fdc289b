"""Reads that are joined where they lie in the same tiles: the same bytes, fewer queries, and failures that find their request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.config import ReadConfig
from radioloader.errors import ReadError, ShapeError
from radioloader.storage import _tiles
from radioloader.storage.joint import groups
from radioloader.storage.reader import ReadRequest

Array = np.ndarray[Any, Any]
Triple = tuple[int, int, int]
SHAPE = (20, 18, 16)
TILE = (8, 6, 4)


@pytest.fixture(scope="module")
def volumes(put: Callable[..., VolumeRef], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[VolumeRef, Array]]:
    """int16, scaled int16, 4D float32, uint8 without a known tiling; and their values, channels first."""
    folder, generator = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    tile = TileConfig(custom=TILE)
    result = []
    for number, (dtype, shape, slope, intercept) in enumerate(
        [
            ("int16", SHAPE, 1.0, 0.0),
            ("int16", SHAPE, 0.5, -7.25),
            ("float32", (*SHAPE, 3), 1.0, 0.0),
            ("uint8", SHAPE, 1.0, 0.0),
        ]
    ):
        array = generator.integers(0, 200, shape).astype(dtype)
        ref = put(folder, array, tile=tile, slope=slope, intercept=intercept, name=f"sub-{number}")
        values = array * slope + intercept if ref.scaled else array
        result.append(
            (replace(ref, tile=None if number == 3 else TILE), np.moveaxis(values, 3, 0) if len(shape) == 4 else values)
        )
    return result


class Queries:
    """Counts what is asked of TileDB, and how many tiles that decodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boxes: list[list[tuple[int, int]]] = []
        plain = _tiles.TileHandle.read

        def read(handle: Any, ranges: list[tuple[int, int]], out: Array) -> None:
            self.boxes.append(ranges)
            plain(handle, ranges, out)

        monkeypatch.setattr(_tiles.TileHandle, "read", read)

    def take(self) -> int:
        count, self.boxes = len(self.boxes), []
        return count


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Queries:
    return Queries(monkeypatch)


def place(box: Box, ref: VolumeRef) -> tuple[int, ...]:
    return (ref.channels, *box.shape) if len(ref.shape) == 4 else box.shape


def boxes() -> st.SearchStrategy[Box]:
    """Small boxes, inside and over the border and outside: many of them share tiles."""
    starts = st.tuples(*[st.integers(-6, n + 3) for n in SHAPE])
    return st.builds(Box.at, starts, st.tuples(*[st.integers(1, 9)] * 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_joined_reads_give_the_bytes_of_single_ones(
    volumes: list[tuple[VolumeRef, Array]], threads: int, counts: Callable[[int, int], int]
) -> None:
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=threads)))

    @settings(max_examples=counts(60, 1500), deadline=None, derandomize=True)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3), boxes() | st.none(), st.sampled_from(["float32", "int16", "float64", "uint8"])
            ),
            min_size=1,
            max_size=12,
        )
    )
    def check(wanted: list[tuple[int, Box | None, str]]) -> None:
        requests = []
        for number, box, dtype in wanted:
            ref, _ = volumes[number]
            dtype = "float64" if ref.scaled else dtype
            shape = place(box or Box.whole(SHAPE), ref)
            whole = np.full((*shape[:-1], 2 * shape[-1]), 99, dtype)
            out = whole[..., ::2] if len(requests) % 2 else np.full(shape, 99, dtype)  # some are not contiguous
            requests.append(ReadRequest(ref, box, out, 5.0))
        assert reader.try_many(requests) == {}
        for (number, box, _), request in zip(wanted, requests, strict=True):
            ref, values = volumes[number]
            single = np.full(request.out.shape, 77, request.out.dtype)
            VolumeReader(reader.config).read(ref, box, out=single, pad_value=5.0)
            np.testing.assert_array_equal(request.out, single, strict=True)
            where = box or Box.whole(SHAPE)
            padded = np.pad(values, [(0, 0)] * (values.ndim - 3) + [(20, 20)] * 3, constant_values=5)
            cut = padded[(..., *[slice(a + 20, b + 20) for a, b in zip(where.start, where.stop, strict=True)])]
            np.testing.assert_array_equal(request.out, cut.astype(request.out.dtype))

    check()


def slabs(ref: VolumeRef, axis: int, first: int, count: int) -> list[ReadRequest]:
    requests = []
    for index in range(first, first + count):
        start, stop = [0, 0, 0], list(SHAPE)
        start[axis], stop[axis] = index, index + 1
        box = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
        requests.append(ReadRequest(ref, box, np.empty(place(box, ref), np.float32)))
    return requests


@pytest.mark.parametrize(
    ("axis", "first", "count", "expected"),
    [
        (2, 0, 4, 1),  # one layer of tiles along z
        (
            2,
            2,
            4,
            2,
        ),  # 2 | 2 + 2: across the border of two layers joining saves nothing in the second one's first slice
        (0, 0, 8, 1),
        (0, 0, 16, 2),
        (1, 0, 18, 3),
        (2, 5, 1, 1),
    ],
)
def test_neighbouring_slices_are_read_at_once(
    volumes: list[tuple[VolumeRef, Array]], queries: Queries, axis: int, first: int, count: int, expected: int
) -> None:
    ref, values = volumes[0]
    requests = slabs(ref, axis, first, count)
    order = np.random.default_rng(1).permutation(count)
    assert VolumeReader(StorageConfig(read=ReadConfig(max_workers=1))).try_many([requests[i] for i in order]) == {}
    assert queries.take() == expected
    for index, request in enumerate(requests, first):
        np.testing.assert_array_equal(request.out, values.take([index], axis).astype(np.float32))


def test_no_tile_is_decoded_more_often_than_one_by_one(volumes: list[tuple[VolumeRef, Array]]) -> None:
    ref = volumes[0][0]

    def tiles(box: Box) -> int:
        return int(np.prod([-(-b // t) - a // t for a, b, t in zip(box.start, box.stop, TILE, strict=True)]))

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.lists(boxes(), min_size=1, max_size=12))
    def check(wanted: list[Box]) -> None:
        inside = [box.clip(SHAPE) for box in wanted]
        parts = groups([(ref, box, None) for box in inside])
        assert sorted(i for part in parts for i in part) == list(range(len(wanted)))
        for part in parts:
            found = [box for i in part if (box := inside[i]) is not None]
            if len(found) < 2:
                assert len(part) == 1
                continue
            assert tiles(Box.around(found)) < sum(map(tiles, found))

    check()


def test_the_patches_of_a_region_are_read_at_once(volumes: list[tuple[VolumeRef, Array]], queries: Queries) -> None:
    ref, values = volumes[0]
    corners = [(0, 0, 0), (3, 2, 1), (7, 5, 3), (1, 4, 2), (5, 0, 3)]  # starts in one tile
    requests = [ReadRequest(ref, Box.at(start, (8, 6, 4)), np.empty((8, 6, 4), np.int16)) for start in corners]
    assert VolumeReader(StorageConfig(read=ReadConfig(max_workers=1))).try_many(requests) == {}
    assert queries.take() == 1
    for (x, y, z), request in zip(corners, requests, strict=True):
        np.testing.assert_array_equal(request.out, values[x : x + 8, y : y + 6, z : z + 4])


def test_what_lies_apart_or_has_no_known_tiles_is_not_joined(
    volumes: list[tuple[VolumeRef, Array]], queries: Queries
) -> None:
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=1)))
    ref = volumes[0][0]
    far = [
        ReadRequest(ref, Box.at(start, (2, 2, 2)), np.empty((2, 2, 2), np.int16)) for start in ((0, 0, 0), (16, 12, 12))
    ]
    reader.read_many(far)
    assert queries.take() == 2
    reader.read_many(slabs(volumes[3][0], 2, 0, 4))
    assert queries.take() == 4
    reader.read_many(slabs(volumes[2][0], 2, 0, 4))
    assert queries.take() == 3  # once for each time point
    reader.read_many([*slabs(ref, 2, 0, 4), *slabs(volumes[1][0], 2, 0, 4)])
    assert queries.take() == 2  # never across volumes


def test_a_joined_read_is_never_too_large(
    volumes: list[tuple[VolumeRef, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = volumes[0][0]
    regions = [(request.ref, request.inner, None) for request in slabs(ref, 2, 0, 4)]
    assert len(groups(regions)) == 1
    monkeypatch.setattr("radioloader.storage.joint._LARGEST", 20 * 18 * 2 * 2)  # two slices
    assert [sorted(part) for part in groups(regions)] == [[0, 1], [2, 3]]
    monkeypatch.setattr("radioloader.storage.joint._LARGEST", 1)
    assert len(groups(regions)) == 4


def test_one_request_twice(volumes: list[tuple[VolumeRef, Array]]) -> None:
    ref, values = volumes[0]
    request = ReadRequest(ref, Box.at((0, 0, 0), (4, 4, 4)), np.empty((4, 4, 4), np.int16))
    assert VolumeReader().try_many([request, request]) == {}
    np.testing.assert_array_equal(request.out, values[:4, :4, :4])
    assert VolumeReader().try_many([]) == {}


# ---- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_failures_find_their_request_and_the_others_are_done(
    put: Callable[..., VolumeRef], tmp_path: Path, threads: int
) -> None:
    array = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    refs = [
        replace(put(tmp_path, array + n, tile=TileConfig(custom=TILE), name=f"sub-{n}"), tile=TILE) for n in range(3)
    ]
    shutil.rmtree(refs[1].uri)
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=threads)))
    requests = [
        ReadRequest(refs[n % 3], Box.at((0, 0, n), (8, 6, 1)), np.full((8, 6, 1), -1, np.int32)) for n in range(9)
    ]
    failures = reader.try_many(requests)
    assert sorted(failures) == [1, 4, 7]
    for n, error in failures.items():
        assert isinstance(error, ReadError)
        assert f"could not read box [0:8, 0:6, {n}:{n + 1}] of subject 'sub-1', collection 'T1w'" in str(error)
        assert refs[1].uri in str(error)
    for n, request in enumerate(requests):
        if n not in failures:
            np.testing.assert_array_equal(request.out, array[:8, :6, n : n + 1] + n % 3)
    with pytest.raises(ReadError, match=r"box \[0:8, 0:6, 1:2\]"):  # the first of them
        reader.read_many(requests)


def test_a_damaged_tile_fails_only_what_lies_in_it(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 50, SHAPE, dtype=np.int32)
    ref = replace(put(tmp_path, array, tile=TileConfig(custom=TILE)), tile=TILE)
    (data,) = [path for path in Path(ref.uri).rglob("*.tdb") if path.name == "a0.tdb"]
    content = bytearray(data.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    data.write_bytes(content)
    reader = VolumeReader()
    pieces = [
        Box((x, y, z), (min(x + 8, 20), min(y + 6, 18), min(z + 4, 16)))
        for x in range(0, 20, 8)
        for y in range(0, 18, 6)
        for z in range(0, 16, 4)
    ]
    requests = [ReadRequest(ref, box, np.full(box.shape, 7, np.int32)) for box in pieces]
    failed = set(reader.try_many(requests))
    assert 0 < len(failed) < 3
    for n, (box, request) in enumerate(zip(pieces, requests, strict=True)):
        if n not in failed:
            np.testing.assert_array_equal(request.out, array[box.slices()])
    # Joined with a neighbour in the same tile, which it takes down, and with one that it does not.
    bad = pieces[min(failed)]
    good = next(box for n, box in enumerate(pieces) if n not in failed and box.start[2] == bad.start[2])
    halves = [
        Box.at(bad.start, (bad.shape[0], bad.shape[1], 2)),
        Box.at((*bad.start[:2], bad.start[2] + 2), (bad.shape[0], bad.shape[1], 2)),
        good,
    ]
    again = [ReadRequest(ref, box, np.full(box.shape, 7, np.int32)) for box in halves]
    assert sorted(reader.try_many(again)) == [0, 1]
    np.testing.assert_array_equal(again[2].out, array[good.slices()])


def test_wrong_buffers_are_refused_before_anything_is_read(
    volumes: list[tuple[VolumeRef, Array]], queries: Queries
) -> None:
    ref = volumes[0][0]
    box = Box.at((0, 0, 0), (4, 4, 4))
    requests = [
        ReadRequest(ref, box, np.empty((4, 4, 4), np.int16)),
        ReadRequest(ref, box, np.empty((4, 4, 5), np.int16)),
    ]
    with pytest.raises(ShapeError, match=r"the buffer has shape \(4, 4, 5\), but box \[0:4, 0:4, 0:4\]"):
        VolumeReader().try_many(requests)
    assert queries.take() == 0
