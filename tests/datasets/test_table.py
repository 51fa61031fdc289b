"""What a dataset accepts and refuses, when it is made."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import radioloader as rl
from radioloader.errors import (
    ConfigError,
    GridMismatchError,
    KeyNotFoundError,
    RadioloaderError,
    ShapeError,
    StoreNotFoundError,
)


def patches(files: Any, **arguments: Any) -> rl.PatchDataset:
    return rl.PatchDataset(files.uri, **{"image": "T1w", "patch_size": 8} | arguments)


def crooked_volumes(files: Any, **arguments: Any) -> rl.VolumeDataset:
    return rl.VolumeDataset(files.uri, **{"image": "A"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"image": "T2w"}, KeyNotFoundError, r"has no collection 'T2w'; it has 'T1w', 'seg'"),
        ({"image": ["T1w", "nope"]}, KeyNotFoundError, r"has no collection 'nope'"),
        ({"label": "lesion"}, KeyNotFoundError, r"has no collection 'lesion'"),
        ({"image": []}, ConfigError, "image is empty; name at least one image collection"),
        ({"image": 3}, ConfigError, "image must be a name or several, got 3 of type int"),
        ({"image": ["T1w", 3]}, ConfigError, "image must be a name or several, got 3 of type int"),
        ({"label": ["seg"]}, ConfigError, r"label=\['seg'\] must be the name of one collection, or None"),
        ({"targets": 3}, ConfigError, "targets must be a name or several, got 3 of type int"),
        ({"targets": {"y": 3}}, ConfigError, "targets must be a name or several, got 3 of type int"),
        ({"pad_value": "x"}, ConfigError, "pad_value='x' must be a number, got str"),
        ({"pad_value": None}, ConfigError, "pad_value=None must be a number, got NoneType"),
        ({"pad_value": -1e6, "dtype": torch.float16}, ConfigError, "pad_value=-1000000.0 is no value of torch.float16"),
        ({"grid_tolerance_mm": -1}, ConfigError, "grid_tolerance_mm=-1 must be a number of mm, at least 0"),
        ({"grid_tolerance_mm": float("nan")}, ConfigError, "grid_tolerance_mm=nan must be a number of mm"),
        ({"grid_tolerance_mm": "x"}, ConfigError, "grid_tolerance_mm='x' must be a number of mm"),
        (
            {"positions": rl.UniformPositions},
            ConfigError,
            r"positions=UniformPositions is a class; .*UniformPositions\(",
        ),
        ({"positions": "uniform"}, ConfigError, "positions='uniform' chooses no patches; give an object such as"),
        ({"subjects": ["sub-01", "sub-99"]}, KeyNotFoundError, r"no subjects \['sub-99'\] \(1 of 2 are unknown\)"),
        ({"subjects": ["sub-01", "sub-02", "sub-01"]}, ConfigError, r"a subject more than once: \['sub-01'\]"),
        ({"subjects": []}, ConfigError, "there is no subject to read in "),
        (
            {"targets": ["height"]},
            KeyNotFoundError,
            r"obs_meta of .* has no column 'height'; it has 'age', 'sex', 'score'",
        ),
        ({"targets": {"y": "height"}}, KeyNotFoundError, "has no column 'height'"),
        (
            {"targets": ["label"], "label": "seg"},
            ConfigError,
            r"targets cannot be called 'label', .*targets={'my_label': 'label'}",
        ),
        (
            {"targets": {"image": "age"}},
            ConfigError,
            "targets cannot be called 'image', which is a key of every sample",
        ),
        ({"targets": ["score"]}, ConfigError, r"target 'score' is missing for 1 subjects, such as \['sub-02'\]"),
        ({"transform": 3}, ConfigError, "transform must be callable, got int"),
        ({"dtype": torch.complex64}, ConfigError, r"dtype=torch.complex64 is not one of torch.float16, .*, or None"),
        (
            {"patch_size": (30, 8, 8)},
            ShapeError,
            r"patch_size=\(30, 8, 8\) is larger than 4 of 4 volumes, such as 'sub-01_T1w' of shape \(20, 24, 18\); "
            r"choose a smaller patch, or pad=True",
        ),
        ({"patch_size": (21, 8, 8)}, ShapeError, "is larger than 1 of 4 volumes, such as 'sub-01_T1w'"),
        ({"patch_size": 0}, ConfigError, r"patch_size=0 must be one or three whole numbers \(x, y, z\) of at least 1"),
        ({"patch_size": (8, -8, 8)}, ConfigError, r"patch_size=\(8, -8, 8\) must be one or three whole numbers"),
        ({"patch_size": (8, 8)}, ConfigError, r"patch_size=\(8, 8\) must be one or three whole numbers"),
        ({"patch_size": 8.5}, ConfigError, "patch_size=8.5 must be one or three whole numbers"),
        ({"patches_per_volume": 0}, ConfigError, "patches_per_volume=0 must be a whole number of at least 1"),
        ({"patches_per_volume": 1.5}, ConfigError, "patches_per_volume=1.5 must be a whole number of at least 1"),
        (
            {"positions": rl.GridPositions(overlap=8)},
            ConfigError,
            r"overlap=\(8, 8, 8\) must be smaller than the patch size",
        ),
        (
            {"dtype": None, "pad_value": 0.5},
            ConfigError,
            "pad_value=0.5 is no value of torch.int16, the dtype of the images",
        ),
        ({"dtype": torch.int16, "pad_value": -40000}, ConfigError, "pad_value=-40000 is no value of torch.int16"),
        ({"dtype": torch.int16, "pad_value": float("nan")}, ConfigError, "pad_value=nan is no value of torch.int16"),
        ({"seed": "x"}, ConfigError, "seed='x' must be a whole number"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", str(value))[:40] if isinstance(value, dict) else "",
)
def test_wrong_arguments_of_a_patch_dataset(
    brains: Any, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        patches(brains, **arguments)
    assert isinstance(caught.value, RadioloaderError)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"plane": "transversal"}, "plane='transversal' is not one of 'axial', 'coronal', 'sagittal'"),
        ({"context": -1}, "context=-1 must be a whole number of at least 0"),
        ({"context": 1.5}, "context=1.5 must be a whole number of at least 0"),
    ],
)
def test_wrong_arguments_of_a_slice_dataset(brains: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        rl.SliceDataset(brains.uri, image="T1w", **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"label": "C"},
            KeyNotFoundError,
            r"'C' has no volume of 1 of 2 subjects, such as \['q'\]; choose those that have one, such as subjects="
            r"store\['C'\].obs_subject_ids",
        ),
        ({"image": ["A", "C"]}, KeyNotFoundError, "collection 'C' has no volume of 1 of 2 subjects"),
        (
            {"image": ["A", "B"]},
            GridMismatchError,
            r"subject 'q': collections 'A' and 'B' are not on one grid: "
            r"shapes \(9, 8, 7\) and \(8, 8, 7\); resample",
        ),
        (
            {"label": "D"},
            GridMismatchError,
            r"subject 'p': collections 'A' and 'D' are not on one grid: "
            r".* up to 0.5 mm apart, allowed are 0.05 mm",
        ),
        (
            {"image": "M", "dtype": None},
            ConfigError,
            r"dtype=None keeps the stored dtype, but it differs: "
            r"float32 in subject 'q', .*, int16 in subject 'p'",
        ),
        ({"image": ["A", "M"], "dtype": None}, ConfigError, "dtype=None keeps the stored dtype, but it differs"),
        (
            {"image": "T"},
            ShapeError,
            r"subjects 'p' and 'q' have 2 and 3 image channels \(time points\); "
            r"choose subjects with the same number",
        ),
        ({"label": "T"}, ShapeError, r"subjects 'p' and 'q' have 2 and 3 label channels"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", str(value))[:40] if isinstance(value, dict) else "",
)
def test_what_does_not_fit_together(crooked: Any, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        crooked_volumes(crooked, **arguments)


def test_dtype_none_on_scaled_volumes_is_refused(mixed: Any) -> None:
    with pytest.raises(
        ConfigError,
        match=r"dtype=None keeps the stored dtype, but subject 'a', collection 'CT', .* scales its values \(slope 0.5, intercept "
        r"-1000.25\); give a dtype",
    ):
        rl.VolumeDataset(mixed.uri, image="CT", dtype=None)


def test_what_does_not_fit_fits_without_the_odd_subject(crooked: Any) -> None:
    assert crooked_volumes(crooked, label="C", subjects=["p"]).subjects == ["p"]
    assert crooked_volumes(crooked, image=["A", "B"], subjects=["p"]).subjects == ["p"]
    assert crooked_volumes(crooked, image="M", dtype=None, subjects=["q"])[0]["image"].dtype == torch.float32
    assert crooked_volumes(crooked, image="T", subjects=["q"])[0]["image"].shape[0] == 3


def test_the_grid_tolerance_can_be_raised(crooked: Any) -> None:
    dataset = crooked_volumes(crooked, label="D", grid_tolerance_mm=0.5)
    sample = dataset[0]
    assert torch.equal(
        sample["image"].to(torch.int16), sample["label"]
    )  # D holds the voxels of A, half a millimetre off


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"there is no radioloader store at .*nowhere"):
        rl.VolumeDataset(tmp_path / "nowhere", image="T1w")
    with pytest.raises(ConfigError, match="store must be a URI or an open store, got int"):
        rl.VolumeDataset(5, image="T1w")  # type: ignore[arg-type]


def test_a_selection_has_only_its_subjects(brains: Any) -> None:
    selection = rl.open(brains.uri).iloc[:2]
    with pytest.raises(KeyNotFoundError, match=r"no subjects \['sub-03'\]"):
        rl.VolumeDataset(selection, image="T1w", subjects=["sub-03"])


def test_one_name_is_as_good_as_a_list_of_one(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", targets="age", subjects="sub-03")
    assert (len(dataset), dataset[0]["age"].item()) == (1, 23)


@pytest.fixture(scope="module")
def annotated(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a column of every kind; only subject ``a`` has all of them."""
    root = tmp_path_factory.mktemp("annotated")
    for subject in "abc":
        write_image(root / "images" / f"{subject}.nii.gz", np.full((4, 4, 4), ord(subject), np.uint8))
    table = pd.DataFrame(
        {
            "subject": ["a", "b", "c"],
            "whole": pd.array([7, -3, None], "Int64"),
            "size": [1.5, -2.25, np.nan],
            "sick": pd.array([True, False, None], "boolean"),
            "site": ["Zürich", "", None],
            "scanned": pd.to_datetime(["2024-02-29 13:45", "2023-01-01 00:00", None]),
        }
    )
    assert rl.ingest(root / "store", {"MR": root / "images"}, obs_meta=table, workers=1).ok
    return str(root / "store")


