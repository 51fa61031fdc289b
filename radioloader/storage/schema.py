"""Schemas of voxel arrays: dimensions, tile extents, filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tiledb

from radioloader.config import CompressionConfig, SliceOrientation, TileConfig, WriteConfig
from radioloader.errors import FormatError
from radioloader.geometry import plane_axis
from radioloader.storage._names import VOXELS

__all__ = ["DTYPES", "tile_extents", "voxel_schema"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""Voxel dtypes that a store holds."""


def tile_extents(shape: Sequence[int], tile: TileConfig, codes: str = "RAS") -> tuple[int, ...]:
    """Extents of one tile on each dimension (x, y, z[, t]), in voxels; never larger than the volume.

    Args:
        shape: (X, Y, Z) or (X, Y, Z, T).
        tile: What the tiles are shaped for.
        codes: Axis codes of the volume, which say what is an axial slice of it.
    """
    spatial = [int(n) for n in shape[:3]]
    if tile.custom is not None:
        extents = list(tile.custom)
    elif tile.orientation is SliceOrientation.ISOTROPIC:
        extents = [tile.extent] * 3
    else:
        extents = list(spatial)
        extents[plane_axis(codes, tile.orientation.value)] = 1
    extents = [min(extent, n) for extent, n in zip(extents, spatial, strict=True)]
    # One time point per tile: a time point is read without touching the others, and lands contiguous in its channel.
    return (*extents, *[1] * (len(shape) - 3))


def filters(dtype: np.dtype[Any], compression: CompressionConfig, ctx: tiledb.Ctx) -> list[Any]:
    """The filter pipeline of voxels of ``dtype``, in the order in which it is applied on writing."""
    pipeline: list[Any] = []
    if compression.shuffles(dtype):
        pipeline.append(tiledb.ByteShuffleFilter(ctx=ctx))
    if compression.codec == "zstd":
        pipeline.append(tiledb.ZstdFilter(level=compression.level, ctx=ctx))
    elif compression.codec == "lz4":
        pipeline.append(tiledb.LZ4Filter(ctx=ctx))
    if compression.checksum:
        pipeline.append(tiledb.ChecksumSHA256Filter(ctx=ctx))
    return pipeline


def voxel_schema(
    shape: Sequence[int], dtype: np.dtype[Any], *, write: WriteConfig, codes: str, ctx: tiledb.Ctx
) -> tiledb.ArraySchema:
    """Schema of one dense voxel array: dimensions x, y, z[, t], attribute ``voxels``.

    Raises:
        FormatError: ``dtype`` cannot be stored.
    """
    if dtype.name not in DTYPES:
        raise FormatError(f"voxels of dtype {dtype.name} cannot be stored; supported are {', '.join(DTYPES)}")
    extents = tile_extents(shape, write.tile, codes)
    dimensions = [
        tiledb.Dim(name=name, domain=(0, int(n) - 1), tile=extent, dtype=np.int64, ctx=ctx)
        for name, n, extent in zip("xyzt", shape, extents, strict=False)
    ]
    pipeline = tiledb.FilterList(filters(dtype, write.compression, ctx), ctx=ctx)
    attribute = tiledb.Attr(name=VOXELS, dtype=dtype, filters=pipeline, ctx=ctx)
    return tiledb.ArraySchema(
        domain=tiledb.Domain(*dimensions, ctx=ctx), attrs=[attribute], cell_order="C", tile_order="C", ctx=ctx
    )
