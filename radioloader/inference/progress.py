"""The progress bar of a prediction."""

from __future__ import annotations

from radioloader._progress import Bar

__all__ = ["PredictBar"]


class PredictBar(Bar):
    """Windows and subjects done, windows a second, time that remains.

    Args:
        windows: In all.
        subjects: In all.
        shown: Whether there is one.
    """

    def __init__(self, windows: int, subjects: int, *, shown: bool) -> None:
        super().__init__("predict", windows, "windows", shown=shown)
        self._subjects, self._finished = subjects, 0

    def finish(self, windows: int, subjects: int) -> None:
        """So many are done."""
        self._finished = subjects
        self.update(windows)

    def text(self) -> str:
        """With subjects and rate."""
        return f"windows, {self._finished}/{self._subjects} subjects, {self.done / self.seconds:.1f} windows/s"

    def line(self) -> str:
        """With time that remains."""
        return f"{self.text()}, {self.left:.0f} s left"
