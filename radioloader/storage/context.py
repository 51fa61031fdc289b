"""The only owner of TileDB contexts: one for each process and configuration.

Fork rules. A context holds threads and locks, which a forked child does not get in a usable state: a child that used its
parent's context, or destroyed it, was seen to hang. So contexts are keyed by process id, another process's entries are never
read, evicted or cleared, and no context is ever finalised: one reference of each is leaked on purpose, so that no interpreter
that shuts down (the parent's or a forked child's) runs its destructor. The operating system takes it all back.

libtiledb itself keeps a thread for the whole process and joins it in a C++ destructor at exit. A forked child that ends through
``sys.exit`` has no such thread, and was seen to hang or abort there: such children leave without the exit handlers of their parent.
"""

from __future__ import annotations

import ctypes
import os
import threading

import tiledb

from radioloader.config import StorageConfig, get_config
from radioloader.storage.uri import is_remote

__all__ = ["context_for", "get_context"]

_contexts: dict[tuple[int, str], tiledb.Ctx] = {}
_locks: dict[int, threading.Lock] = {}
_guarded = False


def get_context(config: StorageConfig | None = None, *, remote: bool = False) -> tiledb.Ctx:
    """The TileDB context of this process for a configuration; made at the first call.

    Args:
        config: The settings; None takes those of :func:`radioloader.configure`.
        remote: Whether it is for data on an object store.
    """
    config = get_config() if config is None else config
    pid = os.getpid()
    key = (pid, config.hash(remote=remote))
    context = _contexts.get(key)
    if context is None:
        # The lock is keyed by pid as well: a lock inherited through fork may be held by a thread that was not.
        with _locks.setdefault(pid, threading.Lock()):
            context = _contexts.get(key)
            if context is None:
                context = _make(config, remote=remote)
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
                _contexts[key] = context
    return context


def _make(config: StorageConfig, *, remote: bool) -> tiledb.Ctx:
    fork = os.fork
    context = tiledb.Ctx(config.tiledb(remote=remote))
    # For Python before 3.12, tiledb-py replaces os.fork of the whole process by one that warns of deadlocks. With the rules
    # above forking is safe, so that every fork of a DataLoader worker would print a false alarm.
    os.fork = fork
    _guard_forks()
    return context


def _guard_forks() -> None:
    """From now on, let forked children of this process end without libtiledb's destructors (glibc only)."""
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


def context_for(uri: str, config: StorageConfig | None = None) -> tiledb.Ctx:
    """The context of this process for what lies at ``uri``."""
    return get_context(config, remote=is_remote(uri))
