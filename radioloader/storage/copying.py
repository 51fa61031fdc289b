"""Copying an array as it lies, file by file: voxels are not decoded, and any filters stay."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import tiledb

from radioloader.config import StorageConfig
from radioloader.errors import ReadError, StoreWriteError
from radioloader.storage.context import context_for
from radioloader.storage.uri import is_remote, join

__all__ = ["copy_array"]

_PART = 8 * 2**20


def copy_array(source: str, target: str, *, source_config: StorageConfig, config: StorageConfig, owner: str) -> None:
    """Copy the array at ``source`` to ``target``, where nothing is yet; from and to a local disk or an object store.

    Args:
        source: The array.
        target: Its copy.
        source_config: Access to the one.
        config: Access to the other.
        owner: The volume in words, for error messages.

    Raises:
        ReadError: The array is missing or out of reach.
        StoreWriteError: No permission, no space, or the object store refused. Nothing is left.
    """
    try:
        if not is_remote(source) and not is_remote(target):
            _copy_locally(source, target, owner)
        else:
            _copy(source, target, source_config, config, owner)
    except BaseException:
        with contextlib.suppress(tiledb.TileDBError):
            tiledb.VFS(ctx=context_for(target, config)).remove_dir(target)
        raise


def _copy_locally(source: str, target: str, owner: str) -> None:
    try:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    except FileNotFoundError as error:
        raise ReadError(f"could not read {owner}: {source} is missing, or a part of it: {error}") from error
    except (OSError, shutil.Error) as error:
        raise StoreWriteError(f"could not copy {owner} from {source} to {target}: {error}") from error


def _copy(source: str, target: str, source_config: StorageConfig, config: StorageConfig, owner: str) -> None:
    reading = tiledb.VFS(ctx=context_for(source, source_config))
    writing = tiledb.VFS(ctx=context_for(target, config))
    try:
        files = list(_files_below(reading, source))
    except tiledb.TileDBError as error:
        raise ReadError(f"could not read {owner} from {source}: {error}") from error
    if not files:
        raise ReadError(f"could not read {owner}: {source} is missing")
    folders: set[str] = set()
    for path in files:
        place = join(target, path)
        folder = place.rpartition("/")[0]
        try:
            if not is_remote(target) and folder not in folders:  # an object store has none
                Path(folder).mkdir(parents=True, exist_ok=True)
                folders.add(folder)
            with reading.open(join(source, path), "rb") as file, writing.open(place, "wb") as copy:
                while part := file.read(_PART):
                    copy.write(part)
        except (tiledb.TileDBError, OSError) as error:
            raise StoreWriteError(f"could not copy {owner} from {join(source, path)} to {place}: {error}") from error


def _files_below(vfs: tiledb.VFS, uri: str) -> Iterator[str]:
    """Paths of all files below ``uri``, relative to it, sorted.

    Raises:
        tiledb.TileDBError: It cannot be listed.
    """
    for child in sorted(vfs.ls(uri)):
        name = child.rstrip("/").rpartition("/")[2]
        place = join(uri, name)
        if vfs.is_dir(place):
            for path in _files_below(vfs, place):
                yield f"{name}/{path}"
        else:
            yield name
