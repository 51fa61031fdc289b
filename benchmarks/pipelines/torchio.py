"""TorchIO's queue and dataset."""

from __future__ import annotations

from typing import Any, ClassVar

import torchio as tio

from benchmarks.model import Cohort, Job
from benchmarks.peers.base import Feed, torch_loader
from benchmarks.pipelines import published
from benchmarks.pipelines.base import PipelinePeer
from benchmarks.pipelines.files import brain_files, brain_spacing

__all__ = ["BATCH", "CYCLE", "FEW", "MAX_LENGTH", "PATCHES", "REPEATS", "Queue", "Subjects", "sampler", "transforms"]

BATCH = 16
"""Patches in a batch, as published."""

FEW = 4
"""Whole subjects in a batch: 16 where it was published, which takes four times as long."""

PATCHES = 5
"""Of each subject."""

MAX_LENGTH = 80
"""Patches in a queue: 300 where it was published, which would only delay the first batch."""

CYCLE = MAX_LENGTH // BATCH
REPEATS = 48
"""How often a subject is visited in an epoch: whole refills, and so many that epochs are long."""


def transforms(cohort: Cohort) -> tuple[list[Any], list[Any]]:
    """The deterministic transforms at the head, and those that follow."""
    return published.brain(brain_spacing(cohort))


def sampler() -> Any:
    """The published one."""
    return tio.LabelSampler(24, "brain", {0: 0.5, 1: 0.5})


class Subjects(PipelinePeer):
    """``SubjectsDataset`` under ``SubjectsLoader``."""

    packages: ClassVar[tuple[str, ...]] = ("torchio", "SimpleITK", "torch", "numpy")

    def dataset(self, name: str) -> Any:
        head, rest = transforms(self.cohort)
        files = brain_files(self.cohort)
        subjects = [
            tio.Subject(mri=tio.ScalarImage(mri), brain=tio.LabelMap(brain))
            for mri, brain in zip(files["mri"], files["brain"], strict=True)
        ]
        return tio.SubjectsDataset(subjects * REPEATS, tio.Compose([*head, *rest]))

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        return Feed(torch_loader(dataset, FEW, job.workers, tio.SubjectsLoader))


class Queue(Subjects):
    """``Queue``, whose own workers load subjects; patches are taken in this process, as it must be."""

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        queue = tio.Queue(dataset, MAX_LENGTH, PATCHES, sampler(), num_workers=job.workers)
        return Feed(tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0), cycle=CYCLE)
