"""The progress bar of a prediction, on stderr; plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Bar"]

_LINE_EVERY_S = 10.0


class Bar:
    """Windows and subjects done, windows a second, time that remains.

    Args:
        windows: In all.
        subjects: In all.
        shown: Whether there is one.
    """

    def __init__(self, windows: int, subjects: int, *, shown: bool) -> None:
        self._windows, self._subjects, self._shown = windows, subjects, shown
        self._started = self._last = time.monotonic()
        self._done = self._finished = 0
        self._bar: Any = None

    def __enter__(self) -> Bar:
        if not self._shown:
            return self
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=sys.stderr)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("predict"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("windows, {task.fields[subjects]}, left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("predict", total=self._windows, subjects=self._text())
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown and kind is None:
            self._line()

    def update(self, windows: int, subjects: int) -> None:
        """So many are done."""
        self._done, self._finished = windows, subjects
        if self._bar is not None:
            self._bar.update(self._task, completed=windows, subjects=self._text())
        elif self._shown and time.monotonic() - self._last >= _LINE_EVERY_S:
            self._line()

    def failures(self, failed: Mapping[str, str]) -> None:
        """Say what failed."""
        if self._shown:
            for subject, reason in failed.items():
                text = f"failed {subject!r}: {reason}"
                self._console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)

    def _text(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        return f"{self._finished}/{self._subjects} subjects, {rate:.1f} windows/s"

    def _line(self) -> None:
        self._last = time.monotonic()
        left = (self._last - self._started) / self._done * (self._windows - self._done) if self._done else 0.0
        text = f"predict {self._done}/{self._windows} windows, {self._text()}, {left:.0f} s left"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
