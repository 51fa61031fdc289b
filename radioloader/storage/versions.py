"""Which commits make up the version of a store that somebody asks for."""

from __future__ import annotations

import datetime
import json
import math
import numbers
from typing import Any, TypeAlias

from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.store import Store
from radioloader.storage.table import Commits

__all__ = ["FORGOTTEN", "At", "commits_at", "oldest_version"]

FORGOTTEN = "forgotten"
"""Key of the changes of a commit by which older versions were given up: the newest of these."""

At: TypeAlias = int | float | str | datetime.datetime
"""A version (int), or a time: an ISO 8601 text, a ``datetime``, or seconds since 1970 (float)."""


def commits_at(store: Store, at: At | None) -> Commits:
    """The commits of a version.

    Args:
        store: The store.
        at: A version; or a time, for the newest version of that time. Times without a zone are local ones, a date means its first
            moment. None takes the newest version.

    Raises:
        ConfigError: ``at`` is neither a version nor a time.
        KeyNotFoundError: The store has no such version, or did not exist then.
    """
    commits = store.commits()
    if at is None:
        return commits
    oldest = oldest_version(store)
    number = _number(at)
    if number is not None:
        if not oldest <= number <= commits.version:
            has = f"versions {oldest} to {commits.version}" if commits.version else "no version yet"
            given_up = f"; those before {oldest} were given up (vacuum)" if oldest > 1 else ""
            raise KeyNotFoundError(f"{store.uri} has no version {number}; it has {has} (see history()){given_up}")
        return commits.until(number)
    moment = _seconds(at)
    before = commits.versions[commits.times <= round(moment * 1000)]
    if not before.size or before.max() < oldest:
        first = commits.times[commits.versions >= oldest]
        since = f"its first is of {_shown(int(first.min()) / 1000)}" if first.size else "it has none at all"
        raise KeyNotFoundError(f"{store.uri} has no version of {_shown(moment)} or before; {since} (see history())")
    return commits.until(int(before.max()))


def oldest_version(store: Store) -> int:
    """The oldest version that can be opened: 1, unless older ones were given up."""
    rows = store.table("commits").read(["changes"])
    return 1 + max((json.loads(changes).get(FORGOTTEN, 0) for changes in rows["changes"].tolist()), default=0)


def _number(at: Any) -> int | None:
    """The version that is meant, also where numpy made the integer."""
    return None if isinstance(at, bool) or not isinstance(at, numbers.Integral) else int(at)


def _seconds(at: object) -> float:
    try:
        if isinstance(at, str):
            at = datetime.datetime.fromisoformat(at)
        if isinstance(at, datetime.datetime):
            return at.timestamp()
        if isinstance(at, float) and math.isfinite(at):
            return at
    except (ValueError, OverflowError, OSError):
        pass
    raise ConfigError(
        f"at={at!r} is neither a version (whole number) nor a time; give a time as '2026-11-24T10:30' (ISO 8601; local time unless it "
        "ends in a zone such as '+00:00'), as a datetime, or as seconds since 1970 (float)"
    )


def _shown(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s since 1970"
