"""Dense reads on TileDB's low-level query interface, straight into a caller's buffer.

``tiledb.Array.__getitem__`` spends about a millisecond of Python on each call; building the query by hand costs 0.03 ms. The
names used here are private to tiledb-py. Where they are missing or behave otherwise, ``PublicHandle`` does the same through
the public interface; a test holds both to the same bytes.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.storage._fork import close_array, gate
from radioloader.storage._names import VOXELS

__all__ = ["DirectHandle", "Handle", "PublicHandle", "open_handle"]


class Handle(Protocol):
    """An open voxel array."""

    @property
    def tile(self) -> tuple[int, int, int]:
        """Extents (x, y, z) of its tiles in voxels."""

    def read(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> None:
        """Read the inclusive ``ranges`` (one for each dimension) into ``out`` (of the stored dtype; C-contiguous is quickest)."""


class DirectHandle:
    """Reads through ``tiledb.libtiledb``; the GIL is released while TileDB works, and any number of threads may read."""

    def __init__(self, uri: str, ctx: tiledb.Ctx) -> None:
        lt = tiledb.libtiledb
        self._query, self._subarray, self._row_major = lt.Query, lt.Subarray, lt.LayoutType.ROW_MAJOR
        self._ctx, self._pid = ctx, os.getpid()
        with gate:
            self._array = lt.Array(ctx, uri, lt.QueryType.READ)

    def __del__(self) -> None:
        close_array(self, "_array", self._pid)

    @property
    def tile(self) -> tuple[int, int, int]:
        domain = self._array._schema()._domain
        x, y, z = (int(domain._dim(axis)._tile) for axis in range(3))
        return (x, y, z)

    def read(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> None:
        query = self._query(self._ctx, self._array)
        query.layout = self._row_major
        subarray = self._subarray(self._ctx, self._array)
        for dimension, pair in enumerate(ranges):
            subarray._add_dim_range(dimension, pair)
        query.set_subarray(subarray)
        cells = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        query.set_data_buffer(VOXELS, cells.reshape(-1), cells.size)
        query._submit()
        if not query.is_complete():
            raise tiledb.TileDBError("the query did not complete within its buffer")
        if cells is not out:
            out[...] = cells


class PublicHandle:
    """Reads through ``tiledb.DenseArray``."""

    def __init__(self, uri: str, ctx: tiledb.Ctx) -> None:
        self._pid = os.getpid()
        with gate:
            self._array = tiledb.open(uri, "r", ctx=ctx)

    def __del__(self) -> None:
        close_array(self, "_array", self._pid)

    @property
    def tile(self) -> tuple[int, int, int]:
        domain = self._array.schema.domain
        x, y, z = (int(domain.dim(axis).tile) for axis in range(3))
        return (x, y, z)

    def read(self, ranges: list[tuple[int, int]], out: npt.NDArray[Any]) -> None:
        index = tuple(slice(a, b + 1) for a, b in ranges)
        out[...] = self._array.subarray(index, attrs=[VOXELS])[VOXELS].reshape(out.shape)


def _direct_works() -> bool:
    lt = getattr(tiledb, "libtiledb", None)
    needed = {
        "Array": ("_schema",),
        "ArraySchema": ("_domain",),
        "Dimension": ("_tile",),
        "Domain": ("_dim",),
        "LayoutType": ("ROW_MAJOR",),
        "Query": ("set_subarray", "set_data_buffer", "_submit", "is_complete"),
        "QueryType": ("READ",),
        "Subarray": ("_add_dim_range",),
    }
    return lt is not None and all(
        hasattr(lt, name) and all(hasattr(getattr(lt, name), part) for part in parts) for name, parts in needed.items()
    )


_handle_class: type[DirectHandle] | type[PublicHandle] = DirectHandle if _direct_works() else PublicHandle


def open_handle(uri: str, ctx: tiledb.Ctx) -> Handle:
    """Open the voxel array at ``uri`` for reading."""
    return _handle_class(uri, ctx)
