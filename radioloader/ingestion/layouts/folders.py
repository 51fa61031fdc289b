"""Plain folders: one for each collection, one for each subject, or a single one."""

from __future__ import annotations

import os
import re
from collections import Counter

from radioloader.errors import ConfigError
from radioloader.ingestion.discover import is_label_name
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.naming import file_stem, name_subjects, normal

__all__ = ["match_folders", "match_subjects", "plan_folders", "plan_subjects"]

_DELIMITERS = "_-. "
_FIRST = re.compile(rf"([^{re.escape(_DELIMITERS)}]+)[{re.escape(_DELIMITERS)}](.+)", re.S)
_ROLES = 30
"""Files of one subject, above which a folder is no subject's."""

_WORDS = re.compile(r"images?|imgs?|data|scans|volumes|t[12]w?|flair|ct|mri?|pe?t|dwi|adc|t1ce?|t1gd", re.I)
_LABELS = {"label", "labels", "labelstr", "labelsts", "seg", "segs", "segmentation", "segmentations", "mask", "masks"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def match_folders(tree: Tree) -> str | None:
    """Why each folder is a collection; None when they are not."""
    folders = tree.folders
    if not folders or tree.holds_dicom or "channel_names" in (tree.dataset_json[0] or {}):
        return None
    if set(folders) == {""}:
        if _several_kinds([file_stem(name) for name in tree.volumes]):
            return None
        return f"all of its {len(tree.volumes)} files lie in one folder, and no name says that one belongs to another"
    if "" in folders or any("/" in folder for folder in folders) or {name.lower() for name in folders} & _SPLITS:
        return None
    known = [name for name in folders if _known(name)]
    if not known and any(_known(role) for folder, names in folders.items() for role in _roles(folder, names)):
        return None
    try:
        groups = name_subjects(folders, {}, None).groups
    except ConfigError:  # nobody has a file in all of them
        return None
    counts = Counter(subject for subjects in groups.values() for subject in subjects)
    shared = sorted(subject for subject, count in counts.items() if count > 1)
    if len(folders) == 1 or (shared and (known or 2 * len(shared) > len(counts))):
        names = ", ".join(sorted(folders)[:5])
        return f"each of its folders ({names}) is a collection" + (
            f": subjects such as {shared[0]} have a file in several" if shared else ""
        )
    return None


def plan_folders(tree: Tree, why: str) -> LayoutPlan:
    """What is in a folder of folders, each of which is a collection, or in a single one.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("folders", tree.root, why)
    # A single folder of files is called as it is itself.
    folders = {folder or normal(os.path.basename(tree.root)): folder for folder in tree.folders}
    naming = name_subjects(
        {name: [tree.path(file) for file in tree.inside(folder)] for name, folder in folders.items()}, {}, None
    )
    for name, folder in folders.items():
        # The name of a folder that holds everything was hardly given for what is in it, unless that is all that it says.
        label = is_label_name(name) if folder else name.lower() in _LABELS
        (made.labels if label else made.images)[name] = naming.groups[name]
        made.globs[name] = tree.path(folder) if folder else tree.root
    made.notes.append(f"subject ids come from: {naming.rule}")
    made.leave_out(tree, {})
    return made


def match_subjects(tree: Tree) -> str | None:
    """Why each folder is a subject, with a file for each collection; None when they are not."""
    folders = tree.folders
    last = [folder.rpartition("/")[2] for folder in folders]
    if tree.holds_dicom or "" in folders or len(folders) < 2 or any(map(_known, last)):
        return None
    # The same name below two folders may be one person or two, and is not for us to say.
    if len(set(last)) < len(last) or len({folder.count("/") for folder in folders}) > 1:
        return None
    if {part.lower() for folder in folders for part in folder.split("/")} & _SPLITS:
        return None
    found = {folder: _roles(folder, names) for folder, names in folders.items()}
    roles = Counter(role for names in found.values() for role in set(names))
    common = [role for role, count in roles.items() if 2 * count > len(folders) and not role.isdigit()]
    twice = any(len(set(names)) < len(names) for names in found.values())
    # Files that few subjects have are more often numbers of visits or frames than collections.
    if not common or twice or len(roles) > _ROLES or 5 * sum(roles[role] for role in common) < 4 * sum(roles.values()):
        return None
    return f"most of its {len(folders)} folders hold the same files ({', '.join(sorted(common))}), so each is a subject"


def plan_subjects(tree: Tree, why: str) -> LayoutPlan:
    """What is in a folder of folders, each of which is a subject.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("subjects", tree.root, why)
    groups: dict[str, Files] = {}
    for folder, names in tree.folders.items():
        for name, role in zip(names, _roles(folder, names), strict=True):
            groups.setdefault(role, {}).setdefault(normal(folder.rpartition("/")[2]), []).append(tree.path(name))
    for role, files in sorted(groups.items()):
        (made.labels if is_label_name(role) else made.images)[role] = files
        made.globs[role] = tree.path(f"**/*{role}.nii*")
    made.leave_out(tree, {})
    return made


def _roles(folder: str, names: list[str]) -> list[str]:
    """What files of a subject's folder are called without the subject: ``BraTS_001/BraTS_001_flair.nii.gz`` is a ``flair``."""
    subject = normal(folder.rpartition("/")[2])
    roles = []
    for name in names:
        stem = file_stem(name)
        if stem.startswith(subject) and stem[len(subject) :][:1] in _DELIMITERS:
            roles.append(stem[len(subject) :].strip(_DELIMITERS) or stem)
        elif stem.endswith(subject) and stem[: -len(subject)][-1:] in _DELIMITERS:
            roles.append(stem[: -len(subject)].strip(_DELIMITERS) or stem)
        else:
            roles.append(stem)
    return roles


def _known(name: str) -> bool:
    """Whether a name is one that people give to kinds of images, or to labels."""
    return is_label_name(name) or _WORDS.fullmatch(name) is not None


def _several_kinds(stems: list[str]) -> bool:
    """Whether files of one folder may be of several kinds: some are labels by their names, or belong to others (``a`` and ``a_seg``,
    ``volume-0`` and ``segmentation-0``, ``a_0000`` and ``a_0001``, ``a-T1`` and ``a-T2``)."""
    if any(is_label_name(stem) for stem in stems):
        return True
    there = set(stems)
    before: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    for stem in stems:
        cut = max(stem.rfind(delimiter) for delimiter in _DELIMITERS)
        if cut > 0:
            if stem[:cut] in there:
                return True
            before.setdefault(stem[:cut], set()).add(stem[cut + 1 :])
        first = _FIRST.match(stem)
        if first is not None:
            after.setdefault(first.group(2), set()).add(first.group(1))
    if len(after) > 1 and any(len(names) > 1 for names in after.values()):
        return True
    # Endings that several have, and that are no numbers of cases: case_1 and case_2 are two cases, a_0000 and a_0001 two channels.
    ends = [endings for endings in before.values() if len(endings) > 1]
    return any(not all(ending.isdigit() for ending in endings) for endings in ends) or (
        len(before) > 1 and any(all(re.fullmatch(r"0\d{3}", ending) for ending in endings) for endings in ends)
    )
