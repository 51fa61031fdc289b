"""One subject on an S3 server with latency, and on the local disk."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, store_of, timed

__all__ = ["measure"]

_KEYS: dict[str, Any] = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
_LATENCY_MS = 30


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """ms of single reads from the store and from S3, with and without latency; then with more requests in flight, and writing."""
    with _server() as (endpoint, delay):
        config = _config(endpoint, 8)
        sources = {"CT": {"sub-00": cohort.images()[0]}, "seg": {"sub-00": cohort.labels()[0]}}
        for tiles in ("isotropic", "axial"):
            write = rl.WriteConfig(tile=rl.TileConfig(orientation=rl.SliceOrientation(tiles)))
            rl.ingest(f"s3://bench/{tiles}", sources, workers=1, config=rl.StorageConfig(write=write, s3=config.s3))
        rounds = 5 if full else 2
        stores: dict[str, tuple[str, rl.StorageConfig, float]] = {
            "local": ("", rl.StorageConfig(), 0),
            "S3, no latency": ("s3", config, 0),
            f"S3, {_LATENCY_MS} ms": ("s3", config, _LATENCY_MS / 1000),
        }
        for what, (tiles, read) in _reads(cohort).items():
            contestants = {}
            for name, (scheme, access, seconds) in stores.items():
                uri = f"s3://bench/{tiles}" if scheme else store_of(cohort, tiles)
                contestants[name] = _call(uri, access, read, partial(delay, seconds))
            yield from interleaved(contestants, rounds, unit="ms", what=f"{what}, {tiles} tiles")
        volume = _reads(cohort)["whole volume"][1]
        flights = {
            f"max_parallel_ops={n}": _call(
                "s3://bench/isotropic", _config(endpoint, n), volume, partial(delay, _LATENCY_MS / 1000)
            )
            for n in ((4, 8, 16, 32) if full else (4, 16))
        }
        yield from interleaved(flights, rounds, unit="ms", what=f"whole volume, S3, {_LATENCY_MS} ms")
        yield from _writing(cohort, config, full)


def _writing(cohort: Cohort, config: rl.StorageConfig, full: bool) -> Iterator[dict[str, Any]]:
    """MB of voxels per second into the bucket, with latency, by the number of processes."""
    few = min(2, cohort.subjects)
    sources = {
        name: dict(zip(cohort.names[:few], files[:few], strict=True))
        for name, files in (("CT", cohort.images()), ("seg", cohort.labels()))
    }
    megabytes = few * math.prod(cohort.shape) * 3 / 1e6
    numbers = count()

    def rate(workers: int) -> float:
        uri = f"s3://bench/written-{next(numbers)}"
        return megabytes / timed(lambda: rl.ingest(uri, sources, workers=workers, config=config))

    rates = {f"{n} processes": partial(rate, n) for n in range(1, few + 1)}
    yield from interleaved(rates, 2 if full else 1, unit="MB/s", what=f"ingest, S3, {_LATENCY_MS} ms")


def _reads(cohort: Cohort) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """What is read, of which tiles."""
    generator = np.random.default_rng(0)
    depth = cohort.shape[2]

    def region(store: Any) -> Any:
        starts = [int(generator.integers((n - 64) // 64 + 1)) * 64 for n in cohort.shape]
        return store.CT.iloc[0][tuple(slice(start, start + 64) for start in starts)]

    return {
        "whole volume": ("isotropic", lambda store: store.CT.iloc[0].to_numpy()),
        "axial slice": ("axial", lambda store: store.CT.iloc[0].axial(int(generator.integers(depth)))),
        "region 64^3, aligned": ("isotropic", region),
        "subject and shape": ("isotropic", lambda store: store.loc["sub-00"].CT.iloc[0].shape),
        "open": ("isotropic", lambda store: rl.open(store.uri, config=store.snapshot.store.config)),
    }


def _call(
    uri: str, config: rl.StorageConfig, read: Callable[[Any], Any], ready: Callable[[], None]
) -> Callable[[], float]:
    store = rl.open(uri, config=config)

    def call() -> float:
        ready()
        return 1000 * timed(lambda: read(store))

    return call


def _config(endpoint: str, parallel: int) -> rl.StorageConfig:
    # moto is slow itself: a request may take longer than one to a real server.
    s3 = rl.S3Config(endpoint=endpoint, max_parallel_ops=parallel, request_timeout_s=60, **_KEYS)
    return rl.StorageConfig(s3=s3)


@contextmanager
def _server() -> Iterator[tuple[str, Callable[[float], None]]]:
    """A server with an empty bucket; its address, and how to set its latency in seconds."""
    import boto3

    script = Path(__file__).with_name("s3_server.py")
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    orders = process.stdin
    try:
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=_KEYS["region"],
            aws_access_key_id=_KEYS["access_key_id"],
            aws_secret_access_key=_KEYS["secret_access_key"],
        )
        client.create_bucket(Bucket="bench")
        client.close()
        yield endpoint, lambda seconds: print(seconds, file=orders, flush=True)
    finally:
        orders.close()
        process.wait(30)
        process.stdout.close()
