"""nnU-Net's raw folders (its documentation/dataset_format.md): a file for each channel, ``case_0000.nii.gz``, labels without a number."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from radioloader.errors import ConfigError
from radioloader.formats.nifti_names import SUFFIXES
from radioloader.ingestion.layouts._challenge import (
    DATASET,
    IMAGES,
    LABEL,
    LABELS,
    add_classes,
    add_splits,
    channel_names,
    inside,
)
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.naming import file_stem, normal

__all__ = ["match", "plan"]

_CHANNEL = re.compile(r"(.+)_(\d{4})", re.S)


def match(tree: Tree) -> str | None:
    """Why a folder is one of nnU-Net's; None when it is not."""
    dataset, _ = tree.dataset_json
    if dataset is not None and isinstance(dataset.get("dataset"), Mapping) and "channel_names" in dataset:
        return "dataset.json has channel_names, and lists the images of each case"
    stems = [file_stem(name) for folder in IMAGES for name in tree.inside(folder)]
    cases = {found.group(1) for stem in stems if (found := _CHANNEL.fullmatch(stem))}
    labels = {file_stem(name) for folder in LABELS for name in tree.inside(folder)}
    if not cases or labels & set(stems):
        return None
    both = sorted(labels & cases)
    if dataset is not None and "channel_names" in dataset:
        return "dataset.json has channel_names, and files of imagesTr end in the number of a channel, such as _0000"
    if both:
        return f"files of imagesTr end in the number of a channel and those of labelsTr do not, such as {both[0]}_0000 and {both[0]}"
    return None


def plan(tree: Tree, why: str) -> LayoutPlan:
    """What is in such a folder.

    Args:
        tree: The folder.
        why: What it was recognised by.

    Raises:
        ConfigError: Its files are not NIfTI.
    """
    dataset, problem = tree.dataset_json
    made = LayoutPlan("nnunet", tree.root, why)
    if dataset is None:
        made.notes.append(f"{problem}: channels go by their numbers, and classes have no names")
    ending = (dataset or {}).get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.lower().endswith(SUFFIXES):
        raise ConfigError(
            f"{tree.path(DATASET)}: file_ending is {ending!r}, and radioloader reads NIfTI ({', '.join(SUFFIXES)}); convert the "
            "files, such as with SimpleITK, and change it"
        )
    channels: dict[int, Files] = {}
    labels: Files = {}
    reasons: dict[str, str] = {}
    if isinstance((dataset or {}).get("dataset"), Mapping):
        _listed(tree, dataset or {}, channels, labels, made)
    else:
        for folder in IMAGES:
            for name in tree.inside(folder):
                found = _CHANNEL.fullmatch(file_stem(name))
                if found is None:
                    reasons[name] = "its name does not end in the number of a channel, such as _0000"
                    continue
                channels.setdefault(int(found.group(2)), {}).setdefault(found.group(1), []).append(tree.path(name))
        for folder in LABELS:
            for name in tree.inside(folder):
                labels.setdefault(file_stem(name), []).append(tree.path(name))
    given = channel_names((dataset or {}).get("channel_names", (dataset or {}).get("modality")), "channel")
    for number in sorted(channels):
        name = given[number] if number < len(given) else f"channel_{number:04d}"
        if given and number >= len(given):
            made.notes.append(f"dataset.json names {len(given)} channels, and there are files of number {number}")
        made.images[name] = channels[number]
        made.globs[name] = f"{_folders(tree, IMAGES, 'images')}/*_{number:04d}.nii*"
    absent = [name for number, name in enumerate(given) if number not in channels]
    if absent:
        made.notes.append(f"there are no files of the channels {', '.join(absent)}, which dataset.json names")
    if labels:
        made.labels[LABEL] = labels
        made.globs[LABEL] = f"{_folders(tree, LABELS, 'labels')}/*.nii*"
    add_classes(made, dataset, tree.path(DATASET))
    add_splits(made, tree)
    made.leave_out(tree, reasons, otherwise="it is no channel or label of a case", read=[DATASET])
    return made


def _folders(tree: Tree, folders: tuple[str, ...], kind: str) -> str:
    used = [folder for folder in folders if tree.inside(folder)]
    return tree.path(used[0] if len(used) == 1 else f"{kind}[TV]*")


def _listed(
    tree: Tree, dataset: Mapping[str, Any], channels: dict[int, Files], labels: Files, made: LayoutPlan
) -> None:
    """Files of cases that ``dataset.json`` lists itself, anywhere."""
    gone = []
    for case, files in dataset["dataset"].items():
        files = files if isinstance(files, Mapping) else {}
        images = files.get("images", [])
        listed = [
            (channels.setdefault(i, {}), image) for i, image in enumerate(images if isinstance(images, list) else [])
        ]
        for group, name in [*listed, (labels, files.get("label"))]:
            if not isinstance(name, str):
                continue
            # nnU-Net takes absolute paths as well, and none that leave the folder otherwise.
            path = name if os.path.isabs(name) else tree.path(inside(name))
            if "\0" not in path and os.path.isfile(path):
                group.setdefault(normal(case), []).append(path)
            else:
                gone.append(name)
    if gone:
        made.notes.append(f"{len(gone)} files that dataset.json lists are not there, such as {gone[0]}")
    for number in [number for number, group in channels.items() if not group]:
        del channels[number]
