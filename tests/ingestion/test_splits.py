"""Splits that folders say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import CatalogError, ConfigError

Write = Callable[..., Path]


@pytest.fixture
def root(write_image: Write, tmp_path: Path) -> Path:
    for i, name in enumerate(("train/a", "train/b", "test/c", "other/d")):
        write_image(tmp_path / "x" / f"{name}.nii.gz", np.full((2, 2, 2), i, np.uint8))
    return tmp_path / "x"


def test_folders_and_globs_give_the_column(root: Path, tmp_path: Path) -> None:
    splits = {"train": str(root / "train"), "test": str(root / "t[e]st" / "*.nii.gz")}
    report = rl.ingest(tmp_path / "store", {"CT": str(root / "*/*.nii.gz")}, splits=splits, workers=1)
    assert report.ok
    frame = rl.open(tmp_path / "store").obs_meta.read()
    assert dict(zip(frame["obs_subject_id"], frame["split"].fillna("none"), strict=True)) == {
        "a": "train",
        "b": "train",
        "c": "test",
        "d": "none",
    }
    assert "1 subjects are in no split, such as ['d']; their column 'split' is missing" in report.notes


def test_a_subject_in_two_splits_is_a_failure_of_its_own(root: Path, write_image: Write, tmp_path: Path) -> None:
    write_image(root / "test" / "sub" / "a_seg.nii.gz", np.zeros((2, 2, 2), np.uint8))
    report = rl.ingest(
        tmp_path / "store",
        {"CT": str(root / "t*" / "*.nii.gz"), "seg": str(root / "test" / "sub" / "*.nii.gz")},
        splits={"train": str(root / "train"), "test": str(root / "test")},
        allow_missing=True,
        workers=1,
    )
    assert [(item.subject, item.reason) for item in report.failed] == [
        ("a", "subject 'a' has files in the splits 'test' and 'train'; one of them must go")
    ]


def test_what_cannot_be_meant_is_refused(root: Path, tmp_path: Path) -> None:
    def ingest(**more: object) -> None:
        rl.ingest(tmp_path / "store", {"CT": str(root / "*/*.nii.gz")}, workers=1, **more)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"split 'test': .*gone holds no NIfTI file of this ingest"):
        ingest(splits={"test": str(root / "gone")})
    with pytest.raises(ConfigError, match="is not a mapping from split to folder or glob"):
        ingest(splits=["test"])
    (tmp_path / "meta.csv").write_text("subject,split\na,x\n")
    with pytest.raises(CatalogError, match="obs_meta has a column 'split', and splits would make another one"):
        ingest(splits={"test": str(root / "test")}, obs_meta=tmp_path / "meta.csv")
