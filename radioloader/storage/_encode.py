"""The voxels of a volume as the tiles of a TileDB array: cut, shuffled, compressed, and counted for the fragment's metadata.

What ``_tiles.py`` reads. libtiledb takes two to four times as long for it, whatever its configuration: it copies a volume into tiles range
by range, counts lowest, highest and sum cell by cell, and makes a compressor for every 64 kB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard

from radioloader.storage._fragment import Layout, UnknownLayout

__all__ = ["Tiles", "encodable", "write_tiles"]

_CHUNK = 64 * 2**10
"""Bytes that TileDB filters at a time."""
_GROUP = 2**20
"""Bytes of tiles that are cut out at a time, about: they stay in the cache until they are compressed."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """What a fragment's metadata say of its tiles, which are counted in row-major order.

    Attributes:
        offsets: First byte of each in the file, uint64.
        size: Bytes of the file.
        lowest: Lowest value of each tile's cells inside the array, in their dtype.
        highest: Highest value, likewise.
        sums: Their sum; int64, uint64 or float64.
    """

    offsets: npt.NDArray[np.uint64]
    size: int
    lowest: npt.NDArray[Any]
    highest: npt.NDArray[Any]
    sums: npt.NDArray[Any]


def encodable(dtype: np.dtype[Any]) -> bool:
    """Whether tiles of ``dtype`` are counted here. Sums of 64-bit integers may overflow, which TileDB has rules for."""
    return dtype.kind == "f" or dtype.itemsize <= 4


def write_tiles(file: BinaryIO, voxels: npt.NDArray[Any], layout: Layout, *, level: int) -> Tiles:
    """Write all tiles of an array to ``file``, one after the other.

    Args:
        file: Where to; empty.
        voxels: The array's cells, (X, Y, Z) or (X, Y, Z, T), of any strides.
        layout: What its tiles are; of a dtype that is :func:`encodable`.
        level: Of zstd.

    Raises:
        UnknownLayout: Some voxels are not finite, so that TileDB's rules for lowest, highest and sum are too many to follow.
        OSError: The file cannot be written.
    """
    encoder = _Encoder(layout, level)
    count, dtype = prod(layout.grid), layout.dtype
    offsets = np.empty(count, np.uint64)
    lowest, highest = np.empty(count, dtype), np.empty(count, dtype)
    sums = np.empty(count, {"i": np.int64, "u": np.uint64, "f": np.float64}[dtype.kind])
    size = done = 0
    for tiles, inside in _groups(voxels, layout):
        whole = inside.shape == tiles.shape
        cells, axes = (tiles.reshape(len(tiles), -1), (1,)) if whole else (inside, (1, 2, 3))
        here = slice(done, done + len(tiles))
        low, high = cells.min(axis=axes), cells.max(axis=axes)
        total = _sums(cells, low, high, axes, sums.dtype)
        if dtype.kind == "f" and not np.isfinite([low, high, total]).all():
            raise UnknownLayout("cells that are not finite")
        lowest[here], highest[here], sums[here] = low, high, total
        constant = low == high if whole and dtype.kind != "f" else np.zeros(len(tiles), np.bool_)
        for tile, same in zip(tiles, constant.tolist(), strict=True):
            offsets[done] = size
            for part in encoder.encode(tile.reshape(-1), same):
                file.write(part)
                size += len(part)
            done += 1
    return Tiles(offsets, size, lowest, highest, sums)


def _groups(voxels: npt.NDArray[Any], layout: Layout) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The tiles in order, some that follow each other at a time: (n, x, y, z) in memory that is used again, and the view of their
    cells inside the array, which has one shape for all of them."""
    volume = voxels if voxels.ndim == 4 else voxels[..., np.newaxis]
    tx, ty, tz = layout.tile[:3]
    x_end, y_end, z_end, steps = volume.shape
    most = max(1, _GROUP // (tx * ty * tz * steps * layout.dtype.itemsize))
    memory = np.empty((min(most, layout.grid[2]), steps, tx, ty, tz), layout.dtype)
    for x in range(0, x_end, tx):
        for y in range(0, y_end, ty):
            block = volume[x : x + tx, y : y + ty]
            a, b = block.shape[:2]
            z = 0
            while z < z_end:
                n = min(most, (z_end - z) // tz)  # whole ones along z; the last one has the rest
                n, c = (n, tz) if n else (1, z_end - z)
                tiles = memory[:n]
                if (a, b, c) != (tx, ty, tz):
                    tiles[...] = 0  # as TileDB fills what lies outside the array
                inside = tiles[:, :, :a, :b, :c]
                inside[...] = block[:, :, z : z + n * c].reshape(a, b, n, c, steps).transpose(2, 4, 0, 1, 3)
                yield tiles.reshape(n * steps, tx, ty, tz), inside.reshape(n * steps, a, b, c)
                z += n * c


def _sums(cells: Any, low: Any, high: Any, axes: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if dtype.kind != "f" and (low == high).all():  # most of a label
        return low.astype(dtype) * dtype.type(prod(cells.shape[1:]))
    with np.errstate(over="ignore", invalid="ignore"):
        return cells.sum(axis=axes, dtype=dtype)


class _Encoder:
    """Compresses tiles."""

    def __init__(self, layout: Layout, level: int) -> None:
        self._shuffle = layout.shuffle
        self._itemsize = layout.dtype.itemsize
        self._cells = _CHUNK // self._itemsize
        self._compress: Any = zstandard.ZstdCompressor(level=level).compress
        self._memory = np.empty(_CHUNK, np.uint8)
        self._constant: dict[Any, list[bytes]] = {}

    def encode(self, tile: npt.NDArray[Any], constant: bool) -> Iterable[bytes]:
        """A tile as it is stored, in pieces.

        Args:
            tile: All its cells (n,), in C order.
            constant: Whether they are known to be equal. Most tiles of a label are, and to few values.
        """
        if not constant:
            return self._encode(tile)
        value = tile[0].item()
        found = self._constant.get(value)
        if found is None:
            found = list(self._encode(tile))
            if len(self._constant) < 256:
                self._constant[value] = found
        return found

    def _encode(self, tile: npt.NDArray[Any]) -> Iterator[bytes]:
        yield struct.pack("<Q", -(-len(tile) // self._cells))
        for start in range(0, len(tile), self._cells):
            yield from self._chunk(tile[start : start + self._cells])

    def _chunk(self, cells: npt.NDArray[Any]) -> list[bytes]:
        """A chunk: bytes before the filters, after them, of their metadata; these metadata; the bytes."""
        length = cells.nbytes
        if not self._shuffle:
            data = self._compress(cells)
            return [struct.pack("<IIIIIII", length, len(data), 16, 0, 1, length, len(data)), data]
        data = self._compress(self._shuffled(cells))
        # Shuffling notes its one part and that part's length; what a filter notes is compressed by the next one.
        note = self._compress(struct.pack("<II", 1, length))
        sizes = (1, 1, 8, len(note), length, len(data))
        return [struct.pack("<IIIIIIIII", length, len(note) + len(data), 24, *sizes), note, data]

    def _shuffled(self, cells: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Byte 0 of all cells, byte 1 of all cells, ..."""
        memory = self._memory[: cells.nbytes]
        planes = memory.reshape(self._itemsize, -1)
        if self._itemsize == 2:  # three times faster than placing bytes
            words = cells.view(np.uint16)
            np.copyto(planes[0], words, casting="unsafe")
            np.right_shift(words, 8, out=planes[1], casting="unsafe")
        else:
            planes[...] = cells.view(np.uint8).reshape(-1, self._itemsize).T
        return memory
