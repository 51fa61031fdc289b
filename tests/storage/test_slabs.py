"""Large reads in slabs: the same values as in one piece, every tile once, errors of the caller's box."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.config import ReadConfig
from radioloader.errors import ReadError
from radioloader.storage import slabs
from radioloader.storage._tiles import TileHandle
from radioloader.storage.reader import ReadRequest
from radioloader.storage.slabs import cut

Array = np.ndarray[Any, Any]
Put = Callable[..., VolumeRef]


def reader_of(threads: int) -> VolumeReader:
    return VolumeReader(StorageConfig(read=ReadConfig(max_workers=threads)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large, and a slab is one row of tiles."""
    for name in ("LARGE", "_SLAB", "_THIN_SLAB"):
        monkeypatch.setattr(slabs, name, 1)


triples = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=triples,
    tile=triples,
    start=st.tuples(*[st.integers(-5, 13)] * 3),
    size=triples,
    threads=st.integers(1, 5),
    direct=st.booleans(),
    slab=st.sampled_from([1, 100, 800, 10**9]),
)
def test_slabs_fill_the_box_and_meet_between_tiles(
    shape: tuple[int, int, int],
    tile: tuple[int, int, int],
    start: tuple[int, int, int],
    size: tuple[int, int, int],
    threads: int,
    direct: bool,
    slab: int,
) -> None:
    box = Box.at(start, size)
    inner = box.clip(shape)
    if inner is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("LARGE", 1), ("_SLAB", slab), ("_THIN_SLAB", 4 * slab)):
            patch.setattr(slabs, name, value)
        boxes = cut(box, inner, tile, itemsize=2, channels=1, threads=threads, direct=direct)
    touched = np.zeros(box.shape, np.int8)
    for part in boxes:
        touched[part.slices(box.start)] += 1
        assert part.clip(shape) is not None
    assert (touched == 1).all()
    tiles = [
        {(axis, n // tile[axis]) for axis in range(3) for n in range(i.start[axis], i.stop[axis])} for i in [inner]
    ]
    (axis,) = {axis for axis in range(3) for part in boxes if part.shape[axis] != box.shape[axis]} or {0}
    assert all(n % tile[axis] == 0 for part in boxes[1:] for n in [part.start[axis]])
    assert len(boxes) <= len({number for where, number in tiles[0] if where == axis})
    if direct and axis > 0:
        assert len(boxes) <= threads


def test_a_large_volume_is_cut_across_x_into_slabs_of_some_16_mb() -> None:
    whole = Box.whole((512, 512, 280))
    boxes = cut(whole, whole, (64, 64, 64), itemsize=2, channels=1, threads=1, direct=True)
    assert [box.shape for box in boxes] == [(64, 512, 280)] * 8
    boxes = cut(whole, whole, (64, 64, 64), itemsize=1, channels=1, threads=2, direct=True)
    assert [box.shape[0] for box in boxes] == [64, 128, 64, 128, 128]
    # One thread gains nothing from pieces of an output that have to be copied together.
    axial = {"tile": (512, 512, 1), "itemsize": 2, "channels": 1, "direct": True}
    assert cut(whole, whole, threads=1, **axial) == [whole]  # type: ignore[arg-type]
    assert [box.shape[2] for box in cut(whole, whole, threads=2, **axial)] == [140, 140]  # type: ignore[arg-type]
    small = Box.whole((128, 128, 128))
    assert cut(small, small, (64, 64, 64), itemsize=2, channels=1, threads=8, direct=True) == [small]


@pytest.mark.usefixtures("tiny")
def test_reads_in_slabs_equal_reads_in_one_piece(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Callable[[int, int], int]
) -> None:
    readers = [reader_of(1), reader_of(3)]
    unsplit = reader_of(1)

    @settings(max_examples=counts(60, 1500), deadline=None, derandomize=True)
    @given(
        shape=triples,
        series=st.sampled_from([None, None, 1, 3]),
        tile=triples,
        dtype=st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]),
        out=st.sampled_from([None, "float32", "int16", "float64"]),
        scaling=st.sampled_from([(1.0, 0.0), (0.5, -3.0), (-2.0, 0.25)]),
        start=st.none() | st.tuples(*[st.integers(-5, 13)] * 3),
        size=triples,
        contiguous=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(
        shape: tuple[int, int, int],
        series: int | None,
        tile: tuple[int, int, int],
        dtype: str,
        out: str | None,
        scaling: tuple[float, float],
        start: tuple[int, int, int] | None,
        size: tuple[int, int, int],
        contiguous: bool,
        seed: int,
    ) -> None:
        full = shape if series is None else (*shape, series)
        array = np.random.default_rng(seed).integers(0, 200, full).astype(dtype)
        ref = put(tmp_path, array, tile=TileConfig(custom=tile), slope=scaling[0], intercept=scaling[1])
        box = None if start is None else Box.at(start, size)
        kind = ref.value_dtype if out is None else np.dtype(out)
        with monkeypatch.context() as patch:
            patch.setattr(slabs, "LARGE", 2**40)
            truth = unsplit.read(ref, box, dtype=kind, pad_value=9)
        for reader in readers:
            canvas = np.full((2, *truth.shape[:-1], truth.shape[-1] + (not contiguous)), 77, kind)
            place = canvas[1, ..., : truth.shape[-1]]
            reader.read(ref, box, out=place, pad_value=9)
            np.testing.assert_array_equal(place, truth, strict=True)
            assert (canvas[0] == 77).all()
            assert contiguous or (canvas[1, ..., -1] == 77).all()
            again = np.empty_like(truth)
            assert reader.try_many([ReadRequest(ref, box, again, 9)]) == {}
            np.testing.assert_array_equal(again, truth, strict=True)
        shutil.rmtree(ref.uri)

    check()


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[tuple[int, int]], Array, str]]:
    """The queries that are run: ranges, memory, thread."""
    seen: list[tuple[list[tuple[int, int]], Array, str]] = []
    read = TileHandle.read

    def noted(self: TileHandle, ranges: list[tuple[int, int]], out: Array) -> None:
        seen.append((ranges, out, threading.current_thread().name))
        read(self, ranges, out)

    monkeypatch.setattr(TileHandle, "read", noted)
    return seen


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("threads", [1, 4])
def test_slabs_go_straight_into_the_output_on_the_threads_that_there_are(
    put: Put, tmp_path: Path, queries: list[Any], threads: int
) -> None:
    array = np.arange(20 * 9 * 7, dtype=np.int16).reshape(20, 9, 7)
    ref = put(tmp_path, array, tile=TileConfig(extent=4))
    out = np.zeros_like(array)
    reader_of(threads).read(ref, out=out)
    np.testing.assert_array_equal(out, array)
    assert sorted(ranges[0] for ranges, _, _ in queries) == [(n, n + 3) for n in range(0, 20, 4)]
    assert all(np.shares_memory(memory, out) for _, memory, _ in queries)
    assert {name.startswith("radioloader-read") for _, _, name in queries} == {threads > 1}


