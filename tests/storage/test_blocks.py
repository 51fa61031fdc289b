"""Decoded blocks that are kept."""

from __future__ import annotations

import threading
import time
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
    kept = cache.get("a", lambda: block(3))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_one_thread_loads_what_several_want() -> None:
    cache, loaded, got = BlockCache(100), [], []

    def load() -> Any:
        loaded.append(threading.get_ident())
        time.sleep(0.2)
        return block(5)

    threads = [threading.Thread(target=lambda: got.append(cache.get("a", load))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(loaded) == 1
    assert len(got) == 4
    assert all(one is got[0] for one in got)


def test_a_failure_is_of_the_one_who_loaded() -> None:
    cache, outcomes, begun = BlockCache(100), [], threading.Event()

    def fail() -> Any:
        begun.set()
        time.sleep(0.2)
        raise OSError("gone")

    def first() -> None:
        try:
            cache.get("a", fail)
        except OSError as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(20)
    assert len(cache.get("a", lambda: block(7))) == 7  # waited, then loaded it itself
    thread.join(20)
    assert outcomes == ["gone"]


def test_tiles_of_a_box() -> None:
    found = dict(tiles_of(Box((3, 0, 7), (9, 4, 8)), (4, 4, 4), (10, 10, 10)))
    assert found == {
        (0, 0, 1): Box((0, 0, 4), (4, 4, 8)),
        (1, 0, 1): Box((4, 0, 4), (8, 4, 8)),
        (2, 0, 1): Box((8, 0, 4), (10, 4, 8)),
    }
