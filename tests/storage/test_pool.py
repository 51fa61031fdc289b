"""Threads that read the pieces of a call."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from radioloader.storage._pool import Pool, shared

_others: list[threading.Thread] = []


@pytest.fixture(autouse=True)
def _threads_of_readers_that_live_longer() -> None:
    _others[:] = threading.enumerate()


def readers() -> list[threading.Thread]:
    """The threads that a pool of this test started."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("radioloader-read") and thread not in _others
    ]


def gone() -> bool:
    end = time.monotonic() + 20
    while readers() and time.monotonic() < end:
        time.sleep(0.01)
    return not readers()


def test_pieces_run_side_by_side_and_results_keep_their_order() -> None:
    pool, met = Pool(), threading.Barrier(2, timeout=20)

    def piece(number: int) -> int:
        met.wait()
        return number

    assert pool.run([lambda: piece(1), lambda: piece(2)], 2) == [1, 2]
    assert len(readers()) == 2
    pool.close()
    assert not readers()
    assert pool.run([lambda: 3], 2) == [3]
    del pool
    gc.collect()
    assert gone()


def test_all_pieces_have_ended_when_one_fails() -> None:
    pool, ended = Pool(), threading.Event()

    def slow() -> None:
        time.sleep(0.2)
        ended.set()

    def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pool.run([fail, slow], 2)
    assert ended.is_set()
    pool.close()


def test_an_interrupt_while_work_is_handed_out_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, plain, calls = Pool(), ThreadPoolExecutor._adjust_thread_count, []  # type: ignore[attr-defined]

    def interrupted(executor: Any) -> None:
        calls.append(1)
        if len(calls) == 2:  # the thread runs, the executor was not told
            known = executor._threads
            executor._threads = set(known)
            plain(executor)
            executor._threads = known
            raise KeyboardInterrupt
        plain(executor)

    monkeypatch.setattr(ThreadPoolExecutor, "_adjust_thread_count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run([lambda: time.sleep(0.1)] * 3, 3)
    assert gone()
    assert pool.run([lambda: 3], 1) == [3]
    pool.close()


def test_helpers_stop_when_the_piece_is_done() -> None:
    fetched: list[str] = []

    def fetch() -> None:
        fetched.append(threading.current_thread().name)
        raise OSError("which the piece meets as well")

    first, others = shared(lambda: ["result"], fetch, 2)
    assert len(others) == 2
    assert others[0]() == []
    assert len(fetched) == 1
    assert first() == ["result"]
    assert others[1]() == []
    assert len(fetched) == 1
