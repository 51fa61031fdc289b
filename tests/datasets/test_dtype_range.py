"""A dtype that would change values is refused when the dataset is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "dtype", "fits"),
    [
        ([0, 40000], torch.int16, False),
        ([0, 40000], torch.int32, True),
        ([-1, 5], torch.uint8, False),
        ([0, 255], torch.uint8, True),
        ([0, 70000], torch.float16, False),
        ([0, 70000], torch.float32, True),
        ([np.nan, 1], torch.int16, False),
        ([np.nan, 1], torch.float16, True),
    ],
)
def test_range(
    tmp_path: Path, write_image: Callable[..., Path], values: list[float], dtype: torch.dtype, fits: bool
) -> None:
    array = np.zeros((4, 4, 4), np.float64 if np.isnan(values).any() else np.int32)
    array[0, 0, :2] = values
    path = write_image(tmp_path / "a.nii.gz", array)
    rl.ingest(tmp_path / "s", {"T1w": [path]}, workers=1)
    if fits:
        image = rl.VolumeDataset(tmp_path / "s", image="T1w", dtype=dtype)[0]["image"]
        np.testing.assert_allclose(image[0, 0, 0, :2].numpy(), values, rtol=1e-3)
        return
    with pytest.raises(
        ConfigError, match=rf"dtype={dtype} does not hold the values of subject 'a'.*give a wider dtype"
    ):
        rl.VolumeDataset(tmp_path / "s", image="T1w", dtype=dtype)
