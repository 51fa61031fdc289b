"""Lightning data modules and callbacks (extra ``lightning``)."""

from radioloader.lightning.base import StoreDataModule
from radioloader.lightning.datamodule import PatchDataModule, SliceDataModule, VolumeDataModule

__all__ = ["PatchDataModule", "SliceDataModule", "StoreDataModule", "VolumeDataModule"]
