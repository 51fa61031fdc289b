"""BIDS: images in ``sub-*/[ses-*/]<datatype>``, labels as derivatives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from radioloader.errors import ConfigError
from radioloader.exporting.bids_names import FileName, Person, image_name, label_name, person_of
from radioloader.exporting.headers import repetition_time
from radioloader.exporting.names import fold
from radioloader.exporting.plan import SUFFIX, Layout, PlannedFile, Unit
from radioloader.exporting.table import Table, participants, source_column

__all__ = ["BidsLayout"]

_VERSION = "1.9.0"
_DERIVATIVES = "derivatives/radioloader"
_ASKED = {
    "dwi": "gradients (.bval, .bvec)",
    "pet": "the tracer and its times",
    "perf": "the labelling and its times",
}


class BidsLayout(Layout):
    """``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz``, ``derivatives/radioloader/...``, ``participants.tsv``."""

    def units(self) -> list[Unit]:
        """One for each volume: one that cannot be read costs no other."""
        chosen = self.selection
        self._names = {name: image_name(name, chosen.name(name)) for name in chosen.images}
        self._names |= {name: label_name(chosen.name(name)) for name in chosen.labels}
        for label in chosen.labels:
            if str(self._names[label]) != chosen.name(label):
                self.notes.append(
                    f"labels of BIDS end in dseg or mask: {chosen.name(label)!r} is called {str(self._names[label])!r}"
                )
        self._persons = self._people()
        self.renamed = {subject: person.id for subject, person in self._persons.items() if subject != person.id}
        units = []
        runs: set[str] = set()
        for collection in chosen.collections:
            base = f"{_DERIVATIVES}/" if collection in chosen.labels else ""
            for subject in chosen.subjects:
                members = chosen.of(collection, subject)
                for number, member in enumerate(members, 1):
                    name = self._names[collection]
                    if len(members) > 1:
                        name = name.with_run(number)
                        runs.add(collection)
                    path = self._path(self._persons[subject], name)
                    units.append(Unit(subject, (PlannedFile(f"{base}{path}{SUFFIX}", (member,)),)))
        for collection in sorted(runs):
            self.notes.append(f"subjects have several volumes in {collection!r}: they are runs, run-1, run-2, ...")
        for datatype in sorted({name.datatype for name in self._names.values()} & set(_ASKED)):
            self.notes.append(f"BIDS asks for {_ASKED[datatype]} of {datatype}, which a store does not keep; add them")
        return units

    def _people(self) -> dict[str, Person]:
        owner: dict[str, str] = {}
        people = {}
        for subject in self.selection.subjects:
            person = person_of(subject)
            other = owner.setdefault(fold(person.id), subject)
            if other != subject:
                raise ConfigError(
                    f"the subjects {other!r} and {subject!r} would both be {person.id!r} in BIDS, whose labels are of A-Z, a-z, 0-9; give "
                    "them other ids at ingest, or export as nifti"
                )
            people[subject] = person
        return people

    @staticmethod
    def _path(person: Person, name: FileName) -> str:
        return f"{person.folder}/{name.datatype}/{person.id}_{name}"

    def sidecars(self, done: Sequence[Unit]) -> dict[str, str]:
        """Descriptions, times of series, names of classes."""
        chosen = self.selection
        description = {
            "Name": self.title,
            "BIDSVersion": _VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [_generated_by()],
        }
        files = {
            "dataset_description.json": _json(description),
            "README": f"{self.title}\n\nWritten by radioloader from a store of volumes. participants.tsv has the subjects' columns.\n",
        }
        written = {file.members[0].collection for unit in done for file in unit.files}
        if written & set(chosen.labels):
            derived = description | {"Name": f"{self.title}: labels", "DatasetType": "derivative"}
            files[f"{_DERIVATIVES}/dataset_description.json"] = _json(derived)
        for label in chosen.labels:
            rows = self._class_rows(label) if label in written and self._names[label].suffix == "dseg" else {}
            if rows:
                table = Table("", "index", {"name": "str"}, rows)
                files[f"{_DERIVATIVES}/{self._names[label]}.tsv"] = table.text()
        timeless = []
        for unit in done:
            for file in unit.files:
                collection = file.members[0].collection
                name = self._names[collection]
                if name.datatype != "func" or collection in chosen.labels:
                    continue
                facts: dict[str, Any] = {"TaskName": name.entity("task")}
                seconds = repetition_time(chosen.header(file.members[0]))
                if seconds is not None:
                    facts["RepetitionTime"] = seconds
                else:
                    timeless.append(file.path)
                files[f"{file.path.removesuffix(SUFFIX)}.json"] = _json(facts)
        if timeless:
            self.notes.append(
                f"BIDS asks for RepetitionTime of series, and the headers of {len(timeless)} have none (pixdim[4]), such as {timeless[0]}"
            )
        return files

    def _class_rows(self, collection: str) -> dict[str, dict[str, Any]]:
        classes = self.selection.classes(collection)
        several = sorted(name for name, values in classes.items() if len(values) > 1)
        if several:
            self.notes.append(f"{', '.join(several)} are regions of several classes, which a table of BIDS cannot say")
        single = sorted((values[0], name) for name, values in classes.items() if len(values) == 1)
        return {str(value): {"name": name} for value, name in single}

    def tables(self, done: Sequence[Unit]) -> list[Table]:
        """``participants.tsv`` has a row for a person; what differs between a person's sessions is in a table of the sessions."""
        chosen = self.selection
        written = {unit.subject for unit in done}
        people: dict[str, list[str]] = {}
        for subject in chosen.subjects:
            if subject in written:
                people.setdefault(self._persons[subject].participant, []).append(subject)
        # Ids that became other ones have no sessions.
        renamed = {subject: name for subject, name in self.renamed.items() if subject in written}
        names = {subjects[0]: person for person, subjects in people.items()}
        table = participants(chosen, names, key="participant_id", renamed=renamed)
        columns = chosen.metadata_kinds()
        source = source_column(chosen)
        tables = []
        for person, subjects in people.items():
            row = table.rows[person]
            if source in row and subjects[0] not in renamed:
                row[source] = None
            differing = {
                column: kind
                for column, kind in columns.items()
                if any(chosen.value(subject, column) != chosen.value(subjects[0], column) for subject in subjects)
            }
            sessions = {self._persons[subject].session: subject for subject in subjects}
            for column in differing:
                # A subject without a session is the person.
                row[column] = chosen.value(sessions[""], column) if "" in sessions else None
            if differing:
                rows = {
                    f"ses-{session}": {column: chosen.value(subject, column) for column in differing}
                    for session, subject in sessions.items()
                    if session
                }
                tables.append(Table(f"{person}/{person}_sessions.tsv", "session_id", differing, rows))
        if tables:
            self.notes.append(
                f"{len(tables)} persons have columns that differ from session to session: they are in {tables[0].path} and such, which an "
                "ingest does not read"
            )
        return [table, *tables]

    def command(self, out: str, done: Sequence[Unit], tables: Sequence[Table]) -> list[str]:
        """The folder as it is, and the names of classes."""
        words = ["radioloader", "ingest", "STORE", out, "--layout", "bids"]
        for name in self.selection.labels:
            for label, values in self.selection.classes(name).items():
                if len(values) == 1:
                    words += ["--classes", f"{self._names[name]}:{label}={values[0]}"]
        return words


def _generated_by() -> dict[str, str]:
    """This program, as a dataset_description.json says it."""
    try:
        return {"Name": "radioloader", "Version": version("radioloader")}
    except PackageNotFoundError:
        return {"Name": "radioloader"}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
