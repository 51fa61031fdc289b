"""Threads that read pieces of a call side by side."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

__all__ = ["Pool", "shared"]

Result = TypeVar("Result")


class Pool:
    """Threads, started with the first work. They end with :meth:`close`, or when this is dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def run(self, pieces: Sequence[Callable[[], Result]], threads: int) -> list[Result]:
        """What the pieces give, in their order, when all have ended.

        Args:
            pieces: The work.
            threads: How many to start where there are none yet.
        """
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(threads, thread_name_prefix="radioloader-read")
                weakref.finalize(self, _end, self._executor, os.getpid())
            executor = self._executor
        futures: list[Future[Result]] = []
        try:
            futures += [executor.submit(piece) for piece in pieces]
        except BaseException:
            # An interrupt while a thread is started leaves one that the executor does not know, and for which the process would wait at
            # its end. What ends the others ends that one as well.
            with self._lock:
                self._executor = None
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        wait(futures)
        return [future.result() for future in futures]

    def close(self) -> None:
        """End the threads, and wait for them. The next work starts others."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


def shared(
    piece: Callable[[], list[Result]], fetch: Callable[[], None], helpers: int
) -> tuple[Callable[[], list[Result]], list[Callable[[], list[Result]]]]:
    """Have other threads help with a piece.

    Args:
        piece: The work.
        fetch: What it does first, which threads that do it at the same time do together.
        helpers: How many others there may be.

    Returns:
        The piece, and pieces that fetch as well until it is done.
    """
    done = threading.Event()

    def first() -> list[Result]:
        try:
            return piece()
        finally:
            done.set()

    def another() -> list[Result]:
        if not done.is_set():  # what was fetched may be gone again, and nobody wants it any more
            with suppress(Exception):  # which the piece meets as well, and says
                fetch()
        return []

    return first, [another] * helpers


def _end(executor: ThreadPoolExecutor, pid: int) -> None:
    if pid == os.getpid():
        executor.shutdown(wait=False)
