"""Results: one JSON file, one Markdown table and one picture for each topic, and the verdict table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.grid import write_grid
from benchmarks.model import Record, config_of
from benchmarks.pictures import draw
from benchmarks.pipelines.report import write_pipelines
from benchmarks.scaling import write_scaling
from benchmarks.studies import STUDIES
from benchmarks.verdict import judge, verdict_table

__all__ = ["Entry", "entries_of", "read", "topics", "write"]


@dataclass(frozen=True)
class Entry:
    """One bar, one line of a table.

    Attributes:
        panel: What is compared.
        label: Contestant and configuration.
        ours: Whether it is radioloader.
        study: Whether all of its panel is: such lines keep their order, and the first is what others are compared with.
        values: One for each repetition; a single study's median, lowest and highest.
        unit: Their unit; seconds, ms, MB, MiB, times and volumes are better when they are low, all others when they are high.
        cpu: Processor time for each sample, or share of a core while it ran, median, where it was measured.
        peak_mib: Highest PSS of the process tree meanwhile, median, where it was sampled.
        delivered: dtypes of image and label.
        versions: Of the contestant's packages.
        reason: Why there are no values.
    """

    panel: str
    label: str
    ours: bool
    study: bool
    values: tuple[float, ...]
    unit: str
    cpu: str = ""
    peak_mib: float | None = None
    delivered: str = ""
    versions: str = ""
    reason: str = ""

    @property
    def lower(self) -> bool:
        """Whether low values are good ones."""
        return self.unit in ("s", "ms", "MB", "MiB", "times", "volumes")

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


Panel = Callable[[Record], str]


def topics() -> dict[str, tuple[str, str, str, Panel]]:
    """By name: title, workload, the field that is shown, and what the panel of a record is called."""
    return {
        "patches": ("Random patches of image and label, batches of 4", "patches", "value", lambda r: f"{r['size']}^3"),
        "volumes": ("Whole volumes of image and label", "volumes", "value", lambda r: "volumes"),
        "slices": ("Random slices of image and label, batches of 4", "slices", "value", lambda r: r["plane"]),
        "cold": ("Random 64^3 patches, page cache emptied before", "cold", "value", lambda r: "64^3, cold"),
        "first-batch": ("Time to the first batch from a cold Python", "first-batch", "value", lambda r: "first batch"),
        "memory": (
            "Highest PSS of the process tree while patches were timed",
            "patches",
            "peak_pss_mib",
            lambda r: f"{r['size']}^3",
        ),
        "preparation": ("One-off preparation of the cohort", "prepare", "value", lambda r: "preparation"),
        "storage": ("Bytes on disk", "prepare", "bytes", lambda r: "on disk"),
        "calls": ("Single operations on an open data set, image only", "call", "value", lambda r: r["detail"]),
        **{
            name: (f"radioloader alone: {text}", f"study:{name}", "value", lambda r: r.get("what", r.get("when", "")))
            for name, text in STUDIES.items()
            if name not in ("tiles", "pipelines")  # tables of their own: write_grid, write_pipelines
        },
    }


def entries_of(topic: str, records: Sequence[Record]) -> list[Entry]:
    """A topic's lines, in the order in which they were first measured."""
    _, workload, measure, panel = topics()[topic]
    workload, _, study = workload.partition(":")
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record["workload"] == workload and study in ("", record["detail"]):
            key = (*config_of(record), *(record.get(name) for name in ("name", "what", "when")))
            groups.setdefault(key, []).append(record)
    wanted = [
        g for g in groups.values() if any(r.get(name) is not None for r in g for name in (measure, "error", "skipped"))
    ]
    return [_entry(group, measure, panel) for group in wanted]


def _entry(group: list[Record], measure: str, panel: Panel) -> Entry:
    first = group[0]
    good = [r for r in group if r.get(measure) is not None]
    values = [r[measure] for r in good]
    unit = {"bytes": "MB", "peak_pss_mib": "MiB"}.get(measure, good[0].get("unit", "") if good else "")
    if measure == "bytes":
        values = [value / 1e6 for value in values]
    if "lowest" in first and len(values) == 1:
        values = [first["lowest"], *values, first["highest"]]
    study = first["workload"] == "study"
    label = ", ".join([str(first.get("name", first["peer"])), *_how(first)])
    label += ", in an earlier run" if first.get("reused") and measure == "value" else ""
    peaks = [r["peak_pss_mib"] for r in good if "peak_pss_mib" in r]
    reason = next((f"failed: {r['error']}" for r in group if "error" in r), "")
    reason = reason or next((f"skipped: {r['skipped']}" for r in group if "skipped" in r), "was not measured")
    return Entry(
        panel=panel(first) if good or not study else "",
        label=label,
        ours=first["peer"].startswith("radioloader"),
        study=study,
        values=tuple(values),
        unit=unit,
        cpu=_cpu(good),
        peak_mib=statistics.median(peaks) if peaks and measure == "value" else None,
        delivered=f"{first['image_dtype']}, {first['label_dtype']}" if "image_dtype" in first else "",
        versions=" ".join(f"{name} {version}" for name, version in first.get("versions", {}).items()),
        reason="" if values else reason,
    )


