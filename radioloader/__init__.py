"""radioloader: PyTorch-first data loading for 3D medical images.

A cohort of NIfTI files is ingested once into TileDB arrays; training scripts then read whole volumes, 3D patches or 2D slices
straight from compressed tiles. Names are imported when they are first used: ``import radioloader`` is quick and loads neither
torch nor pandas nor any optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_EXPORTS = {
    "Box": "types",
    "CompressionConfig": "config",
    "DataLoader": "datasets.loader",
    "GridPositions": "samplers.positions",
    "IngestReport": "ingest.report",
    "KeySampler": "samplers.samplers",
    "PatchDataset": "datasets.patch",
    "PatchKey": "types",
    "RadiObject": "container.radiobject",
    "RadioloaderError": "errors",
    "ReadConfig": "config",
    "S3Config": "config",
    "SliceDataset": "datasets.slice",
    "SliceKey": "types",
    "SliceOrientation": "config",
    "Split": "datasets.split",
    "StorageConfig": "config",
    "TileConfig": "config",
    "UniformPositions": "samplers.positions",
    "Volume": "container.volume",
    "VolumeCollection": "container.collection",
    "VolumeDataset": "datasets.volume",
    "VolumeKey": "types",
    "VolumeReader": "storage.reader",
    "VolumeRef": "types",
    "WriteConfig": "config",
    "collate": "datasets.collate",
    "configure": "config",
    "ingest": "ingest.pipeline",
    "open": "container.radiobject",
    "split_subjects": "datasets.split",
}
_NAMES = {"open": "open_store"}
_MODULES = ("config", "errors", "lightning")

__all__ = [*sorted(_EXPORTS), *_MODULES, "__version__"]

if TYPE_CHECKING:
    from radioloader.config import (
        CompressionConfig,
        ReadConfig,
        S3Config,
        SliceOrientation,
        StorageConfig,
        TileConfig,
        WriteConfig,
        configure,
    )
    from radioloader.container.collection import VolumeCollection
    from radioloader.container.radiobject import RadiObject
    from radioloader.container.radiobject import open_store as open
    from radioloader.container.volume import Volume
    from radioloader.datasets.collate import collate
    from radioloader.datasets.loader import DataLoader
    from radioloader.datasets.patch import PatchDataset
    from radioloader.datasets.slice import SliceDataset
    from radioloader.datasets.split import Split, split_subjects
    from radioloader.datasets.volume import VolumeDataset
    from radioloader.errors import RadioloaderError
    from radioloader.ingest.pipeline import ingest
    from radioloader.ingest.report import IngestReport
    from radioloader.samplers.positions import GridPositions, UniformPositions
    from radioloader.samplers.samplers import KeySampler
    from radioloader.storage.reader import VolumeReader
    from radioloader.types import Box, PatchKey, SliceKey, VolumeKey, VolumeRef


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f"radioloader.{_EXPORTS[name]}"), _NAMES.get(name, name))
    elif name in _MODULES:
        value = importlib.import_module(f"radioloader.{name}")
    else:
        raise AttributeError(f"module 'radioloader' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
