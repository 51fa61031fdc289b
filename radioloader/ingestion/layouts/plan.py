"""What a layout says: files by collection and subject, and all else that an ingest is told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from radioloader.errors import ConfigError
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.metadata import MetadataTable
from radioloader.ingestion.naming import name_subjects

__all__ = ["Files", "LayoutPlan", "some"]

Files = dict[str, list[str]]
"""Paths by subject. More than one is a problem, which the ingest tells."""

_SHOWN = 3
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", "README", "CHANGES", "LICENSE", "DICOMDIR", ".bidsignore"}
_ENDINGS = {
    *(
        ".json",
        ".tsv",
        ".csv",
        ".txt",
        ".md",
        ".xlsx",
        ".yaml",
        ".yml",
        ".xml",
        ".html",
        ".pdf",
        ".log",
        ".py",
        ".sh",
        ".ipynb",
    ),
    *(
        ".bval",
        ".bvec",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".tif",
        ".tiff",
        ".svg",
        ".dcm",
        ".ima",
        ".nrrd",
        ".mha",
        ".mhd",
        ".raw",
    ),
    *(
        ".npy",
        ".npz",
        ".pkl",
        ".mat",
        ".h5",
        ".hdf5",
        ".gz",
        ".zip",
        ".tar",
        ".mgz",
        ".mgh",
        ".gii",
        ".edf",
        ".fif",
        ".dat",
        ".rst",
    ),
}


@dataclass(slots=True)
class LayoutPlan:
    """What was recognised.

    Attributes:
        layout: Name of the layout.
        root: The folder or file, as it was given.
        why: What it was recognised by.
        images: Files of each image collection, or DICOM files.
        labels: Those of each label collection.
        classes: Names of a label collection's classes, by collection: a mapping, or the path of a ``dataset.json``.
        splits: Folder by name of the split.
        obs_meta: The subjects' columns: the path of a table, or a table.
        subject: Rule for the ids of DICOM files, or None.
        left_out: Files that look like volumes and are not taken, with the reason.
        notes: What a user should know.
        globs: Globs that should give the files of a collection, for the command that does the same.
        strangers: How many files are no volumes, by what their names end in.
    """

    layout: str
    root: str
    why: str
    images: dict[str, Files | DicomSource] = field(default_factory=dict)
    labels: dict[str, Files | DicomSource] = field(default_factory=dict)
    classes: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    obs_meta: str | MetadataTable | None = None
    subject: str | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    globs: dict[str, str] = field(default_factory=dict)
    strangers: dict[str, int] = field(default_factory=dict)

    @property
    def collections(self) -> dict[str, Files | DicomSource]:
        """All collections, images first."""
        return {**self.images, **self.labels}

    @property
    def subjects(self) -> list[str]:
        """The subjects of the NIfTI files, sorted."""
        return sorted({subject for files in self.collections.values() if isinstance(files, dict) for subject in files})

    @property
    def missing(self) -> dict[str, list[str]]:
        """The subjects that lack a file, by collection."""
        subjects = set(self.subjects)
        found = {
            name: sorted(subjects - set(files)) for name, files in self.collections.items() if isinstance(files, dict)
        }
        return {name: without for name, without in found.items() if without}

    def taken(self) -> set[str]:
        """The NIfTI files that are taken."""
        return {
            path
            for files in self.collections.values()
            if isinstance(files, dict)
            for paths in files.values()
            for path in paths
        }

    def takes_from(self, folder: str) -> bool:
        """Whether a file below a folder is taken."""
        return any(path.startswith(os.path.join(folder, "")) for path in self.taken())

    def rename(self, regex: str) -> None:
        """Find the subjects' ids in the paths instead.

        Raises:
            ConfigError: The layout has ids of its own, or the regular expression does not fit.
        """
        if self.layout in ("manifest", "dicom"):
            raise ConfigError(
                f"subject_regex={regex!r} (--subject-regex) finds ids in file names, and {self.layout} has ids of its own; leave it out"
            )
        unnamed = {
            name: sorted(path for paths in files.values() for path in paths)
            for name, files in self.collections.items()
            if isinstance(files, dict)
        }
        groups = name_subjects(unnamed, {}, regex).groups
        self.images = {name: groups.get(name, files) for name, files in self.images.items()}
        self.labels = {name: groups.get(name, files) for name, files in self.labels.items()}

    def note_strangers(self, paths: Iterable[str]) -> None:
        """Count files that are no volumes, by what their names end in. Only endings that tell of a format are kept: DICOM files and folders
        of hospitals are called after patients."""
        counts = Counter[str]()
        for path in paths:
            name = os.path.basename(path)
            ending = os.path.splitext(name.lower().removesuffix(".gz"))[1]
            kind = (
                "._*"
                if name.startswith("._")
                else name
                if name in _LITTER
                else f"*{ending}"
                if ending in _ENDINGS
                else "others"
            )
            counts[kind] += 1
        self.strangers = dict(sorted(counts.items()))

    def describe(self) -> list[str]:
        """What was recognised, and why, as lines of text."""
        lines = [f"{self.root}: recognised as {self.layout}, since {self.why}"]
        for kind, collections in (("image", self.images), ("label", self.labels)):
            for name, files in collections.items():
                what = "DICOM files" if isinstance(files, DicomSource) else _files(files)
                lines.append(f"  {kind} collection {name!r}: {what}{self._classes(name)}")
        if self.splits:
            lines.append("  splits: " + ", ".join(f"{name} ({path})" for name, path in self.splits.items()))
        if self.obs_meta is not None:
            name = self.obs_meta if isinstance(self.obs_meta, str) else self.obs_meta.name
            lines.append(f"  columns of subjects: {name}")
        for name, subjects in self.missing.items():
            lines.append(f"  without {name!r}: {len(subjects)} of {len(self.subjects)} subjects ({some(subjects)})")
        without = self._labels_alone()
        if without:
            lines.append(f"  labels without an image: {len(without)} subjects ({some(without)})")
        for reason, paths in _by_reason(self.left_out).items():
            lines.append(f"  left out: {len(paths)} volumes ({some(paths)}): {reason}")
        if self.strangers:
            parts = [f"{count} {ending}" for ending, count in self.strangers.items()]
            lines.append(f"  no volumes: {', '.join(parts)}")
        return [*lines, *(f"  note: {note}" for note in self.notes)]

    def _classes(self, name: str) -> str:
        given = self.classes.get(name)
        if given is None:
            return ""
        return f", classes from {given}" if isinstance(given, str) else f", classes {', '.join(map(str, given))}"

    def _labels_alone(self) -> list[str]:
        images: set[str] = set()
        for files in self.images.values():
            if not isinstance(files, dict):
                return []
            images |= set(files)
        return [subject for subject in self.subjects if subject not in images]


def _files(files: Files) -> str:
    count = sum(len(paths) for paths in files.values())
    return f"{count} {'file' if count == 1 else 'files'}, such as {next(iter(files.values()))[0]}"


def _by_reason(left_out: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, reason in left_out:
        found.setdefault(reason, []).append(path)
    return found


def some(names: Iterable[str]) -> str:
    """The first few of many names."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
