"""From what a user gives (globs, folders, lists, mappings) to one file for each subject and collection."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from radioloader.errors import ConfigError
from radioloader.formats.nifti_names import SUFFIXES
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.dicom_source import DicomOptions, DicomSource
from radioloader.ingestion.folders import walk
from radioloader.ingestion.intake import NiftiFile, VolumeSource, split_component
from radioloader.ingestion.kinds import as_dicom, holds_both, nifti_files, without_twins
from radioloader.ingestion.naming import Naming, name_subjects, normal
from radioloader.ingestion.stored import StoredSources

if TYPE_CHECKING:
    from radioloader.ingestion.dicom_people import DicomFound

__all__ = ["Source", "discover", "find_files", "is_label_name"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Source = Files | DicomSource | Mapping[str, str | os.PathLike[str] | DicomSource]

_LABEL_WORDS = {
    "label",
    "labels",
    "labelmap",
    "labelmaps",
    "seg",
    "segmentation",
    "segmentations",
    "segs",
    "mask",
    "masks",
    "gt",
    "gts",
    "groundtruth",
    "truth",
    "annotation",
    "annotations",
    "roi",
    "rois",
    "contour",
    "contours",
}


def is_label_name(name: str) -> bool:
    """Whether a collection's name says that it holds labels, such as ``"seg"`` or ``"liver_mask"``."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return bool(_LABEL_WORDS & set(words))


