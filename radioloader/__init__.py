"""radioloader: PyTorch-first data loading for 3D medical images.

A cohort of NIfTI or DICOM files is ingested once into TileDB arrays; training scripts then read whole volumes, 3D patches or 2D slices
straight from compressed tiles. Names are imported when they are first used: ``import radioloader`` is quick and loads neither
torch nor pandas nor any optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_EXPORTS = {
    "BlockShuffled": "samplers.order",
    "Box": "types",
    "ClassBalanced": "samplers.order",
    "CohortReport": "overview.build",
    "CompressionConfig": "config",
    "DataLoader": "datasets.loader",
    "DicomSource": "ingestion.dicom_source",
    "EqualShapes": "samplers.order",
    "ExportReport": "exporting.report",
    "ForegroundPositions": "samplers.centres",
    "GridPositions": "samplers.positions",
    "IngestReport": "ingestion.report",
    "IntensityNormalize": "datasets.transforms",
    "KeySampler": "samplers.samplers",
    "PatchDataset": "datasets.patch",
    "PatchKey": "types",
    "PredictReport": "inference.report",
    "RadiObject": "container.radiobject",
    "RadioloaderError": "errors",
    "ReadConfig": "config",
    "RegionPositions": "samplers.positions",
    "S3Config": "config",
    "Scan": "ingestion.scan",
    "ScanItem": "ingestion.scan",
    "Sequential": "samplers.order",
    "Shuffled": "samplers.order",
    "SliceDataset": "datasets.slice",
    "SliceKey": "types",
    "SliceOrientation": "config",
    "Split": "datasets.split",
    "SplitManifest": "datasets.manifest",
    "StorageConfig": "config",
    "TileAlignedPositions": "samplers.positions",
    "TileConfig": "config",
    "TransferReport": "container.transfer",
    "UniformPositions": "samplers.positions",
    "Volume": "container.volume",
    "VolumeCollection": "container.collection",
    "VolumeDataset": "datasets.volume",
    "VolumeKey": "types",
    "VolumeReader": "storage.reader",
    "VolumeRef": "types",
    "Weighted": "samplers.order",
    "WeightedPositions": "samplers.centres",
    "WriteConfig": "config",
    "collate": "datasets.collate",
    "configure": "config",
    "create_distributed_dataloader": "datasets.factory",
    "create_inference_dataloader": "datasets.factory",
    "create_segmentation_dataloader": "datasets.factory",
    "create_training_dataloader": "datasets.factory",
    "create_validation_dataloader": "datasets.factory",
    "export": "exporting.export",
    "gather_cases": "datasets.gather",
    "ingest": "ingestion.pipeline",
    "ingest_layout": "ingestion.layouts.ingest",
    "k_folds": "datasets.split",
    "open": "container.radiobject",
    "plan_layout": "ingestion.layouts.ingest",
    "predict": "inference.predict",
    "report": "overview.build",
    "scan": "ingestion.scan",
    "set_epoch": "datasets.factory",
    "show": "overview.show",
    "split_by_column": "datasets.split",
    "split_subjects": "datasets.split",
}
_NAMES = {"open": "open_store"}
_MODULES = ("config", "errors", "lightning", "ml", "monai", "torchio")

__all__ = [*sorted(_EXPORTS), "__version__"]

if TYPE_CHECKING:
    from radioloader import config as config
    from radioloader import errors as errors
    from radioloader import lightning as lightning
    from radioloader import ml as ml
    from radioloader import monai as monai
    from radioloader import torchio as torchio
    from radioloader.config import CompressionConfig as CompressionConfig
    from radioloader.config import ReadConfig as ReadConfig
    from radioloader.config import S3Config as S3Config
    from radioloader.config import SliceOrientation as SliceOrientation
    from radioloader.config import StorageConfig as StorageConfig
    from radioloader.config import TileConfig as TileConfig
    from radioloader.config import WriteConfig as WriteConfig
    from radioloader.config import configure as configure
    from radioloader.container.collection import VolumeCollection as VolumeCollection
    from radioloader.container.radiobject import RadiObject as RadiObject
    from radioloader.container.radiobject import open_store
    from radioloader.container.transfer import TransferReport as TransferReport
    from radioloader.container.volume import Volume as Volume
    from radioloader.datasets.collate import collate as collate
    from radioloader.datasets.factory import create_distributed_dataloader as create_distributed_dataloader
    from radioloader.datasets.factory import create_inference_dataloader as create_inference_dataloader
    from radioloader.datasets.factory import create_segmentation_dataloader as create_segmentation_dataloader
    from radioloader.datasets.factory import create_training_dataloader as create_training_dataloader
    from radioloader.datasets.factory import create_validation_dataloader as create_validation_dataloader
    from radioloader.datasets.factory import set_epoch as set_epoch
    from radioloader.datasets.gather import gather_cases as gather_cases
    from radioloader.datasets.loader import DataLoader as DataLoader
    from radioloader.datasets.manifest import SplitManifest as SplitManifest
    from radioloader.datasets.patch import PatchDataset as PatchDataset
    from radioloader.datasets.slice import SliceDataset as SliceDataset
    from radioloader.datasets.split import Split as Split
    from radioloader.datasets.split import k_folds as k_folds
    from radioloader.datasets.split import split_by_column as split_by_column
    from radioloader.datasets.split import split_subjects as split_subjects
    from radioloader.datasets.transforms import IntensityNormalize as IntensityNormalize
    from radioloader.datasets.volume import VolumeDataset as VolumeDataset
    from radioloader.errors import RadioloaderError as RadioloaderError
    from radioloader.exporting.export import export as export
    from radioloader.exporting.report import ExportReport as ExportReport
    from radioloader.inference.predict import predict as predict
    from radioloader.inference.report import PredictReport as PredictReport
    from radioloader.ingestion.dicom_source import DicomSource as DicomSource
    from radioloader.ingestion.layouts.ingest import ingest_layout as ingest_layout
    from radioloader.ingestion.layouts.ingest import plan_layout as plan_layout
    from radioloader.ingestion.pipeline import ingest as ingest
    from radioloader.ingestion.report import IngestReport as IngestReport
    from radioloader.ingestion.scan import Scan as Scan
    from radioloader.ingestion.scan import ScanItem as ScanItem
    from radioloader.ingestion.scan import scan as scan
    from radioloader.overview.build import CohortReport as CohortReport
    from radioloader.overview.build import report as report
    from radioloader.overview.show import show as show
    from radioloader.samplers.centres import ForegroundPositions as ForegroundPositions
    from radioloader.samplers.centres import WeightedPositions as WeightedPositions
    from radioloader.samplers.order import BlockShuffled as BlockShuffled
    from radioloader.samplers.order import ClassBalanced as ClassBalanced
    from radioloader.samplers.order import EqualShapes as EqualShapes
    from radioloader.samplers.order import Sequential as Sequential
    from radioloader.samplers.order import Shuffled as Shuffled
    from radioloader.samplers.order import Weighted as Weighted
    from radioloader.samplers.positions import GridPositions as GridPositions
    from radioloader.samplers.positions import RegionPositions as RegionPositions
    from radioloader.samplers.positions import TileAlignedPositions as TileAlignedPositions
    from radioloader.samplers.positions import UniformPositions as UniformPositions
    from radioloader.samplers.samplers import KeySampler as KeySampler
    from radioloader.storage.reader import VolumeReader as VolumeReader
    from radioloader.types import Box as Box
    from radioloader.types import PatchKey as PatchKey
    from radioloader.types import SliceKey as SliceKey
    from radioloader.types import VolumeKey as VolumeKey
    from radioloader.types import VolumeRef as VolumeRef

    open = open_store


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
    return sorted({*globals(), *__all__, *_MODULES})
