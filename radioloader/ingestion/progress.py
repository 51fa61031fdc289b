"""The progress bar of an ingest."""

from __future__ import annotations

from radioloader._progress import Bar
from radioloader.ingestion.report import IngestItem

__all__ = ["ProgressBar"]


class ProgressBar(Bar):
    """Subjects done, rate in MB of voxels and subjects a second, time that remains.

    Args:
        total: Subjects in all.
    """

    def __init__(self, total: int) -> None:
        super().__init__("ingest", total, "subjects", elapsed=True)
        self._failed = self._bytes = 0

    def advance(self, item: IngestItem) -> None:
        """Count one subject; a failure is printed as it happens."""
        self._bytes += item.voxel_bytes
        if item.status == "failed":
            self._failed += 1
            self.failed(item.subject, item.reason)
        self.update(self.done + 1)

    def text(self) -> str:
        """The rate, once there is one."""
        return self._rate() if self.done else ""

    def line(self) -> str:
        """With failures, and time that remains."""
        left = f", {self.left:.0f} s left" if self.done else ""
        return f"subjects, {self._failed} failed, {self._rate()}{left}"

    def _rate(self) -> str:
        return f"{self.done / self.seconds:.1f} subjects/s, {self._bytes / self.seconds / 1e6:.0f} MB/s"
