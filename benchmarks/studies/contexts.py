"""What TileDB contexts cost in memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import tiledb

import radioloader as rl
from benchmarks.machine import pss
from benchmarks.model import Cohort
from benchmarks.studies.common import store_of

__all__ = ["measure"]

_CONTEXTS = 8


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """MiB of each context: made, and after it read a region of 64^3 voxels."""
    local = rl.StorageConfig()
    configs = {
        "TileDB's defaults": {},
        "radioloader, local": local.tiledb(),
        "radioloader, 8 threads": rl.StorageConfig(read=rl.ReadConfig(concurrency=8)).tiledb(),
        "radioloader, S3": rl.StorageConfig(s3=rl.S3Config(region="us-east-1")).tiledb(remote=True),
    }
    for name, settings in configs.items():
        gc.collect()
        before = _memory()
        contexts = [tiledb.Ctx(settings) for _ in range(_CONTEXTS)]
        yield {"name": name, "when": "made", "value": _each(before), "unit": "MiB"}
        del contexts
    with rl.open(store_of(cohort)) as store:
        store.CT.iloc[0][:8, :8, :8]
        uri = store.CT.iloc[0].ref.uri
    for name in ("TileDB's defaults", "radioloader, local"):
        gc.collect()
        before = _memory()
        kept = []
        for _ in range(_CONTEXTS):
            context = tiledb.Ctx(configs[name])
            array = tiledb.open(uri, ctx=context)
            array[:64, :64, :64]
            kept.append((context, array))
        yield {"name": name, "when": "after a 64^3 region", "value": _each(before), "unit": "MiB"}
        for _, array in kept:
            array.close()


def _memory() -> float:
    return pss([os.getpid()])[0]


def _each(before: float) -> float:
    return round((_memory() - before) / _CONTEXTS, 2)
