"""nnU-Net's raw folders (its documentation/dataset_format.md): a file for each channel, ``case_0000.nii.gz``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from radioloader.errors import ConfigError
from radioloader.exporting.challenge import Case, ChallengeLayout, class_values
from radioloader.exporting.plan import SUFFIX, PlannedFile, Unit
from radioloader.exporting.selection import Member

__all__ = ["NnunetLayout", "regions"]


class NnunetLayout(ChallengeLayout):
    """``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``, ``dataset.json``."""

    kind = "nnunet"

    def image_files(self, case: Case) -> list[PlannedFile]:
        """One for each channel."""
        return [
            PlannedFile(f"images{case.folder}/{case.name}_{channel:04d}{SUFFIX}", (member,))
            for channel, member in enumerate(case.images)
        ]

    def problem(self, images: Sequence[Member]) -> tuple[str, str] | None:
        """A channel is 3D."""
        for member in images:
            shape = self.selection.grid(member).shape
            if len(shape) > 3:
                return member.collection, f"it is 4D with {shape[3]} volumes, and nnU-Net's channels are 3D"
        return None

    def units(self) -> list[Unit]:
        """Also looks whether the dataset is one that nnU-Net takes."""
        units = super().units()
        if not re.fullmatch(r"Dataset\d{3}_.+", self.title):
            self.notes.append(
                "nnU-Net wants the folder to be called Dataset<three digits>_<name>, such as Dataset101_Heart"
            )
        self._labels, self._order = regions(class_values(self))
        values = {value for one in self._labels.values() for value in (one if isinstance(one, list) else [one])}
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
        return {"dataset.json": json.dumps(dataset, indent=4, ensure_ascii=False) + "\n"}


def regions(classes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int | list[int]], list[int]]:
    """``labels`` and ``regions_class_order`` of ``dataset.json``.

    nnU-Net writes the regions one over the other, in the order of ``labels``: the value of each is one that it has and those written later
    have not. So larger regions come first.

    Args:
        classes: Values by name, without the background.

    Returns:
        The labels, and the order, which is empty where there are no regions.

    Raises:
        ConfigError: The regions do not tell the classes apart.
    """
    labels: dict[str, int | list[int]] = {"background": 0}
    if all(len(values) == 1 for values in classes.values()):
        return labels | {name: values[0] for name, values in sorted(classes.items(), key=lambda item: item[1])}, []
    ordered = sorted(classes.items(), key=lambda item: (-len(item[1]), item[1]))
    order = []
    for place, (name, values) in enumerate(ordered):
        later = set[int]().union(*(other for _, other in ordered[place + 1 :] if set(other) < set(values)))
        own = sorted(set(values) - later)
        if not own:
            raise ConfigError(
                f"the region {name!r} of classes {', '.join(map(str, values))} has none that smaller regions lack, so that nnU-Net could "
                "not write it (regions_class_order); leave one of the names out"
            )
        order.append(own[0])
        labels[name] = list(values) if len(values) > 1 else values[0]
    return labels, order
