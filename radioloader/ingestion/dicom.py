"""From folders of DICOM files to the volumes of a cohort: which are chosen, whose they are, what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from radioloader.errors import ConfigError
from radioloader.formats.dicom.frames import SeriesFacts
from radioloader.formats.dicom.volumes import DicomVolume
from radioloader.ingestion.dicom_label import DicomLabel, find_image, matches_any, separate_classes
from radioloader.ingestion.dicom_source import DicomOptions, DicomSource
from radioloader.ingestion.dicom_volume import DicomSeries
from radioloader.ingestion.intake import VolumeSource
from radioloader.ingestion.scan import Scan, item_of, item_of_label, scan_files
from radioloader.ingestion.slots import make_slot

__all__ = ["DicomFound", "find_dicom"]

KnownSlot = Callable[[str, str, str], str | None]
"""The slot that a store has of a source, from subject, collection and the source's name."""
KnownIds = Callable[[str], Iterable[str]]
"""The subjects under which a store has a source, from its name."""


@dataclass(slots=True)
class DicomFound:
    """What a cohort takes from DICOM files.

    Attributes:
        sources: By collection as it was asked for, then subject: sources by slot.
        collections: The collections that these slots belong to, each with the one that was asked for.
        unusable: Subjects (or ``""``) and why something of theirs cannot be ingested.
        notes: What a user should know.
        guessed: Subjects whose ids no user gave.
    """

    sources: dict[str, dict[str, dict[str, VolumeSource]]] = field(default_factory=dict)
    collections: dict[str, str] = field(default_factory=dict)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guessed: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Named:
    """A source that is a candidate for a slot."""

    collection: str
    number: int | None
    series: str
    part: int
    source: VolumeSource


def find_dicom(
    asked: Mapping[str, DicomSource | Mapping[str, DicomSource]],
    labels: set[str],
    options: DicomOptions,
    *,
    known_ids: KnownIds | None = None,
    known_slot: KnownSlot | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
) -> DicomFound:
    """Scan the files, choose, and name.

    Args:
        asked: By collection: a source, or sources by subject id.
        labels: The collections that hold labels.
        options: For all of them.
        known_ids: Keep the ids of a store.
        known_slot: Keep its slots.
        workers: Processes that read headers.
        executor: Reads them instead.

    Raises:
        ConfigError: A source holds nothing that fits.
    """
    finder = _Finder(options, known_ids, known_slot)
    for source in asked.values():
        for one in source.values() if isinstance(source, Mapping) else [source]:
            for root in one.roots:
                if root not in finder.scans:
                    scan = scan_files(
                        [root], options.policy, keep_tags=options.keep_tags, workers=workers, executor=executor
                    )
                    finder.add(root, scan)
    finder.name_patients()
    # Labels come last: they are those of the images that were chosen.
    for name, source in sorted(asked.items(), key=lambda pair: pair[0] in labels):
        given = source if isinstance(source, Mapping) else {None: source}
        for subject, one in given.items():
            one.check(name)
            (finder.labels if name in labels else finder.images)(name, one, subject)
        finder.finish(name)
    return finder.found


