"""Reading the same place again. libtiledb has no cache of decoded tiles any more, and radioloader decodes again as well: what a first
read costs more is opening the array and the page cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import radioloader as rl
from benchmarks.model import Cohort
from benchmarks.studies.common import interleaved, store_of, timed

__all__ = ["measure"]


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """ms of an axial slice and of a 64^3 region: in a store that was just opened, in one that is open, and at the same place again."""
    rounds = 20 if full else 8
    middle = cohort.shape[2] // 2
    regions: dict[str, tuple[Any, ...]] = {
        "axial slice": (slice(None), slice(None), middle),
        "region 64^3": (slice(0, 64), slice(0, 64), slice(0, 64)),
    }
    for what, index in regions.items():
        uri = store_of(cohort)
        kept = rl.open(uri).CT.iloc[0]
        kept[index]

        def fresh(index: tuple[Any, ...] = index, uri: str = uri) -> float:
            with rl.open(uri) as store:
                return 1000 * timed(lambda: store.CT.iloc[0][index])

        def again(index: tuple[Any, ...] = index, volume: Any = kept) -> float:
            return 1000 * timed(lambda: volume[index])

        contestants: dict[str, Callable[[], float]] = {"store just opened": fresh, "open, the same again": again}
        yield from interleaved(contestants, rounds, unit="ms", what=what)
