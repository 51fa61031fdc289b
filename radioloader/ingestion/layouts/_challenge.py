"""What decathlon and nnU-Net folders have in common: ``imagesTr``, ``labelsTr``, ``imagesTs`` and a ``dataset.json``."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from radioloader.errors import ConfigError
from radioloader.ingestion.classes import read_classes
from radioloader.ingestion.layouts.plan import LayoutPlan
from radioloader.ingestion.layouts.tree import Tree

__all__ = ["DATASET", "IMAGES", "LABEL", "LABELS", "add_classes", "add_splits", "channel_names", "inside"]

DATASET = "dataset.json"

LABEL = "label"
"""Name of the label collection."""

IMAGES = ("imagesTr", "imagesTs", "imagesVal")
LABELS = ("labelsTr", "labelsTs", "labelsVal")
_CHANNELS = 200
_SPLITS = {"imagesTr": "train", "imagesTs": "test", "imagesVal": "val"}


def channel_names(given: Any, default: str) -> list[str]:
    """Names of the channels, ``{"0": "T1w", ...}``, in order; ones that occur twice get their number.

    Args:
        given: What ``dataset.json`` has.
        default: What a channel without a name is called, before its number.
    """
    if not isinstance(given, Mapping):
        return []
    numbers = {int(key): value for key, value in given.items() if str(key).isdigit()}
    if not numbers or max(numbers) > _CHANNELS:
        return []
    names = [
        name if isinstance(name := numbers.get(i), str) and name else f"{default}_{i}" for i in range(max(numbers) + 1)
    ]
    return [f"{name}_{i}" if names.count(name) > 1 or name == LABEL else name for i, name in enumerate(names)]


def inside(name: str) -> str:
    """A path of ``dataset.json`` relative to its folder. One that leaves the folder is no file of it."""
    path = posixpath.normpath(name.replace("\\", "/").lstrip("/"))
    return "\0" if path.startswith("..") else path


def add_classes(plan: LayoutPlan, dataset: Mapping[str, Any] | None, path: str) -> None:
    """Take the names of the classes from ``dataset.json``, where they can be used."""
    if dataset is None or LABEL not in plan.labels or "labels" not in dataset:
        return
    try:
        read_classes(LABEL, dataset["labels"])
    except ConfigError as error:
        plan.notes.append(f"{path}: names of classes were left out: {error}")
    else:
        plan.classes[LABEL] = path


def add_splits(plan: LayoutPlan, tree: Tree) -> None:
    """Name the splits, where there is more than one folder of images."""
    used = [folder for folder in IMAGES if plan.takes_from(tree.path(folder))]
    if len(used) > 1:
        plan.splits = {_SPLITS[folder]: tree.path(folder) for folder in used}
