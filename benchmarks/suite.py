"""A run: the cohort, what peers make of it, the repetitions in turn, and what comes of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import matrix
from benchmarks.cohort import CT, SHAPE, make_cohort
from benchmarks.launch import Launcher
from benchmarks.machine import commit, cores
from benchmarks.model import Job, Record, outcome
from radioloader.bench.machine import machine

__all__ = ["SLOW", "Settings", "run"]

SLOW = {"patches/s": 10.0, "volumes/s": 0.5}
"""Rates below which a contestant is measured once."""

_PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        full: Everything, or only what the verdict table needs.
        root: Folder of cohorts, reused by later runs.
        out: Folder of results.
        python: Interpreter of the peers' environment.
        subjects: Subjects of the cohort.
        shape: Their voxels (x, y, z).
        source: The base volume of the cohort.
        sizes: Edges of patches.
        repetitions: How often everything is measured, in turn.
        seconds: How long a steady rate is timed, at least.
        hang_s: When a silent process is given up.
        budget_min: No repetition is begun that would end later than so many minutes after the start; the first always runs.
        peers: Only these contestants; None takes all.
        workloads: Only these workloads; None takes all.
        studies: Only these studies, and nothing else; None takes all, and everything else.
        cold: Whether to measure with an empty page cache, where that is permitted.
        modes: Only these (workers, threads); None takes all.
    """

    full: bool
    root: Path
    out: Path
    python: str = sys.executable
    subjects: int = 4
    shape: tuple[int, int, int] = SHAPE
    source: Path | None = CT
    sizes: tuple[int, ...] = (64, 128)
    repetitions: int = 3
    seconds: float = 2.0
    hang_s: float = 180.0
    budget_min: float = float("inf")
    peers: tuple[str, ...] | None = None
    workloads: tuple[str, ...] | None = None
    studies: tuple[str, ...] | None = None
    cold: bool = True
    modes: tuple[tuple[int, int], ...] | None = None

    @property
    def blocks(self) -> list[matrix.Block]:
        """What is to be measured."""
        blocks = (matrix.full if self.full else matrix.quick)(cores(), self.sizes)
        chosen = []
        for block in blocks:
            jobs = tuple(job for job in block.jobs if self._wants(job))
            if jobs:
                chosen.append(replace(block, jobs=jobs))
        return chosen

    def _wants(self, job: Job) -> bool:
        return (
            (self.peers is None or job.peer in self.peers)
            and (self.workloads is None or job.workload in self.workloads)
            and (self.studies is None or (job.workload == "study" and job.detail in self.studies))
            and (self.modes is None or (job.workers, job.threads) in self.modes)
        )