class _Finder:
    def __init__(self, options: DicomOptions, known_ids: KnownIds | None, known_slot: KnownSlot | None) -> None:
        self._options, self._known_ids, self._known_slot = options, known_ids, known_slot
        self.scans: dict[str, Scan] = {}
        self.found = DicomFound()
        self._by_patient: dict[tuple[str, str], str] = {}
        self._given: dict[str, str] = {}
        self._left_out: Counter[str] = Counter()
        self._taken: set[str] = set()

    def add(self, root: str, scan: Scan) -> None:
        self.scans[root] = scan
        self.found.unusable += [("", f"{file.path}: {file.reason}") for file in scan.broken]
        self.found.notes += [line for line in scan.left_out() if not any(line.startswith(f.path) for f in scan.broken)]

    def name_patients(self) -> None:
        """Settle the ids that the default rule gives: those of the store for patients that it has."""
        rule, facts = self._options.rule, [v.facts for scan in self.scans.values() for v in scan.volumes]
        if rule.kind != "study":
            return
        self._by_patient = rule.groups(facts)
        studies: dict[tuple[str, str], set[str]] = {}
        for one in facts:
            studies.setdefault(rule.patient(one), set()).add(one.study)
        if len(studies) == 1 and len(next(iter(studies.values()))) > 1:
            self.found.notes.append(
                "all studies have one PatientID; if that is a placeholder of an anonymiser, and they are of several people, give "
                "subject='folder:N' (--subject)"
            )
        if self._known_ids is None:
            return
        owners: dict[tuple[str, str], set[str]] = {}
        for scan in self.scans.values():
            for volume in scan.volumes:
                name = self._source(volume).name
                owners.setdefault(rule.patient(volume.facts), set()).update(self._known_ids(name))
        for patient, subjects in owners.items():
            if len(subjects) == 1 and self._by_patient[patient] not in subjects:
                self._by_patient[patient] = next(iter(subjects))

    def _source(self, volume: DicomVolume) -> DicomSeries:
        return DicomSeries(volume, self._options.policy, self._options.pseudonyms)

    def _subject(self, facts: SeriesFacts, folder: str, root: str, given: str | None) -> str:
        """The subject, or empty: then why is in ``unusable``."""
        if given is not None:
            return given
        if facts.series in self._given:
            return self._given[facts.series]
        rule = self._options.rule
        if rule.kind == "study":
            subject = self._by_patient.get(rule.patient(facts)) or rule.groups([facts])[rule.patient(facts)]
            self.found.guessed.add(subject)
            return subject
        subject, reason = rule.subject(facts, folder, root)
        if not subject:
            self.found.unusable.append(("", f"{folder}: {reason}"))
        return subject

    def images(self, name: str, source: DicomSource, given: str | None) -> None:
        """Choose image volumes for a collection."""
        modalities = source.modalities(name)
        seen: Counter[str] = Counter()
        chosen: dict[str, list[_Named]] = {}
        localizers: dict[str, list[_Named]] = {}
        any_ = False
        for root in source.roots:
            for volume in self.scans[root].volumes:
                seen[volume.facts.modality or "no modality"] += 1
                if (modalities and volume.facts.modality not in modalities) or not source.takes(item_of(volume)):
                    continue
                any_ = True
                subject = self._subject(volume.facts, volume.folder, root, given)
                if not subject:
                    continue
                self._given.setdefault(volume.facts.series, subject)
                if volume.problem:
                    self.found.unusable.append((subject, volume.problem))
                    continue
                collection = f"{name}_{volume.kind}" if volume.kind else name
                facts = volume.facts
                one = _Named(collection, facts.number, facts.series, volume.part, self._source(volume))
                self._taken.add(one.source.name)
                scout = source.description is None and source.select is None and _is_localizer(facts)
                (localizers if scout else chosen).setdefault(subject, []).append(one)
        if not any_:
            what = ", ".join(f"{key} ({count})" for key, count in sorted(seen.items())) or "no image series"
            wanted = f" of modality {' or '.join(sorted(modalities))}" if modalities else " that its selection takes"
            raise ConfigError(
                f"collection {name!r}: {', '.join(source.roots)} holds no volume{wanted}; it holds {what}"
            )
        for subject, found in localizers.items():
            if subject in chosen:
                self._left_out[name] += len(found)
            else:
                chosen[subject] = found
        if len(seen) > 1 and not modalities and not source.by_hand:
            self.found.notes.append(
                f"collection {name!r} takes volumes of several modalities ({', '.join(sorted(seen))}); choose with "
                "DicomSource(root, modality=...) (--modality)"
            )
        self._settle(name, chosen)

    def labels(self, name: str, source: DicomSource, given: str | None) -> None:
        """Choose segmentations and structure sets for a collection."""
        volumes = [volume for scan in self.scans.values() for volume in scan.volumes if not volume.problem]
        modalities = {"SEG": "seg", "RTSTRUCT": "rtstruct"}
        wanted = {modalities.get(one, one) for one in source.modalities(name)}
        chosen: dict[str, list[_Named]] = {}
        any_, other = False, 0
        for root in source.roots:
            for label in self.scans[root].labels:
                if (wanted and label.what not in wanted) or not source.takes(item_of_label(label)):
                    continue
                any_ = True
                if source.structures is not None and not matches_any(label.names, source.structures):
                    other += 1
                    continue
                image, reason = find_image(label, volumes)
                if image is not None and not self._comes_in(image):
                    other += 1
                    continue
                if image is None:
                    subject = self._subject(label.facts, label.path, root, given)
                    self.found.unusable.append((subject, f"{label.path}: {reason}"))
                    continue
                subject = self._subject(image.facts, image.folder, root, given)
                if not subject:
                    continue
                for suffix, only in separate_classes(source):
                    collection = f"{name}_{suffix}" if suffix else name
                    one = DicomLabel(
                        label, image, self._options.policy, self._options.pseudonyms, source.structures, only
                    )
                    chosen.setdefault(subject, []).append(
                        _Named(collection, label.facts.number, label.facts.series, 0, one)
                    )
        if not any_:
            raise ConfigError(
                f"collection {name!r}: {', '.join(source.roots)} holds no segmentation (SEG) or structure set (RTSTRUCT) that its "
                "selection takes"
            )
        if other:
            self.found.notes.append(
                f"{other} segmentations and structure sets were left out of collection {name!r}: they are of other images than "
                "those that are ingested with them, or none of their structures has a class"
            )
        self._settle(name, chosen)

    def _comes_in(self, image: DicomVolume) -> bool:
        """Whether an image is ingested now; where none is, labels may come alone."""
        return not self._taken or self._source(image).name in self._taken

    def _settle(self, name: str, chosen: Mapping[str, Sequence[_Named]]) -> None:
        """Give the volumes of each subject their slots: the plain one where there is one volume, else named by series and part."""
        groups = self.found.sources.setdefault(name, {})
        several: list[str] = []
        for subject, found in chosen.items():
            by_collection: dict[str, list[_Named]] = {}
            for one in found:
                by_collection.setdefault(one.collection, []).append(one)
                self.found.collections[one.collection] = name
            for collection, members in by_collection.items():
                if len(members) > 1:
                    several.append(subject)
                for slot, one in self._slots(subject, collection, members).items():
                    groups.setdefault(subject, {})[slot] = one.source
        if several:
            self.found.notes.append(
                f"{len(set(several))} subjects have several volumes in collection {name!r}, such as {several[0]!r}; all are stored, and a "
                "dataset needs one for each subject: choose with DicomSource(root, description=..., select=...) (--series-description)"
            )

    def _slots(self, subject: str, collection: str, members: Sequence[_Named]) -> dict[str, _Named]:
        slots: dict[str, _Named] = {}
        rest = []
        for one in sorted(members, key=lambda one: (one.number is None, one.number or 0, one.series, one.part)):
            known = self._known_slot(subject, collection, one.source.name) if self._known_slot else None
            if known is not None and known not in slots:
                slots[known] = one
            else:
                rest.append(one)
        series = {one.series for one in members}
        for one in rest:
            words = []
            if len(series) > 1 or slots:
                words.append(f"s{one.number}" if one.number is not None else "s")
            if one.part:
                words.append(f"part{one.part}")
            base = "_".join(words) if len(members) > 1 else ""
            slot, more = make_slot(collection, base), 1
            while slot in slots:
                more += 1
                slot = make_slot(collection, f"{base}_{more}" if base else f"{more}")
            slots[slot] = one
        return slots

    def finish(self, name: str) -> None:
        """Note what was left out of a collection."""
        count = self._left_out.get(name, 0)
        if count:
            self.found.notes.append(
                f"{count} localizers were left out of collection {name!r}; to take them, select them: DicomSource(root, select=...)"
            )


def _is_localizer(facts: SeriesFacts) -> bool:
    return "LOCALIZER" in str(facts.tags.get("ImageType", "")).upper().split("\\")
