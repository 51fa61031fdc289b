"""What came of the published pipelines: one table for each, and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.model import Record
from benchmarks.pictures import Bar, draw_bars
from benchmarks.pipelines import PIPELINES
from benchmarks.tables import short, table

__all__ = ["results", "write_pipelines"]

_COLUMNS = (
    "batches/s",
    "min-max",
    "radioloader is so many times faster",
    "CPU s a batch",
    "preparation, s",
    "first batch, s",
    "peak PSS, MiB",
)


def results(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each pipeline, in the order in which they were measured."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record["workload"] == "study" and record["detail"] == "pipelines" and record.get("what") in PIPELINES:
            found.setdefault(record["what"], []).append(record)
    return found


def write_pipelines(folder: Path, facts: Mapping[str, Any], where: str, records: Sequence[Record]) -> None:
    """``pipelines.json``, ``.md`` and ``.png``, where pipelines were measured."""
    found = results(records)
    broken = [record for record in records if record["detail"] == "pipelines" and "what" not in record]
    if not found and not broken:
        return
    title = "Published pipelines, in radioloader's datasets and in the library's own"
    content = {"title": title, "run": facts, "pipelines": found}
    (folder / "pipelines.json").write_text(json.dumps(content, indent=1) + "\n")
    subjects = max((record["subjects"] for inside in found.values() for record in inside), default=0)
    lines = [f"# {title}\n\n{where}; {subjects} subjects in each pipeline\n"]
    for name, inside in found.items():
        lines += _section(name, inside)
    lines += [f"The study {_reason(record)}\n" for record in broken]
    used = dict.fromkeys(_versions(record) for inside in found.values() for record in inside if record.get("versions"))
    lines += [f"Versions: {'; '.join(used)}\n"] if used else []
    (folder / "pipelines.md").write_text("\n".join(lines))
    panels = {PIPELINES[name].title: _bars(inside) for name, inside in found.items()}
    drawn = {panel: bars for panel, bars in panels.items() if bars}
    draw_bars(folder / "pipelines.png", f"Published pipelines, {subjects} subjects in each", where, drawn)


def _section(name: str, records: Sequence[Record]) -> Iterator[str]:
    pipeline = PIPELINES[name]
    good = [record for record in records if "value" in record]
    yield f"## {pipeline.title}\n\n[Published]({pipeline.source}); a batch is {pipeline.batch}.\n"
    yield from table(_COLUMNS, ((record["name"], _cells(record, _best(good))) for record in good))
    yield ""
    failed = [record for record in records if "value" not in record]
    if failed:
        yield "Without a figure:\n"
        yield from (f"- {record['name']}: {_reason(record)}" for record in failed)
        yield ""


def _reason(record: Record) -> str:
    return (
        f"failed: {record['error']}" if "error" in record else f"skipped: {record.get('skipped', 'was not measured')}"
    )


def _best(records: Sequence[Record]) -> Record | None:
    """radioloader's fastest way to the same samples: what others are compared with."""
    mine = [record for record in records if record["ours"] and record["same"]]
    return max(mine, key=lambda record: record["value"], default=None)


def _cells(record: Record, best: Record | None) -> list[str]:
    rounds: dict[str, list[float]] = record["rounds"]
    rates = rounds["rate"]
    spread = f"{short(min(rates))}-{short(max(rates))}" if len(rates) > 1 else "once"
    return [
        short(record["value"]),
        spread,
        "" if best is None or not record["same"] else _ratio(best, record),
        _median(rounds.get("cpu_ms", ()), 1000),
        _median(rounds.get("preparation", ())) + (", in each process" if record["filled"] else ""),
        _median(rounds.get("first_batch", ())),
        _median(rounds.get("peak_pss_mib", ())),
    ]


def _median(values: Sequence[float], divisor: float = 1) -> str:
    return short(statistics.median(values) / divisor) if values else ""


def _ratio(ours: Record, theirs: Record) -> str:
    """The ratio of the medians, and in brackets the lowest and highest one within a round."""
    ratio = short(ours["value"] / theirs["value"])
    pairs = list(zip(ours["rounds"]["rate"], theirs["rounds"]["rate"], strict=False))  # what is slow is measured once
    if ours is theirs or len(pairs) < 2:
        return ratio
    each = [mine / other for mine, other in pairs]
    return f"{ratio} ({short(min(each))}-{short(max(each))})"


def _bars(records: Sequence[Record]) -> list[Bar]:
    """Of each contestant the fastest way, with the time to the first batch beside."""
    best: dict[str, Record] = {}
    first: dict[str, Sequence[float]] = {}
    for record in records:
        name = record["contestant"]
        if "value" in record and (name not in best or record["value"] > best[name]["value"]):
            best[name] = record
        first.setdefault(name, record.get("rounds", {}).get("first_batch", ()))
    return [
        Bar(
            record["name"], record["ours"], {"batches/s": record["rounds"]["rate"], "s to the first batch": first[name]}
        )
        for name, record in best.items()
    ]


def _versions(record: Record) -> str:
    return " ".join(f"{name} {version}" for name, version in record["versions"].items())
