"""Worker processes that die: what they were reading."""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from radioloader.errors import RadioloaderError, WorkerError

__all__ = ["explain", "watch"]

_PATIENCE_S = 0.5
_running: weakref.WeakSet[Any] = weakref.WeakSet()


def explain(error: BaseException, iterator: Any, loader: Any) -> WorkerError | None:
    """An error that says which volumes a dead worker was reading; None when ``error`` is not of a worker's death.

    Args:
        error: What torch raised.
        iterator: torch's iterator, with its workers.
        loader: The loader.
    """
    workers = getattr(iterator, "_workers", None)
    # OSError, EOFError: a dead worker had memory to hand over.
    if not workers or isinstance(error, RadioloaderError) or not isinstance(error, RuntimeError | OSError | EOFError):
        return None
    # torch may know before the process can be asked.
    end = time.monotonic() + (_PATIENCE_S if "DataLoader worker" in str(error) else 0.05)
    while all(worker.is_alive() for worker in workers) and time.monotonic() < end:
        time.sleep(0.01)
    describe = getattr(loader.dataset, "describe", None)
    lines = []
    for number, worker in enumerate(workers):
        if worker.is_alive():
            continue
        volumes = loader.stats.busy_with(number)
        what = "was between batches"
        if volumes and describe is not None:
            what = "was reading " + "; ".join(describe(volume) for volume in volumes)
        lines.append(f"worker {number} (pid {worker.pid}, exit code {worker.exitcode}) {what}")
    if not lines:
        return None
    return WorkerError(
        f"a worker process of the loader died: {', '.join(lines)}. Killed (exit code -9) usually means out of memory: use "
        "fewer workers, a smaller batch or prefetch_factor, or more shared memory"
    )


def watch(batches: Any) -> None:
    """Have the death of a worker explained also while the script does something else: torch raises then from its signal handler.

    Args:
        batches: An iterator of ours, with ``_inner`` (torch's) and ``_loader``.
    """
    _running.add(batches)
    if threading.current_thread() is not threading.main_thread():
        return
    theirs: Any = signal.getsignal(signal.SIGCHLD)
    if callable(theirs) and not isinstance(theirs, _Handler):
        signal.signal(signal.SIGCHLD, _Handler(theirs))


class _Handler:
    """Handler of SIGCHLD: torch's, with its error explained."""

    def __init__(self, theirs: Callable[[int, FrameType | None], Any]) -> None:
        self._theirs = theirs

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._theirs(number, frame)
        except RuntimeError as error:
            for batches in list(_running):
                explained = explain(error, batches._inner, batches._loader)
                if explained is not None:
                    raise explained from error
            raise
