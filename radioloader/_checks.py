"""Checks of arguments that several parts share."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from radioloader.errors import ConfigError

__all__ = ["as_whole"]


def as_whole(value: Any, name: str, *, minimum: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        ConfigError: Not a whole number of at least ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or (minimum is not None and value < minimum):
        least = "" if minimum is None else f" of at least {minimum}"
        raise ConfigError(f"{name}={value!r} must be a whole number{least}")
    return int(value)
