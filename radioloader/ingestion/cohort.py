"""What an ingest takes: sources by subject and collection."""

from __future__ import annotations

from dataclasses import dataclass, field

from radioloader.ingestion.intake import VolumeSource

__all__ = ["Cohort"]


@dataclass(slots=True)
class Cohort:
    """Files by subject and collection.

    Attributes:
        files: Name of the source by subject, then slot (:mod:`radioloader.ingestion.slots`); subjects sorted.
        sources: The sources themselves.
        gone: By subject, slots of the store whose volumes are replaced by others of the same series, under other names.
        collections: The collections, each with the name that it was asked for by.
        failures: Why a subject cannot be ingested, by subject.
        unusable: Subjects (empty where nobody knows) and why a volume of theirs is left out.
        notes: What a user should know.
        rule: How subject ids were made from file names.
        guessed: The subjects whose ids come from file names, not from the user (a mapping, or a regular expression).
        dicom: The collections that were asked for of DICOM files.
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    sources: dict[str, dict[str, VolumeSource]] = field(default_factory=dict)
    gone: dict[str, set[str]] = field(default_factory=dict)
    collections: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rule: str = ""
    guessed: set[str] = field(default_factory=set)
    dicom: set[str] = field(default_factory=set)
