"""One process writes to a local store at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from radioloader.errors import (
    StoreLockedError,
)
from radioloader.storage.store import Store
from tests.storage.test_store import subjects


def test_a_second_writer_is_told_who_the_first_is(store: Store, run_script: Callable[..., str]) -> None:
    script = """
import sys
from radioloader.errors import StoreLockedError
from radioloader.storage.store import Store
try:
    with Store.open(sys.argv[1]).write():
        print("writing")
except StoreLockedError as error:
    print(error)
"""
    with store.write():
        output = run_script(script, store.uri)
        assert (
            output
            == f"another process (pid {os.getpid()}) is writing to {store.uri}; wait until it has finished, or set WriteConfig.wait_s\n"
        )
        with pytest.raises(StoreLockedError), store.write():
            pytest.fail("two writers at once")
        assert subjects(Store.open(store.uri)) == [], "readers do not wait"
    assert run_script(script, store.uri) == "writing\n"


def test_the_lock_goes_with_its_holder(store: Store) -> None:
    """Also when that is killed, and though a process that it forked lives on."""
    script = """
import os, sys, time
from radioloader.storage.store import Store
writer = Store.open(sys.argv[1]).write()
writer.__enter__()
print("writing", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script, store.uri], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(StoreLockedError, match=f"pid {process.pid}"), store.write():
            pass
        process.kill()
    with store.write():
        pass


def test_a_child_that_was_forked_while_writing_does_not_keep_the_lock(
    store: Store, run_script: Callable[..., str]
) -> None:
    output = run_script(
        """
import os, signal, sys, time
from radioloader.storage.store import Store
store = Store.open(sys.argv[1])
with store.write():
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
with store.write():
    print("again")
os.kill(pid, signal.SIGKILL)
""",
        store.uri,
    )
    assert output == "again\n"


def test_the_lock_is_released_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write():
        raise ZeroDivisionError
    with store.write():
        pass


def test_processes_that_create_the_same_store_at_once(tmp_path: Path, counts: Callable[[int, int], int]) -> None:
    script = """
import sys, time
from radioloader.storage.store import Store
go = float(sys.argv[2])
time.sleep(max(0, go - time.time()))
store = Store.open_or_create(sys.argv[1])
print(store.commits().version)
"""
    for attempt in range(counts(2, 60)):
        uri, go = tmp_path / f"store-{attempt}", time.time() + 1.2
        if attempt % 2:
            uri.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(uri), str(go)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(4)
        ]
        assert [p.communicate(timeout=60)[0] for p in processes] == ["0\n"] * 4
        assert Store.open(uri).history() == []
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
