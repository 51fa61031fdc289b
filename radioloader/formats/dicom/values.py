"""Values of attributes as plain numbers and texts, or an error that names the attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from radioloader.errors import FormatError

__all__ = ["depth_of", "has_rescale", "integer", "item", "moment", "number", "seconds", "text", "vector"]


_FAR = 1e9
"""mm: nothing that is scanned is that far away, and squares of it can be added."""


def text(dataset: Any, keyword: str) -> str:
    """The attribute as text without padding, several values with backslashes between them; empty when it is missing."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = "\\".join(str(part) for part in value)
    return str(value).strip(" \0")


def integer(dataset: Any, keyword: str) -> int | None:
    """The attribute as a whole number; None when it is missing or none."""
    try:
        return int(_first(dataset.get(keyword)))
    except (TypeError, ValueError, OverflowError):
        return None


def number(dataset: Any, keyword: str, default: float) -> float:
    """The attribute as a number; ``default`` when it is missing or empty.

    Raises:
        FormatError: It is there and no finite number.
    """
    value = _first(dataset.get(keyword))
    if value is None or value == "":
        return default
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise FormatError(f"{keyword} is not a number")
    return result


def vector(dataset: Any, keyword: str, length: int) -> tuple[float, ...]:
    """The attribute as ``length`` numbers: a place, directions or distances.

    Raises:
        FormatError: It is missing, or holds anything else.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        raise FormatError(f"it has no {keyword}")
    try:
        result = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        result = ()
    if len(result) != length or not all(math.isfinite(part) for part in result):
        raise FormatError(f"{keyword} does not hold {length} numbers")
    if max(map(abs, result)) > _FAR:
        raise FormatError(
            f"{keyword} holds {max(map(abs, result)):.3g}, which is out of all proportion (mm, or cosines)"
        )
    return result


def depth_of(dataset: Any) -> float:
    """How far it is from slice to slice, in mm, by what the header says of a single one; 0 where it does not.

    SpacingBetweenSlices may be negative in nuclear medicine (PS3.3 C.8.4.14) and tells a direction then, which positions tell as well.
    """
    return abs(number(dataset, "SpacingBetweenSlices", 0.0)) or number(dataset, "SliceThickness", 0.0)


def has_rescale(dataset: Any) -> bool:
    """Whether the header says what stored values mean, whatever it says."""
    return any(dataset.get(keyword) not in (None, "") for keyword in ("RescaleSlope", "RescaleIntercept"))


def item(dataset: Any, keyword: str) -> Any:
    """The first item of a sequence; None when it is missing or empty."""
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def seconds(value: str) -> float | None:
    """A DICOM time (HHMMSS.FFFFFF) or date and time (YYYYMMDDHHMMSS.FFFFFF) as seconds from an arbitrary start; None when it is none.

    Both may end after hours or minutes (PS3.5 6.2); an offset from UTC is not looked at: it is that of the other times as well.
    """
    whole, _, fraction = value.split("+")[0].split("-")[0].replace(":", "").partition(".")
    if not whole.isdigit() or len(whole) not in (2, 4, 6, 10, 12, 14):
        return None
    days = 0
    if len(whole) >= 10:
        import datetime

        try:
            days = datetime.date(int(whole[:4]), int(whole[4:6]), int(whole[6:8])).toordinal()
        except ValueError:
            return None
        whole = whole[8:]
    whole = whole.ljust(6, "0")
    clock = int(whole[:2]) * 3600 + int(whole[2:4]) * 60 + int(whole[4:])
    return days * 86400 + clock + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)


def moment(date: str, time: str) -> float | None:
    """A DICOM date and time as :func:`seconds`; the time alone where there is no (right) date, None where there is no time."""
    whole, _, fraction = time.replace(":", "").partition(".")
    if not whole:
        return None
    together = seconds(f"{date.replace('.', '')}{whole.ljust(6, '0')}.{fraction}")
    return seconds(time) if together is None or not date else together


def _first(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return (
        value[0] if hasattr(value, "__getitem__") and len(value) else value if not hasattr(value, "__len__") else None
    )
