"""Timing one loader, within a given time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from radioloader.bench.feeds import Feed
from radioloader.bench.machine import cpu_seconds, read_bytes
from radioloader.bench.model import Cost, Rate, Spent
from radioloader.datasets import readtime
from radioloader.datasets.loader import DataLoader

__all__ = ["gpu_transfer_ms", "measure", "measure_cost", "transfer_ms"]

_WARM = 0.3  # of the time: threads and workers start, arrays are opened, queues fill
_TIMED = 0.4  # of the time, at least, however long the start took
_THIRDS = 12  # batches from which on three parts tell how much a rate scatters
_TRANSFERS = 20
_STEPS = 4  # at least


def measure(feed: Feed, *, seconds: float, step_s: float | None = None) -> Rate:
    """How fast a loader is, once it runs.

    Args:
        feed: The loader.
        seconds: How long this may take, start included; one batch and one more for each maker, and two cycles, are taken at least.
        step_s: Also take batches as a model does whose step takes so long (the processor is free meanwhile, as with a GPU).

    Raises:
        RadioloaderError: A batch could not be read, or a worker died.
        RuntimeError: torch waited too long for a worker.
    """
    began = time.perf_counter()
    end, phases = began + seconds, 1 if step_s is None else 2
    # Whole rounds: batches of makers that began together arrive together.
    least = max(1, feed.way.parallel, feed.cycle)
    with _running(feed.loader) as batches:
        first_batch_s = _warmed(batches, seconds=_WARM * seconds, least=least, cycle=feed.cycle)
        left = max((end - time.perf_counter()) / phases, _TIMED * seconds / phases)
        rate = _timed(feed, batches, seconds=left, least=least, first_batch_s=first_batch_s)
        if step_s is None:
            return rate
        left = max(end - time.perf_counter(), _TIMED * seconds / phases)
        return _with_steps(rate, feed.loader, batches, seconds=left, step_s=step_s)


def measure_cost(feed: Feed, *, seconds: float, warm: bool) -> tuple[Rate, Cost]:
    """How fast a loader without threads and workers is, and where the time of one sample goes.

    Args:
        feed: The loader.
        seconds: How long this may take.
        warm: Leave out what the first batches cost; otherwise only the very first one, which opens the store.
    """
    began = time.perf_counter()
    with _running(feed.loader) as batches:
        first_batch_s = _warmed(batches, seconds=_WARM * seconds if warm else 0.0, least=feed.cycle, cycle=feed.cycle)
        left = max(began + seconds - time.perf_counter(), _TIMED * seconds)
        with readtime.measured() as found:
            rate = _timed(feed, batches, seconds=left, least=feed.cycle, first_batch_s=first_batch_s)
    share = found["storage"] / found["all"] if found["all"] else 0.0
    return rate, _cost(rate, share, transform=getattr(feed.loader.dataset, "transform", None) is not None)


def gpu_transfer_ms(batch: Any) -> float:
    """Milliseconds that moving a batch from pinned memory to torch's GPU takes."""
    values = batch.values() if isinstance(batch, dict) else []
    tensors = [value.pin_memory() for value in values if isinstance(value, torch.Tensor)]
    device = torch.device("cuda")
    return transfer_ms(tensors, lambda tensor: tensor.to(device, non_blocking=True), torch.cuda.synchronize)


def transfer_ms(tensors: Sequence[Any], send: Callable[[Any], Any], wait: Callable[[], Any]) -> float:
    """Milliseconds that moving a batch takes.

    Args:
        tensors: Of the batch.
        send: Begins to move one of them.
        wait: Returns when all are there.
    """
    began = 0.0
    for number in range(-2, _TRANSFERS):  # the first ones start the device
        if number == 0:
            began = time.perf_counter()
        for tensor in tensors:
            send(tensor)
        wait()
    return 1000 * (time.perf_counter() - began) / _TRANSFERS


def _warmed(batches: Iterator[Any], *, seconds: float, least: int, cycle: int) -> float:
    """Take batches for so long, so many at least, and whole cycles; gives how long the first one took."""
    began = time.perf_counter()
    next(batches)
    first_batch_s = time.perf_counter() - began
    taken = 1
    while taken < least or taken % cycle or time.perf_counter() - began < seconds:
        next(batches)
        taken += 1
    return first_batch_s


