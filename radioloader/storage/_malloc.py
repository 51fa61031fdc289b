"""What glibc's allocator does with the memory of a read.

By default it gives the buffers of decoded tiles back to the kernel after every query, and the next query faults them in again, page
by page: a third of the time of a read of several tiles. :func:`keep` has it hold on to them, :func:`release` gives all back. The
settings are the whole process's, so they are counted: the last release ends them. Elsewhere than on Linux with glibc nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any

__all__ = ["Kept", "keep", "keeping", "release", "trim"]

# malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SMALL = 128 * 2**10
_LARGEST_OF_OLD_GLIBC = 32 * 2**20  # before 2.35 a larger M_MMAP_THRESHOLD is refused

# Setting a threshold ends its adjustment to what the process frees, for good. What is put back is where that adjustment arrives in a
# process that frees large arrays, as every user of torch does; the 128 kB that a process begins with would map each array anew.
_USUAL = ((_MMAP_THRESHOLD, _LARGEST_OF_OLD_GLIBC), (_TRIM_THRESHOLD, 2 * _LARGEST_OF_OLD_GLIBC), (_TOP_PAD, _SMALL))
_KEEPING = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 16 * 2**20))


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    names = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return libc if all(hasattr(libc, name) for name in names) else None


_libc = _glibc()
_holders = 0
_lock = threading.RLock()  # a finaliser may come while this thread is inside


def _fresh_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)


def keeping() -> bool:
    """Whether freed memory is held on to just now."""
    return _holders > 0


def keep() -> None:
    """Have the allocator of this process hold on to freed memory, until :func:`release` was called as often."""
    global _holders
    with _lock:
        _holders += 1
        if _holders == 1:
            _set(_KEEPING)


def release() -> None:
    """Undo one :func:`keep`. The last one puts usual settings back, and gives free memory back to the system.

    Raises:
        RuntimeError: Nothing was kept.
    """
    global _holders
    with _lock:
        if not _holders:
            raise RuntimeError("release() without keep()")
        _holders -= 1
        if _holders == 0:
            _set(_USUAL)
            trim()


def trim() -> None:
    """Give free memory back to the system now; nothing where the allocator is another than glibc's."""
    if _libc is not None:
        _libc.malloc_trim(0)


def _set(options: tuple[tuple[int, int], ...]) -> None:
    if _libc is None:
        return
    for option, value in options:
        if not _libc.mallopt(option, value) and option == _MMAP_THRESHOLD:
            _libc.mallopt(option, min(value, _LARGEST_OF_OLD_GLIBC))


class Kept:
    """One holder's :func:`keep`: from :meth:`open` to :meth:`close`, both of which may be called again and again, or until it is dropped.

    Args:
        wanted: Whether to keep anything at all.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._owner: int | None = None

    def open(self) -> None:
        """Begin, where that is wanted and was not done."""
        if self._wanted and self._owner is None:
            self._owner = os.getpid()
            keep()

    def close(self) -> None:
        """End, where it began in this process: a forked child's settings go with the child."""
        owner, self._owner = self._owner, None
        if owner == os.getpid():
            release()

    def __del__(self) -> None:
        self.close()
