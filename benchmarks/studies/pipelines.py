"""Published pipelines of MONAI and TorchIO: the same files and transforms in radioloader's datasets and in the library's own."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.launch import Launcher
from benchmarks.model import Cohort, Job, Record
from benchmarks.pipelines import PIPELINES, Contestant
from benchmarks.pipelines.files import make_files

__all__ = ["measure"]

_SUBJECTS = 4
"""Of the cohort, at most: filling a cache takes time in proportion, in every process."""

_SLOW = 0.25
"""Batches per second below which a contestant is measured once."""

_ROUNDS = 3
_BUDGET_S = 720.0
"""No round is begun that would end later than so many seconds after the first; the first always runs."""

_PATIENCE_S = 1800.0


def measure(cohort: Cohort, full: bool) -> Iterator[dict[str, Any]]:
    """Batches per second of each pipeline, contestant and way; and of each contestant seconds of preparation, seconds to the first batch of
    a new process, and memory.

    A contestant has a process of its own in each round, and the contestants take turns: A B C, A B C. The values of all rounds are in
    a record's ``rounds``, by what they measure.
    """
    few = replace(cohort, subjects=min(_SUBJECTS, cohort.subjects))
    make_files(few, say=_tell)
    log = cohort.folder.parent / "pipelines.log"
    launcher = Launcher(few, sys.executable, log, seconds=2.0 if full else 0.05, warm_s=0.5 if full else 0.0)
    runs = [_Run(name, contestant) for name, pipeline in PIPELINES.items() for contestant in pipeline.contestants]
    started, last = time.monotonic(), 0.0
    try:
        for run in runs:
            run.prepare(launcher)
        for number in range(_ROUNDS if full else 1):
            begun = time.monotonic()
            if number and begun - started + last > _BUDGET_S:
                _tell(f"no time for round {number + 1} of {_ROUNDS}")
                break
            for run in runs:
                run.measure(launcher, number)
            last = time.monotonic() - begun
    finally:
        shutil.rmtree(few.folder / "prepared", ignore_errors=True)
    for run in runs:
        for record in run.records():
            yield {**record, "subjects": few.subjects}


def _tell(line: str) -> None:
    print(line, flush=True)


@dataclass
class _Way:
    """What was found with one number of workers and threads."""

    workers: int
    threads: int
    rounds: dict[str, list[float]] = field(default_factory=dict)
    failure: Record = field(default_factory=dict)
    filled: bool = False

    @property
    def title(self) -> str:
        if self.threads:
            return f"{self.threads} threads"
        return f"{self.workers} workers" if self.workers else "no workers"

    def take(self, record: Record, what: str) -> None:
        failure: Record = {key: record[key] for key in ("error", "skipped") if key in record}
        if failure:
            self.failure = self.failure or failure
            return
        self.keep(what, record["value"])
        if "filled_s" in record:
            self.filled = True
            self.keep("preparation", record["filled_s"])
        if what == "rate":
            self.keep("cpu_ms", record["cpu_ms"])
            if "peak_pss_mib" in record:
                self.keep("peak_pss_mib", record["peak_pss_mib"])

    def keep(self, what: str, value: float) -> None:
        self.rounds.setdefault(what.replace(" ", "_"), []).append(value)


class _Run:
    """A contestant in a pipeline."""

    def __init__(self, name: str, contestant: Contestant) -> None:
        self._name, self._contestant = name, contestant
        self._ways = [_Way(workers, threads) for workers, threads in contestant.ways]
        self._versions: dict[str, str] = {}

    def prepare(self, launcher: Launcher) -> None:
        if not self._contestant.prepares:
            return
        [record] = launcher.run([self._job("prepare", self._ways[0])], hang_s=_PATIENCE_S)
        self._ways[0].take(record, "preparation")
        if "value" not in record:
            reason = f"its preparation failed: {record.get('error', record.get('skipped'))}"
            for way in self._ways:
                way.failure = {"error": reason}

    def measure(self, launcher: Launcher, number: int) -> None:
        """All ways, one after the other; a new process begins with the first one."""
        ways = [way for way in self._ways if not way.failure]
        rates = [rate for way in ways for rate in way.rounds.get("rate", [])]
        if not ways or (rates and (self._contestant.once or max(rates) < _SLOW)):
            return
        places = {self._job("first batch", ways[0]): (ways[0], "first batch")}
        places |= {self._job("rate", way): (way, "rate") for way in ways}
        for record in launcher.run(list(places), number):
            way, what = places[Job(**{name: record[name] for name in Job.__dataclass_fields__})]
            way.take(record, what)
            self._versions = record.get("versions", self._versions)

    def _job(self, what: str, way: _Way) -> Job:
        detail = f"{self._name}:{what}"
        return Job(self._contestant.peer, "pipeline", workers=way.workers, threads=way.threads, detail=detail)

    def records(self) -> Iterator[Record]:
        contestant = self._contestant
        for way in self._ways:
            common: Record = {
                "what": self._name,
                "name": f"{contestant.title}, {way.title}",
                "versions": self._versions,
            }
            common |= {"contestant": contestant.title, "ours": contestant.ours, "same": contestant.same}
            if way.failure:
                yield {**common, **way.failure}
                continue
            rates = way.rounds["rate"]
            yield {
                **common,
                "value": round(statistics.median(rates), 4),
                "lowest": min(rates),
                "highest": max(rates),
                "unit": "batches/s",
                "filled": way.filled,
                "rounds": way.rounds,
            }
