"""Every error that radioloader raises.

Each class is a :class:`RadioloaderError` and also the built-in error that a caller would expect, so that both
``except RadioloaderError`` and ``except KeyError`` work. All take one message: an error that was raised in a worker process is
rebuilt from its message alone.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CatalogError",
    "ConfigError",
    "EvaluationError",
    "ExportError",
    "FormatError",
    "GridMismatchError",
    "IngestError",
    "KeyNotFoundError",
    "MissingDependencyError",
    "NotAStoreError",
    "RadioloaderError",
    "ReadError",
    "ShapeError",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreVersionError",
    "StoreWriteError",
    "WorkerError",
]


class RadioloaderError(Exception):
    """Root of all errors of this package."""

    def __str__(self) -> str:
        # KeyError shows the repr of its message, which turns a readable sentence into an escaped one.
        return str(self.args[0]) if self.args else ""


class ConfigError(RadioloaderError, ValueError):
    """A setting or an argument has a value that is not allowed."""


class ShapeError(RadioloaderError, ValueError):
    """Shapes do not fit: a box, a patch, an output buffer or samples that should be stacked."""


class GridMismatchError(RadioloaderError, ValueError):
    """Two volumes that should share a voxel grid differ in shape or affine."""


class EvaluationError(RadioloaderError, RuntimeError):
    """The results of an evaluation are not complete: a case is missing, or came twice."""


class ExportError(RadioloaderError, OSError):
    """A folder of files could not be written: no permission, no space, or none of its volumes could be read."""


class FormatError(RadioloaderError, ValueError):
    """A source file cannot be used: broken, or of a kind that is not supported."""


class IngestError(RadioloaderError, RuntimeError):
    """An ingest stopped at its first failure, as it was asked to.

    Attributes:
        report: The :class:`~radioloader.IngestReport` of what was done before.
    """

    report: Any = None


class KeyNotFoundError(RadioloaderError, KeyError):
    """A subject, volume, collection or column of that name does not exist."""


class CatalogError(RadioloaderError, ValueError):
    """Table data does not fit the catalog: a wrong column type, a duplicate id."""


class ReadError(RadioloaderError, OSError):
    """Voxels could not be read; the message names subject, collection, URI and box."""


class StoreNotFoundError(RadioloaderError, FileNotFoundError):
    """There is nothing at the given URI."""


class NotAStoreError(RadioloaderError, ValueError):
    """There is something at the given URI, but not a radioloader store."""


class StoreVersionError(RadioloaderError, ValueError):
    """The store was written by a newer radioloader than this one."""


class StoreLockedError(RadioloaderError, BlockingIOError):
    """Another process is writing to the store."""


class StoreWriteError(RadioloaderError, OSError):
    """The store could not be written: no permission, no space."""


class WorkerError(RadioloaderError, RuntimeError):
    """A worker process of a loader died; the message names what it was reading."""


class MissingDependencyError(RadioloaderError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""
