"""Starts a process for each contestant, watches it, and samples its memory."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.machine import MemorySampler, drop_page_cache, process_tree
from benchmarks.model import Cohort, Job, Record, outcome, without_folders

__all__ = ["Launcher"]

_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Launcher:
    """Runs jobs in fresh processes.

    Attributes:
        cohort: The files.
        python: Interpreter of the peers' environment.
        log: File for what contestants print.
        seconds: How long a steady rate is timed, at least.
        warm_s: How long it runs before that, at least.
        hang_s: A process that says nothing for so long is ended, and its jobs have failed.
        full: Whether studies are to be thorough.
        drop_cache: Empties the page cache.
    """

    cohort: Cohort
    python: str
    log: Path
    seconds: float = 2.5
    warm_s: float = 0.7
    hang_s: float = 180.0
    full: bool = False
    drop_cache: Callable[[], None] = drop_page_cache
    _phases: list[tuple[int | None, float]] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], repetition: int = 0, *, hang_s: float | None = None) -> list[Record]:
        """Measure jobs of one contestant in one process: at least one record for each, whatever happens to the process.

        Args:
            jobs: The jobs.
            repetition: Goes into the records.
            hang_s: Instead of the launcher's own, for what is silent for long.
        """
        patience = self.hang_s if hang_s is None else hang_s
        self.log.parent.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        reader, writer = os.pipe()
        settings = {
            "seconds": self.seconds,
            "warm_s": self.warm_s,
            "repetition": repetition,
            "full": self.full,
            "events": writer,
            "started": time.time(),
        }
        shared = asdict(self.cohort) | {"folder": str(self.cohort.folder)}
        spec = json.dumps({"jobs": [asdict(job) for job in jobs], "cohort": shared, "settings": settings})
        paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(self.log, "ab") as log, open(reader, encoding="utf-8") as events:
            process = subprocess.Popen(
                [self.python, "-m", "benchmarks.child", spec],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.cohort.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"},
                pass_fds=[writer],
                start_new_session=True,
            )
            os.close(writer)
            memory = MemorySampler(process.pid)
            memory.start()
            try:
                records, reason = self._listen(process, events, patience)
            finally:
                memory.stop()
                _end(process)
        missing = [job for number, job in enumerate(jobs) if number not in records]
        reason = f"{reason}; last words: {_last_words(self.log, begin)}"
        self._note_memory(records, memory)
        found = [record for number in records for record in records[number]]
        return found + [outcome(job, repetition, error=reason) for job in missing]

    def _listen(
        self, process: subprocess.Popen[bytes], events: IO[str], patience: float
    ) -> tuple[dict[int, list[Record]], str]:
        """Take events until the process is done, dead or silent for too long; says how it ended."""
        lines: queue.Queue[dict[str, Any]] = queue.Queue()

        def forward() -> None:
            for line in events:
                lines.put(json.loads(line))

        threading.Thread(target=forward, daemon=True).start()
        records: dict[int, list[Record]] = {}
        self._phases = [(None, time.monotonic())]
        heard = time.monotonic()
        while True:
            ended = process.poll() is not None
            try:
                event = lines.get(timeout=0.5)
            except queue.Empty:
                if ended:
                    return records, f"the process ended with status {process.returncode}"
                if time.monotonic() - heard > patience:
                    _ask_for_stacks(process.pid)
                    return records, f"gave nothing for {patience:.0f} s and was ended"
                continue
            heard = time.monotonic()
            if event["event"] == "done":
                return records, ""
            if event["event"] == "phase":
                self._phases.append((event["job"], heard))
            elif event["event"] == "ready":
                self.drop_cache()
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
            else:
                records.setdefault(event["job"], []).append(event["record"])

    def _note_memory(self, records: dict[int, list[Record]], memory: MemorySampler) -> None:
        ends = [time for _, time in self._phases[1:]] + [time.monotonic()]
        for (job, since), until in zip(self._phases, ends, strict=True):
            if job is not None and job in records:
                for record in records[job]:
                    if "value" in record and record["workload"] != "study":
                        record |= memory.peak(since, until)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, and its children."""
    for pid in process_tree(process.pid):
        _signal(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers whose parent is gone; the session is the child's own
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _ask_for_stacks(pid: int) -> None:
    _signal(pid, signal.SIGUSR1)
    time.sleep(0.5)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _last_words(log: Path, begin: int) -> str:
    """The end of what a process said, or where it hung; files by their names alone, since results are shown to others."""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    for number, line in enumerate(words):
        if line.startswith("Current thread"):  # the stacks that were asked for, the innermost call first
            return "was at " + without_folders(" | ".join(words[number + 1 : number + 4]))[:300]
    return without_folders(" | ".join(words[-2:]))[-300:] or "none"
