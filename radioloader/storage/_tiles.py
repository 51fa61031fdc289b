"""Reads the tiles of a local array without TileDB's query, at a fraction of its processor time.

TileDB cuts a box into its rows, copies them one by one and makes a decompressor for every 64 kB, whatever its configuration. Here a tile's
compressed bytes are decoded and its part of the box copied at once, and tiles of which the metadata says that all cells are equal are
neither read nor decoded. What is not as expected is TileDB's to read, and so is what fails here, so that errors are TileDB's.

``_decode.c`` does all of that in one call, without the GIL. The same in Python is here for machines that had no C compiler when the
package was installed, and says what the C code has to do.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from radioloader.storage._compiled import decoder
from radioloader.storage._fragment import Fragment, UnknownLayout, open_fragment

__all__ = ["TileHandle", "open_tiles", "spent"]

_CHUNK = struct.Struct("<III")  # bytes before the filters, after them, of their metadata
_WIDENED = (np.dtype(np.float32), np.dtype(np.int64))
_local = threading.local()


class _Spent:
    """Seconds of all reads here in this process, over its threads: fetching from storage, and altogether."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = (0.0, 0.0)

    def __call__(self) -> tuple[float, float]:
        return self._seconds

    def add(self, storage: float, everything: float) -> None:
        with self._lock:
            self._seconds = (self._seconds[0] + storage, self._seconds[1] + everything)

    def forked(self) -> None:
        self._lock = threading.Lock()  # it may be held by a thread that the child does not have


spent = _Spent()
os.register_at_fork(after_in_child=spent.forked)


def open_tiles(uri: str, context: Any) -> TileHandle | None:
    """Open the array at a local path; None where it is not laid out as this module knows it.

    Args:
        uri: The array.
        context: Gives a TileDB context, where one is needed.
    """
    try:
        return TileHandle(open_fragment(uri, context))
    except (UnknownLayout, OSError):
        return None