@contextmanager
def _running(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """Batches without end. Threads and workers are gone after the block, however it ends."""
    batches = _endless(loader)
    try:
        yield batches
    finally:
        batches.close()  # type: ignore[attr-defined]
        running, loader._iterator = loader._iterator, None
        shutdown = getattr(running, "_shutdown_workers", None)
        if shutdown is not None:  # rather than when the garbage collector comes
            shutdown()
        gc.collect()


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def _timed(feed: Feed, batches: Iterator[Any], *, seconds: float, least: int, first_batch_s: float) -> Rate:
    loader, marks = feed.loader, [(0.0, 0)]
    before, cpu, read = _spent(loader), cpu_seconds(), read_bytes()  # reads last: counting the rest reads files, too
    began = time.perf_counter()
    samples = count = 0
    while count < least or count % feed.cycle or time.perf_counter() - began < seconds:
        samples += _samples(next(batches), loader)
        count += 1
        marks.append((time.perf_counter() - began, samples))
    elapsed = marks[-1][0]
    after = read_bytes()
    cpu = cpu_seconds() - cpu
    counted = feed.local and feed.way.parallel == 0 and read is not None and after is not None
    lowest, highest = _scatter(marks)
    return Rate(
        per_s=samples / elapsed,
        cpu_ms=1000 * cpu / samples,
        cores=cpu / elapsed,
        first_batch_s=first_batch_s,
        samples=samples,
        seconds=elapsed,
        spent=_difference(_spent(loader), before),
        lowest=lowest,
        highest=highest,
        read_mb=((after or 0) - (read or 0)) / samples / 1e6 if counted else None,
    )


def _with_steps(rate: Rate, loader: DataLoader, batches: Iterator[Any], *, seconds: float, step_s: float) -> Rate:
    # The first step finds nothing in advance, after a phase that took all there was.
    next(batches)
    time.sleep(step_s)
    before, waited = _spent(loader), loader.wait_s
    began = time.perf_counter()
    count = 0
    while count < _STEPS or time.perf_counter() - began < seconds:
        next(batches)
        time.sleep(step_s)
        count += 1
    elapsed = time.perf_counter() - began
    # What lay ready at the start can hide in a few steps that the loader is slower than the model; its rate tells.
    batch_s = rate.seconds / rate.samples * (loader.batch_size or 1)
    return replace(
        rate,
        waited=max((loader.wait_s - waited) / elapsed, 1 - step_s / batch_s),
        step_spent=_difference(_spent(loader), before),
        step_seconds=elapsed,
        step_batches=count,
    )


def _scatter(marks: Sequence[tuple[float, int]]) -> tuple[float | None, float | None]:
    """Samples per second in the slowest and the fastest third of the batches."""
    count = len(marks) - 1
    if count < _THIRDS:
        return None, None
    cuts = [marks[count * part // 3] for part in range(4)]
    rates = [(b[1] - a[1]) / max(b[0] - a[0], 1e-9) for a, b in pairwise(cuts)]
    return min(rates), max(rates)


def _samples(batch: Any, loader: DataLoader) -> int:
    """Samples in a batch; a transform may have taken the ids away, but then all batches are full."""
    ids = batch.get("obs_id") if isinstance(batch, dict) else None
    return len(ids) if isinstance(ids, list) else int(loader.batch_size or 1)


def _spent(loader: DataLoader) -> Spent:
    return Spent(**loader.stats.seconds, batches=loader.stats.batches)


def _difference(after: Spent, before: Spent) -> Spent:
    return Spent(
        after.read - before.read,
        after.transform - before.transform,
        after.collate - before.collate,
        after.batches - before.batches,
    )


def _cost(rate: Rate, storage_share: float, *, transform: bool) -> Cost:
    each = {name: 1000 * getattr(rate.spent, name) / rate.samples for name in ("read", "transform", "collate")}
    whole = 1000 * rate.seconds / rate.samples
    return Cost(
        storage=each["read"] * storage_share,
        decode=each["read"] * (1 - storage_share),
        transform=each["transform"] if transform else None,
        collate=each["collate"],
        other=max(0.0, whole - sum(each.values())),
    )
