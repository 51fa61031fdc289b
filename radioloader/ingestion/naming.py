"""From file names to subject ids: the rules, and which of them a set of files goes by."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from radioloader.errors import ConfigError
from radioloader.formats.nifti_names import stem
from radioloader.ingestion.intake import split_component

__all__ = ["KnownIds", "Naming", "file_stem", "name_subjects", "normal"]

Rule = Callable[[str, list[str]], list[str]]
KnownIds = Callable[[str, str], Collection[str]]
"""The subjects that a store has of a collection's file, from the collection and the path."""

Groups = dict[str, dict[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Naming:
    """Ids that were given to files.

    Attributes:
        rule: The rule in words.
        groups: Files by collection, then subject.
        kept: The ids of the store that were taken instead of the rule's, each with the rule's.
    """

    rule: str
    groups: Groups
    kept: Mapping[str, str]


def normal(text: str) -> str:
    """``text`` in Unicode's composed form: macOS and Linux write the same name in different bytes."""
    return unicodedata.normalize("NFC", text)


def file_stem(path: str) -> str:
    """File name without its NIfTI suffix, in Unicode's composed form."""
    return normal(stem(split_component(path)[0]))


def _by_bids(_: str, paths: list[str]) -> list[str]:
    found = [re.match(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?=_|$)", file_stem(path)) for path in paths]
    return [match.group(1) if match else file_stem(path) for match, path in zip(found, paths, strict=True)]


def _by_name(name: str, paths: list[str]) -> list[str]:
    stems = _by_stem(name, paths)
    ending = re.compile(rf"[_\-. ]{re.escape(normal(name))}$", re.I)
    return [ending.sub("", text) for text in stems] if all(ending.search(text) for text in stems) else stems


def _by_channel(name: str, paths: list[str]) -> list[str]:
    """Stem without nnU-Net's channel, when all files of the collection are of one channel. A single file is trusted with ``_0000``
    only: ``case_0007`` alone may well be the seventh case."""
    stems = _by_name(name, paths)
    if stems != _by_stem(name, paths):
        return stems
    channels = {text[-5:] for text in stems}
    channel = channels.pop() if len(channels) == 1 else ""
    if not re.fullmatch(r"_0000" if len(stems) == 1 else r"_00\d\d", channel) or any(len(text) == 5 for text in stems):
        return stems
    return [text[:-5] for text in stems]


def _by_stem(_: str, paths: list[str]) -> list[str]:
    return [file_stem(path) for path in paths]


def _by_trimmed_stem(name: str, paths: list[str]) -> list[str]:
    """Stem without the ending, from a delimiter on, that all files of the collection have."""
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
    return [normal(os.path.basename(os.path.dirname(path))) for path in paths]


# Rules that follow a convention come first: they give a file the same id whatever lies beside it.
_RULES: dict[str, Rule] = {
    "BIDS entities (sub-, ses-)": _by_bids,
    "file name without the collection's name": _by_name,
    "file name without nnU-Net's channel (_0000)": _by_channel,
    "file name": _by_stem,
    "file name without what all files of the collection end in": _by_trimmed_stem,
    "folder name": _by_folder,
}


def name_subjects(
    unnamed: Mapping[str, list[str]],
    named: Mapping[str, Mapping[str, list[str]]],
    regex: str | None,
    known: KnownIds | None = None,
) -> Naming:
    """Give the files of each collection their subject ids.

    Files that a store has keep the ids that it has for them, and so do files that belong to the same subject: what is found beside
    them must not make another patient of them. The rule is the one that agrees with most of these ids, then the first under
    which most subjects have a file in every collection.

    Args:
        unnamed: Files by collection.
        named: Files by collection, then subject, where the user gave the ids.
        regex: Finds the id in a path; None goes by the rules.
        known: The store's ids; not asked when there is a ``regex``.

    Raises:
        ConfigError: No subject has a file in every collection, or the regular expression does not fit.
    """
    rules = _RULES if regex is None else {f"subject_regex={regex!r}": _by_regex(regex)}
    plain = {name: _by_stem(name, paths) for name, paths in unnamed.items()}
    stored = {
        name: [
            frozenset(known(name, path)) if known is not None and regex is None else frozenset[str]() for path in paths
        ]
        for name, paths in unnamed.items()
    }
    given = {subject for groups in named.values() for subject in groups}
    best: tuple[tuple[bool, int, int, int], Naming] | None = None
    for text, rule in rules.items():
        ids = {name: rule(name, paths) for name, paths in unnamed.items()}
        if regex is None and rule is not _by_stem and ids == plain:
            continue  # the rule changes nothing; plain file names have their own turn
        agree = sum(
            subject in of_file for name in ids for subject, of_file in zip(ids[name], stored[name], strict=True)
        )
        kept = _kept(ids, stored, given)
        grouped: Groups = {name: {} for name in unnamed}
        for name, paths in unnamed.items():
            for subject, path in zip(ids[name], paths, strict=True):
                grouped[name].setdefault(kept.get(subject, subject), []).append(path)
        everywhere = set.intersection(*[set(groups) for groups in [*grouped.values(), *named.values()]])
        unique = sum(len(group) == 1 for groups in grouped.values() for group in groups.values())
        complete = sum(all(len(grouped[name].get(subject, [""])) == 1 for name in grouped) for subject in everywhere)
        score = (complete > 0, agree, complete, unique)
        if best is None or score > best[0]:
            best = score, Naming(text, grouped, {new: old for old, new in kept.items() if old != new})
    assert best is not None
    (matched, *_), naming = best
    if not matched and len(unnamed) + len(named) > 1:
        examples = "; ".join(
            f"{name}: {sorted(groups)[:3]}" for name, groups in [*naming.groups.items(), *named.items()]
        )
        raise ConfigError(
            f"no subject has a file in every collection, going by file names ({examples}); "
            "give subject_regex (--subject-regex), or a mapping from subject id to path for each collection"
        )
    return naming


def _kept(
    ids: Mapping[str, list[str]], stored: Mapping[str, list[frozenset[str]]], given: Collection[str]
) -> dict[str, str]:
    """The store's id by the rule's, where the store has the rule's files under exactly one."""
    owners: dict[str, set[str]] = {}
    for name, subjects in ids.items():
        for subject, of_file in zip(subjects, stored[name], strict=True):
            if of_file and subject not in given:
                owners.setdefault(subject, set()).update({subject} if subject in of_file else of_file)
    return {subject: next(iter(of_files)) for subject, of_files in owners.items() if len(of_files) == 1}


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
            found = groups.get("subject") or (match.group(1) if match.groups() else match.group(0))
            subjects.append(normal(found) if found else found)
        return subjects

    return rule
