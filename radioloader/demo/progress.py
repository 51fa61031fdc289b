"""What the demo shows as it runs: on a terminal a live bar, in a log file a line now and then; and tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["Step", "Steps", "megabytes", "print_dice", "print_speeds"]

_LOG_EVERY_S = 5.0


class Step:
    """One running step: call :meth:`advance` for each piece of work done."""

    def __init__(self, console: Console, *, title: str, total: int, bar: Progress | None) -> None:
        self.summary = ""
        self._console, self._title, self._total, self._bar = console, title, total, bar
        self._task: TaskID | None = bar.add_task(title, total=total, note="") if bar else None
        self._done = 0
        self._said = time.monotonic()

    def advance(self, note: str = "") -> None:
        """Count one piece of work; `note` is shown beside the bar."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, note=note)
        elif time.monotonic() - self._said >= _LOG_EVERY_S and self._done < self._total:
            self._said = time.monotonic()
            self._console.print(f"  {self._title}: {self._done}/{self._total} {note}", highlight=False, markup=False)


class Steps:
    """The numbered steps of a run, their times, and how they are shown.

    Attributes:
        seconds: Wall time of each finished step, by its key, in the order they ran.
    """

    def __init__(self, console: Console, *, count: int) -> None:
        self.seconds: dict[str, float] = {}
        self._console, self._count = console, count

    @contextmanager
    def step(self, key: str, title: str, *, total: int = 0) -> Iterator[Step]:
        """Run one step; without `total` the body shows its own progress."""
        number = f"[bold cyan]{len(self.seconds) + 1}/{self._count}[/] [bold]{title}[/]"
        self._console.print(number, highlight=False)
        start = time.perf_counter()
        # No characters outside ASCII here: the output may go to a terminal or a file that cannot take them.
        if total and self._console.is_terminal:
            columns = (
                TextColumn("  "),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            # Few refreshes: drawing takes processor time from what is timed.
            with Progress(*columns, console=self._console, transient=True, refresh_per_second=4) as bar:
                step = Step(self._console, title=title, total=total, bar=bar)
                yield step
        else:
            step = Step(self._console, title=title, total=total, bar=None)
            yield step
        self.seconds[key] = round(time.perf_counter() - start, 2)
        text = f"    [green]done[/] in {self.seconds[key]:.1f} s"
        self._console.print(text + (f": {step.summary}" if step.summary else ""), highlight=False)


def print_dice(console: Console, dice: Mapping[str, Any]) -> None:
    """Table of Dice by held-out subject and class, from :func:`~radioloader.demo.metrics.dice_facts`."""
    table = Table(title="Dice of the held-out subjects", title_justify="left", box=box.ASCII2)
    table.add_column("subject")
    for name in (*dice["classes"], "mean"):
        table.add_column(name, justify="right")
    for subject, scores in dice["subjects"].items():
        table.add_row(subject, *(f"{value:.4f}" for value in scores.values()))
    table.add_section()
    table.add_row("mean", *(f"{value:.4f}" for value in dice["classes"].values()), f"{dice['mean']:.4f}")
    console.print(table)


def print_speeds(console: Console, speed: Mapping[str, Any]) -> None:
    """Table of the speeds and what was compared, from :func:`~radioloader.demo.metrics.speed_facts`."""
    table = Table(title="Patches per second", title_justify="left", box=box.ASCII2)
    table.add_column("way of loading", no_wrap=True)
    for name in ("patches/s", "radioloader is", "CPU ms/patch"):
        table.add_column(name, justify="right")
    for i, way in enumerate(speed["ways"]):
        factor = f"{way['ratio']:.1f} times as fast" if i else ""
        table.add_row(way["name"], f"{way['patches_per_s']:.1f}", factor, f"{way['cpu_ms_per_patch']:.1f}")
    console.print(table)
    console.print(speed["statement"], highlight=False, style="dim")


def megabytes(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / 1e6:.1f} MB"
