"""Markdown tables of figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

__all__ = ["short", "table"]


def table(columns: Sequence[object], rows: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """The lines of a table of named rows.

    Args:
        columns: Their heads.
        rows: Name and cells of each.
    """
    yield f"| | {' | '.join(map(str, columns))} |"
    yield "|---|" + "---:|" * len(columns)
    for name, cells in rows:
        yield f"| {name} | {' | '.join(cells)} |"


def short(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
