"""What an export did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ExportFailure", "ExportReport"]


@dataclass(frozen=True, slots=True)
class ExportFailure:
    """What could not be exported.

    Attributes:
        subject: Whose it is.
        collection: Which volume; empty where it is the subject as a whole.
        reason: Why.
    """

    subject: str
    collection: str
    reason: str

    def __str__(self) -> str:
        where = f", collection {self.collection!r}" if self.collection else ""
        return f"failed {self.subject!r}{where}: {self.reason}"


@dataclass(slots=True)
class ExportReport:
    """Result of :func:`radioloader.export`.

    Attributes:
        uri: The store.
        out: The folder, absolute.
        layout: What it looks like.
        subjects: Subjects of which something was written.
        volumes: NIfTI files that were written.
        files: Files that were written, tables and the like included.
        failed: What is not in it though it was asked for, sorted by subject.
        renamed: Names in the folder of the subjects whose ids could not be names of files, by id.
        notes: What a user should know.
        command: The command that makes a store of the folder.
        seconds: How long it took.
    """

    uri: str
    out: str
    layout: str
    subjects: int = 0
    volumes: int = 0
    files: int = 0
    failed: list[ExportFailure] = field(default_factory=list)
    renamed: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    command: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all that was asked for is there."""
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{self.volumes} volumes of {self.subjects} subjects exported as {self.layout}, {len(self.failed)} failed "
            f"in {self.seconds:.1f} s -> {self.out}"
        ]
        lines += [f"  {failure}" for failure in self.failed]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  back into a store: {self.command}")
        return "\n".join(lines)
