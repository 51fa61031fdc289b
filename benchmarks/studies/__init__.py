"""Measurements of radioloader alone: what contexts and ingest cost, how writing scales, what S3 costs, which positions are cheap; and
published pipelines of other libraries, beside these."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from benchmarks.model import Cohort

__all__ = ["STUDIES", "run"]

STUDIES = {
    "contexts": "memory of TileDB contexts",
    "positions": "kinds of positions, and slices in blocks",
    "repeats": "the first read of a place and the next ones",
    "threads": "threads that read side by side",
    "tiles": "tile extents and filters",
    "ingest": "ingest beside decompressing the same files",
    "writing": "ingest with more and more processes",
    "scan": "scanning DICOM files beside reading their headers",
    "s3": "an S3 server with latency, and the local disk",
    "pipelines": "published pipelines of MONAI and TorchIO, in radioloader's datasets and in their own",
}
"""Module -> what it measures. Each has ``measure(cohort, full)``, which yields ``value``, ``unit``, ``name`` and what else tells one
line from another."""


def run(name: str, cohort: Cohort, *, full: bool) -> Iterator[dict[str, Any]]:
    """The records of a study."""
    return iter(importlib.import_module(f"benchmarks.studies.{name}").measure(cohort, full))
