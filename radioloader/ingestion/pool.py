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
from contextlib import contextmanager
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
            queue = suspects if alone else waiting
            broken = False
            while queue and not broken and len(flying) < (1 if alone else 2 * workers):
                task = queue.popleft()
                try:
                    with _uninterrupted():
                        future = pool.submit(function, task)
                    flying[future] = task
                except BrokenExecutor:  # a worker died since the last look
                    queue.appendleft(task)
                    broken = True
            done = wait(flying, return_when=FIRST_COMPLETED).done if flying else set()
            broken = broken or _is_broken(done)
            if broken:
                if executor is not None:
                    raise RuntimeError("the executor lost its workers; start another one and do the same again")
                done = wait(flying).done  # they all end with that error, except those that had finished before
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
        for future in flying:
            future.cancel()
        if executor is None:
            _stop(pool)


def _is_broken(futures: Iterable[Future[Any]]) -> bool:
    return any(isinstance(future.exception(), BrokenExecutor) for future in futures)


def _start(workers: int) -> Executor:
    from multiprocessing import resource_tracker

    from loky import ProcessPoolExecutor
    from loky.backend import get_context

    # Each worker would start it, and up to Python 3.11 that ends with SIGINT unblocked.
    resource_tracker.ensure_running()
    with _uninterrupted():
        executor: Executor = ProcessPoolExecutor(
            workers, context=get_context("loky"), initializer=_begin_worker, initargs=(os.getpid(),)
        )
    return executor


def _stop(pool: Any) -> None:
    # loky does not wait for the thread that feeds its queue. One that still ends while the interpreter exits has its semaphore removed
    # but not struck off, and the process that watches over them prints a warning about it.
    feeder = getattr(getattr(pool, "_call_queue", None), "_thread", None)
    with _uninterrupted():
        pool.shutdown(wait=True, kill_workers=True)
        if feeder is not None:
            feeder.join(5.0)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C has its effect when this block has ended, and processes that are started in it never see it.

    An executor that is interrupted while it starts or stops leaves threads and processes behind. Ctrl-C reaches the whole process
    group, and the parent decides what happens then; workers that would ignore it once they run would still show a traceback when
    it meets them while they import, so they inherit it blocked.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler: Any = signal.getsignal(signal.SIGINT)
    # The mask is this thread's; another thread may get the signal, and Python's handler runs in the main thread all the same.
    replaced = callable(handler) and threading.current_thread() is threading.main_thread()
    pending: list[Any] = []
    if replaced:
        signal.signal(signal.SIGINT, lambda *what: pending.append(what))
    try:
        yield
    finally:
        if replaced:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pending:
            handler(*pending[0])


def _begin_worker(parent: int) -> None:
    # loky restarts workers that keep memory, and warns the user; the memory that TileDB's allocations keep is reused.
    import loky.process_executor

    loky.process_executor._USE_PSUTIL = False
    threading.Thread(target=_follow, args=(parent,), daemon=True, name="radioloader-follow-parent").start()


def _follow(parent: int) -> None:
    """End this process when its parent is gone: a killed parent ends nobody by itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
