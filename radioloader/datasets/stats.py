"""What a worker is doing and where its time goes, in memory that the main process reads while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader.datasets import readtime

__all__ = ["TIMES", "LoaderStats", "busy", "count_batch", "count_skipped", "timed", "use"]

TIMES = ("read", "transform", "collate")
"""What is timed in the process that makes a batch, in seconds."""

_SKIPPED = len(TIMES)
_BATCHES = _SKIPPED + 1
_STORAGE = _BATCHES + 1
_MEASURED = _STORAGE + 1
_READS = _MEASURED + 1
_ASKED = _READS + 1
_BUSY = _ASKED + 1
_NAMED = 16
_FIELDS = _BUSY + _NAMED

Row = npt.NDArray[np.float64]


class _Mine(threading.local):
    """The row in which this thread counts."""

    def __init__(self) -> None:
        self.row: Row = np.zeros(_FIELDS)


_mine = _Mine()


class LoaderStats:
    """One row for each process or thread that makes batches; where there are no workers, row 0 is that of whoever takes batches.

    Args:
        workers: Number of worker processes.
        threads: Number of threads that read ahead.
    """

    def __init__(self, workers: int, threads: int = 0) -> None:
        self.table = torch.zeros((max(1, workers, threads + 1), _FIELDS), dtype=torch.float64)
        if workers:
            self.table.share_memory_()  # type: ignore[no-untyped-call]

    def row(self, number: int) -> Row:
        """The row of one worker."""
        row: Row = self.table[number].numpy()
        return row

    @property
    def seconds(self) -> dict[str, float]:
        """Time by what it went into, over all workers."""
        return dict(zip(TIMES, self.table[:, : len(TIMES)].sum(0).tolist(), strict=True))

    @property
    def skipped(self) -> int:
        """Samples that could not be read and were left out."""
        return int(self.table[:, _SKIPPED].sum())

    @property
    def batches(self) -> int:
        """Batches that were made."""
        return int(self.table[:, _BATCHES].sum())

    def measure_reads(self) -> None:
        """Have some of the reads say how much of them is storage; see :func:`~radioloader.datasets.readtime.measured`."""
        self.table[:, _ASKED] = 1.0

    @property
    def measured_reads(self) -> tuple[float, float]:
        """Seconds in storage, and seconds altogether, of those reads that were measured."""
        return float(self.table[:, _STORAGE].sum()), float(self.table[:, _MEASURED].sum())

    def busy_with(self, number: int) -> list[int]:
        """Volumes of the batch that a worker was making when it was last heard of."""
        return [int(value) - 1 for value in self.row(number)[_BUSY:] if value]


def use(row: Row) -> None:
    """Count in ``row`` from now on, in this thread."""
    _mine.row = row


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Add the time that the block takes."""
    row, started = _mine.row, time.perf_counter()
    try:
        if what == "read" and row[_ASKED]:
            row[_READS] += 1
            if row[_READS] % readtime.EVERY == 1:
                with readtime.measured() as found:
                    yield
                row[_STORAGE] += found["storage"]
                row[_MEASURED] += found["all"]
                return
        yield
    finally:
        row[TIMES.index(what)] += time.perf_counter() - started


@contextmanager
def busy(volumes: Sequence[int]) -> Iterator[None]:
    """Say that a batch of these volumes is being made in the block; a process that is killed in it leaves that behind."""
    row: Any = _mine.row
    row[_BUSY:] = 0
    named = [volume + 1 for volume in dict.fromkeys(volumes)][:_NAMED]
    row[_BUSY : _BUSY + len(named)] = named
    try:
        yield
    finally:
        row[_BUSY:] = 0


def count_batch() -> None:
    """Count a batch that was made."""
    _mine.row[_BATCHES] += 1


def count_skipped(samples: int) -> None:
    """Count samples that were left out."""
    _mine.row[_SKIPPED] += samples
