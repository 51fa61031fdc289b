"""nnU-Net's raw folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, ExportError
from radioloader.exporting.nnunet import regions

LABELS = {"background": 0, "core": 1, "rim": 2}


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


@pytest.fixture
def store(make_store: Any, image: Any, label: Any) -> str:
    """Two channels; c has no label, d is a test case with one, e lacks a channel."""
    return str(
        make_store(
            {
                "T1w": {name: image(i) for i, name in enumerate("abcde")},
                "FLAIR": {name: image(i + 10, dtype="f4") for i, name in enumerate("abcd")},
                "seg": {"a": label(1, 2), "b": label(1), "d": label(2), "e": label(1)},
            },
            labels=["seg"],
            classes={"seg": {"core": 1, "rim": 2}},
            obs_meta=pd.DataFrame(
                {
                    "subject_id": list("abcde"),
                    "split": ["train", "val", "train", "test", "train"],
                    "age": [1, 2, 3, 4, 5],
                }
            ),
        )
    )


def test_channels_labels_and_cases(store: str, tmp_path: Path, hashes: Any, back: Any) -> None:
    out = tmp_path / "Dataset007_Toy"
    report = rl.export(store, out, layout="nnunet", images=["T1w", "FLAIR"])
    assert files(out) == [
        "dataset.json",
        "imagesTr/a_0000.nii.gz",
        "imagesTr/a_0001.nii.gz",
        "imagesTr/b_0000.nii.gz",
        "imagesTr/b_0001.nii.gz",
        "imagesTs/c_0000.nii.gz",
        "imagesTs/c_0001.nii.gz",
        "imagesTs/d_0000.nii.gz",
        "imagesTs/d_0001.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/b.nii.gz",
        "labelsTs/d.nii.gz",
        "participants.tsv",
    ]
    assert json.loads((out / "dataset.json").read_text()) == {
        "name": "Dataset007_Toy",
        "channel_names": {"0": "T1w", "1": "FLAIR"},
        "labels": LABELS,
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert [(f.subject, f.collection) for f in report.failed] == [("e", "FLAIR")]
    assert "no volume there" in report.failed[0].reason
    assert not report.ok
    assert any("1 subjects have no label, such as 'c'" in note for note in report.notes)
    assert any("says of 2 subjects, such as 'val' of 'b', is not kept" in note for note in report.notes)
    # The split is what the folders say.
    assert (out / "participants.tsv").read_text() == "obs_subject_id\tage\na\t1\nb\t2\nc\t3\nd\t4\n"
    again = back(report)
    found, expected = hashes(again), hashes(store)
    assert found == {
        "T1w": {name: expected["T1w"][name] for name in "abcd"},
        "FLAIR": expected["FLAIR"],
        "label": {name: expected["seg"][name] for name in "abd"},
    }
    table = rl.open(again).obs_meta.read().set_index("obs_subject_id")
    assert table["split"].to_dict() == {"a": "train", "b": "train", "c": "test", "d": "test"}
    assert table["age"].to_dict() == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert rl.open(again).label.classes == {"background": (0,), "core": (1,), "rim": (2,)}


def test_channels_are_sorted_when_none_is_named(store: str, tmp_path: Path) -> None:
    rl.export(store, tmp_path / "out", layout="nnunet", names={"T1w": "T1"})
    channels = json.loads((tmp_path / "out" / "dataset.json").read_text())["channel_names"]
    assert channels == {"0": "FLAIR", "1": "T1"}


def test_what_does_not_fit_fails_alone(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    uri = make_store(
        {
            "CT": {"good": image(0), "grid": image(1), "series": image(2, (6, 5, 4, 2)), "moved": image(3)},
            "PET": {"good": image(4), "grid": image(5, (6, 5, 3)), "series": image(6), "moved": image(7)},
        }
    )
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(image(7), nib.affines.from_matvec(np.eye(3), [0.0, 0.3, 0.4])), moved)
    rl.ingest(uri, {"PET": {"moved": moved}}, workers=1)
    rl.ingest(
        uri,
        {"seg": {name: _saved(tmp_path / f"{name}.nii.gz", label(1)) for name in ("good", "grid", "series")}},
        labels=["seg"],
        workers=1,
        allow_missing=True,
    )
    report = rl.export(uri, tmp_path / "out", layout="nnunet")
    assert {f.subject: (f.collection, f.reason) for f in report.failed} == {
        "grid": ("PET", "it is not on the grid of 'CT': it has the shape 6x5x3 and not 6x5x4"),
        "moved": ("PET", "it is not on the grid of 'CT': its voxels lie up to 0.5 mm off"),
        "series": ("CT", "it is 4D with 2 volumes, and nnU-Net's channels are 3D"),
    }
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.nii.gz")) == [
        "good.nii.gz",
        "good_0000.nii.gz",
        "good_0001.nii.gz",
    ]


def test_labels_are_3d(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    two = np.stack([label(1), label(1)], axis=3)
    uri = make_store({"CT": {"a": image(0), "b": image(1)}, "seg": {"a": two, "b": label(1)}})
    for layout in ("nnunet", "decathlon"):
        report = rl.export(uri, tmp_path / layout, layout=layout)
        assert [(f.subject, f.reason) for f in report.failed] == [("a", "it is 4D with 2 volumes, and labels are 3D")]


def _saved(path: Path, array: Any) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def test_unnamed_classes_get_names_and_gaps_are_told(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    uri = make_store(
        {"CT": {"a": image(0), "b": image(1)}, "seg": {"a": label(1, 7), "b": label(4)}}, classes={"seg": {"liver": 1}}
    )
    report = rl.export(uri, tmp_path / "out", layout="nnunet")
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "liver": 1, "class_4": 4, "class_7": 7}
    assert any("without gaps from 0 on, and these are 0, 1, 4, 7" in note for note in report.notes)


def test_regions(make_store: Any, image: Any, label: Any, tmp_path: Path, back: Any) -> None:
    classes = {"seg": {"enhancing": 3, "core": [2, 3], "whole": [1, 2, 3]}}
    uri = make_store({"CT": {"a": image(0)}, "seg": {"a": label(1, 2, 3)}}, classes=classes)
    report = rl.export(uri, tmp_path / "out", layout="nnunet")
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert list(dataset["labels"].items()) == [
        ("background", 0),
        ("whole", [1, 2, 3]),
        ("core", [2, 3]),
        ("enhancing", 3),
    ]
    assert dataset["regions_class_order"] == [1, 2, 3]
    # What nnU-Net does with them gives the classes back.
    truth = label(1, 2, 3)
    written = np.zeros_like(truth)
    named = [value for name, value in dataset["labels"].items() if name != "background"]
    for value, region in zip(dataset["regions_class_order"], named, strict=True):
        written[np.isin(truth, region)] = value
    assert np.array_equal(written, truth)
    assert rl.open(back(report)).label.classes["core"] == (2, 3)


def test_regions_that_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="the region 'both' of classes 1, 2"):
        regions({"both": (1, 2), "a": (1,), "b": (2,)})
    assert regions({"b": (2,), "a": (1,)}) == ({"background": 0, "a": 1, "b": 2}, [])


def test_the_store_must_have_one_kind_of_labels(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    uri = make_store({"CT": {"a": image(0)}, "seg": {"a": label(1)}, "mask": {"a": label(1)}}, labels=["seg", "mask"])
    with pytest.raises(ConfigError, match=r"2 label collections \(mask, seg\); choose one with labels="):
        rl.export(uri, tmp_path / "out", layout="nnunet")
    assert rl.export(uri, tmp_path / "out", layout="nnunet", labels="mask").volumes == 2
    with pytest.raises(ConfigError, match=r"there are 0 label collections \(none\)"):
        rl.export(uri, tmp_path / "none", layout="nnunet", labels=[])
    with pytest.raises(ConfigError, match="needs an image collection"):
        rl.export(uri, tmp_path / "none", layout="nnunet", images=[], labels="seg")


def test_nothing_that_fits_is_an_error(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    uri = make_store({"CT": {"a": image(0)}, "MR": {"b": image(1)}, "seg": {"a": label(1)}})
    with pytest.raises(
        ExportError, match=r"nothing could be exported\n  failed 'a', collection 'MR': it has no volume"
    ):
        rl.export(uri, tmp_path / "out", layout="nnunet")
    assert not list(tmp_path.glob("*out*"))
