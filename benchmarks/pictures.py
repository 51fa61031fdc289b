"""Bars with their spread. Drawn on figures of their own: no pyplot, no global state, no display."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.report import Entry

__all__ = ["Bar", "draw", "draw_bars", "draw_lines", "draw_points"]

_OURS, _THEIRS, _DARK, _MUTED = "#1f6feb", "#b6c2cf", "#24292f", "#6e7781"
_LOG = 8.0  # a panel whose values are further apart is drawn on a logarithmic axis


def draw(path: Path, title: str, caption: str, entries: Sequence[Entry]) -> None:
    """One panel below the other, bars from best to worst (studies in their own order).

    A bar is the median, the line on it goes from lowest to highest, dots are repetitions.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.values:
            panels.setdefault(entry.panel, []).append(entry)
    if not panels:
        return
    heights = [0.3 * len(inside) + 0.75 for inside in panels.values()]
    figure = Figure(figsize=(9, sum(heights) + 0.9), facecolor="white", layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (panel, inside) in zip(axes, panels.items(), strict=True):
        if not inside[0].study:
            inside.sort(key=lambda entry: entry.median, reverse=not inside[0].lower)
        _panel(ax, panel, inside)
    figure.suptitle(title, color=_DARK, fontsize=12)
    figure.supxlabel(_wrapped(caption), color=_MUTED, fontsize=6.5)
    figure.savefig(path, dpi=110)


def _panel(ax: Any, panel: str, entries: Sequence[Entry]) -> None:
    medians = [entry.median for entry in entries]
    lows = [min(entry.values) for entry in entries]
    highs = [max(entry.values) for entry in entries]
    log = min(lows) > 0 and max(highs) / min(lows) > _LOG
    start = min(lows) / 2 if log else 0.0
    rows = list(range(len(entries)))
    widths = [median - start for median in medians]
    ax.barh(rows, widths, left=start, height=0.66, color=[_OURS if entry.ours else _THEIRS for entry in entries])
    ax.hlines(rows, lows, highs, color=_DARK, linewidth=1.2)
    for row, entry in zip(rows, entries, strict=True):
        ax.plot(entry.values, [row] * len(entry.values), ".", color=_DARK, markersize=3)
        ax.annotate(
            f"{entry.median:.3g}" if entry.median < 100 else f"{entry.median:.0f}",
            (highs[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    ax.set_yticks(rows, [entry.label for entry in entries], fontsize=7.5)
    ax.set_ylim(len(entries) - 0.4, -0.6)
    if log:
        ax.set_xscale("log")
        ax.set_xlim(start, max(highs) * (max(highs) / start) ** 0.1)
    else:
        ax.set_xlim(0, (max(highs) or 1) * 1.12)
    better = "lower is better" if entries[0].lower else "higher is better"
    ax.set_title(f"{panel}  ({entries[0].unit}, {better}{', logarithmic' if log else ''})", fontsize=9, loc="left")
    ax.tick_params(axis="x", labelsize=7.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


@dataclass(frozen=True)
class Bar:
    """A contestant.

    Attributes:
        label: Its name.
        ours: Whether it is radioloader.
        values: By what was measured, one for each repetition; none where it has no such figure.
    """

    label: str
    ours: bool
    values: Mapping[str, Sequence[float]]


def draw_bars(path: Path, title: str, caption: str, panels: Mapping[str, Sequence[Bar]]) -> None:
    """A row for each panel, and in it side by side what was measured of its contestants: medians on logarithmic axes, and repetitions."""
    from matplotlib.figure import Figure

    if not panels:
        return
    heights = [0.3 * len(bars) + 0.9 for bars in panels.values()]
    columns = len(next(iter(panels.values()))[0].values)
    figure = Figure(figsize=(3 + 3.5 * columns, sum(heights) + 0.9), facecolor="white", layout="constrained")
    axes = figure.subplots(len(panels), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (panel, bars) in zip(axes, panels.items(), strict=True):
        for column, what in enumerate(bars[0].values):
            _bars_of(row[column], panel if column == 0 else "", what, bars, named=column == 0)
    figure.suptitle(title, color=_DARK, fontsize=12)
    figure.supxlabel(_wrapped(caption), color=_MUTED, fontsize=6.5)
    figure.savefig(path, dpi=110)


def _bars_of(ax: Any, title: str, what: str, bars: Sequence[Bar], *, named: bool) -> None:
    from matplotlib.ticker import NullFormatter

    found = {row: values for row, bar in enumerate(bars) if (values := bar.values[what])}
    start = min((min(values) for values in found.values()), default=1.0) / 2
    end = max((max(values) for values in found.values()), default=1.0)
    for row, values in found.items():
        median = statistics.median(values)
        ax.barh(row, median - start, left=start, height=0.66, color=_OURS if bars[row].ours else _THEIRS)
        ax.hlines(row, min(values), max(values), color=_DARK, linewidth=1.2)
        ax.plot(values, [row] * len(values), ".", color=_DARK, markersize=3)
        ax.annotate(
            f"{median:.3g}",
            (max(values), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    ax.set_yticks(range(len(bars)), [bar.label if named else "" for bar in bars], fontsize=7.5)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.set_xlim(start, end * (end / start) ** 0.15)
    better = "higher is better" if what.endswith("/s") else "lower is better"
    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel(f"{what} ({better}, logarithmic)", fontsize=7.5)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelsize=7.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def draw_lines(
    path: Path, title: str, caption: str, panels: Mapping[str, Mapping[str, Mapping[int, float]]], xlabel: str
) -> None:
    """Panels side by side; in each a line for each name, from number (of workers, of threads) to value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 4.6), facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (panel, lines) in zip(axes, panels.items(), strict=True):
        for name, points in lines.items():
            ours = name.startswith("radioloader")
            style = {"linewidth": 2.0 if ours else 1.2, "linestyle": "-" if ours else "--"}
            ax.plot(list(points), list(points.values()), marker="o", markersize=3, label=name, **style)
        ax.set_yscale("log")
        ax.set_title(panel, fontsize=9, loc="left")
        ax.set_xlabel(xlabel, fontsize=8)
        ax.tick_params(labelsize=7.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=6.5, frameon=False)
    figure.suptitle(title, color=_DARK, fontsize=12)
    figure.supxlabel(_wrapped(caption), color=_MUTED, fontsize=6.5)
    figure.savefig(path, dpi=110)


def draw_points(
    path: Path,
    title: str,
    caption: str,
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    labels: tuple[str, str],
) -> None:
    """Panels side by side; in each a named point for each pair of values, both of them better when they are low."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels), 5.2), facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (panel, points) in zip(axes, panels.items(), strict=True):
        for name, (x, y) in points.items():
            preset = "preset" in name
            ax.plot(x, y, "o", color=_OURS if preset else _THEIRS, markersize=7 if preset else 4)
            ax.annotate(
                name,
                (x, y),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=_OURS if preset else _MUTED,
                fontweight="bold" if preset else "normal",
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.margins(x=0.25)
        ax.set_title(panel, fontsize=9, loc="left")
        ax.set_xlabel(labels[0], fontsize=8)
        ax.set_ylabel(labels[1], fontsize=8)
        ax.tick_params(which="both", labelsize=7)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    figure.suptitle(title, color=_DARK, fontsize=12)
    figure.supxlabel(_wrapped(caption), color=_MUTED, fontsize=6.5)
    figure.savefig(path, dpi=110)


def _wrapped(text: str, width: int = 150) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
