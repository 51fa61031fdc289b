"""Classes of labels: whole numbers, and their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.ingestion.classes import read_classes

Write = Callable[..., Path]
LABEL = np.array([0, 1, 2, 5], np.int64).repeat(6).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("dtype", "offset", "stored"),
    [
        (np.float32, 0, "uint8"),
        (np.float64, 0, "uint8"),
        (np.float32, -3, "int16"),
        (np.float64, 300, "int16"),
        (np.float32, 70_000, "int32"),
        (np.float64, 2**33, "int64"),
    ],
)
def test_labels_saved_as_floats_are_stored_as_integers(
    write_image: Write, tmp_path: Path, dtype: Any, offset: int, stored: str
) -> None:
    path = write_image(tmp_path / "a.nii.gz", (LABEL + offset).astype(dtype))
    assert rl.ingest(tmp_path / "store", {"seg": {"a": path}}, workers=1).ok
    volume = rl.open(tmp_path / "store")["seg"].iloc[0]
    np.testing.assert_array_equal(volume.to_numpy(), (LABEL + offset).astype(stored), strict=True)


def test_an_export_gives_the_floats_back(write_image: Write, tmp_path: Path) -> None:
    import nibabel as nib

    path = write_image(tmp_path / "a.nii.gz", LABEL.astype(np.float32))
    rl.ingest(tmp_path / "store", {"seg": {"a": path}}, workers=1)
    rl.open(tmp_path / "store")["seg"].iloc[0].to_nifti(tmp_path / "out.nii.gz")
    back = nib.load(tmp_path / "out.nii.gz")
    assert back.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(back.dataobj), LABEL.astype(np.float32), strict=True)
    rl.ingest(tmp_path / "again", {"seg": {"a": tmp_path / "out.nii.gz"}}, workers=1)
    one, two = rl.open(tmp_path / "store"), rl.open(tmp_path / "again")
    assert one.snapshot.detail("seg", "content_hash").tolist() == two.snapshot.detail("seg", "content_hash").tolist()


def test_images_stay_floats(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", LABEL.astype(np.float32))
    rl.ingest(tmp_path / "store", {"T1w": {"a": path}}, workers=1)
    assert rl.open(tmp_path / "store")["T1w"].iloc[0].dtype == np.float32


@pytest.mark.parametrize(
    ("bad", "shown"),
    [(0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e18, "1e+18")],
)
def test_what_is_no_class_is_refused_with_the_value(write_image: Write, tmp_path: Path, bad: float, shown: str) -> None:
    array = LABEL.astype(np.float64)
    array[0, 0, 0] = array[1, 2, 3] = bad
    path = write_image(tmp_path / "a.nii.gz", array)
    good = write_image(tmp_path / "b.nii.gz", LABEL.astype(np.uint8))
    report = rl.ingest(tmp_path / "store", {"seg": {"a": path, "b": good}}, workers=1)
    assert [item.subject for item in report.ingested] == ["b"]
    assert report.failed[0].reason == (
        f"{path} (seg): labels are whole numbers, and 2 of its 24 voxels are not, such as {shown}; round them, threshold a probability "
        "map, or ingest it as an image (--image)"
    )


def test_scaled_labels_must_be_whole_once_scaled(write_image: Write, tmp_path: Path) -> None:
    whole = write_image(tmp_path / "a.nii.gz", LABEL.astype(np.int16), slope=2.0, intercept=1.0)
    half = write_image(tmp_path / "b.nii.gz", LABEL.astype(np.int16), slope=0.5)
    report = rl.ingest(tmp_path / "store", {"seg": {"a": whole, "b": half}}, workers=1)
    assert "6 of its 24 voxels" not in report.failed[0].reason
    assert "12 of its 24 voxels are not, such as 0.5, 2.5" in report.failed[0].reason
    np.testing.assert_array_equal(rl.open(tmp_path / "store")["seg"].iloc[0].to_numpy(), LABEL * 2.0 + 1.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"liver": 1, "tumour": 2}, {"liver": 1, "tumour": 2}),
        ({"1": "liver", "2": "tumour"}, {"liver": 1, "tumour": 2}),
        ({"background": "0", "whole": ["1", 2.0], "core": (2,)}, {"background": 0, "whole": [1, 2], "core": [2]}),
        ({"1": 1}, {"1": 1}),
    ],
)
def test_names_in_each_form(given: Any, expected: Any) -> None:
    assert read_classes("seg", given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "is not a mapping from name to class"),
        ([1], "is not a mapping from name to class"),
        ({"a": "b"}, "'a' is mapped to 'b'; expected a whole number"),
        ({"a": 1.5}, "'a' is mapped to 1.5"),
        ({"a": True}, "'a' is mapped to True"),
        ({"a": []}, "'a' is mapped to"),
        ({"": 1}, "'' is mapped to 1"),
        ({"1": "a", "2": "a"}, "the name 'a' stands for several classes"),
    ],
)
def test_names_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_classes("seg", given)


def test_names_are_kept_and_changed_without_touching_voxels(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", LABEL.astype(np.uint8))

    def ingest(**more: Any) -> rl.IngestReport:
        return rl.ingest(tmp_path / "store", {"seg": {"a": path}}, workers=1, **more)

    ingest(classes={"seg": {"liver": 1}})
    assert rl.open(tmp_path / "store")["seg"].classes == {"liver": (1,)}
    first = rl.open(tmp_path / "store")
    assert len(ingest().skipped) == 1  # nothing said: nothing changes
    assert rl.open(tmp_path / "store").version == first.version
    assert len(ingest(classes={"seg": {"leber": 1, "alle": [1, 2]}}).skipped) == 1
    assert rl.open(tmp_path / "store")["seg"].classes == {"leber": (1,), "alle": (1, 2)}
    assert first["seg"].classes == {"liver": (1,)}
    with pytest.raises(
        ConfigError, match=r"classes names those of 'T1w', which is not among the label collections 'seg'"
    ):
        ingest(classes={"T1w": {"a": 1}})
