"""Whose volume it is: subject ids of DICOM files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from radioloader.errors import CatalogError, ConfigError
from radioloader.formats.dicom.frames import SeriesFacts
from radioloader.ingestion.cells import SUBJECT_COLUMNS
from radioloader.ingestion.identity import Pseudonyms, study_subject
from radioloader.ingestion.naming import normal

__all__ = ["SubjectRule"]

_PATIENT_COLUMNS = ("PatientID", "patient_id", "patientid")


@dataclass(frozen=True)
class SubjectRule:
    """How subject ids are made.

    Attributes:
        kind: ``"study"`` (the default: of the UID of the patient's first study), ``"patient"`` (PatientID), ``"folder"`` or ``"mapping"``.
        level: Which folder below the root, from 1.
        mapping: Subject id by PatientID.
        pseudonyms: With a key, ids are hashed, except those of a mapping.
    """

    kind: str
    level: int = 0
    mapping: Mapping[str, str] = field(default_factory=dict, repr=False)
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)

    @classmethod
    def parse(cls, subject: str | os.PathLike[str] | Mapping[str, str] | None, pseudonyms: Pseudonyms) -> SubjectRule:
        """The rule that a user gives: None, ``"PatientID"``, ``"folder:N"``, or a mapping from PatientID, also as a CSV or TSV file.

        Raises:
            ConfigError: It is none of these.
        """
        if subject is None:
            return cls("patient" if pseudonyms else "study", pseudonyms=pseudonyms)
        if isinstance(subject, Mapping):
            return cls("mapping", mapping={str(k): str(v) for k, v in subject.items()}, pseudonyms=pseudonyms)
        text = os.fspath(subject)
        if text.lower() == "patientid":
            return cls("patient", pseudonyms=pseudonyms)
        folder = re.fullmatch(r"folder:(\d+)", text)
        if folder and int(folder.group(1)) > 0:
            return cls("folder", level=int(folder.group(1)), pseudonyms=pseudonyms)
        if text.lower().endswith((".csv", ".tsv")):
            return cls("mapping", mapping=_read_mapping(text), pseudonyms=pseudonyms)
        raise ConfigError(
            f"subject={text!r} is not 'PatientID', 'folder:N' (the N-th folder below the root, from 1), or a .csv or .tsv file with the "
            f"columns PatientID and {SUBJECT_COLUMNS[0]}"
        )

    def describe(self) -> str:
        """In words, for the report."""
        if self.kind == "study":
            return (
                "a hash of the UID of each patient's first study, since no name or PatientID is kept by default; a patient who comes in "
                "later with other studies only would be another subject: subject='PatientID' or pseudonymize=KEYFILE makes ids of the "
                "PatientID"
            )
        text = {"patient": "PatientID", "folder": f"folder {self.level} below the root", "mapping": "the mapping"}[
            self.kind
        ]
        return f"keyed hash of {text}" if self.pseudonyms and self.kind != "mapping" else text

    def groups(self, facts: Sequence[SeriesFacts]) -> dict[tuple[str, str], str]:
        """Subject id by patient, under the default rule."""
        studies: dict[tuple[str, str], list[str]] = {}
        series: dict[tuple[str, str], list[str]] = {}
        patients: dict[str, set[tuple[str, str]]] = {}
        for one in facts:
            patient = self.patient(one)
            # Files may lack the study's UID, and then they share nothing with others that lack it.
            study = one.study or one.series
            studies.setdefault(patient, []).append(study)
            series.setdefault(patient, []).append(one.series)
            patients.setdefault(study, set()).add(patient)
        # An anonymiser may give all patients one study. Those without a PatientID are told apart by nothing else.
        shared = {study for study, those in patients.items() if sum(bool(patient[0]) for patient in those) > 1}
        return {
            patient: study_subject(found)
            if min(found) not in shared
            else study_subject([f"{min(found)}\0{min(series[patient])}"])
            for patient, found in studies.items()
        }

    @staticmethod
    def patient(facts: SeriesFacts) -> tuple[str, str]:
        """Who it is, as far as the files tell: files without a PatientID belong together by study."""
        return facts.patient if facts.patient[0] else ("", facts.study or facts.series)

    def subject(self, facts: SeriesFacts, folder: str, root: str) -> tuple[str, str]:
        """The subject id of a series, or empty, and why there is none. Not for the default rule."""
        if self.kind == "folder":
            if not os.path.isdir(root):
                return (
                    "",
                    f"it was given as a file, so that subject='folder:{self.level}' counts from nowhere; give a folder above it",
                )
            relative = os.path.relpath(folder, root).split(os.sep)
            if os.path.isfile(folder):
                relative = relative[:-1]
            if len(relative) < self.level or relative[0] in (os.curdir, os.pardir):
                return (
                    "",
                    f"it lies less than {self.level} folders below {root}, so subject='folder:{self.level}' gives no id",
                )
            identity = relative[self.level - 1]
        elif not facts.patient[0]:
            return "", "it has no PatientID; use subject='folder:N', or a mapping from subject id to folder"
        elif self.kind == "mapping":
            found = self.mapping.get(facts.patient[0])
            return (normal(found), "") if found else ("", "the mapping (subject) does not hold its PatientID")
        else:
            identity = facts.patient[0] if not self.pseudonyms else "\0".join(facts.patient)
        identity = normal(identity)
        return (self.pseudonyms.subject(identity) if self.pseudonyms else identity), ""


def _read_mapping(path: str) -> dict[str, str]:
    import pandas as pd

    try:
        table: Any = pd.read_csv(
            path, sep="\t" if path.lower().endswith(".tsv") else ",", dtype=str, keep_default_na=False
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"subject={path!r} cannot be read: {error}") from error
    patient = next((name for name in _PATIENT_COLUMNS if name in table.columns), None)
    subject = next((name for name in SUBJECT_COLUMNS if name in table.columns), None)
    if patient is None or subject is None:
        raise CatalogError(
            f"subject={path!r} has the columns {list(table.columns)}; expected {_PATIENT_COLUMNS[0]} and {SUBJECT_COLUMNS[0]}"
        )
    mapping: dict[str, str] = {}
    for identity, name in zip(table[patient], table[subject], strict=True):
        if mapping.setdefault(identity.strip(), name.strip()) != name.strip():
            raise CatalogError(
                f"subject={path!r} gives one PatientID two subject ids, {mapping[identity.strip()]!r} and {name!r}"
            )
    return mapping
