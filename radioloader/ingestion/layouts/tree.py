"""The files of a folder, listed once for all who look at it."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import Any

from radioloader.ingestion.folders import walk
from radioloader.ingestion.kinds import NO_VOLUMES, is_marked, nifti_files, without_twins

__all__ = ["STORE_MARKER", "Tree"]

STORE_MARKER = "__tiledb_group.tdb"
"""File of a folder that is a store."""
_LOOKED_AT = 200


class Tree:
    """Files below a folder. Paths are relative to it, with ``/``; hidden folders are left out, hidden files are not.

    Args:
        root: The folder, absolute.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._start = os.path.join(root, "")
        files = sorted(path[len(self._start) :].replace(os.sep, "/") for path in walk(root))
        # A store that lies within is not part of the dataset.
        stores = tuple(name.removesuffix(STORE_MARKER) for name in files if name.endswith(f"/{STORE_MARKER}"))
        self.files = [name for name in files if not name.startswith(stores)] if stores else files

    @cached_property
    def volumes(self) -> list[str]:
        """The NIfTI files; a .hdr/.img pair counts once."""
        return sorted(path[len(self._start) :].replace(os.sep, "/") for path in without_twins(self._named))

    @cached_property
    def _named(self) -> list[str]:
        """Absolute paths of all files that are named as NIfTI files are."""
        return nifti_files(self.path(file) for file in self.files)

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The NIfTI files by the folder that they lie in; ``""`` is the tree's own."""
        found: dict[str, list[str]] = {}
        for name in self.volumes:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return found

    @cached_property
    def strangers(self) -> list[str]:
        """All other files."""
        volumes = set(self._named)
        return [file for file in self.files if self.path(file) not in volumes]

    @cached_property
    def holds_dicom(self) -> bool:
        """Whether some of the other files are DICOM; of very many, a sample is looked at."""
        others = [name for name in self.strangers if not name.lower().endswith(NO_VOLUMES)]
        return any(is_marked(self.path(name)) for name in others[:: max(1, len(others) // _LOOKED_AT)])

    def path(self, name: str) -> str:
        """Absolute path of a file or folder."""
        return self._start + name.replace("/", os.sep)

    def inside(self, folder: str) -> list[str]:
        """The NIfTI files right in a folder."""
        return self.folders.get(folder, [])

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
