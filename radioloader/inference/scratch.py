"""Temporary files of what does not fit in memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO

from radioloader.errors import StoreWriteError

__all__ = ["explained", "temporary"]


@contextlib.contextmanager
def explained(what: str, size: int) -> Iterator[None]:
    """Errors of a temporary file that say what it is for and how to go on.

    Raises:
        StoreWriteError: No space, or no permission.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreWriteError):
            raise
        raise StoreWriteError(
            f"could not keep {what} ({size / 2**20:.0f} MiB) in a temporary file in {tempfile.gettempdir()}: {error.strerror or error}; "
            "make room there, set TMPDIR to a folder with more of it, or keep it in memory with a larger memory_mb="
        ) from error


@contextlib.contextmanager
def temporary(what: str, size: int) -> Iterator[IO[bytes]]:
    """A temporary file, for as long as this lasts; see :func:`explained`."""
    with explained(what, size), tempfile.TemporaryFile(prefix="radioloader-") as file:
        yield file
