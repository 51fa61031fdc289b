"""Progress on stderr: a bar, or plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

__all__ = ["Bar"]

_LINE_EVERY_S = 10.0


class Bar:
    """How much is done, and the time that remains.

    Attributes:
        total: Steps in all.
        shown: Whether there is one.
        done: Steps that are done.

    Args:
        name: What runs, such as ``"report"``.
        total: As the attribute.
        unit: What the steps are, such as ``"volumes"``.
        shown: As the attribute.
        elapsed: Whether the bar also says how long it has been running.
    """

    def __init__(self, name: str, total: int, unit: str, *, shown: bool = True, elapsed: bool = False) -> None:
        self.total, self.shown, self.done = total, shown, 0
        self._name, self._unit, self._elapsed = name, unit, elapsed
        self._started = self._last = time.monotonic()
        self._console: Any = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(last=kind is None)

    def start(self) -> None:
        """Show it."""
        if not self.shown:
            return
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
        if self._console.is_terminal:
            elapsed = [TextColumn("{task.fields[text]}, elapsed"), TimeElapsedColumn(), TextColumn("left")]
            self._bar = Progress(
                TextColumn(self._name),
                BarColumn(),
                MofNCompleteColumn(),
                *(elapsed if self._elapsed else [TextColumn("{task.fields[text]}, left")]),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(self._name, total=self.total, text=self.text())
            self._bar.start()

    def stop(self, *, last: bool = True) -> None:
        """Take it down; ``last``: where there are lines, with one about the end."""
        if self._bar is not None:
            self._bar.stop()
        elif self.shown and last:
            self._print_line()

    def update(self, done: int) -> None:
        """So many are done."""
        self.done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=self.text())
        elif self.shown and time.monotonic() - self._last >= _LINE_EVERY_S:
            self._print_line()

    def failed(self, subject: str, reason: str) -> None:
        """Say what failed."""
        if self.shown:
            text = f"failed {subject!r}: {reason}"
            self._console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """For how long it has been running; never 0."""
        return max(time.monotonic() - self._started, 1e-3)

    @property
    def left(self) -> float:
        """Seconds that remain; 0 as long as nothing is known."""
        return self.seconds / self.done * (self.total - self.done) if self.done else 0.0

    def text(self) -> str:
        """What stands behind the count beside the bar."""
        return self._unit

    def line(self) -> str:
        """What stands behind the count in a line."""
        return f"{self._unit}, {self.left:.0f} s left" if self.done < self.total else self._unit

    def _print_line(self) -> None:
        self._last = time.monotonic()
        text = f"{self._name} {self.done}/{self.total} {self.line()}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
