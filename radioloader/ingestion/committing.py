"""Commits of subjects as they are finished, whatever ends the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sized
from typing import Any, TypeVar

from radioloader.errors import RadioloaderError, StoreWriteError

__all__ = ["commit_in_turn", "explain"]

_ROWS_PER_COMMIT = 20_000
Result = TypeVar("Result")


def commit_in_turn(
    results: Iterator[Result],
    take: Callable[[Result], object],
    commit: Callable[[bool], object],
    finished: Callable[[], Sized],
    interval: float,
) -> None:
    """Take results as they come, and commit what is finished from time to time, at the end, and when something goes wrong.

    Args:
        results: A generator, which is closed when something goes wrong.
        take: Keeps a result among those that are finished, or raises.
        commit: Commits what is finished; gets whether that is the last time.
        finished: What waits for a commit.
        interval: Seconds between commits.

    Raises:
        StoreWriteError: What ``take`` or ``commit`` raised, with what became of the rest and what to do.
    """
    last = time.monotonic()
    try:
        for result in results:
            take(result)
            if time.monotonic() - last >= interval or len(finished()) >= _ROWS_PER_COMMIT:
                commit(False)
                last = time.monotonic()
        commit(True)  # in here: a Ctrl-C that meets the last commit must not undo it
    except BaseException as error:
        # Also on Ctrl-C: whole subjects are worth keeping. An error of this commit must not hide the first one.
        close: Any = getattr(results, "close", None)
        if close is not None:
            close()
        kept = "what was finished before is kept"
        try:
            commit(True)
        except StoreWriteError:
            kept = f"{len(finished())} finished subjects could not be committed either and will be done again"
        if isinstance(error, StoreWriteError):
            raise StoreWriteError(f"{error}; {kept}: make room, and run the same command again") from error
        raise


def explain(error: Exception, where: str) -> tuple[str, bool]:
    """Why the work on a subject failed, in words, and whether it is the store that failed, so that going on makes no sense.

    Args:
        error: What was raised.
        where: The subject, or its files.
    """
    if isinstance(error, RadioloaderError):
        return str(error), isinstance(error, StoreWriteError)
    if isinstance(error, MemoryError):
        return f"not enough memory for {where}; use fewer workers", False
    return f"{where}: unexpected {type(error).__name__}: {error}", False
