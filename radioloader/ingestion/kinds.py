"""Whether what a user gives as the source of a collection holds NIfTI or DICOM files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radioloader.errors import ConfigError
from radioloader.formats.nifti_names import SUFFIXES
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.folders import walk
from radioloader.ingestion.naming import normal

NO_VOLUMES = (
    ".json",
    ".tsv",
    ".csv",
    ".txt",
    ".md",
    ".bval",
    ".bvec",
    ".png",
    ".jpg",
    ".xml",
    ".html",
    ".npy",
    ".gz",
    ".zip",
)

__all__ = ["NO_VOLUMES", "as_dicom", "holds_both", "is_marked", "nifti_files", "without_twins"]


def as_dicom(
    name: str, source: Any, listed: dict[str, list[str]] | None = None
) -> DicomSource | Mapping[str, DicomSource] | None:
    """The DICOM source that a source stands for, or one for each subject; None where it is of NIfTI files.

    A folder is one of DICOM when there is no NIfTI file in it, and a file marked as DICOM; a list or a glob, when none of its files has a
    NIfTI suffix and one of them, or of those in its folders, is marked. Where one subject of a mapping has DICOM files, all have.

    Args:
        name: The collection, for messages.
        source: The source.
        listed: Gets the files of folders that were listed for this, as :func:`~radioloader.ingestion.scan.list_files` gives them.

    Raises:
        ConfigError: One subject has DICOM files and another one NIfTI files.
    """
    listed = {} if listed is None else listed
    if isinstance(source, DicomSource):
        return source
    if isinstance(source, Mapping):
        return _of_subjects(name, source, listed)
    if isinstance(source, str | os.PathLike):
        text = os.path.expanduser(os.fspath(source))
        if os.path.isdir(text):
            return DicomSource(text) if _is_dicom([text], listed) else None
        paths = [text] if os.path.isfile(text) else sorted(glob.glob(text, recursive=True))
        # "**" gives folders and the files in them.
        files = [path for path in paths if not os.path.isdir(path)]
        return DicomSource(files or paths) if _is_dicom(files or paths, listed) else None
    if isinstance(source, Iterable):
        paths = [os.path.expanduser(os.fspath(path)) for path in source]
        return DicomSource(paths) if paths and _is_dicom(paths, listed) else None
    return None


def _of_subjects(name: str, source: Mapping[Any, Any], listed: dict[str, list[str]]) -> dict[str, DicomSource] | None:
    found: dict[str, tuple[Any, Any]] = {}
    twice = []
    for subject, one in source.items():
        if normal(str(subject)) in found:
            twice.append(str(subject))
        found[normal(str(subject))] = one, as_dicom(name, one, listed)
    sources = {subject: dicom for subject, (_, dicom) in found.items() if isinstance(dicom, DicomSource)}
    if not sources:
        return None
    if twice:
        raise ConfigError(
            f"collection {name!r}: the mapping holds the subject {twice[0]!r} twice, written in different ways"
        )
    for subject, (one, dicom) in found.items():
        if dicom is not None:
            continue
        given = [one] if isinstance(one, str | os.PathLike) else list(one)
        paths = [os.path.expanduser(os.fspath(path)) for path in given]
        if any(path.lower().endswith(SUFFIXES) for path in paths) or any(_holds_nifti(path) for path in paths):
            raise ConfigError(
                f"collection {name!r}: {one} of subject {subject!r} is no DICOM, but those of others are, such as that of "
                f"{next(iter(sources))!r}; give them as two collections, or convert one"
            )
        # Nothing there, or nothing that can be read: this subject's failure, not the others'.
        sources[subject] = DicomSource(paths)
    return sources


def _is_dicom(paths: Sequence[str], listed: dict[str, list[str]]) -> bool:
    if any(path.lower().endswith(SUFFIXES) for path in paths):
        return False
    marked = False
    for path in paths:
        if os.path.isdir(path):
            root = os.path.abspath(path)
            if root not in listed:
                listed[root] = sorted(file for file in walk(root) if not os.path.basename(file).startswith("."))
            if nifti_files(listed[root]):
                return False
            marked = marked or any(is_marked(file) for file in listed[root])
        else:
            marked = marked or is_marked(path)
    return marked


def holds_both(source: Any, listed: Mapping[str, list[str]]) -> bool:
    """Whether a folder of NIfTI files, which was listed, holds DICOM files as well."""
    if not isinstance(source, str | os.PathLike):
        return False
    files = listed.get(os.path.abspath(os.path.expanduser(os.fspath(source))), [])
    # Sidecars by the hundred thousand are not opened for this.
    return any(is_marked(file) for file in files if not file.lower().endswith((*SUFFIXES, *NO_VOLUMES)))


def _holds_nifti(path: str) -> bool:
    return os.path.isdir(path) and bool(nifti_files(walk(path)))


def is_marked(path: str) -> bool:
    """Whether a file begins as DICOM does (PS3.10 7.1), or as old files without a preamble do: with an element of group 2 or 8."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    old = (
        start[:2] in (b"\x02\0", b"\x08\0") and start[3:4] == b"\0" and (start[4:6].isalpha() or start[6:8] == b"\0\0")
    )
    return start[128:] == b"DICM" or (len(start) == 132 and old)


def nifti_files(paths: Iterable[str]) -> list[str]:
    """Those that are named as NIfTI files are."""
    # A link to nothing (a file that git-annex has not fetched) counts: it is a subject that fails, not one that vanishes.
    return [
        path
        for path in paths
        if not os.path.basename(path).startswith(".")
        and path.lower().endswith(SUFFIXES)
        and (os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path)))
    ]


def without_twins(paths: list[str]) -> list[str]:
    """``paths`` without the .img files whose .hdr is among them and stands for the pair."""
    header, voxels = re.compile(r"\.hdr(\.gz)?$", re.I), re.compile(r"\.img(\.gz)?$", re.I)
    pairs = {header.sub("", path) for path in paths if header.search(path)}
    return [path for path in paths if not (voxels.search(path) and voxels.sub("", path) in pairs)]
