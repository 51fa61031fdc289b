"""A transform that needs no other package, and what is done after those of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from radioloader.errors import ConfigError

__all__ = ["IntensityNormalize", "adapted", "plain"]


class IntensityNormalize:
    """Bring images to mean 0 and standard deviation 1 (z-score), or to the range 0 to 1.

    A constant image becomes 0. Voxels that are not finite take no part, and stay as they are.

    Args:
        keys: Keys of the sample that hold images (C, ...).
        method: ``"zscore"`` or ``"minmax"``.
        channel_wise: Each channel by itself.
        nonzero: Statistics (and the result) of voxels other than 0 only, as for skull-stripped brains.
        clip: Percentiles (low, high), from 0 to 100, to which values are clipped first, such as (0.5, 99.5); None: not at all.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "image",
        *,
        method: str = "zscore",
        channel_wise: bool = True,
        nonzero: bool = False,
        clip: tuple[float, float] | None = None,
    ) -> None:
        if method not in ("zscore", "minmax"):
            raise ConfigError(f"method={method!r} is not one of 'zscore', 'minmax'")
        if clip is not None and not 0 <= clip[0] < clip[1] <= 100:
            raise ConfigError(f"clip={clip} must be two percentiles, 0 <= low < high <= 100")
        self.keys = [keys] if isinstance(keys, str) else list(keys)
        self.method, self.channel_wise, self.nonzero, self.clip = method, channel_wise, nonzero, clip

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with float32 images (float64 ones stay that)."""
        return {**sample, **{key: self._normalised(torch.as_tensor(sample[key])) for key in self.keys}}

    def _normalised(self, image: torch.Tensor) -> torch.Tensor:
        values = image.to(torch.promote_types(image.dtype, torch.float32)).clone()
        for part in values if self.channel_wise else [values]:
            where = torch.isfinite(part) & (part != 0) if self.nonzero else torch.isfinite(part)
            chosen = part[where]
            if not chosen.numel():
                continue
            if self.clip is not None:
                # numpy's, because torch.quantile refuses more than 16 million values
                import numpy as np

                low, high = np.percentile(chosen.numpy(), self.clip)
                chosen = chosen.clamp(float(low), float(high))
            shift, scale = (
                (chosen.mean(), chosen.std(correction=0))
                if self.method == "zscore"
                else (chosen.min(), chosen.max() - chosen.min())
            )
            result = (chosen - shift) / scale if scale > 0 else torch.zeros_like(chosen)
            part[where] = result
        return values

    def __repr__(self) -> str:
        return (
            f"IntensityNormalize({self.keys}, method={self.method!r}, channel_wise={self.channel_wise}, nonzero={self.nonzero}, "
            f"clip={self.clip})"
        )


def plain(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without the MetaTensors that MONAI's transforms make of plain tensors: they say that they lie at the origin.

    Those that know what they were read from stay: they were asked for (:class:`radioloader.monai.AsMetaTensors`).
    """
    made = [
        key
        for key, value in sample.items()
        if type(value) is not torch.Tensor
        and isinstance(value, torch.Tensor)
        and isinstance(meta := getattr(value, "meta", None), dict)
        and "filename_or_obj" not in meta
    ]
    return sample if not made else {**sample, **{key: sample[key].as_subclass(torch.Tensor) for key in made}}


def adapted(transform: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A transform that takes samples: TorchIO's take subjects, all others are as they should be."""
    if any(kind.__module__.partition(".")[0] == "torchio" for kind in type(transform).__mro__):
        return _OnSubjects(transform)
    return transform


class _OnSubjects:
    """A TorchIO transform on samples: images become ``tio.ScalarImage``, labels ``tio.LabelMap``, and tensors again afterwards."""

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        import torchio as tio

        kinds = {"image": tio.ScalarImage, "label": tio.LabelMap}
        tensors = {
            key: sample[key] for key in kinds if isinstance(sample.get(key), torch.Tensor) and sample[key].ndim > 2
        }
        flat = next(iter(tensors.values())).ndim == 3  # a slice (C, H, W) is a volume of one voxel in depth
        images = {
            key: kinds[key](tensor=tensor.unsqueeze(-1) if flat else tensor, affine=sample["affine"])
            for key, tensor in tensors.items()
        }
        subject = self.transform(tio.Subject(images))
        made = {key: subject[key].data.squeeze(-1) if flat else subject[key].data for key in tensors}
        if not flat:
            made["affine"] = torch.as_tensor(subject[next(iter(tensors))].affine, dtype=torch.float64)
        return {**sample, **made}
