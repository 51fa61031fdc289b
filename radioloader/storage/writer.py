"""Writing one volume.

A volume becomes visible when a committed table row names it, so the writer needs no locks: it makes an array under a new
random name and writes it in one fragment. What a killed writer left is named by no row.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig
from radioloader.errors import StoreWriteError
from radioloader.storage._fragment import UnknownLayout
from radioloader.storage._fragment_writer import write_fragment
from radioloader.storage.context import context_for
from radioloader.storage.schema import voxel_schema
from radioloader.storage.uri import is_remote, join

__all__ = ["remove_volume", "write_volume"]


def write_volume(
    collection_uri: str, voxels: npt.NDArray[Any], *, codes: str, config: StorageConfig, owner: str
) -> str:
    """Write the voxels of one volume.

    Args:
        collection_uri: URI of the collection's group.
        voxels: (X, Y, Z) or (X, Y, Z, T), native byte order.
        codes: Axis codes of the volume, which orient slice tiles.
        config: Tiles, filters and access.
        owner: The volume in words, for error messages.

    Returns:
        Path of the array, relative to the collection's group.

    Raises:
        StoreWriteError: No permission, no space, or the object store refused.
        FormatError: The dtype cannot be stored.
    """
    path = f"volumes/{secrets.token_hex(12)}"
    uri = join(collection_uri, path)
    ctx = context_for(uri, config)
    schema = voxel_schema(voxels.shape, voxels.dtype, write=config.write, codes=codes, ctx=ctx)
    try:
        tiledb.Array.create(uri, schema, ctx=ctx)
        if not _write_direct(uri, voxels, schema, config):
            with tiledb.open(uri, "w", ctx=ctx) as array:
                array[...] = _c_order(voxels)
    except BaseException as error:
        # What a full disk left of the volume takes the room that the user needs.
        with contextlib.suppress(tiledb.TileDBError):
            remove_volume(uri, config)
        if isinstance(error, (tiledb.TileDBError, OSError)):
            raise StoreWriteError(f"could not write {owner} to {uri}: {error}") from error
        raise
    return path


def _write_direct(uri: str, voxels: npt.NDArray[Any], schema: Any, config: StorageConfig) -> bool:
    """Write without TileDB's query; False where that has to do it."""
    if not config.write.direct or is_remote(uri):
        return False
    try:
        write_fragment(uri, voxels, schema, level=config.write.compression.level)
    except UnknownLayout:
        return False
    return True


def remove_volume(uri: str, config: StorageConfig) -> None:
    """Remove a volume's array that no committed row names."""
    tiledb.VFS(ctx=context_for(uri, config)).remove_dir(uri)


def _c_order(voxels: npt.NDArray[Any], block: int = 16) -> npt.NDArray[Any]:
    """``voxels`` in C order. Files hold them in Fortran order; numpy's plain copy touches a new cache line for each voxel, and
    copying in blocks was measured to be 4.5 times faster (512x512x140 int16: 0.09 s instead of 0.40 s)."""
    if voxels.flags.c_contiguous:
        return voxels
    result = np.empty(voxels.shape, voxels.dtype)
    for x in range(0, voxels.shape[0], block):
        for z in range(0, voxels.shape[2], block):
            result[x : x + block, :, z : z + block] = voxels[x : x + block, :, z : z + block]
    return result
