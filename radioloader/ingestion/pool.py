"""Running subjects in worker processes, whatever becomes of the processes.

Processes are started afresh through loky (no fork of a threaded parent, no need for an ``if __name__ == "__main__"`` guard). A
worker that dies takes only its own subject with it: what was in flight is tried again, one subject at a time, so that the one
that kills its worker is known by name.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any, TypeVar

__all__ = ["run"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def run(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    executor: Executor | None = None,
    lost: Callable[[Task], Result],
) -> Iterator[Result]:
    """Results of ``function`` over ``tasks``, as they come.

    Args:
        function: Importable; catches its own errors.
        tasks: What to do.
        workers: Processes; with 1 everything runs in this process.
        executor: Runs the tasks instead of processes of our own; it stays open.
        lost: Makes the result of a task whose worker process died.
    """
    if executor is None and workers <= 1:
        yield from map(function, tasks)
        return
    pool = _start(workers) if executor is None else executor
    waiting, suspects = deque(tasks), deque[Task]()
    flying: dict[Future[Result], Task] = {}
    try:
        while waiting or suspects or flying:
            alone = bool(suspects)
            if suspects:
                task = suspects.popleft()
                flying[pool.submit(function, task)] = task
            while not alone and waiting and len(flying) < 2 * workers:
                task = waiting.popleft()
                flying[pool.submit(function, task)] = task
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            broken = _is_broken(done)
            if broken:
                if executor is not None:
                    raise RuntimeError("the executor lost its workers; start another one and run the same ingest again")
                done, _ = wait(flying)  # they all end with that error, except those that had finished before
            for future in done:
                task = flying.pop(future)
                if not isinstance(future.exception(), BrokenExecutor):
                    yield future.result()
                elif alone:
                    yield lost(task)
                else:
                    suspects.append(task)
            if broken:
                _stop(pool)
                pool = _start(workers)
    finally:
        if executor is None:
            _stop(pool)


def _is_broken(futures: Iterable[Future[Any]]) -> bool:
    return any(isinstance(future.exception(), BrokenExecutor) for future in futures)


def _start(workers: int) -> Executor:
    from loky import ProcessPoolExecutor
    from loky.backend import get_context

    executor: Executor = ProcessPoolExecutor(
        workers, context=get_context("loky"), initializer=_begin_worker, initargs=(os.getpid(),)
    )
    return executor


def _stop(pool: Any) -> None:
    pool.shutdown(wait=True, kill_workers=True)


def _begin_worker(parent: int) -> None:
    # loky restarts workers that keep memory, and warns the user; the memory that TileDB's allocations keep is reused.
    import loky.process_executor

    loky.process_executor._USE_PSUTIL = False
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True, name="radioloader-follow-parent").start()


def _follow(parent: int) -> None:
    """End this process when its parent is gone: a killed parent ends nobody by itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
