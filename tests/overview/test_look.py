"""Which values are black and white, which label is drawn, and which labels belong to an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.overview.facts import read_facts
from radioloader.overview.look import Viewer, window_of
from radioloader.overview.measure import Measured
from radioloader.overview.pairing import Entry, evenly, pair
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from tests.overview.conftest import Made, voxels

MEASURED = Measured((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), np.zeros(0, np.float32), 100)


@pytest.mark.parametrize(
    ("name", "modality", "low", "expected"),
    [
        ("T1w", None, 0.0, (1.0, 7.0)),
        ("T1w", None, -600.0, (-160.0, 240.0)),
        ("CT", None, 0.0, (-160.0, 240.0)),
        ("thin_ct.1", None, 0.0, (-160.0, 240.0)),
        ("direct", None, 0.0, (1.0, 7.0)),
        ("scan", "CT", 0.0, (-160.0, 240.0)),
        ("CT", "MR", -600.0, (1.0, 7.0)),
    ],
)
def test_window(clean: Made, name: str, modality: str | None, low: float, expected: tuple[float, float]) -> None:
    facts = read_facts(Snapshot.open(clean.uri))["T1w"]
    facts.index.info = replace(facts.info, name=name)
    facts = replace(facts, modality=np.array([modality] * 12, dtype=object), low=np.full(12, low))
    assert window_of(facts, 0, MEASURED) == expected


def test_window_of_values_that_are_alike(clean: Made) -> None:
    facts = read_facts(Snapshot.open(clean.uri))["T1w"]
    flat = replace(MEASURED, percentiles=(3.0,) * 7)
    assert window_of(replace(facts, low=np.zeros(12), high=np.full(12, 9.0)), 0, flat) == (0, 9)
    assert window_of(replace(facts, low=np.full(12, 3.0), high=np.full(12, 3.0)), 0, flat) == (2, 4)
    assert window_of(facts, 0, replace(MEASURED, percentiles=())) == (0, 1)


def test_labels_of_an_image_lie_on_its_grid(write_image: Any, tmp_path: Any) -> None:
    image, label = voxels(1)
    moved = np.diag([1.0, 1, 1, 1])
    moved[0, 3] = 0.5
    files = {
        name: {"a": write_image(tmp_path / f"{name}.nii.gz", array, affine)}
        for name, array, affine in (
            ("T1w", image, np.eye(4)),
            ("T2w", image, moved),
            ("empty", np.zeros_like(label), np.eye(4)),
            ("seg", label, np.eye(4)),
            ("small", label[:9, :9, :9], np.eye(4)),
        )
    }
    for names in (["T1w", "empty", "seg"], ["T2w"]):
        labels = [name for name in names if not name.startswith("T")]
        done = rl.ingest(tmp_path / "store", {n: files[n] for n in names}, labels=labels, workers=1, allow_missing=True)
        assert done.ok, str(done)
    small = {"small": {"b": files["small"]["a"]}}
    assert rl.ingest(tmp_path / "store", small, labels=["small"], workers=1, allow_missing=True).ok
    snapshot = Snapshot.open(tmp_path / "store")
    cohort = read_facts(snapshot)
    entries = pair(cohort)
    assert entries == [
        Entry("a", ("T1w", 0), (("empty", 0), ("seg", 0))),
        Entry("a", ("T2w", 0), ()),
        Entry("b", None, (("small", 0),)),
    ]
    with VolumeReader() as reader:
        viewer = Viewer(snapshot, cohort, reader)
        assert [viewer.shown_label(entry) for entry in entries] == [("seg", 0), None, ("small", 0)]


def test_evenly() -> None:
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(100, 3) == [0, 50, 99]
    assert evenly(100, 1) == [0]
    assert evenly(100, 0) == evenly(0, 5) == []
