"""What an ingest did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["IngestItem", "IngestReport"]


@dataclass(frozen=True, slots=True)
class IngestItem:
    """One subject.

    Attributes:
        subject: Its id.
        status: ``"ingested"``, ``"skipped"`` (all of it was there already) or ``"failed"``.
        reason: Why it failed; names the file.
        files: Source by collection; where a subject has several volumes in one, by the collection and what tells them apart.
        notes: What a user should know, such as voxels that are not finite.
        voxel_bytes: Bytes of voxels that were written.
    """

    subject: str
    status: str
    reason: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    voxel_bytes: int = 0


@dataclass(slots=True)
class IngestReport:
    """Result of :func:`radioloader.ingest`.

    Attributes:
        uri: The store.
        items: One for each subject, sorted by id.
        notes: What concerns the ingest as a whole.
        seconds: How long it took.
        version: Version of the store afterwards.
    """

    uri: str
    items: list[IngestItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    version: int = 0

    @property
    def ingested(self) -> list[IngestItem]:
        """Subjects of which something was written."""
        return [item for item in self.items if item.status == "ingested"]

    @property
    def skipped(self) -> list[IngestItem]:
        """Subjects that were whole and unchanged."""
        return [item for item in self.items if item.status == "skipped"]

    @property
    def failed(self) -> list[IngestItem]:
        """Subjects that were not ingested, each with its reason."""
        return [item for item in self.items if item.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{len(self.ingested)} ingested, {len(self.skipped)} skipped (unchanged), {len(self.failed)} failed "
            f"in {self.seconds:.1f} s -> {self.uri}"
        ]
        lines += [f"  failed {item.subject!r}: {item.reason}" for item in self.failed]
        lines += [f"  note {item.subject!r}: {note}" for item in self.items for note in item.notes]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
