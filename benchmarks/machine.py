"""Facts about the machine, and what a tree of processes uses."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

__all__ = [
    "MemorySampler",
    "commit",
    "cores",
    "cpu_seconds",
    "drop_page_cache",
    "process_tree",
    "pss",
    "versions",
]

_REPOSITORY = Path(__file__).resolve().parents[1]


def cores() -> int:
    """Cores that this process may use, CPU quota of its cgroup included."""
    from radioloader.config import available_cores

    return available_cores()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions; packages that are not there are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The repository's commit, with ``+changes`` where the working tree differs from it; ``unknown`` outside git."""
    git = ["git", "-C", str(_REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        # What a run writes itself is no change.
        paths = ["--", ".", ":(exclude)benchmarks/results"]
        changed = subprocess.run([*git, "status", "--porcelain", *paths], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def process_tree(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        try:
            threads = os.listdir(f"/proc/{current}/task")
        except OSError:
            continue
        for thread in threads:
            todo += [int(child) for line in _lines(f"/proc/{current}/task/{thread}/children") for child in line.split()]
    return found


def pss(pids: Sequence[int]) -> tuple[float, float]:
    """Proportional set size of processes in MiB: all of it, and without pages of files (which the kernel can take back)."""
    total = private = 0
    for pid in pids:
        for line in _lines(f"/proc/{pid}/smaps_rollup"):
            name, *rest = line.split()
            if name == "Pss:":
                total += int(rest[0])
            elif name in ("Pss_Anon:", "Pss_Shmem:"):
                private += int(rest[0])
    return total / 1024, private / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time of a tree of processes so far, in seconds; of the threads and children that are still there."""
    ticks = 0
    for member in process_tree(pid):
        for line in _lines(f"/proc/{member}/stat"):
            user, system = line.rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def drop_page_cache() -> None:
    """Empty the page cache of the whole machine.

    Raises:
        PermissionError: Not root, or a container that forbids it.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        raise PermissionError(
            f"the page cache can only be emptied as root, outside most containers: {error}"
        ) from error


class MemorySampler(threading.Thread):
    """Samples the memory of a tree of processes until :meth:`stop`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._end = pid, threading.Event()
        self._samples: list[tuple[float, float, float]] = []

    def run(self) -> None:
        wait = 0.0
        while not self._end.wait(wait):
            started = time.monotonic()
            self._samples.append((started, *pss(process_tree(self._pid))))
            wait = max(0.3, 15 * (time.monotonic() - started))  # looking takes a few percent of a core at most

    def stop(self) -> None:
        """End the thread."""
        self._end.set()

    def peak(self, since: float, until: float) -> dict[str, int]:
        """Highest sums within a span of :func:`time.monotonic`, in MiB; empty where no sample fell into it."""
        inside = [sample for sample in self._samples if since <= sample[0] <= until]
        if not inside:
            return {}
        return {"peak_pss_mib": round(max(s[1] for s in inside)), "peak_private_mib": round(max(s[2] for s in inside))}


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