def test_targets_of_every_kind(annotated: str) -> None:
    names = {"n": "whole", "size": "size", "y": "sick", "site": "site", "when": "scanned"}
    dataset = rl.VolumeDataset(annotated, image="MR", targets=names, subjects=["b", "a"])
    samples = dataset.__getitems__([0, 1])
    assert [sample["n"].item() for sample in samples] == [-3, 7]
    assert [sample["size"].item() for sample in samples] == [-2.25, 1.5]
    assert [sample["y"].item() for sample in samples] == [False, True]
    assert [sample["site"] for sample in samples] == ["", "Zürich"]
    assert [sample["when"] for sample in samples] == ["2023-01-01", "2024-02-29T13:45"]
    assert set(samples[0]) == {"image", "affine", "location", "obs_subject_id", "obs_id", *names}
    batch = rl.collate(samples)
    assert {name: batch[name].dtype for name in ("n", "size", "y")} == {
        "n": torch.int64,
        "size": torch.float64,
        "y": torch.bool,
    }
    assert batch["site"] == ["", "Zürich"]


@pytest.mark.parametrize("column", ["whole", "size", "sick", "site", "scanned"])
def test_a_missing_target_of_any_kind_is_refused(annotated: str, column: str) -> None:
    with pytest.raises(ConfigError, match=rf"target '{column}' is missing for 1 subjects, such as \['c'\]; choose"):
        rl.VolumeDataset(annotated, image="MR", targets=[column])
    assert len(rl.VolumeDataset(annotated, image="MR", targets=[column], subjects=["a", "b"])) == 2


