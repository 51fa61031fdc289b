"""Fragments that are written without TileDB's query are TileDB's: the same files, and TileDB where they would not be."""

from __future__ import annotations

import errno
import os
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb

from radioloader import CompressionConfig, StorageConfig, TileConfig
from radioloader.config import WriteConfig
from radioloader.errors import StoreWriteError
from radioloader.storage import _encode, _fragment, _fragment_writer, writer
from radioloader.storage._fragment import GENERIC_HEADER, open_fragment
from radioloader.storage._tiles import _chunks, _decompress
from radioloader.storage.context import context_for, get_context
from radioloader.storage.schema import DTYPES
from radioloader.storage.writer import write_volume

Array = np.ndarray[Any, Any]


def write(folder: Path, array: Array, *, direct: bool, **settings: Any) -> str:
    config = StorageConfig(write=WriteConfig(direct=direct, **settings))
    return f"{folder}/{write_volume(str(folder), array, codes='RAS', config=config, owner='sub-01')}"


def fragment_of(uri: str) -> Path:
    (folder,) = (Path(uri) / "__fragments").iterdir()
    return folder


def metadata(uri: str) -> tuple[bytes, list[Any]]:
    """The footer but for the schema's name, and each generic tile: header, filters and content."""
    data = (fragment_of(uri) / "__fragment_metadata.tdb").read_bytes()
    (length,) = struct.unpack("<Q", data[-8:])
    footer = data[-8 - length : -8]
    parts, at = [], 0
    while at < len(data) - 8 - length:
        version, persisted, *rest, filters = GENERIC_HEADER.unpack_from(data, at)
        start = at + GENERIC_HEADER.size
        parts.append((version, *rest, data[start : start + filters], _fragment._generic(data, at)))
        at = start + filters + persisted
    return re.sub(rb"__\d+_\d+_[0-9a-f]{32}", b"", footer), parts


def tiles(uri: str) -> list[list[tuple[int, bytes]]]:
    """Length and bytes of each chunk of each tile, before compression."""
    fragment = open_fragment(uri, get_context)
    data = memoryview(Path(fragment.path).read_bytes())
    offsets = fragment.offsets
    return [
        [(length, _decompress(packed)) for length, packed in _chunks(data[a:b], fragment.layout.shuffle)]
        for a, b in pairwise(offsets)
    ]


