"""The lock of a local store: one process writes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from radioloader.errors import StoreLockedError, StoreWriteError

__all__ = ["LOCK", "creators_lock", "writers_lock"]

_ASK_EVERY_S = 0.05

LOCK = ".lock"
"""The file in the store's folder that is locked."""


@contextlib.contextmanager
def creators_lock(folder: Path) -> Iterator[None]:
    """Held while a store is made inside an existing folder; waits for another process that makes it."""
    with open(folder / LOCK, "a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


@contextlib.contextmanager
def writers_lock(store: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Held by the store's writer.

    Args:
        store: Its folder.
        wait_s: How long to wait for another writer, in seconds.

    Raises:
        StoreLockedError: Another process is writing.
        StoreWriteError: The lock cannot be had here.
    """
    path = store / LOCK
    try:
        file: IO[str] = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed below, with the lock
    except OSError as error:
        raise StoreWriteError(
            f"could not open {path} for writing: {error.strerror}; the store is read-only for this user"
        ) from error
    with file:
        try:
            _acquire(file, wait_s)
        except BlockingIOError as error:
            file.seek(0)
            raise StoreLockedError(
                f"another process ({file.read().strip() or 'unknown'}) is writing to {store}; wait until it has finished, or set "
                "WriteConfig.wait_s"
            ) from error
        except OSError as error:
            raise StoreWriteError(
                f"could not lock {path}: {error.strerror}; does the file system support flock?"
            ) from error
        try:
            file.truncate(0)
            file.write(f"pid {os.getpid()}\n")
            file.flush()
        except OSError as error:
            raise StoreWriteError(f"could not write {path}: {error.strerror}") from error
        try:
            yield
        finally:
            # Closing would not do: processes that were forked meanwhile hold the file, and with it the lock, open.
            fcntl.flock(file, fcntl.LOCK_UN)


def _acquire(file: IO[str], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # Asked again and again: a blocking flock knows no end, and a signal that ends it only reaches the main thread.
            left = until - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(_ASK_EVERY_S, left))
