"""Arrays that a process shares with the workers it starts, without a copy in any of them.

They are plain memory in the process that made them. Pickling writes them to a file once, and whoever unpickles maps that file: the
pages belong to the page cache, whatever the number of workers and however they are started. The file goes with the object that made
it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import StoreWriteError

__all__ = ["Columns"]

_ALIGNMENT = 64
_SPILL = 64 * 2**20
Array = npt.NDArray[Any]


class Columns(Mapping[str, Array]):
    """Read-only arrays by name, without Python objects in them.

    Args:
        arrays: The arrays. More than 64 MB of them are mapped from the file at once, here as well.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise TypeError(f"column {name!r} holds Python objects, which every process would copy")
        self._arrays = {name: np.asarray(array, order="C").view() for name, array in arrays.items()}
        self._file: tuple[str, dict[str, tuple[str, tuple[int, ...], int]]] | None = None
        self._lock = threading.Lock()
        if sum(array.nbytes for array in self._arrays.values()) > _SPILL:
            self._arrays = _map(*self._written())
        for array in self._arrays.values():
            array.flags.writeable = False

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self._written()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file.

        Raises:
            OSError: It is gone with the process that made it, is on another machine, or was cut off.
        """
        self._file = state["file"]
        self._arrays = _map(*state["file"])
        self._lock = threading.Lock()

    def _written(self) -> tuple[str, dict[str, tuple[str, tuple[int, ...], int]]]:
        with self._lock:
            if self._file is None or not os.path.exists(self._file[0]):
                self._file = _write(self._arrays)
                weakref.finalize(self, _remove, self._file[0], os.getpid())
            return self._file


def _write(arrays: Mapping[str, Array]) -> tuple[str, dict[str, tuple[str, tuple[int, ...], int]]]:
    places: dict[str, tuple[str, tuple[int, ...], int]] = {}
    try:
        _sweep()
        descriptor, path = tempfile.mkstemp(prefix=f"{_prefix()}{os.getpid()}-", suffix=".columns")
    except OSError as error:
        raise _unusable(arrays, error) from error
    try:
        with open(descriptor, "wb") as file:
            for name, array in arrays.items():
                file.write(bytes(-file.tell() % _ALIGNMENT))
                places[name] = array.dtype.str, array.shape, file.tell()
                array.tofile(file)
    except BaseException as error:
        _remove(path, os.getpid())
        if isinstance(error, OSError):
            raise _unusable(arrays, error) from error
        raise
    return path, places


def _unusable(arrays: Mapping[str, Array], error: OSError) -> StoreWriteError:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = os.environ.get("TMPDIR", "none that can be written to")
    size = sum(array.nbytes for array in arrays.values()) / 2**20
    return StoreWriteError(
        f"the tables of a dataset ({size:.1f} MB), which its workers share, could not be written to the temporary folder {folder}: "
        f"{error}; set TMPDIR to a folder that exists and has room before Python starts"
    )


def _map(path: str, places: Mapping[str, tuple[str, tuple[int, ...], int]]) -> dict[str, Array]:
    result: dict[str, Array] = {}
    memory: Array | None = None
    for name, (dtype, shape, offset) in places.items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not size:
            result[name] = np.empty(shape, dtype)
            continue
        if memory is None:
            if not os.path.getsize(path):  # numpy maps no empty file
                raise OSError(f"{path} was cut off: it is empty")
            memory = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        if memory.size < offset + size:
            raise OSError(f"{path} was cut off: it has {memory.size} bytes, column {name!r} ends at {offset + size}")
        result[name] = memory[offset : offset + size].view(dtype).reshape(shape)
    return result


def _prefix() -> str:
    # Process ids mean something within their machine and namespace only, and those may share a temporary folder.
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"radioloader-{platform.node()}-{namespace}-"


def _remove(path: str, pid: int) -> None:
    if pid == os.getpid():
        with contextlib.suppress(OSError):
            os.unlink(path)


def _sweep() -> None:
    """Remove what killed processes left."""
    prefix = _prefix()
    for path in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*.columns"):
        with contextlib.suppress(ValueError, OSError):
            pid = int(path.name.removeprefix(prefix).partition("-")[0])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                path.unlink()
