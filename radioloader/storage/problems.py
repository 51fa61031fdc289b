"""What an ingest could not take in, kept in the store: who looks at a cohort later should see what is missing from it, and why."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import tiledb

from radioloader.errors import ReadError
from radioloader.storage.context import context_for
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import Column, Commits, Table, newest

__all__ = ["FAILED", "LEFT_OUT", "NO_VOLUME", "Problem", "change_problems", "read_problems"]

FAILED = "failed"
"""Status of a subject, or a volume of it, that could not be ingested."""

LEFT_OUT = "left out"
"""Status of a file that was seen and not taken."""

NO_VOLUME = "no volume"
"""Status of files that nobody expects in a store: sidecars, tables, litter; by what their names end in."""

_TABLE = "problems"
_KEYS = ("status", "obs_subject_id", "source")
_COLUMNS = [*(Column(name, "str") for name in (*_KEYS, "reason")), Column("time", "int")]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is not in the store.

    Attributes:
        status: :data:`FAILED`, :data:`LEFT_OUT` or :data:`NO_VOLUME`.
        subject: The subject; empty where nobody knows.
        source: The file, or the kind of files; empty where the problem is of a subject. Never the path of a DICOM file.
        reason: Why.
    """

    status: str
    subject: str
    source: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same problem, whatever its reason is now."""
        return self.status, self.subject, self.source


def _table(store: Store) -> Table | None:
    """The table, where there has been a problem."""
    table = store.table(_TABLE)
    try:
        kind = tiledb.object_type(table.uri, ctx=context_for(table.uri, store.config))
    except tiledb.TileDBError as error:
        raise ReadError(f"could not look at {table.uri}: {error}") from error
    return None if kind is None else table


def read_problems(store: Store, commits: Commits) -> list[Problem]:
    """The problems that are known at a version, sorted.

    Raises:
        ReadError: The table is damaged or out of reach.
    """
    table = _table(store)
    if table is None:
        return []
    rows = newest(table.read(), commits, *_KEYS)
    columns = [rows[name].tolist() for name in (*_KEYS, "reason")]
    return sorted(Problem(*map(str, row)) for row in zip(*columns, strict=True))


def _writable(problem: Problem) -> Problem:
    """With names of files that are no UTF-8 as escapes."""
    texts = (problem.status, problem.subject, problem.source, problem.reason)
    return Problem(*(text.encode("utf-8", "backslashreplace").decode() for text in texts))


def change_problems(store: Store, transaction: Transaction, add: Iterable[Problem], solved: Iterable[Problem]) -> None:
    """Append rows of problems that are new or have another reason, and tombstones of those that are solved. With the commit they exist.

    Args:
        store: The store.
        transaction: Its writer's.
        add: Problems that there are now.
        solved: Problems of the store that there are no longer.
    """
    existing = {problem.key: problem for problem in read_problems(store, transaction.commits)}
    now = {problem.key: problem for problem in map(_writable, add)}
    changed = [problem for key, problem in now.items() if existing.get(key) != problem]
    gone = [problem for problem in solved if problem.key in existing and problem.key not in now]
    if not changed and not gone:
        return
    table = _table(store)
    if table is None:
        table = store.table(_TABLE)
        table.create(_COLUMNS)
    both = [*changed, *gone]
    transaction.append(
        table,
        {
            "status": [problem.status for problem in both],
            "obs_subject_id": [problem.subject for problem in both],
            "source": [problem.source for problem in both],
            "reason": [problem.reason for problem in both],
            "time": [time.time_ns() // 1_000_000] * len(both),
            "deleted": [False] * len(changed) + [True] * len(gone),
        },
    )
