"""nnU-Net's raw folders (its documentation/dataset_format.md): a file for each channel, ``case_0000.nii.gz``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from radioloader.exporting.challenge import Case, ChallengeLayout
from radioloader.exporting.headers import FileGrid
from radioloader.exporting.plan import SUFFIX, PlannedFile, Unit
from radioloader.exporting.selection import Member
from radioloader.ingestion.layouts._challenge import DATASET

__all__ = ["NnunetLayout", "regions"]

_IGNORE = "ignore"
"""Voxels of this class are left out of the loss (its documentation/ignore_label.md)."""


class NnunetLayout(ChallengeLayout):
    """``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``, ``dataset.json``."""

    kind = "nnunet"
    channels = "channels"
    channel_digits = 4

    def image_files(self, case: Case) -> list[PlannedFile]:
        """One for each channel."""
        return [
            PlannedFile(f"{case.image_folder}/{case.name}_{channel:04d}{SUFFIX}", (member,))
            for channel, member in enumerate(case.images)
        ]

    def problem(self, images: Mapping[Member, FileGrid]) -> tuple[str, str] | None:
        """A channel is 3D."""
        for member, grid in images.items():
            if len(grid.shape) > 3:
                return member.collection, f"it is 4D with {grid.shape[3]} volumes, and nnU-Net's channels are 3D"
        return None

    def units(self) -> list[Unit]:
        """Also looks whether the dataset is one that nnU-Net takes."""
        units = super().units()
        if not re.fullmatch(r"Dataset\d{3}_.+", self.title):
            self.notes.append(
                "nnU-Net wants the folder to be called Dataset<three digits>_<name>, such as Dataset101_Heart"
            )
        self._labels, self._order, notes = regions(self.class_values())
        self.notes += notes
        values = {value for one in self._labels.values() for value in (one if isinstance(one, list) else [one])}
        ignored = self._labels.get(_IGNORE)
        if ignored is not None and ignored != max(values):
            self.notes.append(
                f"nnU-Net wants the class {_IGNORE!r} to be the highest, and it is {ignored} where {max(values)} is; renumber the labels "
                "before nnUNetv2_plan_and_preprocess"
            )
        if values != set(range(len(values))):
            self.notes.append(
                f"nnU-Net wants classes without gaps from 0 on, and these are {', '.join(map(str, sorted(values)))}; renumber the labels "
                "before nnUNetv2_plan_and_preprocess"
            )
        return units

    def sidecars(self, done: Sequence[Unit]) -> dict[str, str]:
        """``dataset.json``."""
        cases = self.done_cases(done)
        self.notes += self.split_notes(cases)
        training = sum(not case.test for case in cases)
        if not training:
            self.notes.append("there is no training case: all subjects are test cases")
        dataset: dict[str, Any] = {
            "name": self.title,
            "channel_names": {str(i): self.selection.name(name) for i, name in enumerate(self.selection.images)},
            "labels": self._labels,
            **({"regions_class_order": self._order} if self._order else {}),
            "numTraining": training,
            "file_ending": SUFFIX,
        }
        return {DATASET: json.dumps(dataset, indent=4, ensure_ascii=False) + "\n"}


def regions(classes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int | list[int]], list[int], list[str]]:
    """``labels`` and ``regions_class_order`` of ``dataset.json``.

    nnU-Net writes the regions one over the other, in the order of ``labels``: the value of each is one that it has and those written later
    have not. So larger regions come first, and names are left out whose region overlaps a smaller one in part, or has no class that smaller
    ones lack: with them, a class would be written as another one. Values that are left without a name are called ``class_<n>``. ``ignore``
    is one value, no region, and has no place in the order.

    Args:
        classes: Values by name, without the background.

    Returns:
        The labels, the order, which is empty where there are no regions, and notes: names that were left out, with the reason, and classes
        that a prediction does not tell apart.
    """
    kept: dict[str, tuple[int, ...]] = {}
    merged: dict[str, list[int]] = {}
    notes = []
    for name, values in sorted(classes.items(), key=lambda item: (len(item[1]), item[1])):
        own, why = _own(name, values, kept)
        if why:
            notes.append(f"{name!r} ({_listed(values)}) was left out: {why}")
        else:
            kept[name], merged[name] = values, own
    for value in sorted({value for values in classes.values() for value in values} - {0}.union(*kept.values())):
        name = f"class_{value}"
        while name in classes:
            name += "_"
        kept[name], merged[name] = (value,), [value]
    labels: dict[str, int | list[int]] = {"background": 0}
    if all(len(values) == 1 for values in kept.values()):
        return labels | {name: values[0] for name, values in sorted(kept.items(), key=lambda item: item[1])}, [], notes
    order = []
    for name, values in sorted(kept.items(), key=lambda item: (-len(item[1]), item[1])):
        labels[name] = list(values) if len(values) > 1 else values[0]
        if name == _IGNORE:
            continue
        order.append(merged[name][0])
        if len(merged[name]) > 1:
            notes.append(
                f"the classes {_listed(merged[name])} are told apart by no name but that of their region {name!r}: predictions have "
                f"{order[-1]} for all of them"
            )
    return labels, order, notes


def _own(name: str, values: tuple[int, ...], smaller: Mapping[str, tuple[int, ...]]) -> tuple[list[int], str]:
    """The values of a region that smaller ones lack; and why it cannot be one of nnU-Net's, or nothing."""
    region = set(values)
    if 0 in region:
        return [], "it holds the background"
    if name == _IGNORE and len(region) > 1:
        return [], "nnU-Net ignores one class"
    for other, having in smaller.items():
        if set(having) == region:
            return [], f"it is the same as {other!r}"
        if other == _IGNORE and set(having) & region:
            return [], f"it holds the class {other!r}"
        if set(having) & region and not set(having) < region:
            return (
                [],
                f"it overlaps {other!r} ({_listed(having)}) in part, and nnU-Net would write the classes of one as the other's",
            )
    within = [other for other, having in smaller.items() if set(having) < region]
    own = sorted(region.difference(*(smaller[other] for other in within)))
    if not own:
        return (
            [],
            f"it is {' and '.join(map(repr, within))} together, and nnU-Net writes a class for each region that smaller ones lack",
        )
    return own, ""


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