def test_a_worker_of_a_loader_reads_in_its_one_thread(
    put: Put, tmp_path: Path, queries: list[Any], tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils.data.get_worker_info", lambda: object())
    ref = put(tmp_path, np.ones((8, 8, 8), np.int16), tile=TileConfig(extent=4))
    VolumeReader().read(ref)
    assert [name for _, _, name in queries] == [threading.current_thread().name] * 2


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("box", "named"), [(Box((-1, 0, 2), (20, 9, 7)), "[-1:20, 0:9, 2:7]"), (None, "[0:20, 0:9, 0:7]")]
)
def test_errors_name_the_box_that_was_asked_for(
    put: Put, tmp_path: Path, threads: int, box: Box | None, named: str
) -> None:
    array = np.random.default_rng(0).integers(0, 30000, (20, 9, 7), dtype=np.int16)
    ref, good = (put(tmp_path, array, tile=TileConfig(extent=4)) for _ in range(2))
    (voxels,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    voxels.write_bytes(voxels.read_bytes()[:-100])
    reader = reader_of(threads)
    with pytest.raises(ReadError) as caught:
        reader.read(ref, box)
    assert f"could not read box {named} of subject 'sub-01'" in str(caught.value)
    outs = [np.zeros(reader.read(good, box).shape, np.int16) for _ in range(2)]
    failures = reader.try_many([ReadRequest(good, box, outs[0]), ReadRequest(ref, box, outs[1])])
    assert list(failures) == [1]
    assert named in str(failures[1])
    np.testing.assert_array_equal(outs[0], reader.read(good, box))
    shutil.rmtree(ref.uri)
    with pytest.raises(ReadError, match="subject 'sub-01'"):
        reader_of(threads).read(ref, box)