def is_ours(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each volume that is written from here on is written here."""
    found: list[bool] = []
    plain = writer._write_direct

    def noting(*given: Any) -> bool:
        found.append(plain(*given))
        return found[-1]

    monkeypatch.setattr(writer, "_write_direct", noting)
    return found


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if "64" not in dtype or dtype == "float64"])
@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((64, 64, 64), (32, 32, 32)),
        ((40, 20, 33), (32, 32, 32)),
        ((5, 6, 7), (4, 4, 4)),
        ((9, 7, 5, 3), (4, 4, 4)),
        ((130, 50, 70), (64, 37, 70)),  # tiles of several chunks
        ((8, 90, 200), (1, 90, 200)),
        ((6, 5, 40), (6, 5, 1)),
    ],
    ids=str,
)
def test_the_files_of_tiledb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, shape: tuple[int, ...], tile: tuple[int, int, int]
) -> None:
    generator = np.random.default_rng(len(dtype))
    array = generator.integers(-50 if dtype[0] != "u" else 0, 100, shape).astype(dtype)
    array[: shape[0] // 2, :, shape[2] // 3 :] = 7
    ours = is_ours(monkeypatch)
    settings = {"tile": TileConfig(custom=tile)}
    uri, tiledbs = write(tmp_path, array, direct=True, **settings), write(tmp_path, array, direct=False, **settings)
    assert ours == [True, False]
    assert tiles(uri) == tiles(tiledbs)
    footer, parts = metadata(uri)
    their_footer, their_parts = metadata(tiledbs)
    # Another zstd or zlib than TileDB's may compress to other lengths: then the first field's offsets differ, and places in the footer.
    assert len(footer) == len(their_footer)
    assert [part[:1] + part[1:-1] for part in parts] == [part[:1] + part[1:-1] for part in their_parts]
    assert [part for number, part in enumerate(parts) if number != 1] == [
        part for number, part in enumerate(their_parts) if number != 1
    ]
    with tiledb.open(uri, ctx=context_for(uri)) as opened:
        np.testing.assert_array_equal(opened[...]["voxels"], array, strict=True)
    assert sorted(os.listdir(fragment_of(uri))) == sorted(os.listdir(fragment_of(tiledbs)))


@pytest.mark.parametrize("compression", [CompressionConfig(level=9), CompressionConfig(shuffle=False)], ids=str)
@pytest.mark.parametrize("order", ["C", "F", "turned"])
def test_any_memory_order_and_setting(tmp_path: Path, order: str, compression: CompressionConfig) -> None:
    array = np.random.default_rng(1).normal(0, 1, (33, 20, 40)).astype(np.float32)
    given = array[::-1, :, ::-1].transpose(1, 2, 0) if order == "turned" else np.array(array, order=order)
    uri, tiledbs = (write(tmp_path, given, direct=direct, compression=compression) for direct in (True, False))
    assert tiles(uri) == tiles(tiledbs)
    with tiledb.open(uri, ctx=context_for(uri)) as opened:
        np.testing.assert_array_equal(opened[...]["voxels"], given, strict=True)


def test_sums_of_floats_are_those_of_tiledb_but_for_rounding(tmp_path: Path) -> None:
    array = np.random.default_rng(2).normal(1000, 1, (40, 40, 40)).astype(np.float32)
    uri, tiledbs = (write(tmp_path, array, direct=direct) for direct in (True, False))
    sums = []
    for each in (uri, tiledbs):
        with tiledb.open(each, ctx=context_for(each)) as opened:
            sums.append(float(opened.query(attrs=["voxels"]).agg("sum")[...]))
    np.testing.assert_allclose(sums, array.sum(dtype=np.float64), rtol=1e-12)


def special(value: float) -> Array:
    array = np.ones((40, 8, 8), np.float32)
    array[37, 3, 3] = value
    return array


@pytest.mark.parametrize(
    ("array", "compression"),
    [
        (special(np.nan), CompressionConfig()),
        (special(np.inf), CompressionConfig()),
        (np.full((8, 8, 8), 1.7e308), CompressionConfig()),  # the sum overflows
        (np.full((8, 8, 8), 2**62), CompressionConfig()),
        (np.full((8, 8, 8), 2**63, np.uint64), CompressionConfig()),
        (np.ones((8, 8, 8), np.int16), CompressionConfig(codec="lz4")),
        (np.ones((8, 8, 8), np.int16), CompressionConfig(codec="none")),
        (np.ones((8, 8, 8), np.int16), CompressionConfig(checksum=True)),
    ],
    ids=["nan", "inf", "large", "int64", "uint64", "lz4", "none", "checksum"],
)
def test_the_rest_is_left_to_tiledb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: Array, compression: CompressionConfig
) -> None:
    ours = is_ours(monkeypatch)
    uri = write(tmp_path, array, direct=True, compression=compression)
    assert ours == [False]
    assert len(tiledb.array_fragments(uri, ctx=context_for(uri))) == 1
    assert len(list((Path(uri) / "__fragments").iterdir())) == 1
    with tiledb.open(uri, ctx=context_for(uri)) as opened:
        np.testing.assert_array_equal(opened[...]["voxels"], array, strict=True)


def test_a_tiledb_with_another_format_version_writes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fragment_writer, "VERSION", 21)
    ours = is_ours(monkeypatch)
    uri = write(tmp_path, np.ones((8, 8, 8), np.int16), direct=True)
    assert ours == [False]
    assert fragment_of(uri).name.endswith("_22")


@pytest.mark.parametrize("place", ["data", "metadata", "commit"])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    calls = []

    def full(file: Any) -> None:
        calls.append(1)
        if len(calls) == ["data", "metadata", "commit"].index(place) + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_fragment_writer, "_sync", full)
    with pytest.raises(StoreWriteError, match=r"could not write sub-01 to .*No space left on device"):
        write(tmp_path, np.ones((8, 8, 8), np.int16), direct=True)
    assert list((tmp_path / "volumes").iterdir()) == []


def test_data_and_metadata_are_on_the_disk_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    plain = os.fsync

    def noting(descriptor: int) -> None:
        plain(descriptor)
        inode = os.fstat(descriptor).st_ino
        synced.append(next(file.name for file in Path(uri[0]).rglob("*") if file.stat().st_ino == inode))
        assert os.listdir(Path(uri[0]) / "__commits") == ([] if len(synced) < 3 else [synced[2]])

    uri: list[str] = []
    create = writer.write_fragment
    monkeypatch.setattr(writer, "write_fragment", lambda path, *a, **k: (uri.append(path), create(path, *a, **k)))
    monkeypatch.setattr(_fragment_writer.os, "fsync", noting)
    write(tmp_path, np.ones((8, 8, 8), np.int16), direct=True)
    assert synced[:2] == ["a0.tdb", "__fragment_metadata.tdb"]
    assert synced[2].endswith("_22.wrt")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Besides the voxels a few tiles, and what they are compressed to."""
    import tracemalloc

    array = np.random.default_rng(0).integers(-99, 99, (256, 128, 128), dtype=np.int16)
    tracemalloc.start()
    write(tmp_path, array, direct=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes // 2 + 4 * _encode._GROUP
