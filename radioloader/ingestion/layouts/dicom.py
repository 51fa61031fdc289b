"""A tree of DICOM files: a collection for each modality, and the outlined structures where there is no doubt which."""

from __future__ import annotations

import shlex
from collections import Counter

from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.kinds import as_dicom
from radioloader.ingestion.layouts.plan import LayoutPlan, some
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.scan import scan

__all__ = ["match", "plan"]

_LABELS = ("SEG", "RTSTRUCT")


def match(tree: Tree) -> str | None:
    """Why a folder is one of DICOM files; None when it is not."""
    if tree.volumes or as_dicom("dicom", tree.root) is None:
        return None
    return "it holds DICOM files, and no NIfTI file"


def plan(tree: Tree, why: str) -> LayoutPlan:
    """What is in such a folder, by its headers.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("dicom", tree.root, why)
    found = scan(tree.root)
    images = Counter(item.modality for item in found.items if item.what == "image" and not item.problem)
    for modality in sorted(images):
        made.images[modality] = DicomSource(tree.root, modality=modality)
        made.notes.append(
            f"{images[modality]} {'volume' if images[modality] == 1 else 'volumes'} of modality {modality}"
        )
    for kind in _LABELS:
        items = [item for item in found.items if item.what != "image" and item.modality == kind]
        names = Counter(name for item in items for name in item.structures)
        if len(names) == 1:
            # Not called after the structure: such names are typed by hand, now and then with the patient's own.
            made.labels[kind] = DicomSource(tree.root, modality=kind)
            made.notes.append(
                f"{len(items)} {kind} files outline one structure, {next(iter(names))!r}: class 1 of {kind!r}"
            )
        elif names:
            # Without a path or a name of a structure: this goes on record in the store.
            made.left_out.append(
                (f"{kind} files", f"{len(items)} files with several structures, whose classes were not told")
            )
            listed = ", ".join(f"{name!r} ({count})" for name, count in sorted(names.items())[:20])
            made.notes.append(
                f"{len(items)} {kind} files outline {len(names)} structures: {listed}{', ...' if len(names) > 20 else ''}. Which of them "
                f"are which class you must say: add --label NAME={shlex.quote(tree.root)} --structure 'PATTERN=CLASS' to the command below"
            )
        elif items:
            made.notes.append(f"{len(items)} {kind} files name no structure that could be taken")
    problems = [item for item in found.items if item.problem]
    if problems:
        made.notes.append(
            f"{len(problems)} series cannot be used as they are ({some(item.problem for item in problems)}); see radioloader scan"
        )
    return made
