"""What a prediction did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PredictReport"]


@dataclass(slots=True)
class PredictReport:
    """Result of :func:`radioloader.predict`. Under ``torch.distributed`` that of all ranks, on each of them.

    Attributes:
        uri: The store.
        collection: Name of the collection of predictions.
        predicted: Subjects that were predicted now.
        skipped: Subjects whose prediction by this model was there already.
        failed: Why the others have none, by subject.
        windows: Windows that the model saw.
        seconds: How long it took.
        version: Version of the store afterwards.
        provenance: What made the predictions: model, hash of its weights, arguments, versions.
    """

    uri: str
    collection: str
    predicted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    windows: int = 0
    seconds: float = 0.0
    version: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every subject has its prediction."""
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{len(self.predicted)} predicted, {len(self.skipped)} skipped (there already), {len(self.failed)} failed "
            f"in {self.seconds:.1f} s, {self.windows} windows -> {self.collection!r} of {self.uri}"
        ]
        lines += [f"  failed {subject!r}: {reason}" for subject, reason in self.failed.items()]
        return "\n".join(lines)
