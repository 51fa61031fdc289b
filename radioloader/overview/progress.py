"""The progress bar of a report, on stderr; plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Bar"]

_LINE_EVERY_S = 10.0


class Bar:
    """Volumes that were looked at, and time that remains.

    Args:
        total: Volumes in all.
        shown: Whether there is one.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total, self._shown, self._done = total, shown, 0
        self._started = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Bar:
        if not self._shown:
            return self
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=sys.stderr)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("report"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("volumes, left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("report", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown and kind is None:
            self._line()

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif self._shown and time.monotonic() - self._last >= _LINE_EVERY_S:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        seconds = self._last - self._started
        left = f", {seconds / self._done * (self._total - self._done):.0f} s left" if self._done < self._total else ""
        self._console.print(
            f"report {self._done}/{self._total} volumes{left}", markup=False, highlight=False, soft_wrap=True
        )
