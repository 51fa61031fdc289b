"""Numbers and counts in words, the same on the page and in the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["count", "figure", "isolated", "listed", "shape_text", "shortened", "spacing_text", "tally"]


_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]")


def figure(value: float) -> str:
    """A number to 4 digits, without exponent where a person would write none: ``"1500000"``, ``"0.25"``."""
    if not math.isfinite(value):
        return "-"
    if 1e4 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}"


def count(number: int, what: str) -> str:
    """``"1 volume"``, ``"2 volumes"``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shape_text(shape: Sequence[int]) -> str:
    """``"512x512x140"``; a fourth axis where it is not 0."""
    return "x".join(str(int(n)) for n in shape if n)


def spacing_text(spacing: Sequence[float]) -> str:
    """``"1x1.2x2"``."""
    return "x".join(f"{value:.3g}" for value in spacing)


def tally(values: Iterable[Any], most: int = 6) -> list[tuple[str, int]]:
    """Values with how often each occurs, the most frequent first; those after the first ``most`` as one line."""
    counted = sorted(Counter(map(str, values)).items(), key=lambda item: (-item[1], item[0]))
    rest = counted[most:]
    return counted[:most] + ([(count(len(rest), "other"), sum(number for _, number in rest))] if rest else [])


def listed(names: Sequence[str], most: int = 5) -> str:
    """``"a, b, c and 7 more"``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def shortened(text: str, longest: int) -> str:
    """A text of at most ``longest`` characters, of which the last is an ellipsis where it was cut."""
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def isolated(text: str) -> str:
    """A name for the middle of a text, in which nothing of it turns the direction of what follows (Unicode Annex 9, FSI and PDI)."""
    return f"\u2068{text}\u2069" if _RIGHT_TO_LEFT.search(text) else text
