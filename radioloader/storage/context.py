"""The only owner of TileDB contexts: one for each process and configuration.

Fork rules. A context holds threads and locks, which a forked child does not get in a usable state: a child that used its
parent's context, or destroyed it, was seen to hang. So contexts are keyed by process id, another process's entries are never
read, evicted or cleared, and none is finalised by accident: one reference of each is leaked on purpose, so that no interpreter
that shuts down (the parent's or a forked child's) runs its destructor. The operating system takes it all back.

A context keeps some 12 kB of statistics for every query that it ever ran, whether statistics are enabled or not (TileDB-Py issue
2194). So it is replaced after :data:`QUERIES_PER_CONTEXT` queries: readers forget their arrays in it, then it is finalised, in the
process that made it and while no child can have it in use. What else a fork needs is in ``_fork.py``.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import tiledb

from radioloader.config import StorageConfig, get_config
from radioloader.storage._fork import gate, leave_children_alone
from radioloader.storage.uri import is_remote

__all__ = ["QUERIES_PER_CONTEXT", "Lease", "as_default", "context_for", "get_context", "lease_for", "register"]

QUERIES_PER_CONTEXT = 2000
"""Bounds what a context keeps to about 25 MB; a new one costs milliseconds."""


class Lease:
    """A context and how many queries it ran.

    Attributes:
        key: Process id and configuration hash.
        context: The context.
    """

    def __init__(self, key: tuple[int, str], context: tiledb.Ctx) -> None:
        self.key = key
        self.context = context
        self._queries = 0

    def count(self) -> None:
        """Count one query; the last one that this context should run retires it."""
        self._queries += 1  # a count that two threads lose does not matter
        if self._queries >= QUERIES_PER_CONTEXT:
            _retire(self)


class HoldsArrays(Protocol):
    """Something that keeps arrays open from call to call."""

    def forget(self, lease: Lease) -> None:
        """Drop all arrays that were opened in the lease's context."""


_leases: dict[tuple[int, str], Lease] = {}
_locks: dict[int, threading.Lock] = {}
_holders: weakref.WeakSet[Any] = weakref.WeakSet()


def _lock() -> threading.Lock:
    # Keyed by process: a lock inherited through fork may be held by a thread that was not.
    return _locks.setdefault(os.getpid(), threading.Lock())


def lease_for(uri: str, config: StorageConfig | None = None) -> Lease:
    """The lease of this process for what lies at ``uri``, for those who keep arrays open."""
    return _lease(get_config() if config is None else config, remote=is_remote(uri))


def context_for(uri: str, config: StorageConfig | None = None) -> tiledb.Ctx:
    """The context of this process for what lies at ``uri``."""
    return lease_for(uri, config).context


def get_context(config: StorageConfig | None = None, *, remote: bool = False) -> tiledb.Ctx:
    """The TileDB context of this process for a configuration; made at the first call.

    Args:
        config: The settings; None takes those of :func:`radioloader.configure`.
        remote: Whether it is for data on an object store.
    """
    return _lease(get_config() if config is None else config, remote=remote).context


@contextmanager
def as_default(context: tiledb.Ctx) -> Iterator[None]:
    """For calls of tiledb-py that take no context: inside, they use this one instead of making another."""
    fork = os.fork
    with tiledb.scope_ctx(context):
        yield
    os.fork = fork  # see _make


def register(holder: HoldsArrays) -> None:
    """Have ``holder`` told when a context is to go. It is not kept alive."""
    with _lock():
        _holders.add(holder)


def _lease(config: StorageConfig, *, remote: bool) -> Lease:
    key = (os.getpid(), config.hash(remote=remote))
    lease = _leases.get(key)
    if lease is None:
        with _lock():
            lease = _leases.get(key)
            if lease is None:
                lease = Lease(key, _make(config, remote=remote))
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(lease.context))
                _leases[key] = lease
    return lease


def _retire(lease: Lease) -> None:
    with _lock():
        if _leases.get(lease.key) is not lease or lease.key[0] != os.getpid():
            return
        del _leases[lease.key]
        holders = list(_holders)
    for holder in holders:
        holder.forget(lease)
    # From here on only reads that are under way hold it, and a child that is forked now never ends them.
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(lease.context))


def _make(config: StorageConfig, *, remote: bool) -> tiledb.Ctx:
    fork = os.fork
    with gate:
        context = tiledb.Ctx(config.tiledb(remote=remote))
    # For Python before 3.12, tiledb-py replaces os.fork of the whole process by one that warns of deadlocks. With the rules
    # above forking is safe, so that every fork of a DataLoader worker would print a false alarm.
    os.fork = fork
    leave_children_alone()
    return context