def _best_of_each(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Of each panel and contestant the fastest configuration."""
    best: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = entry.panel, entry.label.partition(",")[0]
        if entry.values and (key not in best or entry.median > best[key].median):
            best[key] = entry
    return iter(best.values())


def read(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    """Facts and records that a run left in its folder of results."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return json.loads((folder / "run.json").read_text()), [json.loads(line) for line in lines]


def write(folder: Path, facts: dict[str, Any], records: list[Record]) -> str:
    """Write tables, pictures and JSON files into ``folder``; returns the verdict table, where there was more than studies."""
    studies = facts.get("settings", {}).get("studies")
    if studies is not None:  # what these needed beside is no table of this run's
        records = [record for record in records if record["workload"] == "study"]
    for name, (title, *_rest) in topics().items():
        entries = entries_of(name, records)
        if not entries:
            continue
        content = {"title": title, "run": facts, "entries": [asdict(entry) for entry in entries]}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / f"{name}.md").write_text("\n".join(_markdown(title, facts, entries)))
        draw(folder / f"{name}.png", title, _where(facts), entries)
    summary = list(_best_of_each([e for name in ("patches", "slices", "volumes") for e in entries_of(name, records)]))
    draw(folder / "summary.png", "Each with its best number of workers or threads", _where(facts), summary)
    write_scaling(folder, facts, _where(facts), records)
    write_grid(folder, facts, _where(facts), records)
    write_pipelines(folder, facts, _where(facts), records)
    if studies is not None:
        return f"{_where(facts)}\n\n{', '.join(f'{name}.md' for name in studies)} in {folder}\n"
    verdicts = judge(records)
    table = verdict_table(verdicts)
    content = {"run": facts, "verdicts": [asdict(verdict) for verdict in verdicts]}
    (folder / "verdict.json").write_text(json.dumps(content, indent=1) + "\n")
    text = f"{_where(facts)}\n\n{table}\n"
    (folder / "verdict.md").write_text(f"# Verdict\n\n{text}")
    return text


def _where(facts: dict[str, Any]) -> str:
    """Machine, commit and date in a line."""
    at, cohort = facts["machine"], facts["cohort"]
    files = f"{cohort['subjects']} subjects of {'x'.join(map(str, cohort['shape']))} ({cohort['source']})"
    return (
        f"{at['cpu']}, {at['cores']} cores, {at['memory_gib']} GiB, {at['system']}, Python {at['python']}; radioloader {facts['commit']}; "
        f"{facts['date']}; {files}; load before the run {facts['load_before']}"
    )


def _markdown(title: str, facts: dict[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    yield f"# {title}\n\n{_where(facts)}\n"
    for panel in dict.fromkeys(entry.panel for entry in entries if entry.values):
        inside = [entry for entry in entries if entry.panel == panel and entry.values]
        low, study = inside[0].lower, inside[0].study
        beside = "radioloader" if any(e.ours for e in inside) and not study else inside[0].label
        more = "" if study else " CPU | peak PSS, MiB | delivered |"
        yield f"## {panel}\n\n| | {inside[0].unit} | min-max | {beside} is so many times better |{more}"
        yield f"|---|---:|---|---:|{'' if study else '---:|---:|---|'}"
        for entry in inside if study else sorted(inside, key=lambda e: e.median, reverse=not low):
            best = inside[0] if study else _beside(entry, inside)
            spread = f"{_short(min(entry.values))}-{_short(max(entry.values))}" if len(entry.values) > 1 else "once"
            cells = [entry.label, _short(entry.median), spread, _ratio(entry, best)]
            if not study:
                cells += [entry.cpu, "" if entry.peak_mib is None else _short(entry.peak_mib), entry.delivered]
            yield f"| {' | '.join(cells)} |"
        yield ""
    failed = [entry for entry in entries if not entry.values]
    if failed:
        yield "Without a figure:\n"
        yield from (f"- {entry.label} ({entry.panel}): {entry.reason}" for entry in failed)
        yield ""
    used = dict.fromkeys(entry.versions for entry in entries if entry.versions)
    if used:
        yield f"Versions: {'; '.join(used)}\n"


def _beside(entry: Entry, panel: Sequence[Entry]) -> Entry:
    """What an entry is compared with: radioloader's best that delivers images of the same dtype, if any does; the first line where
    radioloader is not there."""
    mine = [other for other in panel if other.ours]
    like = [other for other in mine if other.delivered.split(",")[0] == entry.delivered.split(",")[0]]
    if not mine:
        return panel[0]
    return (min if entry.lower else max)(like or mine, key=lambda other: other.median)


def _cpu(records: Sequence[Record]) -> str:
    for name, words in (("cpu_ms", "ms a sample"), ("cpu_percent", "%")):
        found = [record[name] for record in records if name in record]
        if found:
            return f"{_short(statistics.median(found))} {words}"
    return ""


def _ratio(entry: Entry, best: Entry) -> str:
    over, under = (entry.median, best.median) if entry.lower else (best.median, entry.median)
    return _short(over / under) if under else "-"


def _how(record: Record) -> list[str]:
    """dtype, workers and threads in words, where they are not what goes without saying."""
    words = [record["dtype"]] if record["dtype"] != "stored" else []
    if record["threads"]:
        return [*words, f"{record['threads']} threads"]
    if record["workers"]:
        return [*words, f"{record['workers']} workers"]
    return [*words, "no workers"] if record["workload"] in ("patches", "volumes", "slices") else words


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
