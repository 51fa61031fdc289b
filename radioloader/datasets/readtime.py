"""How much of a read is storage and how much is decoding, by TileDB's own statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import tiledb

__all__ = ["EVERY", "measured"]

EVERY = 16
"""One in so many reads is measured. Switching the statistics on and reading them takes 1 to 2 ms."""

_STORAGE = ("array_open_READ", "Query.Reader.read_attribute_tiles", "Query.Reader.load_tile_offsets")
_ALL = ("array_open_READ", "Query.Reader.dowork")


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the reads of this process in the block. Afterwards ``storage`` and ``all`` are seconds, summed over threads.

    TileDB fetches and decodes in one call, partly in threads of its own; wall time against CPU time would take waiting for a core for
    waiting for storage. Its timers tell the two apart. They are those of the process: nothing is measured while someone else uses them.
    """
    found = {"storage": 0.0, "all": 0.0}
    if tiledb.main.stats_enabled():
        yield found
        return
    tiledb.stats_enable()
    tiledb.stats_reset()
    try:
        yield found
        timers = json.loads(tiledb.stats_dump(print_out=False, json=True, include_python=False)).get("timers", {})
        found["storage"] = sum(timers.get(f"Context.{name}.sum", 0.0) for name in _STORAGE)
        found["all"] = sum(timers.get(f"Context.{name}.sum", 0.0) for name in _ALL)
    finally:
        tiledb.stats_disable()
