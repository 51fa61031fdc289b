"""How rates grow with worker processes and with threads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.model import Record
from benchmarks.pictures import draw_lines
from benchmarks.tables import table

__all__ = ["scaling", "write_scaling"]

_POINTS = 3  # numbers of workers or threads that make a line


def scaling(records: Sequence[Record]) -> dict[str, dict[str, dict[int, float]]]:
    """Panel -> contestant -> number of workers (or threads) -> median patches per second; lines of at least three points."""
    values: dict[tuple[str, str, int], list[float]] = {}
    for record in records:
        if record["workload"] != "patches" or "value" not in record:
            continue
        name = record["peer"] + (f", {record['dtype']}" if record["dtype"] != "stored" else "")
        for kind, other in (("workers", "threads"), ("threads", "workers")):
            if not record[other]:
                values.setdefault((f"{record['size']}^3, {kind}", name, record[kind]), []).append(record["value"])
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for panel, name, number in sorted(values, key=lambda key: (int(key[0].split("^")[0]), key)):
        points = panels.setdefault(panel, {}).setdefault(name, {})
        points[number] = statistics.median(values[panel, name, number])
    long = {
        panel: {name: points for name, points in lines.items() if len(points) >= _POINTS}
        for panel, lines in panels.items()
    }
    return {panel: lines for panel, lines in long.items() if lines}


def write_scaling(folder: Path, facts: dict[str, Any], where: str, records: Sequence[Record]) -> None:
    """``scaling.json``, ``.md`` and ``.png``, where there is enough to show."""
    panels = scaling(records)
    if not panels:
        return
    title = "Patches per second by the number of worker processes, and of threads"
    (folder / "scaling.json").write_text(json.dumps({"title": title, "run": facts, "panels": panels}, indent=1) + "\n")
    lines = [f"# {title}\n\n{where}\n"]
    for panel, contestants in panels.items():
        numbers = sorted({number for points in contestants.values() for number in points})
        rows = []
        for name, points in contestants.items():
            cells = [f"{points[number]:.1f}" if number in points else "" for number in numbers]
            gain = f"{max(points.values()) / points[0]:.2f}" if points.get(0) else ""
            rows.append((name, [*cells, gain]))
        lines += [f"## {panel}\n", *table([*numbers, "best / none"], rows), ""]
    (folder / "scaling.md").write_text("\n".join(lines))
    draw_lines(folder / "scaling.png", title, where, panels, "worker processes, or threads (0: neither)")
