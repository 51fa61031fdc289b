"""The files of a folder, listed once for all who look at it."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import Any

from radioloader.ingestion.folders import walk
from radioloader.ingestion.kinds import nifti_files, without_twins

__all__ = ["Tree"]


class Tree:
    """Files below a folder. Paths are relative to it, with ``/``; hidden folders are left out, hidden files are not.

    Args:
        root: The folder, absolute.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.files = sorted(os.path.relpath(path, root).replace(os.sep, "/") for path in walk(root))

    @cached_property
    def volumes(self) -> list[str]:
        """The NIfTI files; a .hdr/.img pair counts once."""
        found = without_twins(nifti_files(self.path(file) for file in self.files))
        return sorted(os.path.relpath(path, self.root).replace(os.sep, "/") for path in found)

    @cached_property
    def strangers(self) -> list[str]:
        """All other files."""
        volumes = set(nifti_files(self.path(file) for file in self.files))
        return [file for file in self.files if self.path(file) not in volumes]

    def path(self, name: str) -> str:
        """Absolute path of a file or folder."""
        return os.path.join(self.root, *name.split("/"))

    def inside(self, folder: str) -> list[str]:
        """The NIfTI files right in a folder."""
        return [name for name in self.volumes if name.rpartition("/")[0] == folder]

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.path(name))

    @cached_property
    def dataset_json(self) -> tuple[dict[str, Any] | None, str]:
        """``dataset.json`` as a mapping, and why there is none."""
        path = self.path("dataset.json")
        if not os.path.isfile(path):
            return None, "there is no dataset.json"
        try:
            with open(path, encoding="utf-8-sig") as stream:
                found = json.load(stream)
        except (OSError, ValueError) as error:
            return None, f"dataset.json could not be read ({error})"
        return (found, "") if isinstance(found, dict) else (None, "dataset.json is no mapping")
