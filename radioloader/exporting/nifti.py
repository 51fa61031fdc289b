"""Plain folders: one for each collection, one file for each volume."""

from __future__ import annotations

import json
from collections.abc import Sequence

from radioloader.errors import ConfigError
from radioloader.exporting.names import unique_names
from radioloader.exporting.plan import SUFFIX, Layout, PlannedFile, Unit
from radioloader.exporting.table import PARTICIPANTS, Table, participants
from radioloader.ingestion.naming import name_subjects

__all__ = ["NiftiLayout"]

_VOLUMES = "volumes.tsv"
_ANY_NAME = r"([^/]+)\.nii\.gz$"


class NiftiLayout(Layout):
    """``<collection>/<subject>.nii.gz``, ``participants.tsv``, and the names of classes in ``<collection>.json``."""

    def units(self) -> list[Unit]:
        """One for each volume: one that cannot be read costs no other."""
        chosen = self.selection
        self._folders = unique_names(map(chosen.name, chosen.collections), taken=[PARTICIPANTS, _VOLUMES])
        self._several = {
            (member.subject, member.obs_id)
            for name in chosen.collections
            for subject in chosen.subjects
            if len(members := chosen.of(name, subject)) > 1
            for member in members
        }
        # One name space: a volume's id may be what another subject is called.
        names = unique_names([*chosen.subjects, *(obs_id for _, obs_id in self._several)])
        self._names = {subject: names[subject] for subject in chosen.subjects}
        self.renamed = {subject: name for subject, name in self._names.items() if subject != name}
        units = []
        for collection in chosen.collections:
            folder = self._folders[chosen.name(collection)]
            for subject in chosen.subjects:
                members = chosen.of(collection, subject)
                for member in members:
                    name = names[member.obs_id] if len(members) > 1 else self._names[subject]
                    units.append(Unit(subject, (PlannedFile(f"{folder}/{name}{SUFFIX}", (member,)),)))
        if self._several:
            people = sorted({subject for subject, _ in self._several})
            self.notes.append(
                f"{len(people)} subjects have several volumes in a collection, such as {people[0]!r}; their files are called by the ids of "
                f"the volumes, {_VOLUMES} says whose they are, and an ingest makes a subject of each"
            )
        return units

    def sidecars(self, done: Sequence[Unit]) -> dict[str, str]:
        """The names of classes."""
        files = {}
        for name in self.selection.labels:
            classes = self.selection.classes(name)
            if classes:
                labels = {key: value[0] if len(value) == 1 else list(value) for key, value in classes.items()}
                text = json.dumps({"labels": labels}, indent=2, ensure_ascii=False) + "\n"
                files[f"{self._folders[self.selection.name(name)]}.json"] = text
        return files

    def tables(self, done: Sequence[Unit]) -> list[Table]:
        """Those of the subjects, and of the volumes where a subject has several."""
        written = {unit.subject for unit in done}
        names = {subject: name for subject, name in self._names.items() if subject in written}
        renamed = {subject: name for subject, name in self.renamed.items() if subject in written}
        people = participants(self.selection, names, key="obs_subject_id", renamed=renamed)
        tables = [people] if people.columns else []
        rows = {
            file.path: {"obs_subject_id": member.subject, "obs_id": member.obs_id}
            for unit in done
            for file in unit.files
            for member in file.members
            if (member.subject, member.obs_id) in self._several
        }
        if rows:
            tables.append(Table(_VOLUMES, "file", {"obs_subject_id": "str", "obs_id": "str"}, rows))
        return tables

    def command(self, out: str, done: Sequence[Unit], tables: Sequence[Table]) -> list[str]:
        """An option for each collection; ids are found in the names by a regular expression where the rules of an ingest would not."""
        chosen = self.selection
        files: dict[str, dict[str, str]] = {}
        for unit in done:
            for file in unit.files:
                path = f"{out}/{file.path}"
                name = path.rpartition("/")[2].removesuffix(SUFFIX)
                files.setdefault(file.members[0].collection, {})[name] = path
        words = ["radioloader", "ingest", "STORE"]
        for kind, names in (("--image", chosen.images), ("--label", chosen.labels)):
            for name in names:
                new = chosen.name(name)
                if name in files:
                    words += [kind, f"{new}={out}/{self._folders[new]}"]
                    if kind == "--label" and chosen.classes(name):
                        words += ["--classes", f"{new}={out}/{self._folders[new]}.json"]
        known = {self._names[unit.subject] for unit in done}
        if known & set().union(*files.values()) and any(table.path == PARTICIPANTS for table in tables):
            words += ["--obs-meta", f"{out}/{PARTICIPANTS}"]
        given = {chosen.name(name): list(paths.values()) for name, paths in files.items()}
        wanted = {chosen.name(name): {key: [path] for key, path in paths.items()} for name, paths in files.items()}
        try:
            guessed = name_subjects(given, {}, None).groups
        except ConfigError:
            guessed = {}
        if guessed != wanted:
            words += ["--subject-regex", _ANY_NAME]
        if len({frozenset(paths) for paths in files.values()}) > 1:
            words.append("--allow-missing")
        return words
