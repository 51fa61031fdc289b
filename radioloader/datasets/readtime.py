"""How much of a read is storage and how much is decoding, by TileDB's own statistics."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tiledb

from radioloader.storage._tiles import spent

__all__ = ["EVERY", "measured"]

EVERY = 16
"""One in so many reads is measured. Switching the statistics on and reading them takes 1 to 2 ms."""

_STORAGE = ("array_open_READ", "Query.Reader.read_attribute_tiles", "Query.Reader.load_tile_offsets")
_ALL = ("array_open_READ", "Query.Reader.dowork")

_measuring = threading.Lock()


def _unlocked() -> None:
    global _measuring
    _measuring = threading.Lock()  # it may be held by a thread that a forked child does not have


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the reads of this process in the block. Afterwards ``storage`` and ``all`` are seconds, summed over threads.

    TileDB fetches and decodes in one call, partly in threads of its own; wall time against CPU time would take waiting for a core for
    waiting for storage. Its timers tell the two apart. They are those of the process: nothing is measured while someone else uses them.
    """
    found = {"storage": 0.0, "all": 0.0}
    if tiledb.main.stats_enabled() or not _measuring.acquire(blocking=False):
        yield found
        return
    tiledb.stats_enable()
    tiledb.stats_reset()
    before = spent()
    try:
        yield found
        timers = _timers()
        after = spent()
        found["storage"] = sum(timers.get(f"Context.{name}.sum", 0.0) for name in _STORAGE) + after[0] - before[0]
        found["all"] = sum(timers.get(f"Context.{name}.sum", 0.0) for name in _ALL) + after[1] - before[1]
    finally:
        tiledb.stats_disable()
        _measuring.release()


def _timers() -> dict[str, float]:
    """TileDB's timers; none where it read nothing."""
    try:
        parts = json.loads(tiledb.stats_dump(print_out=False, json=True, include_python=False))
    except IndexError:  # tiledb-py takes the first of no contexts
        return {}
    timers: dict[str, float] = parts.get("timers", {})
    return timers
