"""Lightning data modules (extra ``lightning``)."""

from radioloader.lightning.datamodule import PatchDataModule

__all__ = ["PatchDataModule"]
