"""Several processes read a store while another one changes it: each sees a version that was committed, and goes on seeing it."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import radioloader as rl
from tests.container.content import digest
from tests.container.test_kill import STEPS, Paths

CHANGES = [step for number, step in enumerate(STEPS) if number not in (3, 4, 9)]  # neither vacuum nor copy


def _read(uri: Path, opened: Any, stop: Any, found: Any) -> None:
    kept = rl.open(uri)
    first = digest(kept)
    seen = {(kept.version, first)}
    opened.set()
    while True:
        last = stop.is_set()
        store = rl.open(uri)
        seen.add((store.version, digest(store)))
        seen.add((kept.version, digest(kept)))
        if last:
            break
    found.put(sorted(seen))


def _change(paths: Paths, found: Any) -> None:
    for step in CHANGES:
        step(paths)
        store = rl.open(paths[0])
        found.put((store.version, digest(store)))


def test_readers_beside_a_writer(stores: tuple[Path, Path], tmp_path: Path) -> None:
    paths = (tmp_path / "s", stores[1], tmp_path / "copy")
    shutil.copytree(stores[0], paths[0])
    context = multiprocessing.get_context("spawn")
    stop, found, changes = context.Event(), context.Queue(), context.Queue()
    opened = [context.Event() for _ in range(2)]
    readers = [context.Process(target=_read, args=(paths[0], event, stop, found)) for event in opened]
    for reader in readers:
        reader.start()
    for event in opened:
        assert event.wait(60)
    before = rl.open(paths[0])
    committed = {(before.version, digest(before))}
    writer = context.Process(target=_change, args=(paths, changes))
    writer.start()
    committed |= {changes.get(timeout=60) for _ in CHANGES}
    stop.set()
    seen = [set(found.get(timeout=60)) for _ in readers]
    for process in (*readers, writer):
        process.join(60)
        assert process.exitcode == 0
    assert len(committed) == len(CHANGES) + 1
    for one in seen:
        assert one <= committed
        assert {min(committed), max(committed)} <= one
    assert digest(before) == min(committed)[1]
