"""What a layout says: files by collection and subject, and all else that an ingest is told."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from radioloader.errors import ConfigError
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.intake import split_component
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.metadata import MetadataTable
from radioloader.ingestion.naming import name_subjects

__all__ = ["Files", "LayoutPlan", "some"]

Files = dict[str, list[str]]
"""Paths by subject. More than one is a problem, which the ingest tells."""

_SHOWN = 3
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", "README", "CHANGES", "LICENSE", "DICOMDIR", ".bidsignore"}
_FORMATS = re.compile(
    r"\.(json|[ct]sv|txt|md|rst|xlsx|ya?ml|xml|html|pdf|log|py|sh|ipynb|bval|bvec|png|jpe?g|gif|tiff?|svg|dcm|ima|nrrd|mh[ad]|raw|"
    r"np[yz]|pkl|mat|h5|hdf5|gz|zip|tar|mg[zh]|gii|edf|fif|dat)"
)


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

    @property
    def of_dicom(self) -> bool:
        """Whether DICOM files are among the sources."""
        return any(isinstance(files, DicomSource) for files in self.collections.values())

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

    def leave_out(
        self, tree: Tree, reasons: Mapping[str, str], *, otherwise: str = "", read: Collection[str] = ()
    ) -> None:
        """List the volumes of a tree that are not taken, and count the files that are none.

        Args:
            tree: All files.
            reasons: Why volumes are not taken, by name in the tree.
            otherwise: Why, for the others.
            read: Names of files that are none, and that say something about the dataset.
        """
        taken = {split_component(path)[0] for path in self.taken()}
        places = ((name, tree.path(name)) for name in tree.volumes)
        self.left_out += [(path, reasons.get(name, otherwise)) for name, path in places if path not in taken]
        counts = Counter(_kind(os.path.basename(name)) for name in tree.strangers if name not in read)
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


def _kind(name: str) -> str:
    """What a name ends in, where that tells of a format: DICOM files, and those of hospitals, are called after patients."""
    ending = os.path.splitext(name.lower().removesuffix(".gz"))[1]
    if name.startswith("._"):
        return "._*"
    if name in _LITTER:
        return name
    return f"*{ending}" if _FORMATS.fullmatch(ending) else "others"


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
