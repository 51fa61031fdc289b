"""Which subjects the patients of DICOM files become, with what a store has of them already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from radioloader.formats.dicom.frames import SeriesFacts
from radioloader.formats.dicom.volumes import DicomVolume
from radioloader.ingestion.dicom_source import DicomOptions
from radioloader.ingestion.intake import VolumeSource

__all__ = ["DicomFound", "KnownIds", "People"]

KnownIds = Callable[[str], Iterable[str]]
"""The subjects under which a store has something of a series, from the name of a source."""

Patient = tuple[str, str]
_PLACEHOLDERS = {"NA", "NONE", "NULL", "NOID", "UNKNOWN", "PATIENT", "PATIENTID", "DEIDENTIFIED", "REMOVED"}


@dataclass(slots=True)
class DicomFound:
    """What a cohort takes from DICOM files.

    Attributes:
        sources: By collection as it was asked for, then subject: sources by slot.
        collections: The collections that these slots belong to, each with the one that was asked for.
        gone: By subject, slots of the store whose volumes are replaced by others of the same series.
        unusable: Subjects (or ``""``) and why something of theirs cannot be ingested.
        notes: What a user should know.
        guessed: Subjects whose ids no user gave.
    """

    sources: dict[str, dict[str, dict[str, VolumeSource]]] = field(default_factory=dict)
    collections: dict[str, str] = field(default_factory=dict)
    gone: dict[str, set[str]] = field(default_factory=dict)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guessed: set[str] = field(default_factory=set)


class People:
    """The subjects of an ingest.

    Args:
        options: How ids are made.
        known_ids: Keep the ids of a store.
        found: Gets the notes, and the subjects whose ids are guessed.
    """

    def __init__(self, options: DicomOptions, known_ids: KnownIds | None, found: DicomFound) -> None:
        self._rule, self._pseudonyms = options.rule, options.pseudonyms
        self._known_ids, self._found = known_ids, found
        self._by_patient: dict[Patient, str] = {}
        self._by_series: dict[str, str] = {}
        self._issuers: dict[str, set[str]] = {}
        self._merged: dict[str, set[Patient]] = {}

    def settle(self, volumes: Sequence[DicomVolume]) -> None:
        """Look at all volumes of the ingest: who is who can only be told from all of them."""
        for volume in volumes:
            identity, issuer = volume.facts.patient
            if identity and issuer:
                self._issuers.setdefault(identity, set()).add(issuer)
        everyone = [self._complete(volume.facts) for volume in volumes]
        self._warn_of_placeholders(everyone)
        if self._rule.kind == "patient" and self._pseudonyms:
            self._keep_pseudonyms(everyone)
        if self._rule.kind == "study":
            self._by_patient = self._rule.groups(everyone)
            self._keep_ids(everyone)

    def _complete(self, facts: SeriesFacts) -> SeriesFacts:
        """With the issuer of the PatientID, where only other files of that patient name it: one of two exports may leave it out."""
        identity, issuer = facts.patient
        issuers = self._issuers.get(identity, set())
        if not identity or issuer or len(issuers) != 1:
            return facts
        return replace(facts, patient=(identity, next(iter(issuers))))

    def _warn_of_placeholders(self, everyone: Sequence[SeriesFacts]) -> None:
        studies: dict[Patient, set[str]] = {}
        for facts in everyone:
            studies.setdefault(self._rule.patient(facts), set()).add(facts.study)
        several = {patient for patient, found in studies.items() if len(found) > 1}
        advice = "if that is a placeholder of an anonymiser, and they are of several people, give subject='folder:N' (--subject)"
        by_id = self._rule.kind in ("study", "patient")
        if by_id and len(studies) == 1 and several:
            self._found.notes.append(f"all studies have one PatientID; {advice}")
        elif by_id and (found := [patient for patient in several if _is_placeholder(patient[0])]):
            number = sum(len(studies[patient]) for patient in found)
            self._found.notes.append(f"{number} studies have a PatientID that reads like a placeholder; {advice}")

    def _keep_ids(self, everyone: Sequence[SeriesFacts]) -> None:
        if self._known_ids is None:
            return
        owners: dict[Patient, set[str]] = {}
        for facts in everyone:
            known = self.owners(facts.series)
            owners.setdefault(self._rule.patient(facts), set()).update(known)
            if len(known) == 1:
                # Also of a patient who came in twice, with studies that nobody could know to be of one person.
                self._by_series[facts.series] = next(iter(known))
        for patient, subjects in owners.items():
            if subjects and self._by_patient[patient] not in subjects:
                self._by_patient[patient] = min(subjects)
            if len(subjects) > 1:
                self._found.notes.append(
                    f"the subjects {', '.join(map(repr, sorted(subjects)))} of the store are one patient, who came in with different "
                    f"studies; what is new of this patient is ingested as {self._by_patient[patient]!r}"
                )

    def _keep_pseudonyms(self, everyone: Sequence[SeriesFacts]) -> None:
        """Who was known with an issuer, and comes without one now, or the other way round, keeps the id of the store."""
        for facts in everyone:
            identity, issuer = facts.patient
            known = self.owners(facts.series) if identity else set()
            without = self._rule.subject(replace(facts, patient=(identity, "")), "", "")[0] if identity else ""
            if len(known) == 1 and (not issuer or without in known):
                self._by_patient[facts.patient] = next(iter(known))

    def owners(self, series: str) -> set[str]:
        """The subjects under which the store has something of a series."""
        return set(self._known_ids(f"dicom:{self._pseudonyms.uid(series)}")) if self._known_ids is not None else set()

    def take(self, facts: SeriesFacts, subject: str) -> None:
        """A series is ingested as this subject's."""
        self._by_series.setdefault(facts.series, subject)

    def subject(self, facts: SeriesFacts, folder: str, roots: Sequence[str], given: str | None) -> tuple[str, str]:
        """The subject of a series, or empty, and why there is none."""
        facts = self._complete(facts)
        subject, reason = (given, "") if given is not None else self._find(facts, folder, roots)
        if subject and facts.patient[0]:
            self._merged.setdefault(subject, set()).add(facts.patient)
        return subject, reason

    def _find(self, facts: SeriesFacts, folder: str, roots: Sequence[str]) -> tuple[str, str]:
        rule = self._rule
        if facts.series in self._by_series:
            return self._by_series[facts.series], ""
        if rule.kind == "study":
            subject = self._by_patient.get(rule.patient(facts)) or rule.groups([facts])[rule.patient(facts)]
            self._found.guessed.add(subject)
            return subject, ""
        if rule.kind == "patient" and not self._pseudonyms and len(self._issuers.get(facts.patient[0], ())) > 1:
            return "", (
                "its PatientID was given by several issuers (IssuerOfPatientID), so it may be that of several patients; use "
                "subject='folder:N', a mapping from subject id to folder, or pseudonymize, which tells them apart"
            )
        if facts.patient in self._by_patient:
            return self._by_patient[facts.patient], ""
        return rule.subject(facts, folder, _root_of(folder, roots))

    def subject_of_label(
        self, image: DicomVolume, roots: Sequence[str], given: str | None, taken: set[str]
    ) -> tuple[str, str]:
        """The subject of a label: that of its image, where this ingest (``taken``: as whose) or the store has it. Or empty, and why."""
        subject, reason = self.subject(image.facts, image.folder, roots, given)
        owners = taken or self.owners(image.facts.series)
        if not owners or subject in owners:
            return subject, reason
        if given is None and len(owners) == 1:
            return next(iter(owners)), ""
        there = " and ".join(map(repr, sorted(owners)))
        where = "comes in now" if taken else "is in the store"
        return "", (
            f"the image that it refers to, {image.describe()}, {where} as subject {there}; this label would be "
            f"{f'subject {subject!r}' if subject else 'nobody'}: give both the same id, with a mapping from subject id to folder"
        )

    def note_merged(self) -> None:
        """Tell of subjects that several patients have become, because the user wanted it so, or did not know."""
        merged = sorted(subject for subject, patients in self._merged.items() if len(patients) > 1)
        if merged:
            some = ", ".join(map(repr, merged[:3])) + (", ..." if len(merged) > 3 else "")
            self._found.notes.append(
                f"{len(merged)} subjects hold files of several patients (PatientID and its issuer): {some}; if they are not one person, "
                "give another subject rule, or a mapping from subject id to folder"
            )


def _is_placeholder(identity: str) -> bool:
    text = "".join(letter for letter in identity.upper() if letter.isalnum())
    return not text.strip("0") or not text.strip("X") or text.startswith("ANON") or text in _PLACEHOLDERS


def _root_of(folder: str, roots: Sequence[str]) -> str:
    """The root that a folder or file lies in; the first where it is in none."""
    inside = [root for root in roots if folder == root or folder.startswith(root.rstrip(os.sep) + os.sep)]
    return max(inside, key=len, default=roots[0])
