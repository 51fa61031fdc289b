"""What is measured (jobs), on what (a cohort), and what comes out (records). Imports nothing that takes time: every contestant's start
is timed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["BATCH", "UNITS", "Cohort", "Job", "Record", "config_of", "from_json", "outcome", "without_folders"]

BATCH = 4
"""Patches or slices in a batch."""

UNITS = {
    "patches": "patches/s",
    "volumes": "volumes/s",
    "slices": "slices/s",
    "cold": "patches/s",
    "first-batch": "s",
    "prepare": "s",
    "call": "ms",
}
"""Unit of each workload's ``value``."""

Record = dict[str, Any]
"""One measurement: the job's fields, ``repetition``, and either ``value`` and ``unit``, or ``error``, or ``skipped`` with the reason."""


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to measure.

    Attributes:
        peer: The contestant.
        workload: ``patches``, ``volumes``, ``slices``, ``cold`` (patches after the page cache was emptied), ``first-batch``, ``prepare``,
            ``call`` (one operation on an open data set), ``study`` (measurements with tables of their own) or ``pipeline`` (one figure of
            a published pipeline, for the study of that name).
        size: Edge of a cubic patch in voxels.
        plane: Plane of slices.
        dtype: dtype of images that is asked for where the contestant leaves a choice: ``stored`` or ``float32``.
        workers: Worker processes.
        threads: Threads that make batches, where the contestant has such a mode.
        detail: Which operation, which study, which figure of which pipeline.
    """

    peer: str
    workload: str
    size: int = 0
    plane: str = ""
    dtype: str = "stored"
    workers: int = 0
    threads: int = 0
    detail: str = ""

    def __str__(self) -> str:
        what = [self.workload, f"{self.size}^3" if self.size else "", self.plane, self.detail]
        how = [self.dtype if self.dtype != "stored" else "", f"{self.workers} workers"]
        how += [f"{self.threads} threads"] if self.threads else []
        return f"{self.peer}: {' '.join(filter(None, what))} ({', '.join(filter(None, how))})"


@dataclass(frozen=True, slots=True)
class Cohort:
    """Where the files are. What peers make of them lies in the same folder.

    Attributes:
        folder: All of it.
        subjects: How many.
        shape: Voxels (x, y, z) of every image and label.
    """

    folder: Path
    subjects: int
    shape: tuple[int, int, int]

    @property
    def names(self) -> list[str]:
        """Ids of the subjects."""
        return [f"sub-{number:02d}" for number in range(self.subjects)]

    def images(self, suffix: str = ".nii.gz") -> list[Path]:
        """The images' files, ``.nii.gz`` or ``.nii``."""
        return [self.folder / f"files{suffix}" / "images" / f"{name}{suffix}" for name in self.names]

    def labels(self, suffix: str = ".nii.gz") -> list[Path]:
        """The labels' files."""
        return [self.folder / f"files{suffix}" / "labels" / f"{name}{suffix}" for name in self.names]

    def load(self, number: int) -> tuple[Any, Any]:
        """Image (X, Y, Z) int16 and label uint8 of one subject, decoded from ``.nii.gz``, in Fortran order as nibabel gives them."""
        import nibabel as nib
        import numpy as np

        files = self.images()[number], self.labels()[number]
        image, label = (np.asarray(nib.load(file).dataobj) for file in files)
        return image, label


def outcome(job: Job, repetition: int = 0, **values: Any) -> Record:
    """A record of ``job``."""
    return {**asdict(job), "repetition": repetition, **values}


def config_of(record: Record) -> tuple[Any, ...]:
    """What tells one configuration from another: the job's fields."""
    return tuple(record.get(field.name, field.default) for field in fields(Job))


def from_json(text: str) -> tuple[list[Job], Cohort, dict[str, Any]]:
    """Jobs, cohort and settings of a child process, from its command line."""
    data = json.loads(text)
    cohort = Cohort(Path(data["cohort"]["folder"]), data["cohort"]["subjects"], tuple(data["cohort"]["shape"]))
    return [Job(**job) for job in data["jobs"]], cohort, data["settings"]


def without_folders(text: str) -> str:
    """``text`` with files by their names alone: results are shown to others, and say nothing of this machine's folders."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s\"'/|]+/)+", "", text)
