"""The pipelines as they were published: the deterministic transforms at the head, and what follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["brain", "brain_for_patches", "brats", "brats_roi", "spleen", "spleen_patch"]

KEYS = ["image", "label"]
_RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def spleen(
    patch: Sequence[int] = (96, 96, 96),
    window: tuple[float, float] = (-57, 164),
    pixdim: tuple[float, float, float] = (1.5, 1.5, 2.0),
) -> tuple[list[Any], list[Any]]:
    """MONAI's tutorial ``spleen_segmentation_3d``."""
    import monai.transforms as mt

    head = [
        mt.LoadImaged(keys=KEYS),
        mt.EnsureChannelFirstd(keys=KEYS),
        mt.ScaleIntensityRanged(keys=["image"], a_min=window[0], a_max=window[1], b_min=0.0, b_max=1.0, clip=True),
        mt.CropForegroundd(keys=KEYS, source_key="image", allow_smaller=True),
        mt.Orientationd(keys=KEYS, axcodes="RAS", labels=_RAS),
        mt.Spacingd(keys=KEYS, pixdim=pixdim, mode=("bilinear", "nearest")),
    ]
    crop = mt.RandCropByPosNegLabeld(
        keys=KEYS,
        label_key="label",
        spatial_size=tuple(patch),
        pos=1,
        neg=1,
        num_samples=4,
        image_key="image",
        image_threshold=0,
    )
    return head, [crop]


def spleen_patch(shape: tuple[int, int, int], spacing: Sequence[float] = (0.45, 0.45, 1.0)) -> tuple[int, int, int]:
    """The published patch, or a smaller one where the volumes of a cohort are too small for it."""
    least = min(n * mm / new for n, mm, new in zip(shape, spacing, (1.5, 1.5, 2.0), strict=True))
    edge = min(96, max(8, int(0.7 * least) // 8 * 8))
    return edge, edge, edge


def brats(
    roi: Sequence[int] = (224, 224, 144), pixdim: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[list[Any], list[Any]]:
    """MONAI's tutorial ``brats_segmentation_3d``: four modalities, three classes that overlap."""
    import monai.transforms as mt

    head = [
        mt.LoadImaged(keys=KEYS),
        mt.EnsureChannelFirstd(keys="image"),
        mt.EnsureTyped(keys=KEYS),
        _to_brats_classes()(keys="label"),
        mt.Orientationd(keys=KEYS, axcodes="RAS", labels=_RAS),
        mt.Spacingd(keys=KEYS, pixdim=pixdim, mode=("bilinear", "nearest")),
    ]
    rest = [
        mt.RandSpatialCropd(keys=KEYS, roi_size=list(roi), random_size=False),
        mt.RandFlipd(keys=KEYS, prob=0.5, spatial_axis=0),
        mt.RandFlipd(keys=KEYS, prob=0.5, spatial_axis=1),
        mt.RandFlipd(keys=KEYS, prob=0.5, spatial_axis=2),
        mt.NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        mt.RandScaleIntensityd(keys="image", factors=0.1, prob=1.0),
        mt.RandShiftIntensityd(keys="image", offsets=0.1, prob=1.0),
    ]
    return head, rest


def brats_roi(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The published patch of a case of 240x240x155, and as large a part of any other one."""
    return tuple(min(roi, n - math.ceil(n / 15)) for roi, n in zip((224, 224, 144), shape, strict=True))


def _to_brats_classes() -> Any:
    """The tutorial's own transform: a class of its own in each script."""
    import monai.transforms as mt

    class ConvertToMultiChannelBasedOnBratsClassesd(mt.MapTransform):  # type: ignore[misc]
        def __call__(self, data: Any) -> Any:
            d = dict(data)
            for key in self.keys:
                result = [
                    torch.logical_or(d[key] == 2, d[key] == 3),
                    torch.logical_or(torch.logical_or(d[key] == 2, d[key] == 3), d[key] == 1),
                    d[key] == 2,
                ]
                d[key] = torch.stack(result, dim=0).float()
            return d

    return ConvertToMultiChannelBasedOnBratsClassesd


def brain(spacing: float = 4, shape: Sequence[int] = (48, 60, 48)) -> tuple[list[Any], list[Any]]:
    """TorchIO's tutorial of brain segmentation, of subjects with ``mri`` and ``brain``.

    The landmarks of the histogram were not learned from the files: they cost the same.
    """
    import torchio as tio

    standardize, normalize = _intensities()
    head = [tio.ToCanonical(), tio.Resample(spacing), tio.CropOrPad(tuple(shape))]
    rest = [
        tio.RandomMotion(p=0.2),
        standardize,
        tio.RandomBiasField(p=0.3),
        normalize,
        tio.RandomNoise(p=0.5),
        tio.RandomFlip(axes=(0,)),
        tio.OneOf({tio.RandomAffine(): 0.8, tio.RandomElasticDeformation(): 0.2}),
    ]
    return head, rest


def brain_for_patches(spacing: float = 4) -> tuple[list[Any], list[Any]]:
    """The same transforms in another order: intensities are normalized before anything random, so that all of that can run on patches."""
    head, rest = brain(spacing)
    kinds = tuple(type(transform) for transform in _intensities())
    return [*head, *_intensities()], [transform for transform in rest if not isinstance(transform, kinds)]


def _intensities() -> tuple[Any, Any]:
    import numpy as np
    import torchio as tio

    landmarks = {"mri": np.linspace(0, 100, 13)}
    return tio.HistogramStandardization(landmarks), tio.ZNormalization(masking_method=tio.ZNormalization.mean)
