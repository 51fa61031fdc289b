"""From what a user gives (globs, folders, lists, mappings) to one file for each subject and collection."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from radioloader.errors import ConfigError
from radioloader.formats.nifti import SUFFIXES, stem

__all__ = ["Cohort", "Source", "discover", "find_files", "is_label_name"]

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
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rule: str = ""


def is_label_name(name: str) -> bool:
    """Whether a collection's name says that it holds labels, such as ``"seg"`` or ``"liver_mask"``."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return bool(_LABEL_WORDS & set(words))


def discover(images: Mapping[str, Source], *, subject_regex: str | None = None, allow_missing: bool = False) -> Cohort:
    """Match files across collections.

    Args:
        images: Source of each collection: a glob, a folder, a list of paths, or a mapping from subject id to path.
        subject_regex: Finds the subject id in a path: its group ``subject``, else its first group, else all that it matches.
        allow_missing: Accept subjects that some collections have no file of.

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
        if isinstance(source, Mapping):
            named[name] = {}
            for subject, path in source.items():
                named[name].setdefault(str(subject), []).append(_absolute(path))
            if not named[name]:
                raise ConfigError(f"collection {name!r}: the mapping is empty")
        else:
            unnamed[name] = find_files(name, source)
    if unnamed:
        cohort.rule, grouped = _name_subjects(unnamed, named, subject_regex)
        named |= grouped
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
                found = _nifti(_walk(text))
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


def _walk(folder: str) -> Iterator[str]:
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


Rule = Callable[[str, list[str]], list[str]]


def _by_bids(_: str, paths: list[str]) -> list[str]:
    found = [re.match(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?=_|$)", stem(path)) for path in paths]
    return [match.group(1) if match else stem(path) for match, path in zip(found, paths, strict=True)]


def _by_name(name: str, paths: list[str]) -> list[str]:
    stems = _by_stem(name, paths)
    ending = re.compile(rf"[_\-. ]{re.escape(name)}$", re.I)
    return [ending.sub("", text) for text in stems] if all(ending.search(text) for text in stems) else stems


def _by_stem(_: str, paths: list[str]) -> list[str]:
    return [stem(path) for path in paths]


def _by_trimmed_stem(name: str, paths: list[str]) -> list[str]:
    """Stem without the ending, from a delimiter on, that all files of the collection have (such as nnU-Net's ``_0000``)."""
    stems = _by_name(name, paths)
    if stems != _by_stem(name, paths):
        return stems
    if len(stems) == 1:
        return [re.sub(r"_\d{4}$", "", stems[0])]
    common = os.path.commonprefix([text[::-1] for text in stems])[::-1]  # noqa: RUF071 - characters are meant
    cut = re.search(r"[_\-. ]", common)
    length = len(common) - cut.start() if cut else 0
    return [text[: len(text) - length] for text in stems] if all(len(text) > length for text in stems) else stems


def _by_folder(_: str, paths: list[str]) -> list[str]:
    return [os.path.basename(os.path.dirname(path)) for path in paths]


_RULES: dict[str, Rule] = {
    "BIDS entities (sub-, ses-)": _by_bids,
    "file name without the collection's name": _by_name,
    "file name": _by_stem,
    "file name without what all files of the collection end in": _by_trimmed_stem,
    "folder name": _by_folder,
}


def _name_subjects(
    unnamed: Mapping[str, list[str]], named: Mapping[str, Mapping[str, list[str]]], regex: str | None
) -> tuple[str, dict[str, dict[str, list[str]]]]:
    """Subject ids by the first rule under which most subjects have a file in every collection."""
    rules = _RULES if regex is None else {f"subject_regex={regex!r}": _by_regex(regex)}
    best: tuple[tuple[int, int], str, dict[str, dict[str, list[str]]]] | None = None
    for text, rule in rules.items():
        grouped: dict[str, dict[str, list[str]]] = {}
        ids = {name: rule(name, paths) for name, paths in unnamed.items()}
        if (
            regex is None
            and rule is not _by_stem
            and ids == {name: _by_stem(name, paths) for name, paths in unnamed.items()}
        ):
            continue  # the rule changes nothing; plain file names have their own turn
        for name, paths in unnamed.items():
            groups: dict[str, list[str]] = {}
            for subject, path in zip(ids[name], paths, strict=True):
                groups.setdefault(subject, []).append(path)
            grouped[name] = groups
        everywhere = set.intersection(*[set(groups) for groups in [*grouped.values(), *named.values()]])
        unique = sum(len(group) == 1 for groups in grouped.values() for group in groups.values())
        complete = sum(all(len(grouped[name].get(subject, [""])) == 1 for name in grouped) for subject in everywhere)
        if best is None or (complete, unique) > best[0]:
            best = ((complete, unique), text, grouped)
    assert best is not None
    (complete, _), text, grouped = best
    if not complete and len(unnamed) + len(named) > 1:
        examples = "; ".join(f"{name}: {sorted(groups)[:3]}" for name, groups in [*grouped.items(), *named.items()])
        raise ConfigError(
            f"no subject has a file in every collection, going by file names ({examples}); "
            "give subject_regex (--subject-regex), or a mapping from subject id to path for each collection"
        )
    return text, grouped


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a file name that are not UTF-8 become lone surrogates
        return False
    return True


def _by_regex(regex: str) -> Rule:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(f"subject_regex={regex!r} is not a regular expression: {error}") from error

    def rule(name: str, paths: list[str]) -> list[str]:
        subjects = []
        for path in paths:
            match = pattern.search(path.replace(os.sep, "/"))
            if match is None:
                raise ConfigError(f"collection {name!r}: subject_regex={regex!r} finds nothing in {path}")
            groups = match.groupdict()
            subjects.append(groups.get("subject") or (match.group(1) if match.groups() else match.group(0)))
        return subjects

    return rule


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
        broken = [text for text in [*files.values(), subject] if not _is_unicode(text)]
        if broken:
            problems.append(f"{broken[0]}: the name is not valid UTF-8; rename it")
        cohort.files[subject] = files
        if problems:
            cohort.failures[subject] = "; ".join(problems).encode("utf-8", "backslashreplace").decode()
