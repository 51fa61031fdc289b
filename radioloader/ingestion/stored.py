"""Which file each volume of a store came from: a file that is there already must not come in again as another subject."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.intake import split_component
from radioloader.ingestion.naming import normal
from radioloader.ingestion.slots import collection_of, is_dicom, obs_id_of, series_of, slot_of
from radioloader.storage.catalog import read_collections
from radioloader.storage.store import Store
from radioloader.storage.table import Commits, newest

__all__ = ["Known", "StoredSources", "read_sources"]

_PAIRS = {".img": ".hdr", ".img.gz": ".hdr.gz"}
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """What the store has of a volume already."""

    source: str
    source_hash: str
    recipe: str


def read_sources(store: Store, commits: Commits) -> StoredSources:
    """The source of every volume at a version."""
    volumes: dict[str, dict[str, Known]] = {}
    columns = ["obs_subject_id", "obs_id", "source", "source_hash", "recipe"]
    labels = set()
    for name, info in read_collections(store, commits).items():
        if info.kind == "label":
            labels.add(name)
        rows = newest(store.table("c", info.id, "obs").read(columns), commits, "obs_id")
        for subject, obs_id, *values in zip(*[rows[column].tolist() for column in columns], strict=True):
            volumes.setdefault(subject, {})[slot_of(subject, name, obs_id)] = Known(*values)
    return StoredSources(volumes, labels)


class StoredSources:
    """The volumes of a store by subject, by path and by content.

    Attributes:
        fingerprints: Of the keys that volumes from DICOM were pseudonymised with; empty for those that were not.

    Args:
        volumes: By subject, then slot.
        labels: The collections that hold labels.
    """

    def __init__(self, volumes: Mapping[str, Mapping[str, Known]], labels: set[str]) -> None:
        self.volumes, self._labels = volumes, labels
        self._folders: dict[str, str] = {}
        self._gone: dict[tuple[str, str], set[str]] = {}
        self._by_path: dict[tuple[str, str], set[str]] = {}
        self._by_hash: dict[tuple[str, str], set[str]] = {}
        self._having: dict[str, set[str]] = {}
        self.fingerprints: set[str] = set()
        self._of_dicom: dict[str, dict[str, str]] = {}
        for subject, known in volumes.items():
            for name, volume in known.items():
                self._by_path.setdefault((collection_of(name), self._key(volume.source)), set()).add(subject)
                self._by_hash.setdefault((name, volume.source_hash), set()).add(subject)
                self._having.setdefault(name, set()).add(subject)
                if is_dicom(volume.source):
                    self.fingerprints.add(str(json.loads(volume.recipe)["source"]["pseudonymized"]))
                    self._of_dicom.setdefault(series_of(volume.source), {}).setdefault(subject, name)

    def _key(self, path: str) -> str:
        """One text for one file: through linked folders, and from either file of a pair. A file that is itself a link keeps its name,
        since equal files of several subjects may be links to one (git-annex does that). What comes from DICOM is named by UIDs."""
        if is_dicom(path):
            return path
        path, component = split_component(path)
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        for voxels, header in _PAIRS.items():
            if name.lower().endswith(voxels):
                name = name[: -len(voxels)] + header
        return normal(f"{self._folders[folder]}/{name}{'' if component is None else f'#{component}'}")

    def subjects_of(self, collection: str, path: str) -> set[str] | frozenset[str]:
        """The subjects that have this file in this collection."""
        return self._by_path.get((collection, self._key(path)), _NOBODY)

    def subjects_of_dicom(self, source: str) -> set[str]:
        """The subjects that have something of this series in any collection: also another echo, or part, than the one of the name."""
        return set(self._of_dicom.get(series_of(source), ()))

    def sources_of(self, subject: str) -> dict[str, str]:
        """What a subject has: name of the source by slot."""
        return {slot: known.source for slot, known in self.volumes.get(subject, {}).items()}

    def taken(self, cohort: Cohort) -> dict[str, str]:
        """Why subjects of a cohort cannot come in: a file of theirs is another subject's in the store. By subject."""
        reasons = {}
        for subject, files in cohort.files.items():
            for name, path in files.items():
                mine = self.volumes.get(subject, {}).get(name)
                if mine is not None and is_dicom(mine.source) and not is_dicom(path):
                    reasons[subject] = (
                        f"{path} would take the place of a volume from DICOM files, which the store has as {obs_id_of(subject, name)!r}; "
                        "use another collection name, or ingest into a new store"
                    )
                    break
                if is_dicom(path):
                    # In whatever collection: nobody becomes two subjects because another echo of the series came.
                    there = self._of_dicom.get(series_of(path), {})
                    owners: set[str] | frozenset[str] = set(there)
                else:
                    there, owners = {}, self.subjects_of(collection_of(name), path)
                if not owners or subject in owners:
                    continue
                # Who names both subjects with this file in one call means both.
                if any(
                    name in cohort.files.get(owner, {}) and self._key(cohort.files[owner][name]) == self._key(path)
                    for owner in owners
                ):
                    continue
                collection = collection_of(there.get(min(owners), name))
                advice = (
                    "subject (--subject) as it was given then, or a mapping from subject id to folder; or ingest into a new store"
                    if is_dicom(path)
                    else "subject_regex (--subject-regex) or a mapping from subject id to path; or ingest into a new store; or, when "
                    "it is another patient's, give that file a path of its own"
                )
                reasons[subject] = (
                    f"{path} is in the store already, as subject {min(owners)!r} in collection {collection!r}; now it would come in a "
                    f"second time, as subject {subject!r}; give it the id that it has, with {advice}"
                )
                break
        return reasons

    def twin(self, subject: str, hashes: Mapping[str, str]) -> str | None:
        """Another subject of the store that is the same, by the hash of the source, in every collection that both have; or None.

        Args:
            subject: Who comes in.
            hashes: The hashes of what comes in, by collection.
        """
        known = self.volumes.get(subject, {})
        all_hashes = {name: volume.source_hash for name, volume in known.items()} | dict(hashes)
        gone: set[str] = set()
        there: set[str] = set()
        for name in hashes.keys() - known.keys():
            candidates = self._by_hash.get((name, hashes[name]), set()) - {subject}
            for other, digest in all_hashes.items():
                if not candidates:
                    break
                if other != name:
                    same = self._by_hash.get((other, digest), set())
                    candidates = (candidates & same) | (candidates - self._having.get(other, set()))
            without_source = self._without_source(name, hashes[name]) if candidates else _NOBODY
            gone |= candidates & without_source
            there |= candidates - without_source
        # One whose files are gone comes first: that is the one that was probably renamed.
        return min(gone or there, default=None)

    def _without_source(self, name: str, digest: str) -> set[str]:
        """The subjects of one content whose files are gone; thousands may share an empty mask, so each is looked for once."""
        if (name, digest) not in self._gone:
            self._gone[name, digest] = {
                subject
                for subject in self._by_hash[name, digest]
                if not is_dicom(self.volumes[subject][name].source)
                and not os.path.lexists(split_component(self.volumes[subject][name].source)[0])
            }
        return self._gone[name, digest]

    def other_patient(self, subject: str, hashes: Mapping[str, str], cohort: Cohort) -> str | None:
        """Why a subject is refused whose files take the place of other ones that are still there: two folders may well call two patients
        alike. An id that the user gave, and not a file's name, is believed.

        Args:
            subject: Who comes in.
            hashes: The hashes of what comes in, by collection.
            cohort: Where it comes from.
        """
        if subject not in cohort.guessed:
            return None
        for name, digest in hashes.items():
            known, path = self.volumes.get(subject, {}).get(name), cohort.files[subject][name]
            if known is None or is_dicom(known.source) or known.source_hash == digest:
                continue
            if self._key(known.source) != self._key(path) and os.path.lexists(split_component(known.source)[0]):
                return (
                    f"the store has subject {subject!r} in collection {collection_of(name)!r} from {known.source}, which still exists, and "
                    f"{path} is another file: it may be another patient of the same name. Give it an id of its own, with subject_regex "
                    "(--subject-regex) or a mapping from subject id to path; a mapping, or removing the old file, also tells that it is to "
                    "take the old one's place"
                )
        return None

    def same_patient(
        self, subject: str, twin: str, hashes: Mapping[str, str], cohort: Cohort
    ) -> tuple[str | None, str | None]:
        """What the user is told of a twin: a reason to refuse the subject, or a note, or neither.

        Equal files alone are no reason: many patients share an empty mask. But when the twin's own file is gone, and the twin is not
        among the subjects that come in, a file was renamed, and an id that was guessed from its name is not believed.
        """
        shared = sorted(name for name in hashes if name in self.volumes[twin])
        old, new = self.volumes[twin][shared[0]].source, cohort.files[subject][shared[0]]
        present = any(
            twin not in self._without_source(name, hashes[name]) or name in cohort.files.get(twin, {})
            for name in shared
        )
        same = f"{new} is byte for byte the file that the store has as subject {twin!r} in collection {collection_of(shared[0])!r}"
        if not present and subject in cohort.guessed:
            return (
                f"{same}; that one was {old}, which is gone, so this would be the same patient a second time, as {subject!r}; give it "
                "the id that it has, with subject_regex (--subject-regex) or a mapping from subject id to path; a mapping also tells "
                "that it is another patient"
            ), None
        if {collection_of(name) for name in shared} <= self._labels:
            return None, None
        return None, f"{same}; both are kept, as two subjects"
