"""MONAI's pipelines on a store; see docs/monai.md."""

from radioloader.adapters.monai import AsMetaTensors, Dataset

__all__ = ["AsMetaTensors", "Dataset"]