def discover(
    images: Mapping[str, Source],
    *,
    labels: Collection[str] = (),
    subject_regex: str | None = None,
    allow_missing: bool = False,
    dicom: DicomOptions | None = None,
    stored: StoredSources | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Cohort:
    """Match files across collections.

    Args:
        images: Source of each collection: a glob, a folder, a list of paths, a DICOM source, or a mapping from subject id to path or DICOM
            source.
        labels: The collections that hold labels.
        subject_regex: Finds the subject id in a path: its group ``subject``, else its first group, else all that it matches.
        allow_missing: Accept subjects that some collections have no file of.
        dicom: For DICOM sources.
        stored: What a store has already; ids that come from file names keep to its ids.
        workers: Processes that read DICOM headers.
        executor: Reads them instead.

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
    asked: dict[str, DicomSource | Mapping[str, DicomSource]] = {}
    listed: dict[str, list[str]] = {}
    cohort = Cohort()
    for name, source in images.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"the collection name {name!r} is not a non-empty string")
        if "\0" in name:
            raise ConfigError(
                f"the collection name {name!r} holds a NUL character, which a store does not keep; rename it"
            )
        of_dicom = as_dicom(name, source, listed)
        if of_dicom is not None:
            asked[name] = of_dicom
        elif isinstance(source, Mapping):
            named[name] = {}
            for subject, path in source.items():
                assert not isinstance(path, DicomSource)
                paths = [path] if isinstance(path, str | os.PathLike) else path
                named[name].setdefault(normal(str(subject)), []).extend(_absolute(one) for one in paths)
            if not named[name]:
                raise ConfigError(f"collection {name!r}: the mapping is empty")
        else:
            assert not isinstance(source, DicomSource)
            unnamed[name] = find_files(name, source)
            if holds_both(source, listed):
                cohort.notes.append(
                    f"collection {name!r}: {source} holds NIfTI files and DICOM files; the NIfTI files were taken. For the others give "
                    "DicomSource(folder), or a folder that holds nothing else"
                )
    found = None
    if asked:
        how = {"names": list(images), "listed": listed, "workers": workers, "executor": executor}
        found = _find_dicom(asked, labels, dicom, stored, **how)
        cohort.dicom = set(asked)
    if unnamed:
        given = dict(named)
        if found is not None:
            given |= {name: {subject: [""] for subject in groups} for name, groups in found.sources.items()}
        naming = _name(unnamed, given, subject_regex, stored, found)
        cohort.rule = naming.rule
        if subject_regex is None:
            cohort.guessed = set().union(*naming.groups.values()) - set().union(*given.values())
        if naming.kept:
            subject, by_name = min(naming.kept.items())
            cohort.notes.append(
                f"{len(naming.kept)} subjects keep the ids that the store has for their files, such as {subject!r} (by file names it "
                f"would now be {by_name!r})"
            )
        named |= naming.groups
    sources: dict[str, dict[str, list[Mapping[str, VolumeSource]]]] = {
        name: {subject: [{name: NiftiFile.parse(path)} for path in paths] for subject, paths in named[name].items()}
        for name in images
        if name in named
    }
    cohort.collections = {name: name for name in images if name in named}
    if found is not None and dicom is not None:
        sources |= {name: {s: [slots] for s, slots in groups.items()} for name, groups in found.sources.items()}
        cohort.collections |= found.collections
        cohort.gone = found.gone
        cohort.unusable += found.unusable
        cohort.notes += found.notes
        cohort.guessed |= found.guessed
        if not all(isinstance(source, Mapping) for source in asked.values()):
            cohort.notes.append(f"subject ids of DICOM files come from {dicom.rule.describe()}")
    _match({name: sources[name] for name in images}, cohort, allow_missing=allow_missing)
    return cohort


def _find_dicom(
    asked: Mapping[str, DicomSource | Mapping[str, DicomSource]],
    labels: Collection[str],
    options: DicomOptions | None,
    stored: StoredSources | None,
    **more: Any,
) -> DicomFound:
    from radioloader.ingestion.dicom import find_dicom

    options = options or DicomOptions()
    _check_key(options, stored)
    return find_dicom(
        asked,
        set(labels),
        options,
        known_ids=None if stored is None else stored.subjects_of_dicom,
        known_slots=None if stored is None else stored.sources_of,
        **more,
    )


def _check_key(options: DicomOptions, stored: StoredSources | None) -> None:
    """One patient must not become two: by one key, or none, for all of a store.

    Raises:
        ConfigError: The store was made with another one.
    """
    key = options.pseudonyms.fingerprint
    if stored is None or not stored.fingerprints - {key}:
        return
    if not key:
        problem = "is pseudonymised; give its key (pseudonymize, --pseudonymize)"
    elif "" in stored.fingerprints:
        problem = (
            "holds DICOM volumes whose UIDs are not pseudonymised; leave the key (pseudonymize, --pseudonymize) out"
        )
    else:
        problem = "is pseudonymised with another key; give that one (pseudonymize, --pseudonymize)"
    raise ConfigError(
        f"the store {problem}, or use a new store: the same patients would come in a second time, under other ids"
    )


def _name(
    unnamed: Mapping[str, list[str]],
    given: Mapping[str, Mapping[str, list[str]]],
    regex: str | None,
    stored: StoredSources | None,
    found: DicomFound | None,
) -> Naming:
    try:
        return name_subjects(unnamed, given, regex, None if stored is None else stored.subjects_of)
    except ConfigError as error:
        if found is None:
            raise
        raise ConfigError(
            f"{error}; ids of DICOM files: subject='PatientID', 'folder:N' or a table (--subject), or a mapping from subject id to folder"
        ) from error


def find_files(name: str, source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The NIfTI files of a source, absolute and sorted; a .hdr/.img pair counts once.

    Args:
        name: The collection, for error messages.
        source: A glob, a folder (its own NIfTI files, or those of its subfolders when it has none itself), or a list of paths. A glob or
            folder that ends in ``#2`` stands for the third volume of each 4D file, and so do the paths that are returned then.

    Raises:
        ConfigError: There are none.
    """
    if isinstance(source, str | os.PathLike):
        text, component = split_component(os.path.expanduser(os.fspath(source)))
        if component is not None:
            return [f"{path}#{component}" for path in find_files(name, text)]
        if os.path.isdir(text):
            found = nifti_files(os.path.join(text, entry) for entry in os.listdir(text))
            if not found:
                found = nifti_files(walk(text))
            if not found:
                raise ConfigError(
                    f"collection {name!r}: the folder {text} holds no NIfTI file ({', '.join(SUFFIXES)}), and no file that is marked as "
                    "DICOM"
                )
        elif os.path.isfile(text):
            found = [text]
        else:
            matches = glob.glob(text, recursive=True)
            found = nifti_files(matches)
            if not found:
                what = f"matches {len(matches)} files, but none is NIfTI" if matches else "matches nothing"
                raise ConfigError(f"collection {name!r}: {text} {what} (looked in {os.getcwd()})")
    elif isinstance(source, Iterable):
        found = [os.fspath(path) for path in source]
        if not found:
            raise ConfigError(f"collection {name!r}: the list of files is empty")
    else:
        raise ConfigError(f"collection {name!r}: {source!r} is no glob, folder, list of paths or mapping")
    return without_twins(sorted({_absolute(path) for path in found}))


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a file name that are not UTF-8 become lone surrogates
        return False
    return True


def _match(
    grouped: Mapping[str, Mapping[str, Sequence[Mapping[str, VolumeSource]]]], cohort: Cohort, *, allow_missing: bool
) -> None:
    for subject in sorted(set().union(*grouped.values())):
        sources: dict[str, VolumeSource] = {}
        problems = []
        for name, groups in grouped.items():
            found = groups.get(subject, [])
            if len(found) == 1:
                sources |= found[0]
            elif found:
                problems.append(
                    f"duplicate subject id {subject!r} in collection {name!r}: {_where(found)}; rename one, or give a mapping from "
                    "subject id to path"
                )
            elif not allow_missing:
                problems.append(
                    f"missing {name!r}: no file of subject {subject!r} in collection {name!r} (it has "
                    f"{', '.join(_where(g.get(subject, [])) for g in grouped.values() if g.get(subject))}); add it, or allow it with "
                    "allow_missing (--allow-missing)"
                )
        files = {slot: source.name for slot, source in sources.items()}
        if not subject:
            problems.append(f"empty subject id for {', '.join(files.values())}")
        if "\0" in subject:
            problems.append(
                f"the subject id {subject!r} of {', '.join(files.values())} holds a NUL character; give another id"
            )
        broken = [text for text in [*files.values(), subject] if not _is_unicode(text)]
        if broken:
            problems.append(f"{broken[0]}: the name is not valid UTF-8; rename it")
        cohort.files[subject], cohort.sources[subject] = files, sources
        if problems:
            cohort.failures[subject] = "; ".join(problems).encode("utf-8", "backslashreplace").decode()


def _where(found: Sequence[Mapping[str, VolumeSource]]) -> str:
    return ", ".join(source.where for slots in found for source in slots.values())
