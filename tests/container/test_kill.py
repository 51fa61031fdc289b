"""SIGKILL at random moments of changes: a store always opens, always at a version that was committed, and goes on from there."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from radioloader.errors import NotAStoreError, StoreNotFoundError
from radioloader.storage.vacuum import vacuum
from tests.container.content import digest

Paths = tuple[Path, Path, Path]


def _append(paths: Paths, *, last: int) -> None:
    rl.open(paths[0]).append(rl.open(paths[1]).iloc[:last], workers=1)


def _replace(paths: Paths) -> None:
    rl.open(paths[0]).replace(rl.open(paths[1]).iloc[4:], workers=1)


def _copy(paths: Paths) -> None:
    rl.open(paths[0]).materialize(paths[2], crop=((0, 12), (0, 12), (0, 12)), workers=1)


STEPS: list[Callable[[Paths], object]] = [
    lambda paths: _append(paths, last=2),
    lambda paths: rl.open(paths[0]).remove(["sub-01"]),
    lambda paths: rl.open(paths[0]).rename(subjects={"sub-02": "b"}, collections={"seg": "mask"}),
    lambda paths: rl.open(paths[0]).vacuum(keep=2),
    _copy,
    lambda paths: rl.open(paths[0]).rename(subjects={"b": "sub-02"}, collections={"mask": "seg"}),
    _replace,
    lambda paths: _append(paths, last=4),
    lambda paths: rl.open(paths[0]).remove(collections="seg"),
    lambda paths: rl.open(paths[0]).vacuum(keep=1),
]


def _run(paths: Paths, step: int, ready: Any) -> None:
    ready.set()
    STEPS[step](paths)


@dataclass(frozen=True)
class Before:
    """A store as it was before a step.

    Attributes:
        folder: Copy of it.
        versions: Its version before and after the step.
        digests: What is in it before and after.
        seconds: How long the step takes.
    """

    folder: Path
    versions: tuple[int, int]
    digests: tuple[str, str]
    seconds: float


@pytest.fixture(scope="module")
def steps(stores: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Before], str]:
    """Each step, and what is in the copy that one of them makes."""
    root = tmp_path_factory.mktemp("whole")
    paths = (root / "s", stores[1], root / "copy")
    shutil.copytree(stores[0], paths[0])
    found = []
    for number, step in enumerate(STEPS):
        shutil.copytree(paths[0], root / f"before-{number}")
        before = rl.open(paths[0])
        was = before.version, digest(before)
        started = time.monotonic()
        step(paths)
        seconds = time.monotonic() - started
        after = rl.open(paths[0])
        found.append(Before(root / f"before-{number}", (was[0], after.version), (was[1], digest(after)), seconds))
    return found, digest(rl.open(paths[2]))


def test_kill_9_at_random_moments(
    stores: tuple[Path, Path],
    steps: tuple[list[Before], str],
    tmp_path: Path,
    counts: Callable[[int, int], int],
) -> None:
    rng = random.Random(8)
    context = multiprocessing.get_context("fork")
    done = []
    for kill in range(counts(20, 200)):
        number = kill % len(STEPS)
        step = steps[0][number]
        paths = (tmp_path / f"{kill}", stores[1], tmp_path / f"{kill}-copy")
        shutil.copytree(step.folder, paths[0])
        ready = context.Event()
        child = context.Process(target=_run, args=(paths, number, ready))
        child.start()
        assert child.pid is not None
        ready.wait()
        time.sleep(rng.uniform(0, step.seconds))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        store = rl.open(paths[0])
        where = f"kill {kill}, step {number}, version {store.version}"
        assert store.version in step.versions, where
        done.append(store.version == step.versions[1])
        expected = step.digests[store.version == step.versions[1]]
        assert digest(store) == expected, where
        # What was left can be removed, and nothing else goes with it.
        vacuum(store.snapshot.store, keep=None, grace_s=0.0)
        assert digest(rl.open(paths[0])) == expected, where
        _check_files(store)
        # The same command goes on where it stopped.
        if STEPS[number] is _copy:
            with suppress(StoreNotFoundError, NotAStoreError):
                rl.open(paths[2])
            _copy(paths)
            assert digest(rl.open(paths[2])) == steps[1], where
        elif not done[-1]:
            STEPS[number](paths)
            assert digest(rl.open(paths[0])) == step.digests[1], where
        shutil.rmtree(paths[0])
        shutil.rmtree(paths[2], ignore_errors=True)
    assert 0 < sum(done) < len(done)


def _check_files(store: rl.RadiObject) -> None:
    """Each array on disk is one that a version has."""
    folder = Path(store.uri) / "c"
    arrays = {str(path.parent) for path in folder.glob("*/volumes/*/__schema")}
    known = set()
    oldest = 1 + max(commit["changes"].get("forgotten", 0) for commit in store.history())
    for version in range(oldest, store.version + 1):
        old = rl.open(store.uri, at=version)
        known |= {volume.uri for name in old.collection_names for volume in old[name]}
    assert arrays == known
