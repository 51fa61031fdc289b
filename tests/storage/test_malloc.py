"""The allocator's settings: counted, put back, and nothing kept afterwards."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from radioloader.storage import _malloc
from radioloader.storage._malloc import Kept, keep, keeping, release

needs_glibc = pytest.mark.skipif(_malloc._libc is None, reason="needs Linux with glibc")


class Libc:
    """Notes what glibc is told; ``old`` refuses large thresholds, as before 2.35."""

    def __init__(self, old: bool = False) -> None:
        self.calls: list[tuple[int, int] | str] = []
        self._old = old

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return 0 if self._old and option == -3 and value > 32 * 2**20 else 1

    def malloc_trim(self, pad: int) -> int:
        assert pad == 0
        self.calls.append("trim")
        return 1


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libc]:
    fake = Libc()
    monkeypatch.setattr(_malloc, "_libc", fake)
    monkeypatch.setattr(_malloc, "_holders", 0)
    yield fake
    assert not keeping()


KEPT: list[Any] = [(-3, 2**30), (-1, 2**31 - 1), (-2, 16 * 2**20)]
USUAL: list[Any] = [(-3, 32 * 2**20), (-1, 64 * 2**20), (-2, 128 * 2**10)]


def test_the_first_keeps_and_the_last_gives_back(libc: Libc) -> None:
    keep()
    keep()
    assert libc.calls == KEPT
    release()
    assert libc.calls == KEPT
    assert keeping()
    release()
    assert libc.calls == [*KEPT, *USUAL, "trim"]
    with pytest.raises(RuntimeError, match="without keep"):
        release()


def test_an_old_glibc_keeps_what_it_can(monkeypatch: pytest.MonkeyPatch, libc: Libc) -> None:
    old = Libc(old=True)
    monkeypatch.setattr(_malloc, "_libc", old)
    keep()
    assert old.calls == [KEPT[0], (-3, 32 * 2**20), *KEPT[1:]]
    release()


def test_elsewhere_than_on_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch, libc: Libc) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _malloc._glibc() is None
    monkeypatch.setattr(_malloc, "_libc", None)
    keep()
    release()
    assert libc.calls == []


def test_a_holder_opens_and_closes_any_number_of_times(libc: Libc) -> None:
    holder = Kept()
    assert not keeping()
    for _ in range(2):
        holder.open()
        holder.open()
        assert keeping()
        holder.close()
        holder.close()
        assert not keeping()
    holder.open()
    del holder
    gc.collect()
    assert not keeping()
    unwanted = Kept(False)
    unwanted.open()
    assert not keeping()


def test_a_forked_childs_holder_leaves_the_counting_to_its_own(libc: Libc, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Kept()
    holder.open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        holder.close()
    assert keeping()
    release()


RETAINED = """
import sys
import numpy as np
from radioloader.storage import _malloc

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def work():
    # what decoding leaves: freed memory below a small piece that is not
    pieces, small = [], []
    for _ in range(200):
        pieces.append(np.ones(2**20, np.uint8))
        small.append(bytearray(4000))
    return small

work()
before = resident_mb()
if sys.argv[1] == "keep":
    _malloc.keep()
small = work()
held = resident_mb() - before
if sys.argv[1] == "keep":
    _malloc.release()
print(held, resident_mb() - before)
"""


@needs_glibc
def test_what_is_kept_is_given_back(run_script: Callable[..., str]) -> None:
    held, after = map(float, run_script(RETAINED, "keep").split())
    assert held > 150  # or this test shows nothing
    assert after < 30
