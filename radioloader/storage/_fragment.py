"""Where the tiles of a dense TileDB array lie on a local disk: its schema and the metadata of its one fragment.

TileDB's format is public (TileDB-Inc/TileDB, ``format_spec/``). Only what this package writes with the TileDB that it was tested with is
understood: one attribute, one fragment that covers the array, format version 22, no encryption, and no filters but byte shuffle and
zstd. All else is refused with :class:`UnknownLayout`, and is TileDB's to read.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.storage._names import VOXELS
from radioloader.storage.context import as_default

__all__ = [
    "GENERIC_HEADER",
    "GZIP",
    "VERSION",
    "Fragment",
    "Layout",
    "UnknownLayout",
    "layout_of",
    "open_fragment",
    "schema_file",
]

VERSION = 22
"""The format version that is understood."""
GZIP = 1
"""Number of a filter, and of a compressor."""
GENERIC_HEADER = struct.Struct("<IQQBQBI")
"""Of a generic tile: version, persisted size, size, datatype, cell size, encryption, filter bytes."""


class UnknownLayout(Exception):
    """An array, or a part of one, that is not laid out as this module knows it."""


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise UnknownLayout(what)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a schema says of the tiles.

    Attributes:
        shape: Cells on each dimension.
        tile: Extents of a tile.
        dtype: dtype of the cells.
        shuffle: Whether bytes are shuffled before the codec.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    dtype: np.dtype[Any]
    shuffle: bool

    @property
    def grid(self) -> tuple[int, ...]:
        """Tiles on each dimension."""
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))


@dataclass(frozen=True, slots=True)
class Fragment:
    """The tiles of an array.

    Attributes:
        path: File that holds them, one after the other in row-major order.
        layout: What each of them is.
        offsets: (n + 1,) int64, first byte of each tile, and the size of the file.
        constant: (n,) bool, whether all cells of a tile have one value.
        lowest: (n,) lowest value of each tile, in its dtype.
    """

    path: str
    layout: Layout
    offsets: npt.NDArray[np.int64]
    constant: npt.NDArray[np.bool_]
    lowest: npt.NDArray[Any]


_layouts: dict[bytes, Layout] = {}


def open_fragment(uri: str, context: Any) -> Fragment:
    """Find the tiles of the array at a local path.

    Args:
        uri: The array.
        context: Gives the TileDB context that reads a schema of a kind that was not met before.

    Raises:
        UnknownLayout: Something is not as expected.
        OSError: A file is missing or cannot be read.
    """
    _need(sys.byteorder == "little", "big-endian machine")
    (name,) = _one(os.listdir(os.path.join(uri, "__fragments")), "fragments")
    _need(_one(os.listdir(os.path.join(uri, "__commits")), "commits") == [f"{name}.wrt"], "commit")
    layout = _layout(uri, context)
    folder = os.path.join(uri, "__fragments", name)
    with open(os.path.join(folder, "__fragment_metadata.tdb"), "rb") as file:
        metadata = file.read()
    path = os.path.join(folder, "a0.tdb")
    try:
        offsets, lowest, highest = _tiles(metadata, layout, os.path.getsize(path))
    except (struct.error, ValueError, IndexError, OverflowError, zlib.error) as error:
        raise UnknownLayout(f"fragment metadata: {error}") from error
    # Of floats that hold NaN or a negative zero, lowest and highest do not tell.
    same = lowest == highest if layout.dtype.kind in "iu" else np.zeros(len(lowest), np.bool_)
    return Fragment(path, layout, offsets, same, lowest)


def _one(names: list[str], what: str) -> list[str]:
    _need(len(names) == 1, f"{len(names)} {what}")
    return names


def _layout(uri: str, context: Any) -> Layout:
    with open(os.path.join(uri, "__schema", schema_file(uri)), "rb") as file:
        key = hashlib.sha256(file.read()).digest()
    known = _layouts.get(key)  # arrays of one shape and kind have equal schemas
    if known is None:
        with as_default(context()):
            known = _layouts[key] = layout_of(tiledb.ArraySchema.load(uri))
    return known


def schema_file(uri: str) -> str:
    """Name of the file of an array's one schema.

    Raises:
        UnknownLayout: There are several.
        OSError: It cannot be looked for.
    """
    names = [name for name in os.listdir(os.path.join(uri, "__schema")) if not name.startswith("__enum")]
    return _one(names, "schemas")[0]


def layout_of(schema: Any) -> Layout:
    """What a schema (:class:`tiledb.ArraySchema`) says of the tiles.

    Raises:
        UnknownLayout: It is not of the kind that this module knows.
    """
    _need(not schema.sparse and schema.nattr == 1, "not dense with one attribute")
    _need(schema.cell_order == "row-major" and schema.tile_order == "row-major", "order")
    attribute, domain = schema.attr(0), schema.domain
    _need(attribute.name == VOXELS and not attribute.isvar and not attribute.isnullable, "attribute")
    filters = [type(each).__name__ for each in attribute.filters]
    _need(filters in (["ByteShuffleFilter", "ZstdFilter"], ["ZstdFilter"]), f"filters {filters}")
    dimensions = [domain.dim(number) for number in range(domain.ndim)]
    _need(domain.ndim in (3, 4) and all(d.dtype == np.int64 and int(d.domain[0]) == 0 for d in dimensions), "domain")
    shape = tuple(int(d.domain[1]) + 1 for d in dimensions)
    tile = tuple(int(d.tile) for d in dimensions)
    _need(domain.ndim == 3 or tile[3] == 1, "several time points in a tile")
    dtype = np.dtype(attribute.dtype)
    _need(dtype.kind in "iuf" and dtype.itemsize in (1, 2, 4, 8), f"dtype {dtype}")
    return Layout(shape, tile, dtype, len(filters) == 2 and dtype.itemsize > 1)


def _tiles(data: bytes, layout: Layout, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[Any]]:
    """Offsets (and the file's size), lowest and highest value of the tiles, from the footer of the fragment's metadata."""
    dimensions = len(layout.shape)
    fields = 2 + dimensions  # the attribute, coordinates, and each dimension
    (length,) = struct.unpack_from("<Q", data, len(data) - 8)
    start = len(data) - 8 - length
    _need(0 < start < len(data), "footer")
    version, name = struct.unpack_from("<IQ", data, start)
    _need(version == VERSION, f"format version {version}")
    _need(length == 12 + name + 2 + 16 * dimensions + 18 + 8 * (3 * fields + 1 + 8 * fields + 2), "footer length")
    at = start + 12 + name
    _need(data[at : at + 2] == b"\x01\x00", "not dense")
    at += 2
    covered = np.frombuffer(data, "<i8", 2 * dimensions, at).reshape(dimensions, 2).tolist()
    _need(covered == [[0, n - 1] for n in layout.shape], "a fragment of a part of the array")
    at += 16 * dimensions
    sparse, _, timestamps, deletes = struct.unpack_from("<QQBB", data, at)
    _need((sparse, timestamps, deletes) == (0, 0, 0), "sparse tiles, timestamps or deletes")
    at += 18
    (file_size,) = struct.unpack_from("<Q", data, at)
    _need(file_size == size, "size of the data")
    at += 24 * fields + 8
    where = np.frombuffer(data, "<u8", 8 * fields, at).reshape(8, fields)[:, 0].tolist()
    count = int(np.prod(layout.grid))
    offsets = _vector(_generic(data, where[0]), 8, count, np.dtype("<u8"))
    lowest, highest = (_vector(_generic(data, where[row]), 16, count, layout.dtype) for row in (4, 5))
    # No offset is larger than the file, so that none is lost where they become signed.
    _need(bool((offsets < size).all()), "offsets")
    result = np.append(offsets.astype(np.int64), size)
    _need(bool((np.diff(result) > 0).all()), "offsets")
    return result, lowest, highest


def _vector(data: bytes, header: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    (size,) = struct.unpack_from("<Q", data)
    _need(size == (count if header == 8 else count * dtype.itemsize), "number of tiles")
    return np.frombuffer(data, dtype, count, header)


def _generic(data: bytes, at: int) -> bytes:
    """A generic tile: gzipped chunks behind a header."""
    _, persisted, size, _, _, encryption, filters = GENERIC_HEADER.unpack_from(data, at)
    _need(encryption == 0, "encrypted")
    at += GENERIC_HEADER.size
    _, number, kind = struct.unpack_from("<IIB", data, at)
    _need(number == 1 and kind == GZIP, "filters of the metadata")
    at += filters
    end = at + persisted
    (chunks,) = struct.unpack_from("<Q", data, at)
    at += 8
    parts = []
    for _ in range(chunks):
        _, filtered, metadata = struct.unpack_from("<III", data, at)
        at += 12
        nested, count = struct.unpack_from("<II", data, at)
        _need(nested == 0, "metadata of the metadata")
        place = at + metadata
        for part in range(count):
            raw, packed = struct.unpack_from("<II", data, at + 8 + 8 * part)
            parts.append(zlib.decompress(data[place : place + packed]))
            _need(len(parts[-1]) == raw, "length of a part")
            place += packed
        at += metadata + filtered
        _need(place == at, "length of a chunk")
    _need(at == end, "length of the metadata")
    result = b"".join(parts)
    _need(len(result) == size, "size of the metadata")
    return result
