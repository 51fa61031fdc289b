"""What TileDB contexts cost in memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import radioloader as rl
from benchmarks.machine import pss
from benchmarks.model import Cohort
from benchmarks.studies.common import store_of

__all__ = ["measure"]

_CONTEXTS = 8


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """MiB of each of eight contexts: made, and after each read a region of 64^3 voxels; each figure from a process of its own."""
    with rl.open(store_of(cohort)) as store:
        uri = store.CT.iloc[0].ref.uri
    configs: dict[str, dict[str, str]] = {
        "TileDB's defaults": {},
        "radioloader, local": rl.StorageConfig().tiledb(),
        "radioloader, 8 threads": rl.StorageConfig(read=rl.ReadConfig(concurrency=8)).tiledb(),
        "radioloader, S3": rl.StorageConfig(s3=rl.S3Config(region="us-east-1")).tiledb(remote=True),
    }
    for when, read in (("made", None), ("after a 64^3 region", uri)):
        for name, settings in configs.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                yield {"name": name, "when": when, "value": pool.submit(_cost, settings, read).result(), "unit": "MiB"}


def _cost(settings: dict[str, str], uri: str | None) -> float:
    """MiB that one more context costs this process."""
    import tiledb

    kept: list[Any] = []

    def make() -> None:
        context = tiledb.Ctx(settings)
        kept.append(context)
        if uri is not None:
            array = tiledb.open(uri, ctx=context)
            array[:64, :64, :64]
            kept.append(array)

    make()  # the first one loads and starts what the others share
    before = pss([os.getpid()])[0]
    for _ in range(_CONTEXTS):
        make()
    return round((pss([os.getpid()])[0] - before) / _CONTEXTS, 3)
