"""Lightning data modules and callbacks (extra ``lightning``)."""

from radioloader.lightning.base import StoreDataModule
from radioloader.lightning.datamodule import PatchDataModule, SliceDataModule, VolumeDataModule
from radioloader.lightning.evaluation import UnevenEvaluation
from radioloader.lightning.monitor import DataWaitMonitor

__all__ = [
    "DataWaitMonitor",
    "PatchDataModule",
    "SliceDataModule",
    "StoreDataModule",
    "UnevenEvaluation",
    "VolumeDataModule",
]
