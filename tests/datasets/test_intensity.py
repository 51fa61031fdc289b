"""IntensityNormalize against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError


@pytest.fixture
def image() -> torch.Tensor:
    values = np.random.default_rng(0).normal(50, 9, (2, 6, 5, 4))
    values[:, :3] = 0
    values[1] *= 7
    return torch.from_numpy(values.astype(np.float32))


def normalised(image: torch.Tensor, **arguments: Any) -> np.ndarray[Any, Any]:
    before = image.clone()
    result = rl.IntensityNormalize(**arguments)({"image": image, "obs_id": "x"})
    assert result["obs_id"] == "x"
    assert torch.equal(image.nan_to_num(), before.nan_to_num())
    array: np.ndarray[Any, Any] = result["image"].numpy()
    assert array.dtype == np.float32
    return array


def test_zscore_of_each_channel(image: torch.Tensor) -> None:
    expected = np.stack([(c - c.mean()) / c.std() for c in image.numpy().astype(np.float64)])
    np.testing.assert_allclose(normalised(image), expected, atol=1e-5)


def test_zscore_of_all_channels(image: torch.Tensor) -> None:
    values = image.numpy().astype(np.float64)
    np.testing.assert_allclose(
        normalised(image, channel_wise=False), (values - values.mean()) / values.std(), atol=1e-5
    )


def test_zscore_of_what_is_not_0(image: torch.Tensor) -> None:
    result = normalised(image, nonzero=True)
    assert (result[:, :3] == 0).all()
    for channel in result[:, 3:]:
        assert channel.mean() == pytest.approx(0, abs=1e-5)
        assert channel.std() == pytest.approx(1, abs=1e-5)


def test_minmax_with_clipping(image: torch.Tensor) -> None:
    result = normalised(image, method="minmax", clip=(10, 90))
    assert result.min() == 0
    assert result.max() == 1
    for channel, source in zip(result, image.numpy(), strict=True):
        low, high = np.percentile(source, (10, 90))
        expected = (np.clip(source, low, high) - low) / (high - low)
        np.testing.assert_allclose(channel, expected, atol=1e-5)


def test_constant_and_integer_images() -> None:
    assert (normalised(torch.full((1, 3, 3, 3), 7, dtype=torch.int16)) == 0).all()
    assert (normalised(torch.zeros((1, 3, 3, 3)), nonzero=True) == 0).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="method='robust' is not one of 'zscore', 'minmax'"):
        rl.IntensityNormalize(method="robust")
    with pytest.raises(ConfigError, match=r"clip=\(99, 1\) must be two percentiles"):
        rl.IntensityNormalize(clip=(99, 1))


def test_in_a_dataset(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", transform=rl.IntensityNormalize())
    source = brains.arrays["T1w"]["sub-02"].astype(np.float64)
    np.testing.assert_allclose(dataset[1]["image"][0].numpy(), (source - source.mean()) / source.std(), atol=1e-5)


@pytest.mark.parametrize("method", ["zscore", "minmax"])
def test_voxels_that_are_not_finite_take_no_part(image: torch.Tensor, method: str) -> None:
    expected = normalised(image, method=method)
    odd = torch.cat([image, torch.full((2, 6, 5, 1), float("nan")), torch.full((2, 6, 5, 1), float("inf"))], 3)
    result = normalised(odd, method=method)
    np.testing.assert_allclose(result[..., :4], expected, atol=1e-5)
    assert np.isnan(result[..., 4]).all()
    assert np.isposinf(result[..., 5]).all()