def test_targets_follow_the_order_of_the_subjects(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", targets={"years": "age"}, subjects=["sub-04", "sub-02"])
    assert [dataset[i]["years"].item() for i in range(2)] == [24, 22]
    assert "age" not in dataset[0]


def test_labels_of_two_dtypes_are_widened(write_image: Callable[..., Path], tmp_path: Path) -> None:
    for subject, dtype in (("a", np.uint8), ("b", np.int16)):
        write_image(tmp_path / "MR" / f"{subject}.nii.gz", np.zeros((4, 4, 4), np.uint8))
        write_image(tmp_path / "seg" / f"{subject}.nii.gz", np.full((4, 4, 4), 200, dtype))
    rl.ingest(tmp_path / "store", {"MR": tmp_path / "MR", "seg": tmp_path / "seg"}, workers=1)
    batch = rl.collate(rl.VolumeDataset(tmp_path / "store", image="MR", label="seg").__getitems__([0, 1]))
    assert batch["label"].dtype == torch.int16
    assert batch["label"].unique().tolist() == [200]


def test_a_target_may_be_the_label_where_there_is_no_label_collection(brains: Any) -> None:
    dataset = patches(brains, targets={"label": "age"})
    batch = rl.collate(dataset.__getitems__([0, 2]))
    assert batch["label"].tolist() == [21, 23]
    assert pickle.loads(pickle.dumps(dataset))[1]["label"].item() == 22
