"""From folders of DICOM files to the volumes of a cohort: which are chosen, whose they are, what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor

from radioloader.errors import ConfigError
from radioloader.formats.dicom.frames import Ignored, SeriesFacts
from radioloader.formats.dicom.volumes import DicomVolume
from radioloader.ingestion.dicom_label import DicomLabel, find_image, matches_any, separate_classes
from radioloader.ingestion.dicom_numbering import numbering_of, numbering_problem
from radioloader.ingestion.dicom_people import DicomFound, KnownIds, People
from radioloader.ingestion.dicom_slots import Candidate, give_slots, lacking, stale_slots
from radioloader.ingestion.dicom_source import DicomOptions, DicomSource
from radioloader.ingestion.dicom_volume import DicomSeries
from radioloader.ingestion.scan import (
    Scan,
    arrange,
    count_left_out,
    item_of,
    item_of_label,
    list_files,
    read_headers,
)
from radioloader.ingestion.slots import collection_of, series_of, shown

__all__ = ["DicomFound", "find_dicom"]

KnownSlots = Callable[[str], Mapping[str, str]]
"""What a store has of a subject: name of the source by slot."""

_LABELS = {"SEG": "seg", "RTSTRUCT": "rtstruct"}


def find_dicom(
    asked: Mapping[str, DicomSource | Mapping[str, DicomSource]],
    labels: set[str],
    options: DicomOptions,
    *,
    names: Collection[str] = (),
    listed: Mapping[str, Sequence[str]] | None = None,
    known_ids: KnownIds | None = None,
    known_slots: KnownSlots | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
) -> DicomFound:
    """Scan the files, choose, and name.

    Args:
        asked: By collection: a source, or sources by subject id.
        labels: The collections that hold labels.
        options: For all of them.
        names: All collections of the ingest.
        listed: The files of folders, where they have been listed.
        known_ids: Keep the ids of a store.
        known_slots: Keep its slots.
        workers: Processes that read headers.
        executor: Reads them instead.

    Raises:
        ConfigError: A source is wrong, or holds nothing that fits.
    """
    finder = _Finder(options, {*names, *asked}, known_ids, known_slots)
    sources: list[tuple[str, str | None, DicomSource]] = []
    # Labels come last: they are those of the images that were chosen.
    for name, source in sorted(asked.items(), key=lambda pair: pair[0] in labels):
        for subject, one in source.items() if isinstance(source, Mapping) else [(None, source)]:
            sources.append((name, subject, one.check(name)))
    sources = finder.read(sources, listed or {}, workers, executor)
    finder.name_patients()
    for name in dict.fromkeys(name for name, _, _ in sources):
        finder.begin(name)
        for _, subject, one in (source for source in sources if source[0] == name):
            (finder.labels if name in labels else finder.images)(one, subject)
        finder.finish()
    finder.note_merged()
    return finder.found


class _Finder:
    def __init__(
        self,
        options: DicomOptions,
        names: set[str],
        known_ids: KnownIds | None,
        known_slots: KnownSlots | None,
    ) -> None:
        self._options, self._names = options, names
        self._known_slots = known_slots
        self._scans: dict[tuple[str, ...], Scan] = {}
        self.found = DicomFound()
        self._people = People(options, known_ids, self.found)
        self._taken: dict[str, set[str]] = {}
        self._failed: set[tuple[str, str]] = set()

    def read(
        self,
        sources: Sequence[tuple[str, str | None, DicomSource]],
        listed: Mapping[str, Sequence[str]],
        workers: int | None,
        executor: Executor | None,
    ) -> list[tuple[str, str | None, DicomSource]]:
        """Read the header of every file once, whatever collections it is for. Returns the sources that exist."""
        files: dict[str, Sequence[str]] = {}
        kept, owners = [], dict[str, str]()
        for name, subject, one in sources:
            try:
                for root in one.roots:
                    if root not in files:
                        files[root] = listed[root] if root in listed else list_files(root)
            except ConfigError as error:
                if subject is None:
                    raise ConfigError(f"collection {name!r}: {error}") from error
                self._fail(subject, f"collection {name!r}: {error}")
                continue
            kept.append((name, subject, one))
            owners |= {path: subject or "" for root in one.roots for path in files[root]}
        headers = read_headers(
            list(dict.fromkeys(path for paths in files.values() for path in paths)),
            keep_tags=self._options.keep_tags,
            workers=workers,
            executor=executor,
        )
        for _, _, one in kept:
            roots = tuple(one.roots)
            if roots not in self._scans:
                paths = dict.fromkeys(path for root in roots for path in files[root])
                found = [headers[path] for path in paths]
                self._scans[roots] = arrange(roots, found, self._options.policy, self._options.keep_tags)
        ignored = [one for one in headers.values() if isinstance(one, Ignored)]
        for file in ignored:
            if file.broken:
                self._fail(owners.get(file.path, ""), f"{file.path}: {file.reason}")
        self.found.notes += count_left_out(ignored)
        return kept

    def _fail(self, subject: str, reason: str) -> None:
        # Two collections may ask for the same one.
        if (subject, reason) not in self._failed:
            self._failed.add((subject, reason))
            self.found.unusable.append((subject, reason))

    def name_patients(self) -> None:
        """Settle whose everything is, before anything is chosen."""
        volumes = [volume for scan in self._scans.values() for volume in scan.volumes]
        self._people.settle(volumes)
        self._there: dict[str, set[str]] = {}
        for volume in volumes:
            source = self._source(volume).name
            there = self._there.setdefault(series_of(source), set())
            there.add(source if not volume.problem else "")

    def note_merged(self) -> None:
        """Tell of subjects that hold several patients."""
        self._people.note_merged()

    def _source(self, volume: DicomVolume) -> DicomSeries:
        return DicomSeries(volume, self._options.policy, self._options.pseudonyms)

    def _subject(self, facts: SeriesFacts, folder: str, roots: Sequence[str], given: str | None) -> str:
        """The subject, or empty: then why is in ``unusable``."""
        subject, reason = self._people.subject(facts, folder, roots, given)
        if not subject:
            self._fail("", f"{folder}: {reason}")
        return subject

    def begin(self, name: str) -> None:
        """Begin with a collection."""
        self._name = name
        self._chosen: dict[str, list[Candidate]] = {}
        self._localizers: dict[str, list[tuple[Candidate, DicomVolume]]] = {}
        self._any, self._other = False, 0
        self._nothing: list[tuple[str, str]] = []
        self.found.sources[name] = {}

    def images(self, source: DicomSource, given: str | None) -> None:
        """Choose image volumes."""
        name, roots = self._name, source.roots
        modalities = source.modalities(name)
        seen: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        for volume in self._scans[tuple(roots)].volumes:
            facts = volume.facts
            seen[facts.modality or "no modality"] += 1
            if (modalities and facts.modality not in modalities) or not source.takes(item_of(volume)):
                continue
            taken[facts.modality or "no modality"] += 1
            subject = self._subject(facts, volume.folder, roots, given)
            if not subject:
                continue
            scout = source.description is None and source.select is None and _is_localizer(facts)
            if volume.problem and not scout:
                self._fail(subject, volume.problem)
                continue
            collection = f"{name}_{volume.kind}" if volume.kind else name
            one = Candidate(collection, facts.number, facts.series, volume.part, self._source(volume))
            if scout:
                self._localizers.setdefault(subject, []).append((one, volume))
            else:
                self._take(subject, one, facts)
        if not taken:
            what = ", ".join(f"{key} ({count})" for key, count in sorted(seen.items())) or "no image series"
            wanted = f" of modality {' or '.join(sorted(modalities))}" if modalities else ""
            wanted += " that its selection takes" if source.description is not None or source.select is not None else ""
            self._nothing.append((given or "", f"{_some(roots)} holds no volume{wanted}; it holds {what}"))
        self._any = self._any or bool(taken)
        if len(taken) > 1 and not modalities and not source.by_hand:
            self._note(
                f"collection {name!r} takes volumes of several modalities ({', '.join(sorted(taken))}); choose with "
                "DicomSource(root, modality=...) (--modality)"
            )

    def _take(self, subject: str, one: Candidate, facts: SeriesFacts) -> None:
        self._people.take(facts, subject)
        self._taken.setdefault(one.source.name, set()).add(subject)
        self._chosen.setdefault(subject, []).append(one)

    def labels(self, source: DicomSource, given: str | None) -> None:
        """Choose segmentations and structure sets."""
        usable = [volume for scan in self._scans.values() for volume in scan.volumes if not volume.problem]
        # Those that are ingested first: of several volumes on one grid, any will do.
        volumes = sorted(usable, key=lambda volume: self._source(volume).name not in self._taken)
        # A label collection's name says nothing of how its labels are kept.
        wanted = {_LABELS.get(one, one) for one in (source.modalities("") if source.modality is not None else ())}
        roots, any_ = source.roots, False
        for label in self._scans[tuple(roots)].labels:
            if (wanted and label.what not in wanted) or not source.takes(item_of_label(label)):
                continue
            any_ = True
            if source.structures is not None and not matches_any(label.names, source.structures):
                self._other += 1
                continue
            image, reason = find_image(label, volumes)
            if image is None:
                self._fail(self._subject(label.facts, label.path, roots, given), f"{label.path}: {reason}")
                continue
            # Where no image is ingested now, labels may come alone.
            if self._taken and self._source(image).name not in self._taken:
                self._other += 1
                continue
            subject, reason = self._people.subject_of_label(
                image, roots, given, self._taken.get(self._source(image).name, set())
            )
            if not subject:
                self._fail(given or "", f"{label.path}: {reason}")
            for suffix, only in separate_classes(source) if subject else ():
                collection = f"{self._name}_{suffix}" if suffix else self._name
                one = DicomLabel(
                    label,
                    image,
                    self._options.policy,
                    self._options.pseudonyms,
                    source.structures,
                    only,
                    source.planes,
                )
                self._chosen.setdefault(subject, []).append(
                    Candidate(collection, label.facts.number, label.facts.series, 0, one)
                )
        self._any = self._any or any_
        if not any_:
            reason = f"{_some(roots)} holds no segmentation (SEG) or structure set (RTSTRUCT) that its selection takes"
            self._nothing.append((given or "", reason))

    def finish(self) -> None:
        """Name what was chosen for the collection, and say what was not.

        Raises:
            ConfigError: Nothing was chosen, or names collide.
        """
        name = self._name
        if not self._any:
            raise ConfigError(f"collection {name!r}: {self._nothing[0][1]}")
        for subject, reason in self._nothing:
            self._fail(subject, f"collection {name!r}: {reason}")
        left_out = 0
        for subject, found in self._localizers.items():
            if subject in self._chosen:
                left_out += len(found)
                continue
            for one, volume in found:
                if volume.problem:
                    self._fail(subject, volume.problem)
                else:
                    self._take(subject, one, volume.facts)
        self._check_numbering()
        self._settle()
        if left_out:
            self._note(
                f"{left_out} localizers were left out of collection {name!r}; to take them, select them: DicomSource(root, select=...)"
            )
        if self._other:
            self._note(
                f"{self._other} segmentations and structure sets were left out of collection {name!r}: they are of other images than "
                "those that are ingested with them, or none of their structures has a class"
            )

    def _check_numbering(self) -> None:
        """Refuse the labels of a collection whose classes go by the numbers of segments, and mean different things in different files."""
        by_number = [
            (subject, one, one.source.label)
            for subject, found in self._chosen.items()
            for one in found
            if isinstance(one.source, DicomLabel) and one.source.structures is None
        ]
        problem = numbering_problem([(label.path, numbering_of(label)) for _, _, label in by_number])
        if problem:
            for subject, one, label in by_number:
                self._fail(subject, f"{label.path}: {problem}")
                self._chosen[subject].remove(one)

    def _settle(self) -> None:
        """Give the volumes of each subject their slots."""
        name, several = self._name, list[str]()
        counted = Counter[str]()
        for subject, found in self._chosen.items():
            known = self._known_slots(subject) if self._known_slots else {}
            stale = stale_slots(name, known, [one.source.name for one in found], self._there)
            for series in lacking(known, stale, [one.source.name for one in found]):
                kept = {slot for slot in stale if series_of(known[slot]) == series}
                stale -= kept
                one = next(one for one in found if series_of(one.source.name) == series)
                found = [other for other in found if series_of(other.source.name) != series]
                self._fail(
                    subject,
                    f"{one.source.where}: the store has several volumes of this series ({', '.join(map(shown, sorted(kept)))}), and these "
                    "files make one: give all files of the series, or ingest into a new store",
                )
            for collection in sorted({collection_of(slot) for slot in stale}):
                self._check_name(collection)
            self.found.gone.setdefault(subject, set()).update(stale)
            by_collection: dict[str, dict[str, Candidate]] = {}
            for one in found:
                # Roots that overlap give a volume twice.
                by_collection.setdefault(one.collection, {}).setdefault(one.source.name, one)
            for collection, members in by_collection.items():
                self._check_name(collection)
                stored = {slot: source for slot, source in known.items() if collection_of(slot) == collection}
                slots, gone = give_slots(list(members.values()), stored)
                if len({*slots, *stored} - gone) > 1:
                    several.append(subject)
                self.found.gone.setdefault(subject, set()).update(gone)
                counted[collection] += len(slots)
                for slot, one in slots.items():
                    self.found.sources[name].setdefault(subject, {})[slot] = one.source
        if counted.keys() - {name}:
            kinds = ", ".join(f"{collection} ({count})" for collection, count in sorted(counted.items()))
            self._note(f"what was asked for as {name!r} became the collections {kinds}, with their numbers of volumes")
        if several:
            self._note(
                f"{len(set(several))} subjects have several volumes in collection {name!r}, such as {several[0]!r}; all are stored, and a "
                "dataset needs one for each subject: choose with DicomSource(root, description=..., select=...) (--series-description)"
            )

    def _check_name(self, collection: str) -> None:
        owner = self.found.collections.setdefault(collection, self._name)
        if owner != self._name or (collection != self._name and collection in self._names):
            raise ConfigError(
                f"collection {self._name!r} brings a collection {collection!r} with it (one for each echo, component or class), and there "
                "is another one of that name; give one of them another name"
            )

    def _note(self, text: str) -> None:
        if text not in self.found.notes:
            self.found.notes.append(text)


def _is_localizer(facts: SeriesFacts) -> bool:
    return "LOCALIZER" in str(facts.tags.get("ImageType", "")).upper().split("\\")


def _some(roots: Sequence[str]) -> str:
    return ", ".join(roots[:3]) + (f" and {len(roots) - 3} more" if len(roots) > 3 else "")
