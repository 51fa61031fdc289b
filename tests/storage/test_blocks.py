"""Decoded blocks that are kept."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Any

import numpy as np
import pytest

from radioloader import Box
from radioloader.storage.blocks import BlockCache, tiles_of


def block(size: int) -> Any:
    return np.zeros(size, np.uint8)


def test_the_least_recently_used_blocks_go_first() -> None:
    cache = BlockCache(100)
    for name in "abc":
        cache.put(name, block(30))
    assert cache.find("a") is not None
    cache.put("d", block(30))
    assert [name for name in "abcd" if cache.find(name) is not None] == ["a", "c", "d"]
    assert cache.nbytes == 90
    cache.put("c", block(10))
    assert cache.nbytes == 70
    cache.put("whole", block(100))
    assert cache.nbytes == 100
    assert cache.find("d") is None
    cache.put("more", block(101))
    assert cache.find("more") is None
    assert cache.nbytes == 100
    cache.clear()
    assert cache.nbytes == 0


def test_what_is_kept_cannot_be_changed() -> None:
    cache = BlockCache(100)
    kept = cache.get("a", lambda: (block(3), [lambda: None]))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_threads_make_a_block_together() -> None:
    cache, begun, filled, got = BlockCache(100), [], [], []
    met = threading.Barrier(4, timeout=20)  # broken unless four threads are in it, one with each part
    start = threading.Barrier(4, timeout=20)

    def begin() -> Any:
        made = block(5)
        begun.append(made)

        def fill(part: int) -> None:
            met.wait()
            made[part] = part
            filled.append(threading.get_ident())

        return made, [partial(fill, part) for part in range(1, 5)]

    def want() -> None:
        start.wait()
        got.append(cache.get("a", begin))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(begun) == 1
    assert len(set(filled)) == 4
    assert len(got) == 4
    assert all(one is begun[0] for one in got)
    assert got[0].tolist() == [0, 1, 2, 3, 4]
    assert cache.find("a") is got[0]


def test_nobody_has_a_block_of_which_another_thread_fills_a_part() -> None:
    cache, filling, go = BlockCache(100), threading.Event(), threading.Event()
    made = block(2)
    slow = []

    def fill() -> None:
        if not slow:
            slow.append(True)
            filling.set()
            assert go.wait(20)
        made[:] += 1

    begin = partial(lambda: (made, [fill, fill]))
    thread = threading.Thread(target=cache.get, args=("a", begin))
    thread.start()
    assert filling.wait(20)
    threading.Timer(0.2, go.set).start()
    assert cache.get("a", begin).tolist() == [2, 2]
    thread.join(20)


def test_a_failure_is_of_the_one_it_happened_to() -> None:
    cache, outcomes, begun = BlockCache(100), [], threading.Event()

    def fail() -> Any:
        begun.set()
        time.sleep(0.2)
        raise OSError("gone")

    def first() -> None:
        try:
            cache.get("a", lambda: (block(7), [fail]))
        except OSError as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(20)
    assert len(cache.get("a", lambda: (block(6), [lambda: None]))) == 6  # waited, then made it itself
    thread.join(20)
    assert outcomes == ["gone"]
    assert cache.nbytes == 6


@pytest.mark.parametrize("where", ["filling", "counting"])
def test_an_interrupt_leaves_nobody_waiting(where: str) -> None:
    cache, got, filling = BlockCache(100), [], threading.Event()

    def fill() -> None:
        filling.set()
        time.sleep(0.2)  # the other thread waits for this part
        if where == "filling":
            raise KeyboardInterrupt

    def begin() -> Any:
        return block(5), [fill]

    class Interrupted(deque[Any]):
        def append(self, value: Any) -> None:
            raise KeyboardInterrupt

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            cache.get("a", begin)

    def waiting() -> None:
        got.append(cache.get("a", lambda: (block(6), [lambda: None])))

    first = threading.Thread(target=interrupted)
    first.start()
    assert filling.wait(20)
    if where == "counting":
        cache._making["a"]._filled = Interrupted()
    second = threading.Thread(target=waiting, daemon=True)
    second.start()
    first.join(20)
    second.join(20)
    assert [len(made) for made in got] == [6]


def test_a_block_that_cannot_be_begun_is_begun_anew() -> None:
    cache = BlockCache(100)

    def fail() -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.get("a", fail)
    assert len(cache.get("a", lambda: (block(6), [lambda: None]))) == 6


def test_tiles_of_a_box() -> None:
    found = dict(tiles_of(Box((3, 0, 7), (9, 4, 8)), (4, 4, 4), (10, 10, 10)))
    assert found == {
        (0, 0, 1): Box((0, 0, 4), (4, 4, 8)),
        (1, 0, 1): Box((4, 0, 4), (8, 4, 8)),
        (2, 0, 1): Box((8, 0, 4), (10, 4, 8)),
    }
