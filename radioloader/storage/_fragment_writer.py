"""Writes a volume as the one fragment of a local TileDB array, byte for byte as libtiledb lays it out (but for the last digits of sums of
floats).

The counterpart of ``_fragment.py``, with the same limits: what is outside of them is TileDB's to write. As with TileDB, the fragment exists
from when its commit file does, which is made last, after the data have reached the disk.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import struct
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage._encode import Tiles, encodable, write_tiles
from radioloader.storage._fragment import (
    GENERIC_HEADER,
    GZIP,
    VERSION,
    Layout,
    UnknownLayout,
    layout_of,
    schema_file,
)

__all__ = ["write_fragment"]

_CHUNK = 64 * 2**10
_BUFFER = 2**20
_LEVEL = 1
_FILTERS = struct.pack("<IIBIBi", _CHUNK, 1, GZIP, 5, GZIP, _LEVEL)  # one filter: its kind, bytes of its options, these
_CHAR = 4
_FANOUT = 10  # of the tree of bounding boxes, which is empty for dense arrays


def write_fragment(uri: str, voxels: npt.NDArray[Any], schema: Any, *, level: int) -> None:
    """Fill a new array.

    Args:
        uri: The array, local, made with ``schema`` and without data.
        voxels: Its cells, (X, Y, Z) or (X, Y, Z, T), of any strides.
        schema: Its schema (:class:`tiledb.ArraySchema`).
        level: Of zstd.

    Raises:
        UnknownLayout: TileDB has to write it; nothing of the fragment is left.
        OSError: No permission, or no space. What was written of it is TileDB's to ignore.
    """
    layout = layout_of(schema)
    name = schema_file(uri)
    with open(os.path.join(uri, "__schema", name), "rb") as file:
        if struct.unpack("<I", file.read(4)) != (VERSION,):
            raise UnknownLayout("format version of the schema")
    if not encodable(layout.dtype) or voxels.dtype != layout.dtype or voxels.shape != layout.shape:
        raise UnknownLayout("dtype or shape")
    now = time.time_ns() // 10**6
    fragment = f"__{now}_{now}_{secrets.token_hex(16)}_{VERSION}"
    folder = os.path.join(uri, "__fragments", fragment)
    os.mkdir(folder)
    try:
        with open(os.path.join(folder, "a0.tdb"), "xb", buffering=_BUFFER) as file:
            tiles = write_tiles(file, voxels, layout, level=level)
            _sync(file)
    except UnknownLayout:
        shutil.rmtree(folder)
        raise
    with open(os.path.join(folder, "__fragment_metadata.tdb"), "xb") as file:
        file.write(_metadata(layout, name, tiles))
        _sync(file)
    with open(os.path.join(uri, "__commits", f"{fragment}.wrt"), "xb") as file:
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise


def _metadata(layout: Layout, schema: str, tiles: Tiles) -> bytes:
    """The content of ``__fragment_metadata.tdb``: generic tiles, then a footer that says where they are."""
    dimensions, count = len(layout.shape), len(tiles.offsets)
    fields = 2 + dimensions  # the attribute, coordinates, and each dimension
    unused = [_counted(count, bytes(8 * count))] * fields
    rest = [_sized(bytes(8 * dimensions * count)), *[_sized(b"")] * dimensions]
    parts = [
        struct.pack("<II", _FANOUT, 0),
        *[_counted(count, tiles.offsets.tobytes()), *unused[1:]],
        *unused * 3,  # offsets and sizes of variable-length cells, validity
        *[_sized(tiles.lowest.tobytes()), *rest],
        *[_sized(tiles.highest.tobytes()), *rest],
        *[_counted(count, tiles.sums.tobytes()), unused[1], *[_counted(0, b"")] * dimensions],
        *[_counted(0, b"")] * fields,  # missing cells
        _totals(layout, tiles),
        struct.pack("<Q", 0),  # conditions of deletes
    ]
    packed = [_generic(part) for part in parts]
    places = np.concatenate([[0], np.cumsum([len(part) for part in packed[:-1]])]).tolist()
    name = schema.encode()
    domain = [edge for n in layout.shape for edge in (0, n - 1)]
    footer = b"".join(
        [
            struct.pack("<IQ", VERSION, len(name)),
            name,
            b"\x01\x00",  # dense, not empty
            struct.pack(f"<{2 * dimensions}q", *domain),
            struct.pack(
                "<QQBB", 0, int(np.prod(layout.tile)), 0, 0
            ),  # sparse tiles, cells of a tile, no times of cells
            struct.pack(f"<{3 * fields}Q", tiles.size, *[0] * (3 * fields - 1)),
            struct.pack(f"<{len(places)}Q", *places),
        ]
    )
    return b"".join([*packed, footer, struct.pack("<Q", len(footer))])


def _totals(layout: Layout, tiles: Tiles) -> bytes:
    """Lowest, highest, sum and missing cells of each field: sizes and values."""
    total: Any = tiles.sums.dtype.type(0)
    with np.errstate(over="ignore"):
        for each in tiles.sums:  # in TileDB's order, which matters for floats
            total += each
    size = struct.pack("<Q", layout.dtype.itemsize)
    return b"".join(
        [
            *[size, tiles.lowest.min().tobytes(), size, tiles.highest.max().tobytes(), total.tobytes(), bytes(8)],
            *[struct.pack("<QQQQQQ", 8, 0, 8, 0, 0, 0), bytes(32 * len(layout.shape))],
        ]
    )


def _counted(count: int, data: bytes) -> bytes:
    return struct.pack("<Q", count) + data


def _sized(data: bytes) -> bytes:
    return struct.pack("<QQ", len(data), 0) + data


def _generic(data: bytes) -> bytes:
    """A generic tile: gzipped chunks behind a header."""
    chunks = [struct.pack("<Q", max(1, -(-len(data) // _CHUNK)))]
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        packed = zlib.compress(part, _LEVEL)
        chunks += [struct.pack("<IIIIIII", len(part), len(packed), 16, 0, 1, len(part), len(packed)), packed]
    body = b"".join(chunks)
    header: bytes = GENERIC_HEADER.pack(VERSION, len(body), len(data), _CHAR, 1, 0, len(_FILTERS))
    return header + _FILTERS + body
