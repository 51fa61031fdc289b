"""All that is known of a cohort without reading a voxel: for the report, and for ``radioloader info``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.overview.facts import CollectionFacts, duplicates, missing, read_facts, without_volume
from radioloader.overview.outliers import find_outliers
from radioloader.overview.pairing import Entry, Place, pair
from radioloader.overview.source import SubjectsSnapshot
from radioloader.storage.problems import FAILED, LEFT_OUT, NO_VOLUME, Problem, read_problems
from radioloader.storage.snapshot import Snapshot

__all__ = ["Survey", "survey"]


@dataclass(frozen=True, slots=True)
class Survey:
    """A cohort at one version.

    Attributes:
        cohort: The facts by collection.
        entries: Each image with the labels on its grid, and each label on no image's.
        outliers: Why volumes are odd, by collection and place.
        duplicates: Groups of volumes that hold the same.
        lacking: Subjects without a volume, by collection.
        user: (subjects,) the subjects' own columns.
        missing: (subjects,) whether the value is missing, by column.
        problems: What is not in the store.
    """

    cohort: Mapping[str, CollectionFacts]
    entries: list[Entry]
    outliers: Mapping[Place, list[str]]
    duplicates: list[list[Place]]
    lacking: Mapping[str, list[str]]
    user: Mapping[str, npt.NDArray[Any]]
    missing: Mapping[str, npt.NDArray[np.bool_]]
    problems: list[Problem]

    @property
    def failed(self) -> list[Problem]:
        """Subjects, or volumes of them, that could not be ingested."""
        return self._of(FAILED)

    @property
    def left_out(self) -> list[Problem]:
        """Files that were seen and not taken."""
        return self._of(LEFT_OUT)

    @property
    def no_volumes(self) -> list[Problem]:
        """Files, or groups of them, that hold no volumes."""
        return self._of(NO_VOLUME)

    def _of(self, status: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.status == status]


def survey(snapshot: Snapshot) -> Survey:
    """Survey a store, or some of its subjects, of which the problems are only those that name them.

    Raises:
        ReadError: A table of the store is damaged or out of reach.
    """
    cohort = read_facts(snapshot)
    entries = pair(cohort)
    user = snapshot.metadata()
    judged = {place for entry in entries if entry.image is not None for place in entry.labels}
    problems = read_problems(snapshot.store, snapshot.commits)
    if isinstance(snapshot, SubjectsSnapshot):
        chosen = set(snapshot.subject_ids)
        problems = [problem for problem in problems if problem.subject in chosen]
    return Survey(
        cohort=cohort,
        entries=entries,
        outliers={
            (name, place): reasons
            for name, facts in cohort.items()
            for place, reasons in find_outliers(facts, {place for of, place in judged if of == name}).items()
        },
        duplicates=duplicates(cohort),
        lacking=without_volume(snapshot),
        user=user,
        missing={name: missing(values) for name, values in user.items()},
        problems=problems,
    )
