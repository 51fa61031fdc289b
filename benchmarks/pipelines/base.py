"""How a contestant is timed, in a process that was started for it."""

from __future__ import annotations

import abc
import gc
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.machine import cpu_seconds
from benchmarks.model import Job, Record
from benchmarks.peers.base import Feed, Peer

__all__ = ["PipelinePeer"]


class PipelinePeer(Peer, abc.ABC):
    """A contestant of one pipeline or several.

    A job's ``detail`` is the name of the pipeline and what is measured, as ``name:what``: ``prepare`` (seconds of what is done once and
    kept on disk), ``first batch`` (seconds since before the interpreter was started, with what was prepared), ``rate`` (batches per
    second; goes on where ``first batch`` of the same number of workers ended).

    Attributes:
        filled: Whether making the dataset prepares all of it, in each process anew; its seconds are part of the first batch's.
    """

    filled: ClassVar[bool] = False

    def __init__(self, cohort: Any) -> None:
        super().__init__(cohort)
        self._dataset: Any = None
        self._running: tuple[Job, Iterator[Any], Feed] | None = None

    def kept(self, name: str) -> Path:
        """Folder of what is prepared for a pipeline."""
        return Path(self.cohort.folder) / "prepared" / f"{type(self).__name__}-{name}"

    def prepare_pipeline(self, name: str) -> None:
        """What is done once, and kept on disk; timed. Nothing, where nothing is kept."""

    @abc.abstractmethod
    def dataset(self, name: str) -> Any:
        """The dataset, with what was prepared."""

    @abc.abstractmethod
    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        """Batches without end, or epoch by epoch."""

    def pipeline(self, job: Job, settings: dict[str, Any]) -> Record:
        name, _, what = job.detail.partition(":")
        if what == "prepare":
            shutil.rmtree(self.kept(name), ignore_errors=True)
            started = time.perf_counter()
            self.prepare_pipeline(name)
            return {"value": round(time.perf_counter() - started, 3), "unit": "s"}
        values: Record = {}
        if self._dataset is None:
            started = time.perf_counter()
            self._dataset = self.dataset(name)
            if self.filled:
                values["filled_s"] = round(time.perf_counter() - started, 3)
        batches, feed = self._batches(name, job)
        if what == "first batch":
            next(batches)
            return values | {"value": round(time.time() - settings["started"], 3), "unit": "s"}
        return _rate(batches, feed, job, settings)

    def _batches(self, name: str, job: Job) -> tuple[Iterator[Any], Feed]:
        if self._running is None or (self._running[0].workers, self._running[0].threads) != (job.workers, job.threads):
            if self._running is not None:
                self._running[1].close()  # type: ignore[attr-defined]
                self._running[2].close()
                self._running = None
                gc.collect()  # workers of the other way
            feed = self.loader(name, self._dataset, job)
            self._running = job, feed.endless(), feed
            if job.detail.endswith("rate"):
                next(self._running[1])
        return self._running[1], self._running[2]


def _rate(batches: Iterator[Any], feed: Feed, job: Job, settings: dict[str, Any]) -> Record:
    """Batches per second, after a warm-up: whole refills of a queue, and whole rounds of the workers."""
    step = feed.cycle if feed.cycle > 1 else max(1, job.workers)
    count, begun = 1, time.perf_counter()  # the first one has been taken
    while count % step or (count < 2 * step and time.perf_counter() - begun < settings["warm_s"]):
        next(batches)
        count += 1
    count, cpu, begun = 0, cpu_seconds(os.getpid()), time.perf_counter()
    while count % step or time.perf_counter() - begun < settings["seconds"]:
        next(batches)
        count += 1
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds(os.getpid()) - cpu
    return {
        "value": round(count / seconds, 4),
        "unit": "batches/s",
        "batches": count,
        "seconds": round(seconds, 2),
        "cpu_ms": round(1000 * cpu / count, 1),
    }
