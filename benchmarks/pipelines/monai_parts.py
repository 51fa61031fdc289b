"""Files and transforms of MONAI's pipelines, the same for every contestant."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Cohort
from benchmarks.pipelines import published
from benchmarks.pipelines.files import brain_shape, brats_files, ct_files

__all__ = ["BATCH", "parts"]

BATCH = {"spleen": 2, "brats": 1}
"""Volumes in a batch, as published."""


def parts(name: str, cohort: Cohort) -> tuple[list[dict[str, str]], list[Any], list[Any]]:
    """The datalist, the deterministic transforms at the head, and those that follow."""
    if name == "spleen":
        return ct_files(cohort), *published.spleen(published.spleen_patch(cohort.shape))
    return brats_files(cohort), *published.brats(published.brats_roi(brain_shape(cohort)))
