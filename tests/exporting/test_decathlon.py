"""The decathlon's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import ExportError

DATASET = {"description": "", "reference": "", "licence": "", "release": ""}


def test_images_of_a_case_are_one_file(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    uri = make_store(
        {
            "T1w": {"a": image(0), "b": image(1)},
            "FLAIR": {"a": image(2), "b": image(3)},
            "seg": {"a": label(1, 2)},
        },
        affine=np.diag([1.0, 1.5, 2.0, 1.0]),
        classes={"seg": {"edema": 1, "whole": [1, 2]}},
    )
    report = rl.export(uri, tmp_path / "Task01_Toy", layout="decathlon", images=["T1w", "FLAIR"])
    assert json.loads((tmp_path / "Task01_Toy" / "dataset.json").read_text()) == DATASET | {
        "name": "Task01_Toy",
        "tensorImageSize": "4D",
        "modality": {"0": "T1w", "1": "FLAIR"},
        "labels": {"0": "background", "1": "edema", "2": "class_2"},
        "numTraining": 1,
        "numTest": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    assert any("'whole' is a region" in note for note in report.notes)
    assert not [note for note in report.notes if "4th axis" in note]
    unordered = rl.export(uri, tmp_path / "sorted", layout="decathlon")
    assert "4th axis: 0 FLAIR, 1 T1w (sorted by name; --image in the order you want)" in unordered.notes
    written = nib.load(tmp_path / "Task01_Toy" / "imagesTr" / "a.nii.gz")
    assert (written.shape, written.get_data_dtype()) == ((6, 5, 4, 2), np.int16)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.stack([image(0), image(2)], axis=3))
    np.testing.assert_array_equal(written.affine, np.diag([1.0, 1.5, 2.0, 1.0]))
    found, expected = hashes(back(report)), hashes(uri)
    assert found == {"T1w": expected["T1w"], "FLAIR": expected["FLAIR"], "label": expected["seg"]}


def test_a_test_case_keeps_its_label(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    uri = make_store(
        {"CT": {"a": image(0), "b": image(1), "c": image(2)}, "seg": {"a": label(1), "b": label(1)}},
        obs_meta=pd.DataFrame({"subject_id": list("abc"), "split": ["train", "Test", "test"]}),
    )
    report = rl.export(uri, tmp_path / "out", layout="decathlon")
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (dataset["tensorImageSize"], dataset["numTraining"], dataset["numTest"]) == ("3D", 1, 2)
    assert dataset["test"] == [
        {"image": "./imagesTs/b.nii.gz", "label": "./labelsTs/b.nii.gz"},
        {"image": "./imagesTs/c.nii.gz"},
    ]
    again = back(report)
    found, expected = hashes(again), hashes(uri)
    assert found == {"CT": expected["CT"], "label": expected["seg"]}
    assert rl.open(again).obs_meta.read()["split"].tolist() == ["train", "test", "test"]


def test_a_series_stays_one_image(
    make_store: Any, image: Any, label: Any, tmp_path: Path, hashes: Any, back: Any
) -> None:
    uri = make_store({"MR": {"a": image(0, (6, 5, 4, 3))}, "seg": {"a": label(1)}})
    report = rl.export(uri, tmp_path / "out", layout="decathlon")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["tensorImageSize"] == "4D"
    assert hashes(back(report))["MR"] == hashes(uri)["MR"]


def test_what_cannot_be_one_file_fails(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    uri = make_store(
        {
            "A": {"good": image(0), "dtype": image(1), "series": image(2)},
            "B": {"good": image(3), "dtype": image(4, dtype="f4"), "series": image(5, (6, 5, 4, 2))},
            "seg": {"good": label(1), "dtype": label(1), "series": label(1)},
        }
    )
    report = rl.export(uri, tmp_path / "out", layout="decathlon")
    reasons = {f.subject: f.reason for f in report.failed}
    assert reasons["dtype"].startswith("its dtype is float32, and that of 'A' is int16")
    assert reasons["series"] == "it is 4D with 2 volumes, and the 4th axis is to hold 2 collections"
    assert [path.name for path in (tmp_path / "out" / "imagesTr").iterdir()] == ["good.nii.gz"]
    with pytest.raises(ExportError, match="its dtype is float32"):
        rl.export(rl.open(uri).loc[["dtype"]], tmp_path / "none", layout="decathlon")


def test_monai_reads_it(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    decathlon = pytest.importorskip("monai.data.decathlon_datalist")
    uri = make_store(
        {"CT": {"a": image(0), "b": image(1), "c": image(2)}, "seg": {"a": label(1), "b": label(1)}},
        obs_meta=pd.DataFrame({"subject_id": list("abc"), "split": ["train", "test", "test"]}),
    )
    rl.export(uri, tmp_path / "out", layout="decathlon")
    read = decathlon.load_decathlon_datalist
    path, root = str(tmp_path / "out" / "dataset.json"), tmp_path / "out"
    for key, names in (("training", ["a"]), ("test", ["b", "c"])):
        found = read(path, is_segmentation=True, data_list_key=key)
        assert [item["image"] for item in found] == [
            str(root / f"images{'Tr' if key == 'training' else 'Ts'}" / f"{name}.nii.gz") for name in names
        ]
        assert all(Path(value).is_file() for item in found for value in item.values())
