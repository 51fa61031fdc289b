"""Timing: what is counted, and that nothing is left running. No figure is held to a bound."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch

import radioloader as rl
from radioloader.bench.choose import choose
from radioloader.bench.feeds import Feeds
from radioloader.bench.machine import cpu_seconds
from radioloader.bench.measure import _samples, _scatter, measure, measure_cost, transfer_ms
from radioloader.storage import regions


def feeds(uri: str, **arguments: Any) -> Feeds:
    store = rl.open(uri)
    choice = choose(store.snapshot, image=[], label=None)
    return Feeds(store, choice, **{"patch_size": (8, 8, 8), "batch_size": 2} | arguments)


def slow(sample: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.01)
    return sample


@pytest.fixture
def spawned() -> Iterator[None]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_a_rate_is_samples_by_seconds(store_uri: str) -> None:
    rate = measure(feeds(store_uri).patches(), seconds=0.2)
    assert rate.per_s == pytest.approx(rate.samples / rate.seconds)
    assert rate.spent.batches == rate.samples / 2
    assert 0 < rate.spent.read + rate.spent.collate <= rate.seconds
    assert rate.spent.transform == 0
    assert rate.cores == pytest.approx(rate.cpu_ms * rate.samples / 1000 / rate.seconds)
    assert rate.waited is None


@pytest.mark.parametrize("blocks", [False, True])
def test_whole_cycles_of_what_shares_a_region_are_timed(
    store_uri: str, monkeypatch: pytest.MonkeyPatch, blocks: bool
) -> None:
    """A few batches in between decode nothing: they would look many times as fast as they are."""
    monkeypatch.setattr(regions, "_BYTES", 40_000)  # less than all regions of this small store
    made = feeds(store_uri, batch_size=4)
    feed = made.slices("axial", blocks=True) if blocks else made.patches(regions=True)
    assert feed.cycle == 8
    for rate in (measure(feed, seconds=0.001), measure_cost(feed, seconds=0.001, warm=True)[0]):
        assert rate.samples >= (24 if blocks else 32)  # an epoch of slices may end within a cycle
        assert rate.read_mb is not None
        assert rate.read_mb > 0.0002


def test_samples_are_counted_by_their_ids_where_a_transform_left_them(store_uri: str) -> None:
    loader = feeds(store_uri, batch_size=5).slices("axial").loader
    assert [_samples(batch, loader) for batch in loader] == [5] * 14 + [2]
    assert _samples({"x": torch.zeros(3)}, loader) == 5
    assert _samples([1, 2], loader) == 5


def test_threads_are_gone_afterwards(store_uri: str) -> None:
    rate = measure(feeds(store_uri).patches(num_threads=2), seconds=0.2)
    assert rate.samples >= 4
    assert rate.read_mb is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("radioloader-batch")]


def test_workers_are_gone_afterwards(store_uri: str) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    rate = measure(feeds(store_uri).patches(num_workers=2), seconds=0.2)
    assert rate.samples >= 4
    assert rate.first_batch_s > 0
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_workers_are_gone_after_a_failure(store_uri: str) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(ZeroDivisionError):
        measure(feeds(store_uri, transform=lambda sample: 1 / 0).patches(num_workers=2), seconds=0.2)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.usefixtures("spawned")
def test_spawned_workers(store_uri: str) -> None:
    rate = measure(feeds(store_uri, transform=slow).patches(num_workers=1), seconds=0.2)
    assert rate.samples >= 2
    assert rate.spent.transform > 0


@pytest.mark.parametrize("settings", [{}, {"num_threads": 1}, {"num_workers": 1}])
def test_a_model_waits_for_a_loader_that_is_slower(store_uri: str, settings: dict[str, int]) -> None:
    feed = feeds(store_uri, transform=slow).patches(**settings)
    rate = measure(feed, seconds=0.2, step_s=0.001)  # 20 ms of transforms for each millisecond of the model
    assert rate.waited is not None
    assert rate.step_spent is not None
    assert 0.8 < rate.waited <= 1
    assert rate.step_batches >= 4
    assert rate.step_seconds >= rate.step_batches * 0.001


def test_the_parts_of_a_samples_time_add_up(store_uri: str) -> None:
    rate, cost = measure_cost(feeds(store_uri).patches(), seconds=0.3, warm=True)
    assert cost.total == pytest.approx(1000 * rate.seconds / rate.samples, rel=1e-6)
    assert cost.transform is None
    assert cost.storage > 0
    assert cost.decode > 0
    assert 0 < cost.storage_share < 1
    assert rate.read_mb is None or rate.read_mb > 0


def test_a_slow_transform_is_found(store_uri: str) -> None:
    _, cost = measure_cost(feeds(store_uri, transform=slow).patches(), seconds=0.1, warm=False)
    assert cost.transform is not None
    assert cost.transform >= 10


def test_scatter_is_that_of_thirds() -> None:
    even = [(float(n), 4 * n) for n in range(13)]
    assert _scatter(even) == (4.0, 4.0)
    late = [*even[:9], *[(8.0 + 2 * n, 32 + 4 * n) for n in range(1, 5)]]
    assert _scatter(late) == (2.0, 4.0)
    assert _scatter(even[:12]) == (None, None)


def test_a_transfer_waits_for_all_tensors() -> None:
    calls: list[str] = []
    assert transfer_ms(["image", "label"], calls.append, lambda: calls.append("wait")) > 0
    assert calls == ["image", "label", "wait"] * 22  # two of them before the clock runs


def test_processor_time_includes_children() -> None:
    before = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        while psutil.Process(process.pid).cpu_times().user < 0.1:
            time.sleep(0.01)
        assert cpu_seconds() - before >= 0.1
        process.kill()
