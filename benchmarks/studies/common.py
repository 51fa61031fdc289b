"""Timing for the studies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.model import Cohort

__all__ = ["interleaved", "store_of", "timed"]


def store_of(cohort: Cohort, tiles: str = "isotropic") -> str:
    """URI of the store that was prepared."""
    return str(cohort.folder / f"radioloader-{tiles}")


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleaved(contestants: Mapping[str, Callable[[], float]], rounds: int, **common: Any) -> Iterator[dict[str, Any]]:
    """Calls all in turn, round by round after one without the clock: the median of what each returns, with lowest and highest."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, measure in contestants.items():
            value = measure()
            if number:
                values[name].append(value)
    for name, found in values.items():
        yield {
            "name": name,
            "value": round(statistics.median(found), 4),
            "lowest": round(min(found), 4),
            "highest": round(max(found), 4),
            **common,
        }