@dataclass
class _Run:
    settings: Settings
    say: Callable[[str], None]
    records: list[Record] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.say(f"[{minutes:02d}:{seconds:02d}] {text}")

    def note(self, records: Sequence[Record]) -> None:
        """Keep records and show them; they are on disk at once."""
        for record in records:
            self.records.append(record)
            self.tell(_line(record))
        with open(self.settings.out / "records.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def run(settings: Settings, say: Callable[[str], None] = print) -> tuple[dict[str, Any], list[Record]]:
    """Do all of it.

    Returns:
        Facts about the run (machine, commit, date, cohort, settings), and the records. Both are also in ``records.jsonl`` and
        ``run.json`` in the folder of results.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "records.jsonl").write_text("")
    state = _Run(settings, say)
    state.tell(f"cohort: {settings.subjects} subjects of {settings.shape} below {settings.root}")
    cohort, facts = make_cohort(
        settings.root, settings.subjects, settings.shape, source=settings.source, say=state.tell
    )
    blocks = settings.blocks
    log = settings.root / "peers.log"
    launcher = Launcher(cohort, settings.python, log, settings.seconds, hang_s=settings.hang_s, full=settings.full)
    header = {
        "matrix": "full" if settings.full else "quick",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "cohort": facts,
        "settings": {
            name: getattr(settings, name) for name in ("repetitions", "seconds", "subjects", "sizes", "studies")
        },
    }
    (settings.out / "run.json").write_text(json.dumps(header, indent=1) + "\n")
    files = Job("files", "prepare")
    state.note(
        [
            outcome(files, bytes=facts["bytes"][".nii.gz"]),
            outcome(replace(files, peer="files-nii"), bytes=facts["bytes"][".nii"]),
        ]
    )
    broken = _prepare(state, launcher, matrix.preparations(blocks))
    _repeat(state, launcher, blocks, broken)
    header["minutes"] = round((time.monotonic() - state.started) / 60, 1)
    (settings.out / "run.json").write_text(json.dumps(header, indent=1) + "\n")
    return header, state.records


def _prepare(state: _Run, launcher: Launcher, jobs: Sequence[Job]) -> dict[str, str]:
    """Have each peer convert the cohort, unless it did so before and would do the same again; why those failed that did."""
    broken: dict[str, str] = {}
    for job in jobs:
        state.note(launcher.run([job], hang_s=_PATIENCE_S))
        last = state.records[-1]
        if "value" not in last:
            broken[job.peer] = str(last.get("error") or last.get("skipped"))
    return broken


def _repeat(state: _Run, launcher: Launcher, blocks: Sequence[matrix.Block], broken: dict[str, str]) -> None:
    """All blocks in turn, as often as wanted: A B C, A B C. Slow and failed measurements are not repeated."""
    settings, over, last = state.settings, set[Job](), 0.0
    for repetition in range(settings.repetitions):
        used = time.monotonic() - state.started
        if repetition and used + last > 60 * settings.budget_min:
            state.tell(
                f"no time for repetition {repetition + 1} of {settings.repetitions} within {settings.budget_min:g} minutes"
            )
            return
        begun = time.monotonic()
        for block in blocks:
            jobs = [job for job in block.jobs if job not in over]
            if not jobs or (repetition and block.once):
                continue
            state.note(records := _measure(settings, launcher, jobs, repetition, broken))
            over |= {job for job in jobs if any(_is_of(r, job) and _is_enough(r) for r in records)}
        last = time.monotonic() - begun


def _measure(
    settings: Settings, launcher: Launcher, jobs: list[Job], repetition: int, broken: dict[str, str]
) -> list[Record]:
    failed = next((f"its preparation failed: {broken[p]}" for p in matrix.sources(jobs[0]) if p in broken), None)
    if failed is not None:
        return [outcome(job, repetition, error=failed) for job in jobs]
    if jobs[0].workload == "cold":
        if not settings.cold:
            return [outcome(job, repetition, skipped="cold-cache lines were turned off") for job in jobs]
        if os.geteuid() != 0:
            reason = "emptying the page cache needs root: run as root for cold-cache lines"
            return [outcome(job, repetition, skipped=reason) for job in jobs]
    try:
        # A study says nothing until it has all its figures.
        return launcher.run(jobs, repetition, hang_s=_PATIENCE_S if jobs[0].workload == "study" else None)
    except PermissionError as error:
        return [outcome(job, repetition, skipped=str(error)) for job in jobs]


def _is_of(record: Record, job: Job) -> bool:
    return all(record[name] == getattr(job, name) for name in job.__dataclass_fields__)


def _is_enough(record: Record) -> bool:
    """Whether it should not be repeated."""
    return "value" not in record or (record["value"] < SLOW.get(record["unit"], 0.0) and record["workload"] != "cold")


def _line(record: Record) -> str:
    names = Job.__dataclass_fields__
    job = Job(**{name: record[name] for name in names})
    name = "".join(f" {record[part]}" for part in ("what", "name") if record.get(part))
    if "error" in record:
        return f"{job}{name}: FAILED: {record['error']}"
    if "skipped" in record:
        return f"{job}{name}: skipped: {record['skipped']}"
    size = f", {record['bytes'] / 1e6:.0f} MB" if "bytes" in record else ""
    value = f"{record['value']:.4g} {record['unit']}" if "value" in record else ""
    return f"{job}{name}: {value}{size}{' (from an earlier run)' if record.get('reused') else ''}"
