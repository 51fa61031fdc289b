"""nnU-Net's raw folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import ConfigError, ExportError
from radioloader.exporting.nnunet import regions

LABELS = {"background": 0, "core": 1, "rim": 2}


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def store(make_store: Any, image: Any, label: Any) -> str:
    """Two channels; c has no label, d is a test case with one, e lacks a channel. Do not change it."""
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
    report = rl.export(store, tmp_path / "out", layout="nnunet", names={"T1w": "T1"})
    channels = json.loads((tmp_path / "out" / "dataset.json").read_text())["channel_names"]
    assert channels == {"0": "FLAIR", "1": "T1"}
    note = "channels: 0000 FLAIR, 0001 T1 (sorted by name; --image in the order you want)"
    assert note in report.notes
    for images in (["T1w", "FLAIR"], "T1w"):
        notes = rl.export(store, tmp_path / f"given-{len(images)}", layout="nnunet", images=images).notes
        assert not [note for note in notes if note.startswith("channels")]


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


def test_regions_that_cannot_be_told_apart_are_left_out() -> None:
    assert regions({"b": (2,), "a": (1,)}) == ({"background": 0, "a": 1, "b": 2}, [], [])
    assert regions({"both": (1, 2), "a": (1,), "b": (2,)}) == (
        {"background": 0, "a": 1, "b": 2},
        [],
        [
            "'both' (1, 2) was left out: it is 'a' and 'b' together, and nnU-Net writes a class for each region that smaller ones lack",
        ],
    )
    labels, order, notes = regions({"a": (1, 2), "b": (2, 3)})
    assert (labels, order) == ({"background": 0, "a": [1, 2], "class_3": 3}, [1, 3])
    assert notes == [
        "'b' (2, 3) was left out: it overlaps 'a' (1, 2) in part, and nnU-Net would write the classes of one as the other's",
        "the classes 1, 2 are told apart by no name but that of their region 'a': predictions have 1 for all of them",
    ]
    # The name that a class would get is taken.
    assert regions({"a": (1, 2), "class_3": (2, 3)})[0] == {"background": 0, "a": [1, 2], "class_3_": 3}
    assert regions({"a": (1,), "same": (1,), "all": (0, 1, 2)}) == (
        {"background": 0, "a": 1, "class_2": 2},
        [],
        [
            "'same' (1) was left out: it is the same as 'a'",
            "'all' (0, 1, 2) was left out: it holds the background",
        ],
    )


def test_what_is_ignored_is_no_region() -> None:
    classes = {"whole": (1, 2), "core": (2,), "ignore": (3,)}
    # A place for each region, and none for what is ignored.
    assert regions(classes) == ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], [])
    assert regions({"whole": (1, 2, 3), "ignore": (3,)}) == (
        {"background": 0, "class_1": 1, "class_2": 2, "ignore": 3},
        [],
        ["'whole' (1, 2, 3) was left out: it holds the class 'ignore'"],
    )
    assert regions({"ignore": (1, 2)}) == (
        {"background": 0, "class_1": 1, "class_2": 2},
        [],
        ["'ignore' (1, 2) was left out: nnU-Net ignores one class"],
    )


@given(st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.integers(1, 5), min_size=1), min_size=1))
def test_predictions_give_each_class_back_but_those_that_are_told(classes: dict[str, frozenset[int]]) -> None:
    labels, order, notes = regions({name: tuple(sorted(values)) for name, values in classes.items()})
    named = {name: {value} if isinstance(value, int) else set(value) for name, value in labels.items() if value != 0}
    assert set().union(*named.values()) == set().union(*classes.values())
    for name in classes.keys() - named.keys():
        assert any(note.startswith(f"'{name}' (") and "was left out" in note for note in notes)
    places = order or [next(iter(values)) for values in named.values()]
    assert len(set(places)) == len(places) == len(named)
    for value in set().union(*named.values()):
        written = 0
        for place, values in zip(places, named.values(), strict=True):
            written = place if value in values else written
        told = [note for note in notes if f"predictions have {written} for" in note]
        assert written == value or any(str(value) in note for note in told)


def test_regions_never_fail_an_export(make_store: Any, image: Any, label: Any, tmp_path: Path) -> None:
    classes = {"seg": {"liver": 1, "tumour": 2, "both": [1, 2]}}
    uri = make_store({"CT": {"a": image(0)}, "seg": {"a": label(1, 2)}}, classes=classes)
    report = rl.export(uri, tmp_path / "out", layout="nnunet")
    assert report.ok
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert "regions_class_order" not in dataset
    assert any("'both' (1, 2) was left out: it is 'liver' and 'tumour' together" in note for note in report.notes)


@pytest.mark.parametrize(("ignored", "told"), [(1, True), (2, False)])
def test_the_ignored_class_is_to_be_the_highest(
    ignored: int, told: bool, make_store: Any, image: Any, label: Any, tmp_path: Path
) -> None:
    classes = {"seg": {"ignore": ignored, "liver": 3 - ignored}}
    uri = make_store({"CT": {"a": image(0)}, "seg": {"a": label(1, 2)}}, classes=classes)
    notes = rl.export(uri, tmp_path / "out", layout="nnunet").notes
    found = [note for note in notes if "wants the class 'ignore' to be the highest, and it is 1 where 2 is" in note]
    assert len(found) == told


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
