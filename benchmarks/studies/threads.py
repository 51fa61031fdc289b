"""Threads that read side by side through one open store: the lock of the interpreter is released while TileDB reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, store_of, timed

__all__ = ["measure"]

_REGIONS = 48


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """Regions of 64^3 voxels per second, at random places, by the number of threads; and whole volumes."""
    store = rl.open(store_of(cohort))
    generator = np.random.default_rng(0)

    def region(_: int) -> None:
        starts = [int(generator.integers(n - 63)) for n in cohort.shape]
        volume = store.CT.iloc[int(generator.integers(cohort.subjects))]
        volume[tuple(slice(start, start + 64) for start in starts)]

    def whole(number: int) -> None:
        store.CT.iloc[number % cohort.subjects].to_numpy()

    counts = (1, 2, 4, 8) if full else (1, 2, 4)

    def rate(threads: int, read: Callable[[int], None], items: int) -> Callable[[], float]:
        def take() -> None:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(read, range(items)))

        return lambda: items / timed(take)

    rounds = 5 if full else 3
    yield from interleaved(
        {f"{n} threads": rate(n, region, _REGIONS) for n in counts}, rounds, unit="regions/s", what="region 64^3"
    )
    yield from interleaved({f"{n} threads": rate(n, whole, 4) for n in counts}, 3, unit="volumes/s", what="volume")
