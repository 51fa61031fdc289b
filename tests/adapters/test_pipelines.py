"""Published pipelines, those that ``benchmarks`` times, on a real image: our samples beside the original library's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from benchmarks.pipelines import published
from radioloader.datasets.seeding import SeededTransform
from radioloader.samplers.random import seed_of

KEYS = ["image", "label"]


def edges_of(sample: Any) -> np.ndarray[Any, Any]:
    """What the crop of a sample took away at either end of each axis, from what MONAI noted of it."""
    crop = next(
        op for op in sample["image"].applied_operations if "RandCrop" in op["class"] or "RandSpatialCrop" in op["class"]
    )
    while "cropped" not in crop:
        crop = crop["extra_info"]
    return np.array(crop["cropped"]).reshape(-1, 2)


def assert_same_as_monai(dataset: Any, data: list[dict[str, Any]], prefix: list[Any], rest: list[Any]) -> None:
    """Every sample equals the one that MONAI makes at the same place with the same seed of the random transforms after the crop."""
    mt = pytest.importorskip("monai.transforms")
    finish = SeededTransform(mt.Compose(rest)) if rest else None
    for number, item in enumerate(data):
        whole = mt.Compose(prefix)(item)
        key = dataset.key(number, epoch=3)
        made = dataset.__getitems__([key])[0]
        samples = made if isinstance(made, list) else [made]
        crops = []
        for sample in samples:
            edges = edges_of(sample)
            shape = whole["image"].shape[1:]
            roi = [slice(int(a), int(n - b)) for (a, b), n in zip(edges, shape, strict=True)]
            crops.append(mt.SpatialCropd(KEYS, roi_slices=roi)(whole))
        expected: Any = crops if isinstance(made, list) else crops[0]
        if finish is not None:
            expected = finish(expected, seed_of("transform", *dataset._asked(key).parts))
        for sample, want in zip(samples, expected if isinstance(made, list) else [expected], strict=True):
            for name in KEYS:
                assert sample[name].shape == want[name].shape
                assert sample[name].dtype == want[name].dtype
                torch.testing.assert_close(sample[name].as_tensor(), want[name].as_tensor(), rtol=0, atol=1e-5)
                torch.testing.assert_close(sample[name].affine, want[name].affine, rtol=0, atol=1e-9)


def test_monais_spleen_tutorial(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    """https://github.com/Project-MONAI/tutorials, 3d_segmentation/spleen_segmentation_3d: window, spacing and patch of this image."""
    mt = pytest.importorskip("monai.transforms")
    prefix, [crop] = published.spleen((32, 32, 24), (100, 900))
    dataset = rl.monai.Dataset(
        datalist, mt.Compose([*prefix, crop]), store=tmp_path / "store", progress=False, num_workers=1
    )
    assert dataset.plan.crop is crop
    assert_same_as_monai(dataset, datalist, prefix, [])


def test_monais_brats_tutorial(
    brain: tuple[np.ndarray[Any, Any], ...], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    """https://github.com/Project-MONAI/tutorials, 3d_segmentation/brats_segmentation_3d: four modalities, three classes that overlap."""
    mt = pytest.importorskip("monai.transforms")
    t1, tissue, affine = brain
    modalities = np.stack([t1, t1.max() - t1, t1 // 2 + 3, np.roll(t1, 1, 0)], axis=-1)
    image = write_image(tmp_path / "case_mri.nii.gz", modalities, affine)
    label = write_image(tmp_path / "case_seg.nii.gz", tissue, affine)
    data = [{"image": str(image), "label": str(label)}]
    prefix, [crop, *rest] = published.brats([40, 48, 32], (2.0, 2.0, 2.0))
    transform = mt.Compose([*prefix, crop, *rest])
    dataset = rl.monai.Dataset(data * 3, transform, store=tmp_path / "store", progress=False, num_workers=1)
    assert dataset[0]["image"].shape == (4, 40, 48, 32)
    assert dataset[0]["label"].shape == (3, 40, 48, 32)
    assert_same_as_monai(dataset, data * 3, prefix, rest)


def test_torchios_brain_tutorial(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    """TorchIO's tutorial of brain segmentation: preprocessing, augmentation of whole subjects, patches around labels."""
    tio = pytest.importorskip("torchio")
    from radioloader.torchio import Queue, SubjectsDataset

    sources = {
        name: {f"s{number}": item[key] for number, item in enumerate(datalist)}
        for name, key in (("mri", "image"), ("brain", "label"))
    }
    assert rl.ingest(tmp_path / "store", sources, labels=["brain"], workers=1).ok
    landmarks = {"mri": np.linspace(0, 100, 13)}
    head = [
        tio.ToCanonical(),
        tio.Resample(2.5),
        tio.CropOrPad((48, 60, 40)),
        tio.HistogramStandardization(landmarks),
        tio.ZNormalization(masking_method=tio.ZNormalization.mean),
    ]
    tail = [
        tio.RandomBiasField(p=0.25),
        tio.RandomNoise(p=0.5),
        tio.RandomFlip(axes=(0,)),
        tio.OneOf({tio.RandomAffine(): 0.8, tio.RandomElasticDeformation(max_displacement=3): 0.2}),
    ]

    def subject(number: int) -> Any:
        image, label = (nib.load(datalist[number][key]) for key in ("image", "label"))
        return tio.Subject(
            mri=tio.ScalarImage(tensor=np.asarray(image.dataobj)[None], affine=image.affine),
            brain=tio.LabelMap(tensor=np.asarray(label.dataobj)[None], affine=label.affine),
        )

    def dataset(*transforms: Any) -> Any:
        return SubjectsDataset(
            tmp_path / "store", "mri", "brain", tio.Compose(transforms), progress=False, num_workers=1
        )

    def compare(patch: Any, whole: Any) -> None:
        a, b, c, d, e, f = (int(n) for n in patch["location"])
        for name in ("mri", "brain"):
            expected = whole[name].data[:, a:d, b:e, c:f]
            torch.testing.assert_close(patch[name].data, expected, rtol=0, atol=1e-5)
        corner = whole["mri"].affine @ [a, b, c, 1]
        np.testing.assert_allclose(patch["mri"].affine[:, 3], corner, atol=1e-6)

    sampler = tio.LabelSampler(16, "brain")
    plain = Queue(dataset(*head), 4, 2, sampler)
    for number in range(len(plain)):
        patch = plain[number]
        compare(patch, tio.Compose(head)(subject(int(patch["obs_subject_id"][1:]))))
    # With augmentation: what TorchIO makes of the whole subject with the same seed, then the patch.
    augmented = Queue(dataset(*head, *tail), 4, 2, sampler)
    augment = SeededTransform(lambda one: tio.Compose(tail)(one))
    for number in range(len(augmented)):
        patch = augmented[number]
        index = int(patch["obs_subject_id"][1:])
        seed = seed_of("subject", *augmented._common, 1, index)
        compare(patch, augment(tio.Compose(head)(subject(index)), seed))
