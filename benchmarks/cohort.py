"""The cohort: CT-sized subjects, each made of one real volume by flips, rolls and a little noise, seeded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.model import Cohort

__all__ = ["CT", "SHAPE", "load_base", "make_cohort", "make_subject", "resize", "template"]

SHAPE = (512, 512, 280)
CT = Path(__file__).resolve().parents[2] / "shared" / "data" / "ct_phantom_512x512x140.nii.gz"
"""A real CT beside the repository; where it is absent, the brain template in nilearn's wheel stands in."""

_AFFINE = np.diag([-0.45, -0.45, 1.0, 1.0])
_CLASSES = (0.012, 0.016, 0.008)  # shares of voxels aimed at (1 dense, 2 large blobs, 3 small blobs); edges cost some

Volume = npt.NDArray[np.int16]


def make_cohort(
    root: Path,
    subjects: int,
    shape: tuple[int, int, int] = SHAPE,
    *,
    source: Path | None = CT,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Cohort, dict[str, Any]]:
    """Write a cohort below ``root``, or find the one that was written there before.

    Args:
        root: Folder of cohorts.
        subjects: How many.
        shape: Voxels (x, y, z) of each.
        source: NIfTI file of the base volume; nilearn's template where it is None or absent.
        seed: With a subject's number it decides all that is random.
        say: Told about progress.

    Returns:
        The cohort, and facts about it: source, bytes of each format, shares of the classes.
    """
    import nibabel as nib

    source = source if source is not None and source.is_file() else None
    name = "x".join(map(str, shape)) + f"-{subjects}" + ("" if seed == 0 else f"-seed{seed}")
    cohort = Cohort(root / name, subjects, shape)
    done = cohort.folder / "cohort.json"
    wanted = {"recipe": 1, "source": source.name if source else "nilearn template", "seed": seed}
    if done.is_file():
        facts: dict[str, Any] = json.loads(done.read_text())
        if all(facts.get(key) == value for key, value in wanted.items()):
            return cohort, facts
        shutil.rmtree(cohort.folder)  # what peers made of the other cohort must go as well
    base = load_base(source, shape)
    for suffix in (".nii", ".nii.gz"):
        for file in (cohort.images(suffix)[0], cohort.labels(suffix)[0]):
            file.parent.mkdir(parents=True, exist_ok=True)
    shares = []
    for number in range(subjects):
        image, label = make_subject(base, number, seed)
        shares.append([round(float((label == value).mean()), 5) for value in (1, 2, 3)])
        for suffix in (".nii", ".nii.gz"):
            nib.save(nib.Nifti1Image(image, _AFFINE), cohort.images(suffix)[number])
            nib.save(nib.Nifti1Image(label, _AFFINE), cohort.labels(suffix)[number])
        say(f"subject {number + 1} of {subjects}: {100 * sum(shares[-1]):.1f} % foreground")
    sizes = {
        suffix: sum(file.stat().st_size for file in cohort.images(suffix) + cohort.labels(suffix))
        for suffix in (".nii", ".nii.gz")
    }
    facts = {**wanted, "subjects": subjects, "shape": list(shape), "bytes": sizes, "class_shares": shares}
    done.write_text(json.dumps(facts, indent=1))
    return cohort, facts


def load_base(source: Path | None, shape: tuple[int, int, int]) -> Volume:
    """The volume that subjects are made of, int16, of ``shape``: the CT, mirrored along z where it is too short, or the template."""
    if source is None:
        return _template_as_ct(shape)
    import nibabel as nib

    data = np.asarray(nib.load(source).dataobj).astype(np.int16)
    if data.shape[2] < shape[2]:
        data = np.concatenate([data, data[:, :, ::-1]], axis=2)
    if data.shape == shape:
        return data
    places = [np.linspace(0, n - 1, size).round().astype(int) for n, size in zip(data.shape, shape, strict=True)]
    return np.ascontiguousarray(data[np.ix_(*places)])


def _template_as_ct(shape: tuple[int, int, int]) -> Volume:
    """The template in the range of a CT and with its noise (without noise it would compress unlike any scan)."""
    noise = np.random.default_rng(0).normal(0, 12, shape).astype(np.float32)
    return (template(shape) * 1400 - 1000 + noise).round().astype(np.int16)


def template(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """nilearn's T1w template, resampled to ``shape`` (X, Y, Z); values from 0 to 1."""
    from nilearn.datasets import load_mni152_template

    data = np.asarray(load_mni152_template(resolution=1).dataobj, np.float32)
    return resize(data / data.max(), shape)


def make_subject(base: Volume, number: int, seed: int = 0) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """One subject: image (X, Y, Z) int16, and label uint8 with the classes 1, 2, 3 (about 2 % of the voxels)."""
    generator = np.random.default_rng([seed, number])
    image: Volume = base
    for axis in range(3):
        if generator.integers(2):
            image = np.flip(image, axis)
    shift = [int(generator.integers(-n // 20, n // 20 + 1)) for n in base.shape]
    image = np.roll(image, shift, (0, 1, 2))
    noise = generator.integers(-3, 4, image.shape, dtype=np.int16)
    image = np.where(image > -500, image + noise, image).astype(np.int16)
    # All classes are made on a coarse grid: smooth surfaces, as drawn labels have, at little cost.
    step = 4 if min(image.shape) >= 64 else 1
    coarse = np.ascontiguousarray(image[::step, ::step, ::step]).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    tissue = coarse > -500
    for value, share, grain in ((2, _CLASSES[1], 10), (3, _CLASSES[2], 3)):
        grid = tuple(max(2, n // grain) for n in coarse.shape)
        field = resize(generator.standard_normal(grid).astype(np.float32), coarse.shape)
        _paint(label, np.where(tissue, field, np.float32(-9)), share, value)
    _paint(label, resize(resize(coarse, tuple(max(1, n // 2) for n in coarse.shape)), coarse.shape), _CLASSES[0], 1)
    return image, label


def _paint(label: npt.NDArray[np.uint8], field: npt.NDArray[np.float32], share: float, value: int) -> None:
    """Set the voxels where ``field``, a coarse one, is highest."""
    count = max(1, round(share * field.size))
    threshold = float(np.partition(field.ravel(), field.size - count)[field.size - count])
    label[resize(field - threshold, label.shape) >= 0] = value


def resize(field: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Trilinear interpolation to another grid."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(field))[None, None]
    resized = torch.nn.functional.interpolate(tensor, size=shape, mode="trilinear", align_corners=False)
    result: npt.NDArray[np.float32] = resized[0, 0].numpy()
    return result
