"""VolumeReader against numpy: every box, dtype, tile shape and kind of output."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.config import CompressionConfig, ReadConfig
from radioloader.errors import ReadError, ShapeError
from radioloader.storage.reader import ReadRequest
from radioloader.storage.schema import DTYPES

Array = np.ndarray[Any, Any]

SHAPE = (13, 10, 17)
TILES = {
    "isotropic": TileConfig(extent=5),
    "larger than the volume": TileConfig(extent=64),
    "one voxel": TileConfig(extent=1),
    "axial": TileConfig(orientation="axial"),  # type: ignore[arg-type]
    "sagittal": TileConfig(orientation="sagittal"),  # type: ignore[arg-type]
    "coronal": TileConfig(orientation="coronal"),  # type: ignore[arg-type]
    "custom": TileConfig(custom=(4, 10, 3)),
}


def extreme_values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Voxels over the whole range of a dtype, its extremes (and NaN, infinities) among them."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        array = (generator.standard_normal(shape) * 1e6).astype(kind)
        array.flat[:3] = np.nan, np.inf, -np.inf
        return array
    limits = np.iinfo(kind)
    array = generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    array.flat[:2] = limits.min, limits.max
    return array


def expected(values: Array, box: Box, pad_value: float = 0.0) -> Array:
    """What numpy says is in ``box`` of ``values`` (X, Y, Z), voxel by voxel."""
    result = np.full(box.shape, pad_value, values.dtype)
    grid = np.meshgrid(*[np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)], indexing="ij")
    inside = np.logical_and.reduce([(g >= 0) & (g < n) for g, n in zip(grid, values.shape, strict=True)])
    result[inside] = values[tuple(g[inside] for g in grid)]
    return result


def boxes(shape: tuple[int, int, int], reach: int = 8) -> st.SearchStrategy[Box]:
    """Boxes inside, across the border of, and wholly outside a volume."""
    sizes = st.tuples(*[st.integers(1, n + reach) for n in shape])
    starts = st.tuples(*[st.integers(-reach - 2, n + 2) for n in shape])
    return st.builds(Box.at, starts, sizes)


@pytest.fixture(scope="module")
def stored(put: Callable[..., VolumeRef], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[VolumeRef, Array]]:
    """Volumes of every dtype (3D and 4D) in every tile shape, with what they hold."""
    folder = tmp_path_factory.mktemp("volumes")
    volumes = []
    for number, dtype in enumerate(DTYPES):
        for position, (codes, tile) in enumerate(zip(["RAS", "PIR", "LSP"] * 3, TILES.values(), strict=False)):
            shape = (*SHAPE, 3) if (number + position) % 4 == 0 else SHAPE
            array = extreme_values(dtype, shape, seed=number)
            volumes.append((put(folder, array, tile=tile, codes=codes), array))
    return volumes


def channels_first(array: Array) -> Array:
    return np.moveaxis(array, 3, 0) if array.ndim == 4 else array


def assert_box(values: Array, box: Box, got: Array, pad_value: float = 0.0) -> None:
    if values.ndim == 4:
        assert got.shape[0] == values.shape[0]
        for time in range(values.shape[0]):
            np.testing.assert_array_equal(got[time], expected(values[time], box, pad_value), strict=True)
    else:
        np.testing.assert_array_equal(got, expected(values, box, pad_value), strict=True)


def test_whole_volumes_of_every_dtype_and_tile_shape(stored: list[tuple[VolumeRef, Array]]) -> None:
    reader = VolumeReader()
    for ref, array in stored:
        np.testing.assert_array_equal(reader.read(ref), channels_first(array), strict=True)


def test_random_boxes_equal_numpy(stored: list[tuple[VolumeRef, Array]], counts: Callable[[int, int], int]) -> None:
    reader = VolumeReader()

    @settings(max_examples=counts(150, 4000), deadline=None, derandomize=True)
    @given(number=st.integers(0, len(stored) - 1), box=boxes(SHAPE), pad=st.sampled_from([0, 1, 7]))
    def check(number: int, box: Box, pad: int) -> None:
        ref, array = stored[number]
        assert_box(channels_first(array), box, reader.read(ref, box, pad_value=pad), pad)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_floats_are_rounded_to_integers(
    put: Callable[..., VolumeRef], tmp_path: Path, dtype: str, slope: float
) -> None:
    array = (np.random.default_rng(1).uniform(-30, 30, SHAPE) / slope).astype(dtype)
    array[0, 0, :4] = np.array([-2.7, 2.7, 2.5, -0.4]) / slope
    ref = put(tmp_path, array, slope=slope)
    expected = np.rint(array.astype(np.float64) * slope if slope != 1.0 else array)
    with VolumeReader() as reader:
        np.testing.assert_array_equal(reader.read(ref, dtype=np.int16), expected.astype(np.int16))
        box = Box((-1, 2, 3), (5, 12, 9))
        inner = reader.read(ref, box, dtype=np.int8, pad_value=7)
        assert (inner[0] == 7).all()
        assert (inner[:, 8:] == 7).all()
        np.testing.assert_array_equal(inner[1:, :8], expected[:5, 2:, 3:9].astype(np.int8))
    assert expected[0, 0, :2].tolist() == [-3, 3]


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0.0), (1.0, -1024.0), (0.1, 3.3), (-2.0, 1e-3)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_scaled_values_are_computed_in_float64(
    put: Callable[..., VolumeRef], tmp_path: Path, dtype: str, slope: float, intercept: float
) -> None:
    array = extreme_values(dtype, SHAPE)
    ref = put(tmp_path, array, slope=slope, intercept=intercept)
    box = Box((-2, 3, 5), (9, 12, 11))
    values = array.astype(np.float64) * slope + intercept
    reader = VolumeReader()
    np.testing.assert_array_equal(reader.read(ref, box), expected(values, box), strict=True)
    # padding is in the units of the values: it is not scaled
    np.testing.assert_array_equal(reader.read(ref, box, pad_value=5), expected(values, box, 5), strict=True)
    half = reader.read(ref, box, dtype=np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, expected(values, box).astype(np.float32), strict=True)


@pytest.mark.parametrize(
    "box", [None, Box((2, 1, 4), (9, 8, 12)), Box((-3, -3, -3), (20, 20, 20)), Box.at((40, 0, 0), (2, 2, 2))]
)
def test_reads_into_numpy_and_torch_memory(put: Callable[..., VolumeRef], tmp_path: Path, box: Box | None) -> None:
    array = extreme_values("int16", SHAPE)
    ref = put(tmp_path, array)
    reader = VolumeReader()
    place = box or Box.whole(SHAPE)
    truth = expected(array, place)
    for dtype in (np.int16, np.float32, np.int64, ">i2"):
        out = np.full(place.shape, 99, dtype)
        assert reader.read(ref, box, out=out) is out
        np.testing.assert_array_equal(out, truth.astype(dtype), strict=True)
    for kind in (torch.int16, torch.float32, torch.float64):
        batch = torch.full((3, 2, *place.shape), 99, dtype=kind)
        reader.read(ref, box, out=batch[1, 0])
        assert torch.equal(batch[1, 0], torch.from_numpy(truth).to(kind))
        assert (batch[0] == 99).all()
        assert (batch[2] == 99).all()
        assert (batch[1, 1] == 99).all()
    # a view that is not contiguous, such as a crop of a larger picture
    canvas = np.full(tuple(n + 2 for n in place.shape), 99, np.int16)
    reader.read(ref, box, out=canvas[1:-1, 1:-1, 1:-1])
    np.testing.assert_array_equal(canvas[1:-1, 1:-1, 1:-1], truth)
    assert (canvas == 99).sum() == canvas.size - truth.size + (truth == 99).sum()


def test_series_read_into_channels(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = extreme_values("uint16", (*SHAPE, 4))
    ref = put(tmp_path, array)
    box = Box((3, -2, 0), (11, 5, 17))
    out = torch.zeros((2, 4, *box.shape), dtype=torch.float32)
    VolumeReader().read(ref, box, out=out[1])
    for time in range(4):
        assert torch.equal(out[1, time], torch.from_numpy(expected(array[..., time], box).astype(np.float32)))
    assert not out[0].any()


def test_wrong_buffers_are_refused(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, np.zeros(SHAPE, np.int16))
    reader = VolumeReader()
    with pytest.raises(
        ShapeError, match=r"the buffer has shape \(2, 2, 3\), but box \[0:2, 0:2, 0:2\] of subject 'sub-01'"
    ):
        reader.read(ref, Box((0, 0, 0), (2, 2, 2)), out=np.zeros((2, 2, 3), np.int16))
    with pytest.raises(ShapeError, match="box None \\(the whole volume\\) of subject 'sub-01'"):
        reader.read(ref, out=np.zeros((1, *SHAPE), np.int16))
    with pytest.raises(ShapeError, match="must be a numpy array or a CPU tensor, got list"):
        reader.read(ref, out=[[[0]]])  # type: ignore[arg-type]
    frozen = np.zeros(SHAPE, np.int16)
    frozen.flags.writeable = False
    with pytest.raises(ShapeError, match="read-only"):
        reader.read(ref, out=frozen)


def test_read_many_checks_its_buffers(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, np.ones(SHAPE, np.int16))
    box = Box((0, 0, 0), (4, 4, 4))
    for shape in ((4, 4, 5), (4, 4, 3), (64,)):
        out = np.full(shape, 9, np.int16)
        with pytest.raises(ShapeError, match=r"shape .* but box \[0:4, 0:4, 0:4\] of subject 'sub-01'"):
            VolumeReader().read_many([ReadRequest(ref, box, out)])
        assert (out == 9).all()


@pytest.mark.parametrize("threads", [1, 4])
def test_read_many_fills_every_buffer(stored: list[tuple[VolumeRef, Array]], threads: int) -> None:
    generator = np.random.default_rng(1)
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=threads, max_open_arrays=3)))
    requests, truths = [], []
    for number in generator.integers(0, len(stored), 80).tolist():
        ref, array = stored[number]
        if array.ndim == 4:
            continue
        box = Box.at(generator.integers(-4, 12, 3).tolist(), (6, 5, 7))
        requests.append(ReadRequest(ref, box, np.empty(box.shape, array.dtype), pad_value=3))
        truths.append(expected(array, box, 3))
    assert len(requests) > 40
    reader.read_many(requests)
    for request, truth in zip(requests, truths, strict=True):
        np.testing.assert_array_equal(request.out, truth, strict=True)
    assert reader.open_arrays <= 3


def test_read_many_raises_the_first_failure_after_all_others_have_ended(
    put: Callable[..., VolumeRef], tmp_path: Path, small_reads: StorageConfig
) -> None:
    array = extreme_values("int16", SHAPE)
    good = put(tmp_path, array)
    broken = [replace(good, uri=f"{good.uri}-{n}", obs_subject_id=f"gone-{n}") for n in range(2)]
    outs = [np.zeros(SHAPE, np.int16) for _ in range(6)]
    refs = [good, broken[0], good, broken[1], good, good]
    reader = VolumeReader(small_reads)
    with pytest.raises(ReadError, match="subject 'gone-0'"):
        reader.read_many([ReadRequest(ref, None, out) for ref, out in zip(refs, outs, strict=True)])
    for number in (0, 2, 4, 5):
        np.testing.assert_array_equal(outs[number], array)


def test_open_arrays_are_bounded_and_the_most_recent_stay(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    refs = [put(tmp_path, np.full((3, 3, 3), n, np.int16), name=f"sub-{n}") for n in range(6)]
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_open_arrays=3)))
    assert reader.open_arrays == 0
    for number, ref in enumerate(refs):
        assert (reader.read(ref) == number).all()
        assert reader.open_arrays == min(number + 1, 3)
    reader.read(refs[3])
    reader.read(refs[0])  # 4 is now the one that was not used for longest
    for ref in refs:
        shutil.rmtree(ref.uri + "/__schema")  # what is open can still be read, what is not cannot be opened
    for number in (0, 3, 5):
        assert (reader.read(refs[number]) == number).all()
    with pytest.raises(ReadError, match="subject 'sub-4'"):
        reader.read(refs[4])


def test_close_lets_go_and_the_reader_opens_again(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, np.ones(SHAPE, np.int16))
    with VolumeReader() as reader:
        reader.read(ref)
        reader.read_many([ReadRequest(ref, None, np.empty(SHAPE, np.int16)) for _ in range(4)])
        assert reader.open_arrays == 1
    assert reader.open_arrays == 0
    assert (reader.read(ref) == 1).all()


def test_a_box_outside_opens_nothing(tmp_path: Path) -> None:
    ref = VolumeRef(uri=str(tmp_path / "absent"), shape=(4, 4, 4), dtype="int16")
    out = VolumeReader().read(ref, Box((9, 0, 0), (11, 2, 2)), pad_value=-7)
    np.testing.assert_array_equal(out, np.full((2, 2, 2), -7, np.int16), strict=True)


def test_errors_name_subject_collection_uri_and_box(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, np.ones(SHAPE, np.int16))
    shutil.rmtree(ref.uri)
    with pytest.raises(ReadError) as caught:
        VolumeReader().read(ref, Box((1, 2, 3), (4, 5, 6)))
    message = str(caught.value)
    for part in ("[1:4, 2:5, 3:6]", "subject 'sub-01'", "collection 'T1w'", "volume 'sub-01_T1w'", ref.uri):
        assert part in message


def test_a_damaged_tile_file_is_an_error_of_that_volume(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, extreme_values("int16", SHAPE))
    (voxels,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    voxels.write_bytes(voxels.read_bytes()[:100])
    with pytest.raises(ReadError, match="subject 'sub-01'"):
        VolumeReader().read(ref)


@pytest.mark.usefixtures("little_memory")
def test_checksums_notice_every_flipped_bit(
    put: Callable[..., VolumeRef], tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    array = extreme_values("int16", SHAPE)
    ref = put(tmp_path, array, compression=CompressionConfig(checksum=True))
    np.testing.assert_array_equal(VolumeReader().read(ref), array, strict=True)
    (voxels,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    content = voxels.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(counts(20, 400)):
        damaged = bytearray(content)
        damaged[generator.integers(len(damaged))] ^= 1 << int(generator.integers(8))
        voxels.write_bytes(damaged)
        with pytest.raises(ReadError, match="subject 'sub-01'"):
            VolumeReader().read(ref)
    voxels.write_bytes(content)
    np.testing.assert_array_equal(VolumeReader().read(ref), array, strict=True)


def test_one_reader_in_many_threads(stored: list[tuple[VolumeRef, Array]], counts: Callable[[int, int], int]) -> None:
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_open_arrays=2)))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        try:
            for _ in range(counts(40, 1000)):
                ref, array = stored[int(generator.integers(len(stored)))]
                box = Box.at(generator.integers(-4, 12, 3).tolist(), generator.integers(1, 12, 3).tolist())
                assert_box(channels_first(array), box, reader.read(ref, box))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert reader.open_arrays <= 2


def test_pickled_readers_read_with_the_same_settings(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = extreme_values("int16", SHAPE)
    ref = put(tmp_path, array)
    reader = VolumeReader(StorageConfig(read=ReadConfig(max_open_arrays=7)))
    reader.read(ref)
    copy, copy_of_ref = pickle.loads(pickle.dumps((reader, ref)))
    assert copy.config == reader.config
    assert copy.open_arrays == 0
    assert copy_of_ref == ref
    np.testing.assert_array_equal(copy.read(copy_of_ref), array, strict=True)


def test_large_regions_keep_no_scratch_memory(
    put: Callable[..., VolumeRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radioloader.storage._scratch._KEPT", 1000)
    array = extreme_values("int16", SHAPE)
    ref = put(tmp_path, array)
    reader = VolumeReader()
    np.testing.assert_array_equal(reader.read(ref, dtype=np.float64), array.astype(np.float64), strict=True)
    reader.read(ref, Box((0, 0, 0), (5, 5, 5)), dtype=np.float64)
    assert reader._scratch._local.memory.size == 250


def test_threads_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.storage.reader.available_cores", lambda: 64)
    assert VolumeReader()._threads() == 8
    assert VolumeReader(StorageConfig(read=ReadConfig(max_workers=11)))._threads() == 11
    monkeypatch.setattr("torch.utils.data.get_worker_info", lambda: object())
    assert VolumeReader()._threads() == 1
