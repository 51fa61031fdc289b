"""TorchIO's subjects and queue on a store; see docs/torchio.md."""

from radioloader.adapters.torchio import (
    SubjectsDataset,  # first: it says what is missing where torchio is not installed
)

from radioloader.adapters.patch_queue import Queue  # isort: skip

__all__ = ["Queue", "SubjectsDataset"]
