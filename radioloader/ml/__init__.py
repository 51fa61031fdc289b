"""Loaders in one call, under the module names that scripts written for RadiObject use."""

from radioloader.datasets.factory import (
    create_distributed_dataloader,
    create_inference_dataloader,
    create_segmentation_dataloader,
    create_training_dataloader,
    create_validation_dataloader,
    set_epoch,
)
from radioloader.datasets.transforms import IntensityNormalize

__all__ = [
    "IntensityNormalize",
    "create_distributed_dataloader",
    "create_inference_dataloader",
    "create_segmentation_dataloader",
    "create_training_dataloader",
    "create_validation_dataloader",
    "set_epoch",
]
