"""All that is known of a cohort without reading a voxel: for the report, and for ``radioloader info``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radioloader.overview.facts import CollectionFacts, duplicates, missing_values, read_facts, without_volume
from radioloader.overview.outliers import find_outliers
from radioloader.overview.pairing import Place
from radioloader.storage.problems import FAILED, Problem, read_problems
from radioloader.storage.snapshot import Snapshot

__all__ = ["Survey", "survey"]


@dataclass(frozen=True, slots=True)
class Survey:
    """A cohort at one version.

    Attributes:
        cohort: The facts by collection.
        outliers: Why volumes are odd, by collection and place.
        duplicates: Groups of volumes that hold the same.
        lacking: Subjects without a volume, by collection.
        missing: (subjects,) whether the value is missing, by column.
        problems: What is not in the store.
    """

    cohort: Mapping[str, CollectionFacts]
    outliers: Mapping[Place, list[str]]
    duplicates: list[list[Place]]
    lacking: Mapping[str, list[str]]
    missing: Mapping[str, npt.NDArray[np.bool_]]
    problems: list[Problem]

    @property
    def failed(self) -> list[Problem]:
        """Subjects, or volumes of them, that could not be ingested."""
        return [problem for problem in self.problems if problem.status == FAILED]

    @property
    def left_out(self) -> list[Problem]:
        """Files that were seen and not taken."""
        return [problem for problem in self.problems if problem.status != FAILED]


def survey(snapshot: Snapshot) -> Survey:
    """Survey a store.

    Raises:
        ReadError: A table of the store is damaged or out of reach.
    """
    cohort = read_facts(snapshot)
    return Survey(
        cohort=cohort,
        outliers={
            (name, place): reasons for name, facts in cohort.items() for place, reasons in find_outliers(facts).items()
        },
        duplicates=duplicates(cohort),
        lacking=without_volume(snapshot),
        missing=missing_values(snapshot),
        problems=read_problems(snapshot.store, snapshot.commits),
    )
