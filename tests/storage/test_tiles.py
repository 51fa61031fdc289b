"""Tiles that are read without TileDB's query: the same bytes, and TileDB's turn wherever something is not as expected."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import Box, CompressionConfig, StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.config import ReadConfig
from radioloader.errors import ReadError
from radioloader.storage import _fragment
from radioloader.storage._tiles import TileHandle, open_tiles
from radioloader.storage.context import as_default, get_context
from radioloader.storage.schema import DTYPES

Array = np.ndarray[Any, Any]
BY_TILEDB = StorageConfig(read=ReadConfig(direct=False))


pytestmark = pytest.mark.usefixtures("tile_code")


def blobs(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Values with large constant parts, negative ones, and ones that need all bytes."""
    random = np.random.default_rng(seed)
    values = random.integers(-(2**40), 2**40, shape)
    values[: shape[0] // 2, :, shape[2] // 3 :] = 7
    return values.astype(dtype)


def handle_of(reader: VolumeReader, ref: VolumeRef) -> Any:
    reader.read(ref, Box((0, 0, 0), (1, 1, 1)))
    return reader._handle(ref)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((20, 18, 16), (8, 6, 4)),
        ((20, 18, 16), (32, 32, 32)),
        ((9, 7, 5, 3), (4, 4, 4)),
        ((130, 50, 70), (64, 37, 70)),  # tiles of several of TileDB's 64 kB chunks, whole planes and parts of planes
        ((7, 192, 128), (5, 192, 128)),  # of int16: the last chunk begins where a plane does, the others do not
    ],
    ids=str,
)
def test_the_bytes_of_tiledb(
    put: Callable[..., VolumeRef],
    tmp_path: Path,
    counts: Callable[[int, int], int],
    dtype: str,
    shape: tuple[int, ...],
    tile: tuple[int, int, int],
) -> None:
    array = blobs(shape, dtype, seed=len(dtype))
    ref = put(tmp_path, array, tile=TileConfig(custom=tile))
    reader, tiledbs = VolumeReader(), VolumeReader(BY_TILEDB)
    assert isinstance(handle_of(reader, ref), TileHandle)
    assert not isinstance(handle_of(tiledbs, ref), TileHandle)
    box = st.tuples(*[st.tuples(st.integers(-2, n - 1), st.integers(1, n)) for n in shape[:3]])

    @settings(max_examples=counts(25, 400), deadline=None, derandomize=True)
    @given(box)
    def check(axes: Any) -> None:
        where = Box.at([a for a, _ in axes], [n for _, n in axes])
        found = reader.read(ref, where)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, tiledbs.read(ref, where))

    check()
    whole = np.moveaxis(array, 3, 0) if array.ndim == 4 else array
    np.testing.assert_array_equal(reader.read(ref), whole)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_that_metadata_does_not_tell_apart(put: Callable[..., VolumeRef], tmp_path: Path, dtype: str) -> None:
    """Lowest and highest value of a tile with NaN or both zeros are equal, its cells are not."""
    array = np.full((8, 8, 8), 3, dtype)
    array[2, 3, 4] = np.nan
    array[:4, :4, :4] = 0
    array[1, 1, 1] = -0.0
    ref = put(tmp_path, array, tile=TileConfig(extent=4))
    reader = VolumeReader()
    assert isinstance(handle_of(reader, ref), TileHandle)
    found = reader.read(ref)
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(array))


