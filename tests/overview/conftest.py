"""Cohorts of the report's tests: one without anything odd, one with an example of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

SHAPE = (20, 24, 16)
HOSTILE = "</script><script>document.title='taken'</script>&'\"\u2028"


@dataclass
class Made:
    """A store, and what was put into it."""

    uri: str
    images: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    labels: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    report: Any = None


def voxels(number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An image (int16) and its label (uint8: class 1 of about 500 voxels, class 2 of about 150), other ones for each number."""
    generator = np.random.default_rng(number)
    image = generator.normal(400, 60, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[4:12, 6 : 14 + number % 2, 3:11] = 1
    label[6:11, 8:13, 5:11] = 2
    label[0, number % 24, number % 16] = 1  # so that none is like another
    return image + 100 * (label > 0).astype(np.int16), label


@pytest.fixture(scope="session")
def make_store(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """``make_store({subject: (image, label, affine)}, meta=None, **options)``: ingested as T1w and seg; None leaves a file out."""

    def make(volumes: dict[str, Any], meta: str | None = None, **options: Any) -> Made:
        root = tmp_path_factory.mktemp("report")
        made = Made(str(root / "store"))
        sources: dict[str, dict[str, Path]] = {"T1w": {}, "seg": {}}
        for number, (subject, (image, label, affine)) in enumerate(volumes.items()):
            for name, array, kept in (("T1w", image, made.images), ("seg", label, made.labels)):
                if isinstance(array, bytes):
                    path = root / name / f"{number}.nii.gz"
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(array)
                    sources[name][subject] = path
                elif array is not None:
                    sources[name][subject] = write_image(root / name / f"{number}.nii.gz", array, affine)
                    kept[subject] = array
        if meta is not None:
            (root / "meta.tsv").write_text(meta)
            options["obs_meta"] = root / "meta.tsv"
        sources = {name: files for name, files in sources.items() if files}
        labels = ["seg"] if "seg" in sources else []
        made.report = rl.ingest(made.uri, sources, labels=labels, workers=1, allow_missing=True, **options)
        return made

    return make


@pytest.fixture(scope="session")
def clean(make_store: Callable[..., Made]) -> Made:
    """12 subjects that are alike, with columns age and site. Do not change it."""
    subjects = [f"s{number:02d}" for number in range(12)]
    meta = "subject_id\tage\tsite\n" + "".join(f"{s}\t{30 + i}\t{'AB'[i % 2]}\n" for i, s in enumerate(subjects))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return make_store(
        {subject: (*voxels(number), affine) for number, subject in enumerate(subjects)},
        meta,
        classes={"seg": {"cortex": 1, "core": 2, "all": [1, 2]}},
    )


@pytest.fixture(scope="session")
def planted(make_store: Callable[..., Made]) -> Made:
    """12 subjects that are alike, and one of each kind that is odd, named after what is. Do not change it."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    volumes: dict[str, Any] = {f"s{number:02d}": (*voxels(number), affine) for number in range(12)}
    image, label = voxels(40)
    turned = np.diag([-1.0, 1.0, 2.0, 1.0])
    volumes["spaced"] = (*voxels(20), np.diag([1.0, 1.0, 6.0, 1.0]))
    volumes["turned"] = (*voxels(21), turned)
    nan = voxels(22)[0].astype(np.float32)
    nan[0, 0, :3] = np.nan
    volumes["holes"] = (nan, voxels(22)[1], affine)
    volumes["bright"] = (voxels(23)[0] * 20, voxels(23)[1], affine)
    volumes["constant"] = (np.full(SHAPE, 7, np.int16), voxels(24)[1], affine)
    volumes["empty"] = (voxels(25)[0], np.zeros(SHAPE, np.uint8), affine)
    volumes["lacking"] = (voxels(26)[0], np.minimum(voxels(26)[1], 1), affine)
    tiny = np.where(voxels(27)[1] == 2, 2, 0).astype(np.uint8)
    tiny[0, 0, :5] = 1
    volumes["tiny"] = (voxels(27)[0], tiny, affine)
    volumes["series"] = (np.stack([voxels(28)[0], voxels(29)[0]], axis=-1), voxels(28)[1], affine)
    volumes["twin"] = volumes["s00"]
    volumes["unlabelled"] = (voxels(30)[0], None, affine)
    volumes["broken"] = (b"this is no NIfTI file", label, affine)
    volumes[HOSTILE] = (image, label, affine)
    meta = "subject_id\tage\tnote\n" + "".join(
        f"{subject}\t{'' if subject == 's03' else 40}\t{'<b>bold</b>' if subject == 's04' else 'x'}\n"
        for subject in volumes
        if subject != HOSTILE
    )
    return make_store(volumes, meta)
