"""The Medical Segmentation Decathlon's folders (Antonelli et al. 2022): pairs in ``dataset.json``, several images as a 4th axis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radioloader.exporting.challenge import Case, ChallengeLayout
from radioloader.exporting.headers import FileGrid
from radioloader.exporting.plan import SUFFIX, PlannedFile, Unit
from radioloader.exporting.selection import Member
from radioloader.ingestion.layouts._challenge import DATASET

__all__ = ["DecathlonLayout"]


class DecathlonLayout(ChallengeLayout):
    """``imagesTr/<case>.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``, ``dataset.json``."""

    kind = "decathlon"
    channels = "4th axis"
    channel_digits = 1

    def image_files(self, case: Case) -> list[PlannedFile]:
        """One, of all image collections."""
        return [PlannedFile(f"{case.image_folder}/{case.name}{SUFFIX}", case.images)]

    def problem(self, images: Mapping[Member, FileGrid]) -> tuple[str, str] | None:
        """Volumes of one file have one dtype and scaling, and are 3D."""
        if len(images) == 1:
            return None
        one, first = next(iter(images.items()))
        for member, grid in images.items():
            if len(grid.shape) > 3:
                return (
                    member.collection,
                    f"it is 4D with {grid.shape[3]} volumes, and the 4th axis is to hold {len(images)} collections",
                )
            for what, here, there in (("dtype", grid.dtype, first.dtype), ("scaling", grid.scaling, first.scaling)):
                if here != there:
                    return (
                        member.collection,
                        f"its {what} is {here}, and that of {one.collection!r} is {there}; one file has one: choose the collections "
                        "with images=[...] (--image), or another layout",
                    )
            if not np.array_equal(grid.affine, first.affine):
                self.notes.append(
                    f"affines of {member.subject!r} differ slightly from image to image; its file has that of {one.collection!r}"
                )
        return None

    def units(self) -> list[Unit]:
        """Also looks for classes that such a folder cannot name."""
        units = super().units()
        self._labels = {0: "background"}
        of_regions: set[int] = set()
        for name, values in self.class_values().items():
            if len(values) == 1:
                self._labels.setdefault(values[0], name)
                continue
            self.notes.append(
                f"{name!r} is a region of the classes {', '.join(map(str, values))}, which the decathlon cannot say"
            )
            of_regions |= set(values)
        for value in sorted(of_regions):
            self._labels.setdefault(value, f"class_{value}")
        return units

    def sidecars(self, done: Sequence[Unit]) -> dict[str, str]:
        """``dataset.json``."""
        cases = self.done_cases(done)
        self.notes += self.split_notes(cases)
        pairs = [(case, self._pair(case)) for case in cases]
        training = [pair for case, pair in pairs if not case.test]
        test: list[Any] = [pair for case, pair in pairs if case.test]
        if not any("label" in pair for pair in test):
            test = [pair["image"] for pair in test]
        images = self.selection.images
        four = len(images) > 1 or any(len(self.selection.grid(case.images[0]).shape) > 3 for case in cases)
        dataset = {
            "name": self.title,
            "description": "",
            "reference": "",
            "licence": "",
            "release": "",
            "tensorImageSize": "4D" if four else "3D",
            "modality": {str(i): self.selection.name(name) for i, name in enumerate(images)},
            "labels": {str(value): self._labels[value] for value in sorted(self._labels)},
            "numTraining": len(training),
            "numTest": len(test),
            "training": training,
            "test": test,
        }
        return {DATASET: json.dumps(dataset, indent=4, ensure_ascii=False) + "\n"}

    def _pair(self, case: Case) -> dict[str, str]:
        pair = {"image": f"./{case.image_folder}/{case.name}{SUFFIX}"}
        if case.label is not None:
            pair["label"] = f"./{case.label_folder}/{case.name}{SUFFIX}"
        return pair
