"""What a folder of DICOM files holds: volumes, segmentations and structure sets, found from the headers alone."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from radioloader.config import available_cores
from radioloader.errors import ConfigError
from radioloader.formats.dicom.frames import Ignored, Instance
from radioloader.formats.dicom.tags import check_keep_tags
from radioloader.formats.dicom.volumes import DicomVolume, Policy, volumes_of
from radioloader.geometry import axcodes, spacing
from radioloader.ingestion.folders import walk
from radioloader.ingestion.pool import run

__all__ = ["Scan", "ScanItem", "arrange", "count_left_out", "list_files", "read_headers", "scan", "scan_files"]

_CHUNK = 64
_TRIED_S = 0.5
"""How long files are read in this process before it is known how long all of them would take."""
_WORTH_S = 3.0
"""What reading must still take for processes to be started: that takes one or two seconds itself."""


@dataclass(frozen=True, slots=True)
class ScanItem:
    """One volume, segmentation or structure set of a folder; what selections are made by.

    Attributes:
        what: ``"image"``, ``"seg"`` or ``"rtstruct"``.
        modality: Modality, such as ``"CT"``.
        number: SeriesNumber; None when there is none.
        description: SeriesDescription.
        name: What tells the volume from others of its series, such as ``"echo2"``; empty when it is the only one.
        files: Number of files.
        folder: Where they lie: the folder of the first one, or the file where there is just one.
        shape: (X, Y, Z) or (X, Y, Z, T) in voxels; () where that is not known.
        spacing: Distance of voxel centres along x, y, z, in mm.
        axcodes: Axis codes, such as ``"LPS"``.
        verdict: About the geometry, in words.
        structures: Of a segmentation or structure set: names of what it outlines.
        problem: Why it cannot be ingested; empty when it can.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        patient_id: PatientID. Never printed or stored.
        tags: Technical attributes by keyword.
    """

    what: str
    modality: str
    number: int | None
    description: str
    name: str
    files: int
    folder: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axcodes: str
    verdict: str
    structures: tuple[str, ...]
    problem: str
    study: str
    series: str
    patient_id: str = field(repr=False)
    tags: Mapping[str, str | float] = field(repr=False)

    def row(self) -> dict[str, Any]:
        """As plain values for a table, without the patient."""
        values = asdict(self)
        del values["patient_id"], values["tags"]
        values["structures"] = ", ".join(self.structures)
        values["shape"] = "x".join(map(str, self.shape))
        values["spacing"] = "x".join(f"{value:.4g}" for value in self.spacing)
        return values


@dataclass(slots=True)
class Scan:
    """Result of :func:`radioloader.scan`.

    Attributes:
        roots: What was scanned.
        volumes: The volumes, usable or not.
        labels: Segmentations and structure sets.
        ignored: Files that are neither.
        files: Number of files that were looked at.
        seconds: How long it took.
    """

    roots: tuple[str, ...]
    volumes: list[DicomVolume]
    labels: list[Instance]
    ignored: list[Ignored]
    files: int
    seconds: float

    @property
    def items(self) -> list[ScanItem]:
        """One for each volume, segmentation and structure set."""
        return [item_of(volume) for volume in self.volumes] + [item_of_label(label) for label in self.labels]

    @property
    def broken(self) -> list[Ignored]:
        """Files that claim to be DICOM and cannot be read."""
        return [file for file in self.ignored if file.broken]

    @property
    def ok(self) -> bool:
        """Whether everything can be ingested."""
        return not self.broken and not any(item.problem for item in self.items)

    def left_out(self) -> list[str]:
        """What was left out and why, in words: broken files one by one, others counted by their reason."""
        return [f"{file.path}: {file.reason}" for file in self.broken] + count_left_out(self.ignored)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row for each item.

        Raises:
            ConfigError: ``path`` cannot be written.
        """
        names = [name for name in ScanItem.__dataclass_fields__ if name not in ("patient_id", "tags")]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(item.row() for item in self.items)
        _write(path, text.getvalue())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write ``items`` and ``left_out``.

        Raises:
            ConfigError: ``path`` cannot be written.
        """
        lists = ("shape", "spacing", "structures")
        items = [item.row() | {name: getattr(item, name) for name in lists} for item in self.items]
        left_out = [{"path": file.path, "reason": file.reason, "broken": file.broken} for file in self.ignored]
        _write(path, json.dumps({"items": items, "left_out": left_out}, indent=1))


def _write(path: str | os.PathLike[str], text: str) -> None:
    try:
        # Names of files need not be UTF-8.
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be written: {error.strerror or error}") from error


def item_of(volume: DicomVolume) -> ScanItem:
    """What is told of a volume."""
    facts, grid = volume.facts, volume.grid
    return ScanItem(
        what="image",
        modality=facts.modality,
        number=facts.number,
        description=facts.description,
        name=volume.name,
        files=volume.files,
        folder=volume.folder,
        shape=volume.shape,
        spacing=() if grid is None else spacing(grid.affine),
        axcodes="" if grid is None else axcodes(grid.affine),
        verdict="" if volume.verdict is None else volume.verdict.describe(),
        structures=(),
        problem=volume.problem,
        study=facts.study,
        series=facts.series,
        patient_id=facts.patient[0],
        tags=facts.tags,
    )


def item_of_label(label: Instance) -> ScanItem:
    """What is told of a segmentation or structure set."""
    facts = label.facts
    return ScanItem(
        what=label.what,
        modality=facts.modality or label.what.upper(),
        number=facts.number,
        description=facts.description,
        name="",
        files=1,
        folder=label.path,
        shape=(),
        spacing=(),
        axcodes="",
        verdict="",
        structures=tuple(name for _, name in label.names),
        problem=label.problem,
        study=facts.study,
        series=facts.series,
        patient_id=facts.patient[0],
        tags=facts.tags,
    )


def scan(
    *roots: str | os.PathLike[str],
    on_tilt: str = "keep",
    on_irregular: str = "error",
    slice_tolerance_mm: float = 0.1,
    workers: int | None = None,
) -> Scan:
    """Look at DICOM files without ingesting them: reads headers, no pixels.

    Args:
        roots: Folders, at any depth, and files. Names do not matter; what is not DICOM is left out.
        on_tilt: As for :func:`radioloader.ingest`; what it would make of the files.
        on_irregular: As for :func:`radioloader.ingest`.
        slice_tolerance_mm: As for :func:`radioloader.ingest`.
        workers: Processes; None takes the cores that this process may use.

    Returns:
        What they hold.

    Raises:
        ConfigError: An argument is wrong, or there is no such folder.
    """
    policy = Policy(on_tilt, on_irregular, slice_tolerance_mm).check()
    if not roots:
        raise ConfigError("scan needs a folder or a file")
    return scan_files([os.fspath(root) for root in roots], policy, workers=workers)


def scan_files(roots: Sequence[str], policy: Policy, *, workers: int | None = None) -> Scan:
    """:func:`scan` with a checked policy."""
    started = time.monotonic()
    paths = list(dict.fromkeys(path for root in roots for path in list_files(root)))
    found = read_headers(paths, workers=workers)
    result = arrange(roots, [found[path] for path in paths], policy)
    result.seconds = time.monotonic() - started
    return result


def list_files(root: str) -> list[str]:
    """The files of a root, absolute and sorted: those below a folder but hidden ones, or itself.

    Raises:
        ConfigError: It does not exist.
    """
    root = os.path.abspath(os.path.expanduser(root))
    if os.path.isdir(root):
        return sorted(path for path in walk(root) if not os.path.basename(path).startswith("."))
    if os.path.lexists(root):
        return [root]
    raise ConfigError(f"{root} does not exist")


def read_headers(
    paths: Sequence[str],
    *,
    keep_tags: Iterable[str] = (),
    workers: int | None = None,
    executor: Executor | None = None,
) -> dict[str, Instance | Ignored]:
    """What each file is, by path; several processes read them where one would take long.

    Args:
        paths: Different files.
        keep_tags: Attributes to keep besides the technical ones.
        workers: Processes; None takes the cores that this process may use.
        executor: Reads them instead.

    Raises:
        ConfigError: ``keep_tags`` cannot be kept.
    """
    kept = tuple(check_keep_tags(keep_tags))
    chunks = deque((tuple(paths[start : start + _CHUNK]), kept) for start in range(0, len(paths), _CHUNK))
    found: list[Instance | Ignored] = []
    workers = workers or available_cores()
    started, number = time.monotonic(), len(chunks)
    while chunks and not _is_slow(time.monotonic() - started, number, len(chunks), workers, executor):
        found += _read_chunk(chunks.popleft())
    if chunks:
        for result in run(_read_chunk, chunks, workers=min(workers, len(chunks)), executor=executor, lost=_lost):
            found += result
    return {one.path: one for one in found}


def _is_slow(seconds: float, number: int, left: int, workers: int, executor: Executor | None) -> bool:
    """Whether other processes shall read the rest: by what has been seen, since a file takes 0.5 ms on a local disk and 20 ms on others."""
    if number == left or seconds < _TRIED_S or (workers == 1 and executor is None):
        return False
    return seconds / (number - left) * left > _WORTH_S


def arrange(
    roots: Sequence[str], found: Iterable[Instance | Ignored], policy: Policy, keep_tags: Sequence[str] = ()
) -> Scan:
    """The volumes and labels that files make.

    Args:
        roots: What the files are of.
        found: What each file is.
        policy: For tilted and irregular stacks.
        keep_tags: Attributes that were asked for; where one cannot be kept, a note says so.
    """
    found = sorted(found, key=lambda one: one.path)
    series: dict[str, list[Instance]] = {}
    labels: list[Instance] = []
    for one in found:
        if isinstance(one, Instance):
            if one.what == "image":
                series.setdefault(one.facts.series, []).append(one)
            else:
                labels.append(one)
    volumes = [
        _with_own_tags(volume, instances, keep_tags)
        for instances in series.values()
        for volume in sorted(volumes_of(instances, policy), key=_counting)
    ]
    return Scan(tuple(roots), volumes, labels, [one for one in found if isinstance(one, Ignored)], len(found), 0.0)


def _counting(volume: DicomVolume) -> tuple[list[str | int], int]:
    """Order of the volumes of a series: the tenth echo comes after the second."""
    parts = re.split(r"(\d+)", volume.kind)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], volume.part


def _with_own_tags(volume: DicomVolume, instances: Sequence[Instance], keep_tags: Sequence[str]) -> DicomVolume:
    """A volume with what the headers of its own files say: the echo time of a second echo is not that of the first. What differs between
    its files (the tube current of a CT, from slice to slice) is no property of the volume, and is left out."""
    mine = {frame.path for places in volume.slices for frame in places}
    tags = [instance.facts.tags for instance in instances if instance.path in mine]
    if not tags:
        return volume
    common = {name: value for name, value in tags[0].items() if all(other.get(name) == value for other in tags[1:])}
    lost = [name for name in keep_tags if name not in common and any(name in one for one in tags)]
    notes = (f"not kept, as they differ between its files: {', '.join(lost)}",) if lost else ()
    return replace(volume, facts=replace(volume.facts, tags=common), notes=(*volume.notes, *notes))


def count_left_out(ignored: Sequence[Ignored]) -> list[str]:
    """How many files were left out for which reason, in words; but for broken ones."""
    counted = Counter(file.reason for file in ignored if not file.broken)
    example = {file.reason: file.path for file in reversed(ignored)}
    return [
        f"{count} file{'' if count == 1 else 's'} left out: {reason} (such as {example[reason]})"
        for reason, count in sorted(counted.items())
    ]


def _read_chunk(task: tuple[tuple[str, ...], tuple[str, ...]]) -> list[Instance | Ignored]:
    from radioloader.formats.dicom.headers import read_instances

    return read_instances(*task)


def _lost(task: tuple[tuple[str, ...], tuple[str, ...]]) -> list[Instance | Ignored]:
    return [
        Ignored(path, "the process that read this or a neighbouring file died (killed, or out of memory?)", broken=True)
        for path in task[0]
    ]
