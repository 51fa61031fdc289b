"""Which collections and subjects are measured, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from radioloader.bench.choose import choose
from radioloader.config import StorageConfig
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

IMAGE = np.arange(9 * 8 * 7, dtype=np.int16).reshape(9, 8, 7)
LABEL = np.ones((9, 8, 7), np.uint8)


def chosen(uri: str, **arguments: Any) -> Any:
    return choose(Snapshot.open(uri), **{"image": [], "label": None} | arguments)


def test_the_only_image_and_label_need_no_word(store_uri: str) -> None:
    choice = chosen(store_uri)
    assert (choice.image, choice.label, choice.notes) == (("T1w",), "seg", ())
    assert choice.subjects == choice.available == ("sub-01", "sub-02", "sub-03", "sub-04")
    assert chosen(store_uri, with_label=False).label is None


def test_of_several_the_first_that_most_subjects_have(several: str) -> None:
    choice = chosen(several)
    assert choice.image == ("B",)
    assert choice.label is None
    assert choice.subjects == ("p", "q", "r")
    assert choice.notes == (
        "'B' was chosen; --image NAME measures another one ('A', 'C'), or several as channels",
        "images alone were measured; --label NAME adds labels, one of 'organs', 'seg'",
    )


def test_what_is_named_is_taken(several: str) -> None:
    choice = chosen(several, image=["A", "C"], label="seg")
    assert (choice.image, choice.label, choice.subjects, choice.notes) == (("A", "C"), "seg", ("p", "q"), ())


def test_a_label_on_another_grid_is_left_out_unless_it_was_asked_for(make_store: Callable[..., str]) -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 3
    # Ingest holds a label to the grid of one of the images; here to that of the smaller collection.
    uri = make_store(
        {"A": {"p": IMAGE, "q": IMAGE}, "B": {"p": IMAGE}, "seg": {"p": LABEL}},
        labels=["seg"],
        affines={"B": shifted, "seg": shifted},
    )
    choice = chosen(uri)
    assert (choice.image, choice.label, choice.subjects) == (("A",), None, ("p", "q"))
    assert "are not on one grid" in choice.notes[-1] or "mm apart" in choice.notes[-1]
    assert chosen(uri, label="seg").label == "seg"  # the dataset says then what is wrong


def test_subjects_with_another_number_of_time_points_are_left_out(make_store: Callable[..., str]) -> None:
    series = np.repeat(IMAGE[..., None], 3, axis=3)
    choice = chosen(make_store({"fMRI": {"a": series, "b": series, "c": series[..., :2]}}))
    assert choice.subjects == ("a", "b")
    assert choice.notes == ("1 subjects are left out: they have another number of time points than most",)


def test_of_many_subjects_some_are_taken_others_each_time(make_store: Callable[..., str]) -> None:
    small = np.zeros((2, 2, 2), np.int16)
    uri = make_store({"A": {f"{number:02d}": small for number in range(20)}})
    first, second = chosen(uri, seed=1), chosen(uri, seed=2)
    assert len(first.subjects) == len(second.subjects) == 16
    assert list(first.subjects) == sorted(first.subjects)
    assert first.subjects != second.subjects
    assert first == chosen(uri, seed=1)
    assert len(first.available) == 20


def test_what_cannot_be_measured_is_explained(several: str, make_store: Callable[..., str], tmp_path: Any) -> None:
    with pytest.raises(KeyNotFoundError, match="has no collection 'X'; it has 'A', 'B'"):
        chosen(several, image=["X"])
    with pytest.raises(KeyNotFoundError, match="has no collection 'Y'"):
        chosen(several, label="Y")
    with pytest.raises(ConfigError, match="leave one of them out"):
        chosen(several, label="seg", with_label=False)
    with pytest.raises(ConfigError, match="'A' is named as an image and as the label; name two collections"):
        chosen(several, image=["A"], label="A")
    with pytest.raises(
        ConfigError, match=r"no image collection \(its label collections: 'seg'\); name .* with --image"
    ):
        chosen(make_store({"seg": {"a": LABEL}}, labels=["seg"]))
    apart = make_store({"A": {"a": IMAGE}, "B": {"b": IMAGE}})
    with pytest.raises(ConfigError, match=r"no subject of .* has a volume in each of 'A', 'B'"):
        chosen(apart, image=["A", "B"])
    Store.open_or_create(tmp_path / "empty", config=StorageConfig())
    with pytest.raises(ConfigError, match=r"there is no subject in .*; fill it with: radioloader ingest"):
        chosen(str(tmp_path / "empty"))
