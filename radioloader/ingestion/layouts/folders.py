"""Plain folders: one for each collection, one for each subject, or a single one."""

from __future__ import annotations

import re
from collections import Counter

from radioloader.errors import ConfigError
from radioloader.ingestion.discover import is_label_name
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.naming import file_stem, name_subjects, normal

__all__ = ["match_folders", "match_subjects", "plan_folders", "plan_subjects"]

_ROLES = 30
"""Files of one subject, above which a folder is no subject's."""

_WORDS = {
    "image",
    "images",
    "img",
    "imgs",
    "data",
    "scans",
    "volumes",
    "t1",
    "t2",
    "t1w",
    "t2w",
    "flair",
    "ct",
    "mr",
    "mri",
    "pet",
    "pt",
    "dwi",
    "adc",
    "t1c",
    "t1ce",
    "t1gd",
}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def match_folders(tree: Tree) -> str | None:
    """Why each folder is a collection; None when they are not."""
    folders = tree.folders
    if not tree.volumes:
        return None
    if set(folders) == {""}:
        return (
            None
            if _endings(tree)
            else f"all of its {len(tree.volumes)} files lie in one folder, and none is another's label by its name"
        )
    if "" in folders or any("/" in folder for folder in folders) or {name.lower() for name in folders} & _SPLITS:
        return None
    known = [name for name in folders if _known(name)]
    if not known and any(_known(role) for folder, names in folders.items() for role in _roles(folder, names)):
        return None
    shared = _shared(folders)
    if len(folders) == 1 or (known and shared) or len(known) == len(folders):
        return f"each of its folders ({', '.join(sorted(folders))}) is a collection" + (
            f": subjects such as {shared} have a file in several" if shared else ""
        )
    return (
        None
        if not shared
        else f"subjects such as {shared} have a file in several of its folders ({', '.join(sorted(folders)[:5])})"
    )


def plan_folders(tree: Tree, why: str) -> LayoutPlan:
    """What is in a folder of folders, each of which is a collection, or in a single one.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("folders", tree.root, why)
    folders = tree.folders
    groups = {folder or normal(tree.root.rstrip("/").rpartition("/")[2]): names for folder, names in folders.items()}
    naming = name_subjects({group: [tree.path(name) for name in names] for group, names in groups.items()}, {}, None)
    for (folder, names), (group, _) in zip(folders.items(), groups.items(), strict=True):
        files: Files = dict(naming.groups[group])
        (made.labels if is_label_name(group) else made.images)[group] = files
        made.globs[group] = tree.path(folder) if folder else tree.root
        assert names
    made.notes.append(f"subject ids come from: {naming.rule}")
    made.note_strangers(tree.path(name) for name in tree.strangers)
    return made


def match_subjects(tree: Tree) -> str | None:
    """Why each folder is a subject, with a file for each collection; None when they are not."""
    folders = tree.folders
    if "" in folders or len(folders) < 2 or any(_known(folder.rpartition("/")[2]) for folder in folders):
        return None
    roles = Counter(role for folder, names in folders.items() for role in set(_roles(folder, names)))
    if len(roles) > _ROLES:
        return None
    common = [role for role, count in roles.items() if 2 * count > len(folders)]
    twice = any(len(set(_roles(folder, names))) < len(names) for folder, names in folders.items())
    if not common or twice or 2 * sum(roles[role] for role in common) <= sum(roles.values()):
        return None
    return f"most of its {len(folders)} folders hold the same files ({', '.join(sorted(common))}), so each is a subject"


def plan_subjects(tree: Tree, why: str) -> LayoutPlan:
    """What is in a folder of folders, each of which is a subject.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("subjects", tree.root, why)
    folders = tree.folders
    groups: dict[str, Files] = {}
    for folder, names in folders.items():
        for name, role in zip(names, _roles(folder, names), strict=True):
            groups.setdefault(role, {}).setdefault(normal(folder.rpartition("/")[2]), []).append(tree.path(name))
    for role, files in sorted(groups.items()):
        (made.labels if is_label_name(role) else made.images)[role] = files
        made.globs[role] = tree.path(f"**/*{role}.nii*")
    made.note_strangers(tree.path(name) for name in tree.strangers)
    return made


def _roles(folder: str, names: list[str]) -> list[str]:
    """What files of a subject's folder are called without the subject: ``BraTS_001/BraTS_001_flair.nii.gz`` is a ``flair``."""
    subject = normal(folder.rpartition("/")[2])
    stems = [file_stem(name) for name in names]
    return [re.sub(rf"^{re.escape(subject)}[_\-. ]+|[_\-. ]+{re.escape(subject)}$", "", stem) or stem for stem in stems]


def _shared(folders: dict[str, list[str]]) -> str | None:
    """A subject that has a file in several folders, going by the names of the files."""
    try:
        naming = name_subjects(folders, {}, None)
    except ConfigError:  # nobody has a file in all of them
        return None
    counts = Counter(subject for groups in naming.groups.values() for subject in groups)
    return next((subject for subject, count in sorted(counts.items()) if count > 1), None)


def _known(name: str) -> bool:
    """Whether a name is one that people give to kinds of images, or to labels."""
    return is_label_name(name) or name.lower() in _WORDS


def _endings(tree: Tree) -> list[str]:
    """Endings of files that belong together by what comes before them: ``case1_T1w`` and ``case1_seg`` give T1w and seg."""
    ends: dict[str, set[str]] = {}
    for name in tree.volumes:
        subject, delimiter, ending = file_stem(name).rpartition("_")
        if delimiter and not ending.isdigit():
            ends.setdefault(subject, set()).add(ending)
    return sorted({ending for endings in ends.values() if len(endings) > 1 for ending in endings})