def test_tiles_of_one_value_are_not_read(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = np.zeros((16, 16, 16), np.uint8)
    array[:8, :8, :8] = 5
    array[8, 8, 8] = 1
    reader, ref = VolumeReader(), put(tmp_path, array, tile=TileConfig(extent=8))
    assert isinstance(handle_of(reader, ref), TileHandle)
    (data,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    data.unlink()
    np.testing.assert_array_equal(reader.read(ref, Box((0, 0, 0), (8, 16, 16))), array[:8])
    with pytest.raises(ReadError, match="could not read box"):
        reader.read(ref)


@pytest.mark.parametrize(
    "compression",
    [
        CompressionConfig(codec="lz4"),
        CompressionConfig(codec="none"),
        CompressionConfig(checksum=True),
    ],
    ids=str,
)
def test_other_filters_are_left_to_tiledb(
    put: Callable[..., VolumeRef], tmp_path: Path, compression: CompressionConfig
) -> None:
    array = blobs((12, 11, 10), "int16", 1)
    ref = put(tmp_path, array, compression=compression)
    reader = VolumeReader()
    assert not isinstance(handle_of(reader, ref), TileHandle)
    np.testing.assert_array_equal(reader.read(ref), array)


@pytest.mark.parametrize("level", [-5, 1, 9])
def test_codec_levels_and_no_shuffle(put: Callable[..., VolumeRef], tmp_path: Path, level: int) -> None:
    array = blobs((12, 11, 10), "int16", 1)
    for shuffle in (True, False):
        compression = CompressionConfig(level=level, shuffle=shuffle)
        ref = put(tmp_path, array, name=str(shuffle), compression=compression)
        reader = VolumeReader()
        assert isinstance(handle_of(reader, ref), TileHandle)
        np.testing.assert_array_equal(reader.read(ref), array)


def context() -> Any:
    return get_context()


@pytest.fixture(autouse=True)
def no_other_context() -> Iterator[None]:
    """tiledb-py makes a context of its own where it is given none, and then warns of every fork of the process."""
    with as_default(get_context()):
        yield


def foreign(path: Path, **changes: Any) -> tuple[str, Array]:
    """An array that somebody else wrote: the same name and dtype, but for ``changes``."""
    array = blobs((8, 8, 8), "int16", 2)
    given: dict[str, Any] = {
        "cell_order": "row-major",
        "tile_order": "row-major",
        "low": 0,
        "dims": np.int64,
        "filters": None,
        "name": "voxels",
    }
    given |= changes
    dims = [tiledb.Dim(name=n, domain=(given["low"], given["low"] + 7), tile=4, dtype=given["dims"]) for n in "xyz"]
    filters = [getattr(tiledb, name)() for name in given["filters"] or ["ByteShuffleFilter", "ZstdFilter"]]
    attribute = tiledb.Attr(name=given["name"], dtype=np.int16, filters=tiledb.FilterList(filters))
    schema = tiledb.ArraySchema(
        domain=tiledb.Domain(*dims), attrs=[attribute], cell_order=given["cell_order"], tile_order=given["tile_order"]
    )
    uri = str(path / "array")
    tiledb.Array.create(uri, schema)
    with tiledb.open(uri, "w") as opened:
        opened[:] = array
    return uri, array


@pytest.mark.parametrize(
    "changes",
    [
        {"cell_order": "col-major"},
        {"tile_order": "col-major"},
        {"low": 1},
        {"dims": np.int32},
        {"filters": ["BitShuffleFilter", "ZstdFilter"]},
        {"filters": ["ZstdFilter", "ZstdFilter"]},
        {"name": "other"},
    ],
    ids=str,
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    uri, _ = foreign(tmp_path, **changes)
    assert open_tiles(uri, context) is None


def test_an_array_of_its_kind_is_not_refused(tmp_path: Path) -> None:
    uri, array = foreign(tmp_path)
    handle = open_tiles(uri, context)
    assert handle is not None
    out = np.empty((8, 8, 8), np.int16)
    handle.read([(0, 7)] * 3, out)
    np.testing.assert_array_equal(out, array)


def test_arrays_with_several_fragments_are_refused(tmp_path: Path) -> None:
    uri, _ = foreign(tmp_path)
    with tiledb.open(uri, "w") as opened:
        opened[0:4, 0:4, 0:4] = np.zeros((4, 4, 4), np.int16)
    assert open_tiles(uri, context) is None


def test_an_uncommitted_or_unknown_fragment_is_refused(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, blobs((8, 8, 8), "int16", 2))
    (commit,) = (Path(ref.uri) / "__commits").iterdir()
    commit.rename(commit.with_name("__1_1_ff_22.wrt"))
    assert open_tiles(ref.uri, context) is None
    assert open_tiles(str(tmp_path / "nowhere"), context) is None


def test_another_format_version_is_refused(
    put: Callable[..., VolumeRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = blobs((8, 8, 8), "int16", 2)
    ref = put(tmp_path, array)
    monkeypatch.setattr(_fragment, "VERSION", 23)
    assert open_tiles(ref.uri, context) is None
    np.testing.assert_array_equal(VolumeReader().read(ref), array)


def test_any_damage_of_the_metadata_is_tiledbs_to_report(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    """Whatever byte is flipped: an answer is TileDB's, or right."""
    array = blobs((8, 8, 8), "int16", 2)
    ref = put(tmp_path, array, tile=TileConfig(extent=4))
    (metadata,) = Path(ref.uri).glob("__fragments/*/__fragment_metadata.tdb")
    content = metadata.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        metadata.write_bytes(damaged)
        handle = open_tiles(ref.uri, context)
        if handle is None:
            refused += 1
            continue
        out = np.empty((8, 8, 8), np.int16)
        try:
            handle.read([(0, 7)] * 3, out)
        except _fragment.UnknownLayout:
            refused += 1
            continue
        np.testing.assert_array_equal(out, array)
    assert refused > 50


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_damaged_data_give_tiledbs_error(put: Callable[..., VolumeRef], tmp_path: Path, damage: str) -> None:
    ref = put(tmp_path, blobs((16, 16, 16), "int16", 2), tile=TileConfig(extent=8))
    reader = VolumeReader()
    assert isinstance(handle_of(reader, ref), TileHandle)
    (data,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    content, last = data.read_bytes(), _fragment.open_fragment(ref.uri, context).offsets[-2]
    if damage == "gone":
        shutil.rmtree(ref.uri)
    else:
        data.write_bytes(content[:-50] if damage == "cut" else content[:last] + bytes(40) + content[last + 40 :])
    with pytest.raises(ReadError, match="could not read box"):
        reader.read(ref)
    if damage == "zeros":  # of the last tile alone
        assert reader.read(ref, Box((0, 0, 0), (8, 8, 8))).shape == (8, 8, 8)


def test_what_is_damaged_for_us_is_read_by_tiledb(
    put: Callable[..., VolumeRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = blobs((16, 16, 16), "int16", 2)
    ref = put(tmp_path, array)
    reader = VolumeReader()
    assert isinstance(handle_of(reader, ref), TileHandle)

    def refuse(*_: Any) -> Any:
        raise _fragment.UnknownLayout("another codec")

    for code in ("_read_compiled", "_read_in_python"):
        monkeypatch.setattr(TileHandle, code, refuse)
    np.testing.assert_array_equal(reader.read(ref), array)
    assert not isinstance(reader._handle(ref)[0], TileHandle)


@pytest.mark.usefixtures("little_memory")
def test_any_damage_of_the_data_is_tiledbs_to_report(
    put: Callable[..., VolumeRef], tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    """Bytes of the headers and frames changed at random: the right voxels, or an error; never a crash."""
    array = blobs((12, 16, 16), "int16", 2)
    ref = put(tmp_path, array, tile=TileConfig(custom=(6, 16, 16)))
    (data,) = Path(ref.uri).glob("__fragments/*/a0.tdb")
    content, random, failed = data.read_bytes(), np.random.default_rng(5), 0
    starts = _fragment.open_fragment(ref.uri, context).offsets
    for number in range(counts(50, 5000)):
        changed = bytearray(content)
        begin = int(starts[number % (len(starts) - 1)])
        at = begin + int(random.integers(0, 60 if number % 3 else len(content) - begin))
        changed[min(at, len(content) - 1)] ^= int(random.integers(1, 256))
        data.write_bytes(changed)
        try:
            assert VolumeReader().read(ref).shape == array.shape
        except ReadError:
            failed += 1
    assert failed > 20


def test_stores_are_read_this_way(store_uri: str) -> None:
    """Or a new TileDB would make everything slow without anybody noticing."""
    import radioloader as rl

    store = rl.open(store_uri)
    for collection in (store.T1w, store.seg):
        ref = collection.iloc[0].ref
        assert isinstance(handle_of(VolumeReader(), ref), TileHandle)
        assert not isinstance(handle_of(VolumeReader(BY_TILEDB), replace(ref)), TileHandle)


def test_no_file_stays_open(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    import psutil

    refs = [put(tmp_path, blobs((8, 8, 8), "int16", n), name=f"v{n}") for n in range(5)]
    reader = VolumeReader()
    before = psutil.Process().num_fds()
    for ref in refs:
        reader.read(ref)
    assert reader.open_arrays == 5
    assert psutil.Process().num_fds() == before
