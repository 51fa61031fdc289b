"""The grid of tiles and filters: one table for each kind of volume, and a picture of room against time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.model import Record
from benchmarks.pictures import draw_points
from benchmarks.tables import short, table

__all__ = ["grid", "write_grid"]

Grid = dict[str, dict[str, dict[str, float]]]


def grid(records: Sequence[Record]) -> Grid:
    """Kind of volume -> settings -> what was measured -> value, in the order of the records."""
    found: Grid = {}
    for record in records:
        if record["workload"] == "study" and record["detail"] == "tiles" and "value" in record:
            kind, _, what = record["what"].partition(": ")
            found.setdefault(kind, {}).setdefault(record["name"], {})[what] = record["value"]
    return found


def write_grid(folder: Path, facts: dict[str, Any], where: str, records: Sequence[Record]) -> None:
    """``tiles.json``, ``.md`` and ``.png``, where the grid was measured."""
    found = grid(records)
    if not found:
        return
    title = "Tiles and filters: processor time of a read in one thread (ms), room on disk (MB), processor time of writing (ms)"
    (folder / "tiles.json").write_text(json.dumps({"title": title, "run": facts, "grid": found}, indent=1) + "\n")
    lines = [f"# {title}\n\n{where}\n"]
    for kind, settings in found.items():
        columns = list(next(iter(settings.values())))
        rows = ((name, [short(values[column]) for column in columns]) for name, values in settings.items())
        lines += [f"## {kind}\n", *table(columns, rows), ""]
    (folder / "tiles.md").write_text("\n".join(lines))
    panels = {
        kind: {name: (values["on disk"], values["64^3"]) for name, values in settings.items() if "64^3" in values}
        for kind, settings in found.items()
    }
    labels = ("MB on disk", "ms for a random 64^3 region")
    if any(panels.values()):
        draw_points(folder / "tiles.png", "Room against time", where, {k: p for k, p in panels.items() if p}, labels)
