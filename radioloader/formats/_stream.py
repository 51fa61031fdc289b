"""Files as streams of bytes, compressed or not: hashed as they are read, and with errors that name the file."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from radioloader.errors import FormatError
from radioloader.formats._gunzip import Gunzip

__all__ = ["CHUNK", "explained", "fill", "open_stream", "skip", "up_to_garbage"]

CHUNK = 2**20


class _Hashing(io.RawIOBase):
    """A file that feeds what is read from it to a digest."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file, self._digest = file, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast(Any, self._file).readinto(buffer)
        if self._digest is not None:
            self._digest.update(memoryview(buffer)[:count])
        return int(count)


@contextmanager
def open_stream(path: Path, digest: Any = None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The decompressed stream of a file and the stream below it: the same one where the first bytes (not the name) say that the file
    is not compressed."""
    with open(path, "rb", buffering=0) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        raw = cast(BinaryIO, io.BufferedReader(_Hashing(cast(BinaryIO, file), digest), buffer_size=CHUNK))
        if path.stat().st_size == 0:
            raise FormatError(f"{path}: the file is empty (0 bytes)")
        if compressed:
            yield cast(BinaryIO, io.BufferedReader(Gunzip(raw), buffer_size=CHUNK)), raw
        else:
            yield raw, raw


@contextmanager
def up_to_garbage() -> Iterator[list[str]]:
    """Ends where something else than gzip follows a whole, checked gzip stream, and then holds what was said of it. nibabel never
    looks there. Only for what comes after the bytes that are needed: these must be whole."""
    found: list[str] = []
    try:
        yield found
    except gzip.BadGzipFile as error:
        if not str(error).startswith(
            "Not a gzipped file"
        ):  # as opposed to a wrong checksum, or a broken further stream
            raise
        found.append(str(error))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of reading ``path`` become a FormatError that names it."""
    try:
        yield
    except EOFError as error:
        raise FormatError(
            f"{path}: truncated: the compressed data end before their end marker; copy or download the file again"
        ) from error
    except gzip.BadGzipFile as error:
        raise FormatError(f"{path}: corrupt gzip data ({error}); copy or download the file again") from error
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"{path}: could not be read: {error.strerror or error}") from error


def skip(stream: BinaryIO, count: int, path: Path) -> None:
    """Read over ``count`` bytes of ``path``."""
    left = count
    while left:
        part = stream.read(min(left, CHUNK))
        if not part:
            raise FormatError(f"{path}: truncated, it ends {left} bytes before the voxels begin")
        left -= len(part)


def fill(stream: BinaryIO, view: memoryview) -> int:
    """Fill ``view`` from a stream; returns how many bytes there were."""
    done = 0
    while done < len(view):
        count = cast(Any, stream).readinto(view[done : done + 16 * CHUNK])
        if not count:
            break
        done += count
    return done
