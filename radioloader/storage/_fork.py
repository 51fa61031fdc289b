"""What libtiledb needs of a process that forks, besides a context of its own in the child (see ``context.py``).

Its mutexes. Opening and closing an array lock one that belongs to the whole library. A child that was forked while another thread
held it hangs at its first array, for good: 1 of some 400 children did, of a parent whose threads kept opening arrays. So threads
pass a :class:`Gate` when they open or close arrays, and a fork waits until nobody is inside. A child never closes an array that it
inherited.

Its own thread. libtiledb joins it in a C++ destructor when the process exits. A forked child that ends through ``sys.exit`` has no
such thread, and aborts or hangs there: such children leave without the exit handlers of their parent.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from typing import Any

__all__ = ["Gate", "close_array", "gate", "leave_children_alone"]

_PATIENCE_S = 10.0


class Gate:
    """Context manager of any number of threads, nested or not; nobody is inside while the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # times entered, by thread
        self._forking: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            # A thread that is inside must get on, or the fork would wait for it for ever.
            while self._forking not in (None, me) and me not in self._inside:
                self._changed.wait()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Let nobody in, and wait until nobody is inside."""
        me = threading.get_ident()
        self._changed.acquire()
        while self._forking is not None:
            self._changed.wait()
        self._forking = me
        # Not for ever: an object store that does not answer keeps a thread inside, and a fork is most likely safe even so.
        end = time.monotonic() + _PATIENCE_S
        while set(self._inside) - {me} and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)

    def after_fork_in_parent(self) -> None:
        """Let them in again."""
        self._forking = None
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: the other threads do not exist here, and what was inherited is never garbage.

        A cycle of the parent's that holds something of libtiledb's would be finalised by the child's collector, in whatever thread:
        a worker was seen to abort there.
        """
        self.__init__()  # type: ignore[misc]
        gc.freeze()


gate = Gate()
"""Held by a thread while it opens or closes arrays."""

os.register_at_fork(
    before=gate.before_fork,
    after_in_parent=gate.after_fork_in_parent,
    after_in_child=gate.after_fork_in_child,
)


def close_array(holder: Any, name: str, pid: int) -> None:
    """Drop the open array in attribute ``name`` of ``holder``, which was opened in process ``pid``; another process's stays open.

    For ``__del__``: the attribute is missing when opening failed.
    """
    array = holder.__dict__.get(name)
    if array is None:
        return
    if pid != os.getpid():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(array))
        return
    with gate:
        del holder.__dict__[name], array


_guarded = False


def leave_children_alone() -> None:
    """From now on, children that are forked from this process end without libtiledb's destructors (glibc only)."""
    global _guarded
    libc = ctypes.CDLL(None)
    if _guarded or not all(hasattr(libc, name) for name in ("on_exit", "_exit", "fcloseall")):
        return
    _guarded = True
    leave, flush = (ctypes.cast(function, ctypes.c_void_p) for function in (libc._exit, libc.fcloseall))

    def after_fork() -> None:
        # Exit handlers run last in, first out: the child's own, then these two (``_exit`` takes the status), never the parent's.
        libc.on_exit(leave, None)
        libc.on_exit(flush, None)

    os.register_at_fork(after_in_child=after_fork)
