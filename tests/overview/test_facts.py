"""What the catalog says, compared with what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from radioloader.overview.facts import class_names, duplicates, missing, read_facts, without_volume
from radioloader.overview.survey import survey
from radioloader.storage.foreground import class_voxels, read_foreground
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from tests.overview.conftest import Made


def test_columns_are_those_of_the_volumes(clean: Made) -> None:
    facts = read_facts(Snapshot.open(clean.uri))
    assert list(facts) == ["T1w", "seg"]
    image = facts["T1w"]
    assert len(image) == 12
    assert image.index.shapes.tolist() == [[20, 24, 16, 0]] * 12
    assert image.spacings.tolist() == image.anatomical_spacings.tolist() == [[1, 1, 2]] * 12
    assert image.extents.tolist() == [[20, 24, 32]] * 12
    assert set(image.dtypes.tolist()) == {"int16"}
    for place, subject in enumerate(image.index.subject_ids.tolist()):
        array = clean.images[subject]
        assert (image.low[place], image.high[place]) == (array.min(), array.max())
        assert image.mean[place] == pytest.approx(array.mean())


def test_ml_of_classes_are_counts_times_the_voxel(clean: Made) -> None:
    facts = read_facts(Snapshot.open(clean.uri))["seg"]
    assert facts.class_values == [1, 2]
    assert class_names(facts) == {1: "1 (cortex)", 2: "2 (core)"}
    for value in (1, 2):
        for place, subject in enumerate(facts.index.subject_ids.tolist()):
            expected = np.count_nonzero(clean.labels[subject] == value) * 2.0 / 1000
            assert facts.class_ml(value)[place] == pytest.approx(expected)


def test_anatomical_axes_follow_the_orientation(make_store: object) -> None:
    volumes = {
        "a": (
            np.zeros((4, 5, 6), np.uint8) + 1,
            None,
            np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]]),
        )
    }
    facts = read_facts(Snapshot.open(make_store(volumes).uri))["T1w"]  # type: ignore[operator]
    assert facts.axcodes.tolist() == ["ASR"]
    assert facts.spacings.tolist() == [[1, 2, 3]]
    assert facts.anatomical_spacings.tolist() == [[3, 1, 2]]
    assert facts.extents.tolist() == [[18, 4, 10]]


def test_duplicates_and_what_is_missing(planted: Made) -> None:
    snapshot = Snapshot.open(planted.uri)
    facts = read_facts(snapshot)
    groups = [
        [(name, str(facts[name].index.subject_ids[place])) for name, place in group] for group in duplicates(facts)
    ]
    assert groups == [[("T1w", "s00"), ("T1w", "twin")], [("seg", "s00"), ("seg", "twin")]]
    lacking = without_volume(snapshot)
    assert lacking["T1w"] == []
    assert lacking["seg"] == ["unlabelled"]
    known = survey(snapshot)
    assert {name: int(gone.sum()) for name, gone in known.missing.items()} == {"age": 2, "note": 1}
    assert [problem.subject for problem in known.failed] == ["broken"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["a", None, ""], dtype=object), [False, True, True]),
        (np.array([1.0, np.nan]), [False, True]),
        (np.array(["2020-01-01", "NaT"], dtype="M8[ns]"), [False, True]),
        (np.array([0, 1]), [False, False]),
        (np.array([0, None, False], dtype=object), [False, True, False]),
    ],
)
def test_missing(values: object, expected: list[bool]) -> None:
    assert missing(values).tolist() == expected  # type: ignore[arg-type]


def test_no_voxel_is_read(planted: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(VolumeReader, "read", refuse)
    monkeypatch.setattr(VolumeReader, "read_many", refuse)
    assert survey(Snapshot.open(planted.uri)).outliers


def test_class_voxels_are_those_of_the_foreground_index(planted: Made) -> None:
    snapshot = Snapshot.open(planted.uri)
    index = snapshot.index("seg")
    places, classes, counted = class_voxels(snapshot.store, index)
    whole = read_foreground(snapshot.store, index, [str(obs_id) for obs_id in index.obs_ids])
    assert places.tolist() == np.repeat(np.arange(len(index)), np.diff(whole["foreground.first"])).tolist()
    assert classes.tolist() == whole["foreground.class"].tolist()
    assert counted.tolist() == whole["foreground.voxels"].tolist()
