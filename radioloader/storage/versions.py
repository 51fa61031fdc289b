"""Which commits make up the version of a store that somebody asks for."""

from __future__ import annotations

import datetime
import math
import numbers
from typing import Any, TypeAlias

from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.store import Store
from radioloader.storage.table import Commits

__all__ = ["At", "commits_at"]

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
    number = _number(at)
    if number is not None:
        if not 1 <= number <= commits.version:
            has = f"versions 1 to {commits.version}" if commits.version else "no version yet"
            raise KeyNotFoundError(f"{store.uri} has no version {number}; it has {has} (see history())")
        return commits.until(number)
    moment = _seconds(at)
    before = commits.versions[commits.times <= round(moment * 1000)]
    if not before.size:
        first = (
            f"its first is of {_shown(int(commits.times.min()) / 1000)}" if commits.version else "it has none at all"
        )
        raise KeyNotFoundError(f"{store.uri} has no version of {_shown(moment)} or before; {first} (see history())")
    return commits.until(int(before.max()))


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
