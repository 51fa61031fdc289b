"""From what a user gives (globs, folders, lists, mappings) to one file for each subject and collection."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from radioloader.errors import ConfigError
from radioloader.formats.nifti import SUFFIXES
from radioloader.ingestion.naming import KnownIds, name_subjects, normal

__all__ = ["Cohort", "Source", "discover", "find_files", "is_label_name", "walk"]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]

_LABEL_WORDS = {
    "label",
    "labels",
    "seg",
    "segmentation",
    "segs",
    "mask",
    "masks",
    "gt",
    "truth",
    "annotation",
    "annotations",
    "roi",
}


@dataclass(slots=True)
class Cohort:
    """Files by subject and collection.

    Attributes:
        files: Source file by subject, then collection; subjects sorted.
        failures: Why a subject cannot be ingested, by subject.
        notes: What a user should know.
        rule: How subject ids were made from file names.
        guessed: The subjects whose ids come from file names, not from the user (a mapping, or a regular expression).
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rule: str = ""
    guessed: set[str] = field(default_factory=set)


def is_label_name(name: str) -> bool:
    """Whether a collection's name says that it holds labels, such as ``"seg"`` or ``"liver_mask"``."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return bool(_LABEL_WORDS & set(words))


def discover(
    images: Mapping[str, Source],
    *,
    subject_regex: str | None = None,
    allow_missing: bool = False,
    known: KnownIds | None = None,
) -> Cohort:
    """Match files across collections.

    Args:
        images: Source of each collection: a glob, a folder, a list of paths, or a mapping from subject id to path.
        subject_regex: Finds the subject id in a path: its group ``subject``, else its first group, else all that it matches.
        allow_missing: Accept subjects that some collections have no file of.
        known: The ids under which a store has a file already; ids that come from file names keep to them.

    Raises:
        ConfigError: A source matches nothing, or files cannot be matched to subjects.
    """
    if not isinstance(images, Mapping):
        raise ConfigError(
            f"images={images!r} is not a mapping from collection to source, such as {{'T1w': 'images/*.nii.gz'}}"
        )
    if not images:
        raise ConfigError("images is empty; give at least one collection, such as {'T1w': 'images/*.nii.gz'}")
    named: dict[str, dict[str, list[str]]] = {}
    unnamed: dict[str, list[str]] = {}
    cohort = Cohort()
    for name, source in images.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"the collection name {name!r} is not a non-empty string")
        if "\0" in name:
            raise ConfigError(
                f"the collection name {name!r} holds a NUL character, which a store does not keep; rename it"
            )
        if isinstance(source, Mapping):
            named[name] = {}
            for subject, path in source.items():
                named[name].setdefault(normal(str(subject)), []).append(_absolute(path))
            if not named[name]:
                raise ConfigError(f"collection {name!r}: the mapping is empty")
        else:
            unnamed[name] = find_files(name, source)
    if unnamed:
        naming = name_subjects(unnamed, named, subject_regex, known)
        cohort.rule = naming.rule
        if subject_regex is None:
            cohort.guessed = set().union(*naming.groups.values()) - set().union(*named.values())
        if naming.kept:
            subject, by_name = min(naming.kept.items())
            cohort.notes.append(
                f"{len(naming.kept)} subjects keep the ids that the store has for their files, such as {subject!r} (by file names it "
                f"would now be {by_name!r})"
            )
        named |= naming.groups
    _match({name: named[name] for name in images}, cohort, allow_missing=allow_missing)
    return cohort


def find_files(name: str, source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The NIfTI files of a source, absolute and sorted; a .hdr/.img pair counts once.

    Args:
        name: The collection, for error messages.
        source: A glob, a folder (its own NIfTI files, or those of its subfolders when it has none itself), or a list of paths.

    Raises:
        ConfigError: There are none.
    """
    if isinstance(source, str | os.PathLike):
        text = os.path.expanduser(os.fspath(source))
        if os.path.isdir(text):
            found = _nifti(os.path.join(text, entry) for entry in os.listdir(text))
            if not found:
                found = _nifti(walk(text))
            if not found:
                raise ConfigError(f"collection {name!r}: the folder {text} holds no NIfTI file ({', '.join(SUFFIXES)})")
        elif os.path.isfile(text):
            found = [text]
        else:
            matches = glob.glob(text, recursive=True)
            found = _nifti(matches)
            if not found:
                what = f"matches {len(matches)} files, but none is NIfTI" if matches else "matches nothing"
                raise ConfigError(f"collection {name!r}: {text} {what} (looked in {os.getcwd()})")
    elif isinstance(source, Iterable):
        found = [os.fspath(path) for path in source]
        if not found:
            raise ConfigError(f"collection {name!r}: the list of files is empty")
    else:
        raise ConfigError(f"collection {name!r}: {source!r} is no glob, folder, list of paths or mapping")
    return _without_twins(sorted({_absolute(path) for path in found}))


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def walk(folder: str) -> Iterator[str]:
    """Files below a folder; hidden folders are left out, links to folders are followed once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        folders[:] = [
            f for f in folders if not f.startswith(".") and os.path.realpath(os.path.join(root, f)) not in seen
        ]
        yield from (os.path.join(root, file) for file in files)


def _nifti(paths: Iterable[str]) -> list[str]:
    # A link to nothing (a file that git-annex has not fetched) counts: it is a subject that fails, not one that vanishes.
    return [
        path
        for path in paths
        if not os.path.basename(path).startswith(".")
        and path.lower().endswith(SUFFIXES)
        and (os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path)))
    ]


def _without_twins(paths: list[str]) -> list[str]:
    """``paths`` without the .img files whose .hdr is among them and stands for the pair."""
    header, voxels = re.compile(r"\.hdr(\.gz)?$", re.I), re.compile(r"\.img(\.gz)?$", re.I)
    pairs = {header.sub("", path) for path in paths if header.search(path)}
    return [path for path in paths if not (voxels.search(path) and voxels.sub("", path) in pairs)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a file name that are not UTF-8 become lone surrogates
        return False
    return True


def _match(grouped: Mapping[str, Mapping[str, list[str]]], cohort: Cohort, *, allow_missing: bool) -> None:
    for subject in sorted(set().union(*grouped.values())):
        files: dict[str, str] = {}
        problems = []
        for name, groups in grouped.items():
            paths = groups.get(subject, [])
            if len(paths) == 1:
                files[name] = paths[0]
            elif paths:
                problems.append(
                    f"duplicate subject id {subject!r} in collection {name!r}: {', '.join(paths)}; rename one, or give a mapping from "
                    "subject id to path"
                )
            elif not allow_missing:
                problems.append(
                    f"missing {name!r}: no file of subject {subject!r} in collection {name!r} (it has "
                    f"{', '.join(p for g in grouped.values() for p in g.get(subject, []))}); add it, or allow it with allow_missing "
                    "(--allow-missing)"
                )
        if not subject:
            problems.append(f"empty subject id for {', '.join(files.values())}")
        if "\0" in subject:
            problems.append(
                f"the subject id {subject!r} of {', '.join(files.values())} holds a NUL character; give another id"
            )
        broken = [text for text in [*files.values(), subject] if not _is_unicode(text)]
        if broken:
            problems.append(f"{broken[0]}: the name is not valid UTF-8; rename it")
        cohort.files[subject] = files
        if problems:
            cohort.failures[subject] = "; ".join(problems).encode("utf-8", "backslashreplace").decode()