class TileHandle:
    """An open voxel array. Holds no file open; any number of threads may read."""

    def __init__(self, fragment: Fragment) -> None:
        self._fragment = fragment
        layout = fragment.layout
        self.tile = (layout.tile[0], layout.tile[1], layout.tile[2])
        self._grid = layout.grid
        self._plane = layout.tile[1] * layout.tile[2] * layout.dtype.itemsize

    def places(self, dtype: np.dtype[Any]) -> bool:
        """Whether :meth:`read` puts cells into memory of this dtype, of any strides: as they are, or where that changes no value and is
        what images and labels are often wanted as."""
        stored = self._fragment.layout.dtype
        if decoder is None:  # row by row, numpy takes longer for it than for a pass of its own
            return dtype == stored
        widened = stored.kind in "iu" and dtype in _WIDENED and stored.itemsize <= (2 if dtype.kind == "f" else 4)
        return dtype == stored or widened

    def read(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> None:
        """Read the inclusive ``ranges`` (one for each dimension) into ``out``, of a dtype that it :meth:`places`.

        Raises:
            UnknownLayout: A tile is not as expected.
            OSError: The file cannot be read.
        """
        began = time.perf_counter()
        compiled = decoder is not None and out.flags.aligned  # C may take it for granted
        storage = (self._read_compiled if compiled else self._read_in_python)(ranges, out)
        spent.add(storage, time.perf_counter() - began)

    def _read_compiled(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> float:
        """Seconds that were spent on reading the file."""
        fragment, layout = self._fragment, self._fragment.layout
        box = tuple((a, b + 1) for a, b in ranges[:3])
        try:
            seconds: float | None = decoder.read(
                os.fsencode(fragment.path),
                layout.shape[:3],
                self.tile,
                self._grid if len(self._grid) == 4 else (*self._grid, 1),
                layout.shuffle,
                _char(layout.dtype),
                _char(out.dtype),
                fragment.offsets,
                fragment.constant,
                fragment.lowest,
                box,
                ranges[3][0] if len(ranges) == 4 else 0,
                out.reshape([b - a for a, b in box]),
            )
        except ValueError as error:  # the store says of its tiles what cannot be
            raise UnknownLayout(str(error)) from error
        if seconds is None:
            raise UnknownLayout("a tile")
        return seconds

    def _read_in_python(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> float:
        fragment = self._fragment
        offsets, constant = self._listed
        first = tuple(a for a, _ in ranges[:3])
        cells = out.reshape([b - a + 1 for a, b in ranges[:3]])
        # Reading opens the file each time, as TileDB does: descriptors are few, arrays are many.
        file = -1
        storage = 0.0
        try:
            for numbers, places in self._runs(ranges):
                wanted = [n for n in numbers if n not in constant]
                data, start = memoryview(b""), 0
                if wanted:
                    asked = time.perf_counter()
                    if file < 0:
                        file = os.open(fragment.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                    start = offsets[wanted[0]]
                    size = offsets[wanted[-1] + 1] - start
                    data = memoryview(os.pread(file, size, start))
                    if len(data) != size:
                        raise UnknownLayout("the data end too soon")
                    storage += time.perf_counter() - asked
                for number, (corner, low, high) in zip(numbers, places, strict=True):
                    xs, ys, zs = (slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
                    value = constant.get(number)
                    if value is not None:
                        cells[xs, ys, zs] = value
                    else:
                        tile = data[offsets[number] - start : offsets[number + 1] - start]
                        self._decode(tile, corner, low, high, cells[xs, ys, zs])
        except (zstandard.ZstdError, struct.error, ValueError, IndexError) as error:
            raise UnknownLayout(str(error)) from error
        finally:
            if file >= 0:
                os.close(file)
        return storage

    @cached_property
    def _listed(self) -> tuple[list[int], dict[int, Any]]:
        """Offsets, and the values of tiles of one value by number: quicker to look up than in arrays."""
        same = np.flatnonzero(self._fragment.constant)
        values = self._fragment.lowest[same].tolist()
        return self._fragment.offsets.tolist(), dict(zip(same.tolist(), values, strict=True))

    def _runs(self, ranges: list[tuple[int, int]]) -> Iterator[tuple[list[int], list[Any]]]:
        """Tiles that touch the box, those that follow each other in the file together: their numbers, and of each its first cell and the
        part of it in the box (first cells, and one past the last)."""
        (x0, x1), (y0, y1), (z0, z1) = ranges[:3]
        tx, ty, tz = self.tile
        _, gy, gz = self._grid[:3]
        steps, time = (1, 0) if len(ranges) == 3 else (self._grid[3], ranges[3][0])
        columns = range(z0 // tz, z1 // tz + 1)
        along = [(k * tz, max(k * tz, z0), min(k * tz + tz, z1 + 1)) for k in columns]
        for i in range(x0 // tx, x1 // tx + 1):
            x = i * tx
            low_x, high_x = max(x, x0), min(x + tx, x1 + 1)
            for j in range(y0 // ty, y1 // ty + 1):
                y = j * ty
                low_y, high_y = max(y, y0), min(y + ty, y1 + 1)
                numbers = [((i * gy + j) * gz + k) * steps + time for k in columns]
                places = [((x, y, z), (low_x, low_y, a), (high_x, high_y, b)) for z, a, b in along]
                if steps == 1:
                    yield numbers, places
                else:  # other time points lie between them
                    yield from ([[number], [place]] for number, place in zip(numbers, places, strict=True))  # type: ignore[misc]

    def _decode(self, tile: memoryview, corner: Any, low: Any, high: Any, out: npt.NDArray[Any]) -> None:
        """Decode the chunks of a tile that hold a part of the box, into that part."""
        layout, plane = self._fragment.layout, self._plane
        size = layout.dtype.itemsize
        x, y, z = corner
        ys, zs = slice(low[1] - y, high[1] - y), slice(low[2] - z, high[2] - z)
        begin, end = low[0] - x, high[0] - x  # planes of the tile
        whole: npt.NDArray[Any] | None = None
        at = 0
        for length, packed in _chunks(tile, layout.shuffle):
            if at < end * plane and at + length > begin * plane:
                raw = np.frombuffer(_decompress(packed), np.uint8)
                if len(raw) != length:
                    raise UnknownLayout("length of a chunk")
                if whole is not None or at % plane or length % plane:  # planes lie across chunks: put together first
                    if whole is None:
                        whole = np.empty(plane * layout.tile[0] // size, layout.dtype)
                    whole[at // size : (at + length) // size] = _unshuffled(raw, layout)
                else:
                    first, last = max(begin, at // plane), min(end, (at + length) // plane)
                    self._place(
                        raw, slice(first - at // plane, last - at // plane), ys, zs, out[first - begin : last - begin]
                    )
            at += length
        if at != plane * layout.tile[0]:
            raise UnknownLayout("length of a tile")
        if whole is not None:
            out[...] = whole.reshape(layout.tile[:3])[begin:end, ys, zs]

    def _place(self, raw: npt.NDArray[np.uint8], xs: slice, ys: slice, zs: slice, out: npt.NDArray[Any]) -> None:
        """Put cells of whole planes where they belong."""
        layout = self._fragment.layout
        planes = (-1, layout.tile[1], layout.tile[2])
        if layout.shuffle:
            out[...] = _joined(raw.reshape(layout.dtype.itemsize, *planes)[:, xs], layout.dtype)[:, ys, zs]
        else:
            out[...] = raw.view(layout.dtype).reshape(planes)[xs, ys, zs]


def _char(dtype: np.dtype[Any]) -> str:
    """One character for dtypes that are equal: numpy has two for integers of 64 bits."""
    return np.dtype(dtype.str).char


def _joined(parts: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Cells whose bytes lie apart, (byte, ...), as shuffling puts them: lowest byte first. Several times as fast as strided copies."""
    words: npt.NDArray[Any] = parts[-1].astype(f"u{dtype.itemsize}")
    for part in parts[-2::-1]:
        words <<= 8
        words |= part
    return words.view(dtype)


def _unshuffled(raw: npt.NDArray[np.uint8], layout: Any) -> npt.NDArray[Any]:
    return _joined(raw.reshape(layout.dtype.itemsize, -1), layout.dtype) if layout.shuffle else raw.view(layout.dtype)


def _chunks(tile: memoryview, shuffle: bool) -> Iterator[tuple[int, memoryview]]:
    """Length before the filters and compressed bytes of each chunk."""
    (number,) = struct.unpack_from("<Q", tile)
    at = 8
    parts = 2 if shuffle else 1  # of metadata: how long the part is, before and after the filter
    for _ in range(number):
        length, filtered, metadata = _CHUNK.unpack_from(tile, at)
        if metadata != 8 + 8 * parts:
            raise UnknownLayout("metadata of a chunk")
        own, count, *lengths = struct.unpack_from(f"<II{2 * parts}I", tile, at + 12)
        # Shuffling has its lengths before the chunk's bytes as metadata of its own.
        skipped = lengths[1] if shuffle else 0
        if own != parts - 1 or count != 1 or lengths[-2] != length or skipped + lengths[-1] != filtered:
            raise UnknownLayout("parts of a chunk")
        at += 12 + metadata
        yield length, tile[at + skipped : at + filtered]
        at += filtered
    if at != len(tile):
        raise UnknownLayout("length of a tile")


def _decompress(data: memoryview) -> bytes:
    decompressor = getattr(_local, "zstd", None)
    if decompressor is None:
        decompressor = _local.zstd = zstandard.ZstdDecompressor()
    result: bytes = decompressor.decompress(data)
    return result
