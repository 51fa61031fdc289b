"""What advice follows from where an epoch's time went."""

from __future__ import annotations

import pytest

from radioloader.datasets.advice import Epoch, Settings, advice


def test_little_waiting_needs_no_change() -> None:
    quick = Epoch(10.0, 0.2, 0.1, 0.1, 100, 0.1, 0.1, 0.1, 0.1, 100)
    assert advice(quick, Settings(num_workers=1, cores=2)) == "waiting for data 3% of the time: nothing to change"


def epoch(**seconds: float) -> Epoch:
    """100 steps of 10 ms each, and the seconds of one stage, which are waited for in full."""
    made = {name: seconds.get(name, 0.0) for name in ("read", "decode", "transform", "collate")}
    wait = seconds.get("wait", sum(made.values()))
    total = 1.0 + wait + seconds.get("transfer", 0.0)
    return Epoch(total, wait, wait / 100, seconds.get("transfer", 0.0), 100, **made, batches=100)


@pytest.mark.parametrize(
    ("measured", "settings", "line"),
    [
        (epoch(decode=3.0), Settings(0, cores=8), "raise num_workers from 0 to 3"),
        (epoch(decode=3.0), Settings(0, cores=2), "raise num_workers from 0 to 2"),
        (epoch(decode=9.0, wait=4.0), Settings(2, cores=2, patches=True), "positions=RegionPositions"),
        (epoch(decode=9.0, wait=4.0), Settings(2, cores=2), "TileConfig(...)"),
        (epoch(read=9.0, wait=4.0), Settings(2, cores=2), "raise num_workers from 2 to 8"),  # waiting needs no core
        (epoch(read=20.0, wait=4.0), Settings(8, cores=2), "copy the store to a local disk"),
        (epoch(transform=9.0, wait=4.0), Settings(2, cores=2), "device_transform="),
        (epoch(collate=9.0, wait=8.0), Settings(1, cores=1), "a cheaper collate_fn"),
        (epoch(decode=9.0, wait=4.0), Settings(0, cores=4, num_threads=2), "raise num_threads from 2 to 4"),
        (epoch(decode=9.0, wait=4.0), Settings(0, cores=4, num_threads=4, patches=True), "positions=RegionPositions"),
        (epoch(read=9.0, wait=4.0), Settings(0, cores=2, num_threads=2), "raise num_threads from 2 to 8"),
        (epoch(transform=3.0), Settings(0, cores=4, num_threads=4), "raise num_workers from 0 to 3"),
        (epoch(transform=3.0), Settings(0, cores=1, num_threads=1), "device_transform="),
        (epoch(transfer=1.0), Settings(2, cores=2, on_gpu=True), "'pin_memory': True"),
        (epoch(transfer=1.0), Settings(2, cores=2, on_gpu=True, pin_memory=True), "dtype=None"),
        (epoch(decode=1.5, wait=0.5), Settings(2, cores=2), "raise prefetch_factor from 2 to 4"),
    ],
)
def test_what_advice_follows(measured: Epoch, settings: Settings, line: str) -> None:
    assert line in advice(measured, settings)
    assert sum(measured.shares(settings).values()) == pytest.approx(
        (measured.wait + measured.transfer) / measured.total
    )
