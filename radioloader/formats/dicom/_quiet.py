"""Silence around pydicom and highdicom."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from radioloader._optional import require

__all__ = ["quiet"]


@contextmanager
def quiet(*, lenient: bool = False) -> Iterator[None]:
    """Within this, pydicom and highdicom neither warn nor log: they quote values of the header, which may be a patient's. What matters of
    it is in our errors, notes and verdicts.

    Args:
        lenient: Also take values as they are, whatever the standard allows: for reading.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    taking = require("pydicom.config", extra="dicom").disable_value_validation() if lenient else nullcontext()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), taking:
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
