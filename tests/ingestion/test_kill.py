"""A real ``radioloader ingest`` process, killed or interrupted at random moments: the store opens, shows whole subjects only, and the
next run completes it to what an uninterrupted run makes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import radioloader as rl

Content = Callable[[Any], dict[str, Any]]
SUBJECTS = 10

# Tables are consolidated from 50 fragments on; this has it happen every few commits, so that kills meet it.
CONSOLIDATING = """
import radioloader.storage.table as table
from radioloader.cli.main import main

table.CONSOLIDATE_AT = 3
main()
"""


@pytest.fixture(scope="module")
def root(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_cohort(tmp_path_factory.mktemp("cohort"), subjects=SUBJECTS, shape=(12, 16, 10))
    (folder / "consolidating.py").write_text(CONSOLIDATING)
    return folder


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory, content: Content) -> dict[str, Any]:
    uri = tmp_path_factory.mktemp("reference") / "store"
    report = rl.ingest(
        uri, {"T1w": root / "images", "seg": root / "labels"}, obs_meta=root / "participants.tsv", workers=1
    )
    assert len(report.ingested) == SUBJECTS
    return content(uri)


def _with_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(root: Path, uri: Path, *, consolidating: bool = False, interval: float = 0.02) -> subprocess.Popen[str]:
    program = [str(root / "consolidating.py")] if consolidating else ["-m", "radioloader"]
    options = [
        "--image",
        f"T1w={root}/images",
        "--label",
        f"seg={root}/labels",
        "--obs-meta",
        f"{root}/participants.tsv",
    ]
    return subprocess.Popen(
        [sys.executable, *program, "ingest", str(uri), *options, "--workers", "2", "--commit-interval", str(interval)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own
        # A background job of a shell, which may run these tests, ignores SIGINT, and so would its children.
        preexec_fn=_with_ctrl_c,
    )


def moments(count: int, seconds: float, seed: int) -> list[float]:
    """``count`` moments spread over a duration: one, at random, in each of its equal parts, in random order."""
    generator = np.random.default_rng(seed)
    return ((generator.permutation(count) + generator.random(count)) / count * seconds).tolist()


def finished_within(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def wait_for_store(store: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process has made the store; returns as well when it has ended."""
    while not (store / "commits").exists() and process.poll() is None:
        time.sleep(0.005)


def commits_in(store: Path) -> int:
    return sum(1 for _ in store.glob("commits/__commits/*"))


def wait_for_commit(store: Path, process: subprocess.Popen[str], *, before: int) -> None:
    """Wait for one more commit than ``before``; returns as well when the process has ended."""
    while commits_in(store) == before and process.poll() is None:
        time.sleep(0.002)


def test_kill_9_at_random_moments(
    root: Path,
    reference: dict[str, Any],
    tmp_path: Path,
    counts: Callable[[int, int], int],
    shows_sources: Callable[..., list[str]],
    content: Content,
) -> None:
    began = time.monotonic()
    whole = start(root, tmp_path / "whole")
    wait_for_commit(tmp_path / "whole", whole, before=0)
    preparing = time.monotonic() - began
    output, errors = whole.communicate()
    duration = time.monotonic() - began
    assert whole.returncode == 0, output + errors
    assert content(tmp_path / "whole") == reference

    kills = counts(3, 200)
    seen: list[int] = []
    stores = done = 0
    store = tmp_path / "0"
    todo = moments(kills, duration, seed=2)
    while todo:
        number = done
        done += 1
        process = start(root, store, consolidating=number % 3 > 0)
        below: list[psutil.Process] = []
        moment = todo[-1]
        if number % 2:
            # Most of a short run is the start of its processes: these kills meet the ingest itself.
            wait_for_commit(store, process, before=commits_in(store))
            moment *= 1 - preparing / duration
        if not finished_within(process, moment):
            below = psutil.Process(process.pid).children(recursive=True)
            if number % 4 < 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            # What the process that watches over them removes, unless it was killed as well.
            for semaphore in Path("/dev/shm").glob(f"sem.loky-{process.pid}-*"):
                semaphore.unlink(missing_ok=True)
        if process.returncode != -signal.SIGKILL:
            # Quicker than the measured run (much of it was there already): this one was the completing run.
            output, errors = process.communicate()
            assert process.returncode == 0, output + errors
            assert content(store) == reference
            stores += 1
            store = tmp_path / str(stores)
            todo[-1] *= 0.9
            continue
        todo.pop()
        partly = any(0 < count < SUBJECTS for count in seen)
        if not todo and not partly and number < kills + 8:
            # On a machine that does other things as well, a moment may be early or late for all of the few kills.
            todo.append(duration * (0.3 + 0.08 * (number % 8)))
        # At once, while workers of a killed parent may still be writing.
        if store.exists():
            seen.append(len(shows_sources(store, root)))
        else:
            assert not list(tmp_path.glob(f"{store.name}/*"))
        process.stdout.close()  # type: ignore[union-attr]
        process.stderr.close()  # type: ignore[union-attr]
        _, alive = psutil.wait_procs(below, timeout=10)
        assert alive == []
        if number % 3 == 2 or not todo:
            report = rl.ingest(
                store, {"T1w": root / "images", "seg": root / "labels"}, obs_meta=root / "participants.tsv", workers=1
            )
            assert report.ok, str(report)
            assert content(store) == reference
            stores += 1
            store = tmp_path / str(stores)
    assert any(0 < count < SUBJECTS for count in seen), f"no kill met a store that was partly filled: {seen}"


def test_ctrl_c_keeps_whole_subjects_and_the_next_run_completes(
    root: Path,
    reference: dict[str, Any],
    tmp_path: Path,
    counts: Callable[[int, int], int],
    shows_sources: Callable[..., list[str]],
    content: Content,
) -> None:
    interrupts = counts(2, 50)
    whole = start(root, tmp_path / "whole", interval=10.0)
    wait_for_store(tmp_path / "whole", whole)
    ready = time.monotonic()
    whole.communicate()
    duration = time.monotonic() - ready
    todo = moments(interrupts, duration, seed=3)
    number = 0
    while todo:
        number += 1
        store = tmp_path / str(number)
        process = start(root, store, interval=10.0)  # nothing is committed before the signal
        wait_for_store(store, process)
        if finished_within(process, todo[-1]):
            process.communicate()
            todo[-1] *= 0.8
            continue
        todo.pop()
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        output, errors = process.communicate(timeout=60)
        if f"ingested            │       {SUBJECTS} " in output:  # the signal came when all was done
            assert content(store) == reference
            continue
        # Where Ctrl-C meets the ``exec`` that makes a dataclass during an import, CPython ends itself by SIGINT in the end, though the
        # interrupt was handled; to a shell that is 130 as well.
        assert process.returncode in (130, -signal.SIGINT), output + errors
        assert "Traceback" not in output + errors
        assert "Error" not in output + errors
        assert (
            errors.splitlines()[-1] == "interrupted; what was finished is in the store, and the same command continues"
        )
        _, alive = psutil.wait_procs(below, timeout=10)
        assert alive == []
        counted = re.findall(r"^ingest (\d+)/", errors, re.M)
        done = int(counted[-1]) if counted else 0  # before anything was counted
        # What was finished was committed on the way out; the signal may have come between finishing one and counting it, or while the
        # last line of the progress was printed.
        stored = len(shows_sources(store, root))
        assert stored in (done, done + 1) or (stored == SUBJECTS and not counted)
        if number % 2:
            process = start(root, store)
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, output + errors
            assert content(store) == reference
