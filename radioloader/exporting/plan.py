"""What file each volume becomes: decided from the catalog, before anything is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from radioloader.exporting.report import ExportFailure
from radioloader.exporting.selection import Member, Selection
from radioloader.exporting.table import Table

__all__ = ["SUFFIX", "Layout", "PlannedFile", "Unit"]

SUFFIX = ".nii.gz"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A NIfTI file.

    Attributes:
        path: Relative to the folder, with ``/``.
        members: The volume in it; several become its 4th axis.
    """

    path: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that are written all or not at all.

    Attributes:
        subject: Whose they are.
        files: The files.
    """

    subject: str
    files: tuple[PlannedFile, ...]


class Layout(ABC):
    """How the folder looks.

    Attributes:
        failed: What cannot be part of it.
        notes: What a user should know.
        renamed: Names of subjects whose ids could not be names of files, by id.

    Args:
        selection: What is exported.
        title: Name of the dataset.
    """

    counted: ClassVar[str] = "volumes"
    """What its units are."""
    label_by_itself: ClassVar[bool] = False
    """Whether it has labels even where only images were named, and the other way round."""

    def __init__(self, selection: Selection, title: str) -> None:
        self.selection, self.title = selection, title
        self.failed: list[ExportFailure] = []
        self.notes: list[str] = []
        self.renamed: dict[str, str] = {}

    @abstractmethod
    def units(self) -> list[Unit]:
        """All files with voxels. Fills :attr:`failed`, :attr:`notes` and :attr:`renamed`.

        Raises:
            ConfigError: The collections do not make such a folder.
        """

    @abstractmethod
    def sidecars(self, done: Sequence[Unit]) -> dict[str, str]:
        """Text of the other files, by path, for the units that were written."""

    @abstractmethod
    def tables(self, done: Sequence[Unit]) -> list[Table]:
        """The tables of subjects."""

    @abstractmethod
    def command(self, out: str, done: Sequence[Unit], tables: Sequence[Table]) -> list[str]:
        """Words of the command that makes a store of the folder; ``STORE`` stands for the store.

        Args:
            out: The folder.
            done: The units that were written.
            tables: The tables that were written.
        """

    def fail(self, subject: str, collection: str, reason: str) -> None:
        """Note what cannot be part of it."""
        self.failed.append(ExportFailure(subject, collection, reason))
