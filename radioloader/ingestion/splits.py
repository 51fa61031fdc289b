"""Splits that a cohort's folders say: ``imagesTr`` and ``imagesTs``, ``train``, ``val`` and ``test``."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping

from radioloader.errors import CatalogError, ConfigError
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.folders import walk
from radioloader.ingestion.intake import split_component
from radioloader.ingestion.metadata import Metadata
from radioloader.ingestion.report import IngestReport
from radioloader.ingestion.slots import is_dicom
from radioloader.storage.snapshot import USER_PREFIX
from radioloader.storage.table import Column

__all__ = ["SPLIT", "add_split", "find_splits"]

SPLIT = "split"
"""The subjects' column."""


def find_splits(splits: Mapping[str, str | os.PathLike[str]], cohort: Cohort, report: IngestReport) -> dict[str, str]:
    """The split of each subject. One that has files in two splits becomes a failure of the cohort.

    Args:
        splits: Folder or glob by name of the split.
        cohort: The subjects and their files.
        report: Gets a note of subjects that are in none.

    Raises:
        ConfigError: ``splits`` is no such mapping, or a split has no file of the cohort.
    """
    if not isinstance(splits, Mapping) or not splits or not all(isinstance(name, str) and name for name in splits):
        raise ConfigError(
            f"splits={splits!r} is not a mapping from split to folder or glob, such as {{'test': 'imagesTs'}}"
        )
    owners: dict[str, set[str]] = {}
    for subject, files in cohort.files.items():
        for path in files.values():
            if not is_dicom(path):
                owners.setdefault(os.path.realpath(split_component(path)[0]), set()).add(subject)
    found: dict[str, set[str]] = {}
    for name, source in splits.items():
        text = os.path.expanduser(os.fspath(source))
        paths = walk(text) if os.path.isdir(text) else glob.glob(text, recursive=True)
        subjects = set().union(*(owners.get(os.path.realpath(path), set()) for path in paths))
        if not subjects:
            raise ConfigError(f"split {name!r}: {text} holds no NIfTI file of this ingest (looked in {os.getcwd()})")
        for subject in subjects:
            found.setdefault(subject, set()).add(name)
    for subject, names in found.items():
        if len(names) > 1:
            reason = f"subject {subject!r} has files in the splits {' and '.join(map(repr, sorted(names)))}; one of them must go"
            cohort.failures.setdefault(subject, reason)
    rest = sorted(set(cohort.files) - set(found))
    if rest:
        report.notes.append(
            f"{len(rest)} subjects are in no split, such as {rest[:3]}; their column {SPLIT!r} is missing"
        )
    return {subject: next(iter(names)) for subject, names in found.items() if len(names) == 1}


def add_split(metadata: Metadata, split_of: Mapping[str, str], existing: Mapping[str, Column]) -> None:
    """Add the column to the subjects' own ones.

    Raises:
        CatalogError: There is one of that name already, of another origin or kind.
    """
    on_disk = f"{USER_PREFIX}{SPLIT}"
    if any(column.name == on_disk for column in metadata.columns):
        raise CatalogError(f"obs_meta has a column {SPLIT!r}, and splits would make another one; leave one of them out")
    old = existing.get(on_disk)
    if old is not None and old.kind != "str":
        raise CatalogError(
            f"the store's column {SPLIT!r} holds {old.kind} values, and splits have names; leave splits out"
        )
    metadata.columns.append(Column(on_disk, "str", nullable=True))
    for subject, name in split_of.items():
        metadata.rows.setdefault(subject, {})[on_disk] = name
