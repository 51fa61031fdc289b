"""Plain samples as MONAI's MetaTensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

__all__ = ["AsMetaTensors"]


class AsMetaTensors:
    """The first transform of a pipeline for this package's own datasets: makes ``MetaTensor`` of a sample's images and labels.

    They get the sample's affine, so that MONAI's spatial transforms keep track and ``SaveImaged`` puts a patch where it belongs. Costs
    more than MONAI's transforms need: they take plain tensors as well.

    Args:
        keys: What to make into one; keys that a sample lacks are passed over.
    """

    def __init__(self, keys: str | Sequence[str] = ("image", "label")) -> None:
        self.keys = [keys] if isinstance(keys, str) else list(keys)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample, its tensors (C, ...) as ``MetaTensor`` with ``affine`` (4, 4), voxel of the sample to RAS mm."""
        affine = torch.as_tensor(sample["affine"], dtype=torch.float64)
        result = dict(sample)
        for key in self.keys:
            if key in sample:
                value = torch.as_tensor(sample[key])
                meta = {
                    "filename_or_obj": sample["obs_id"],
                    "original_affine": affine.numpy().copy(),
                    "spatial_shape": np.array(value.shape[1:]),
                }
                result[key] = MetaTensor(value, affine=affine.clone(), meta=meta)
        return result

    def __repr__(self) -> str:
        return f"AsMetaTensors({self.keys})"
