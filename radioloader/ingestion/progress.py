"""The progress bar of an ingest, on stderr; plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from radioloader.ingestion.report import IngestItem

__all__ = ["ProgressBar"]

_LINE_EVERY_S = 10.0


class ProgressBar:
    """Subjects done, rate in MB of voxels and subjects a second, time that remains.

    Args:
        total: Subjects in all.
    """

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(file=sys.stderr)
        self._total, self._done, self._failed, self._bytes = total, 0, 0, 0
        self._started = self._last = time.monotonic()
        self._bar: Any = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("ingest"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}, elapsed"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("ingest", total=total, rate="")

    def start(self) -> None:
        """Show it."""
        if self._bar is not None:
            self._bar.start()

    def stop(self) -> None:
        """Take it down."""
        if self._bar is not None:
            self._bar.stop()
        else:
            self._line()

    def advance(self, item: IngestItem) -> None:
        """Count one subject; a failure is printed as it happens."""
        self._done += 1
        self._bytes += item.voxel_bytes
        if item.status == "failed":
            self._failed += 1
            self._console.print(
                f"failed {item.subject!r}: {item.reason}", style="red", markup=False, highlight=False, soft_wrap=True
            )
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate())
        elif time.monotonic() - self._last >= _LINE_EVERY_S:
            self._line()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{self._done / seconds:.1f} subjects/s, {self._bytes / seconds / 1e6:.0f} MB/s"

    def _line(self) -> None:
        self._last = time.monotonic()
        seconds = self._last - self._started
        left = f", {seconds / self._done * (self._total - self._done):.0f} s left" if self._done else ""
        self._console.print(
            f"ingest {self._done}/{self._total} subjects, {self._failed} failed, {self._rate()}{left}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
