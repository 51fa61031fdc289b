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
        self._start = os.path.join(root, "")
        self.files = sorted(path[len(self._start) :].replace(os.sep, "/") for path in walk(root))

    @cached_property
    def volumes(self) -> list[str]:
        """The NIfTI files; a .hdr/.img pair counts once."""
        return sorted(path[len(self._start) :].replace(os.sep, "/") for path in without_twins(self._named))

    @cached_property
    def _named(self) -> list[str]:
        """Absolute paths of all files that are named as NIfTI files are."""
        return nifti_files(self.path(file) for file in self.files)

    @cached_property
    def _by_folder(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.volumes:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return found

    @cached_property
    def strangers(self) -> list[str]:
        """All other files."""
        volumes = set(self._named)
        return [file for file in self.files if self.path(file) not in volumes]

    def path(self, name: str) -> str:
        """Absolute path of a file or folder."""
        return self._start + name.replace("/", os.sep)

    def inside(self, folder: str) -> list[str]:
        """The NIfTI files right in a folder."""
        return self._by_folder.get(folder, [])

    @property
    def folders(self) -> dict[str, list[str]]:
        """The NIfTI files by the folder that they lie in; empty for those in the folder itself."""
        return self._by_folder

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
