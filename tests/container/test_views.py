"""Selections: of subjects, of collections, of volumes, and what they show of themselves."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError

IDS = ["sub-01", "sub-02", "sub-03", "sub-04"]


@pytest.fixture(scope="module")
def store(store_uri: str) -> rl.RadiObject:
    return rl.open(store_uri)


def ids(store: rl.RadiObject) -> list[str]:
    """The last two digits of each subject; all parts of a selection must agree on them."""
    subjects = store.obs_subject_ids
    assert len(store) == len(subjects)
    assert list(store) == subjects
    assert store.obs_meta.read(["obs_subject_id"]).obs_subject_id.tolist() == subjects
    assert all(subject in store for subject in subjects)
    assert store["T1w"].obs_subject_ids == subjects
    assert [volume.obs_subject_id for volume in store["T1w"]] == subjects
    return [subject[-2:] for subject in subjects]


def test_head_tail_sample(store: rl.RadiObject) -> None:
    assert ids(store.head(2)) == ["01", "02"]
    assert ids(store.tail(3)) == ["02", "03", "04"]
    assert ids(store.head()) == ids(store.tail()) == ids(store.sample()) == ["01", "02", "03", "04"]
    assert ids(store.head(0)) == ids(store.tail(0)) == ids(store.sample(0)) == []
    assert ids(store.iloc[[3, 1]].head(1)) == ["04"]
    assert ids(store.sample(2, seed=3)) == ids(store.sample(2, seed=3))
    assert {tuple(ids(store.sample(2, seed=seed))) for seed in range(40)} == {
        (IDS[a][-2:], IDS[b][-2:]) for a in range(4) for b in range(a + 1, 4)
    }
    with pytest.raises(ConfigError, match="seed='x' must be a whole number of at least 0"):
        store.sample(2, seed="x")  # type: ignore[arg-type]
    for method in (store.head, store.tail, store.sample, store.T1w.head, store.T1w.tail, store.T1w.sample):
        with pytest.raises(ConfigError, match="n=-1 must be a whole number of at least 0"):
            method(-1)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("age > 22", ["03", "04"]),
        ("age > 21 and sex == 'M'", ["02", "04"]),
        ("score < 1 or sex == 'M'", ["01", "02", "03", "04"]),
        ("score is None", ["02"]),
        ("not score < 1", ["04"]),
        ("obs_subject_id in ['sub-03', 'sub-01']", ["01", "03"]),
        ("age > 100", []),
    ],
)
def test_filter(store: rl.RadiObject, expression: str, expected: list[str]) -> None:
    assert ids(store.filter(expression)) == expected
    assert ids(store.iloc[::-1].filter(expression)) == expected[::-1]
    assert ids(store.filter(expression).filter("age >= 0")) == expected


def test_filter_names_what_is_wrong(store: rl.RadiObject) -> None:
    with pytest.raises(
        KeyNotFoundError, match=r"obs_meta of .* has no column 'weight'; it has 'obs_subject_id', 'age', 'sex', 'score'"
    ):
        store.filter("weight > 3")
    with pytest.raises(ConfigError, match="column 'sex' holds text, which are compared with 1"):
        store.filter("sex == 1")
    with pytest.raises(KeyNotFoundError, match=r"obs of collection 'T1w' of .* has no column 'age'"):
        store.T1w.filter("age > 3")


def test_a_mask_selects_as_well(store: rl.RadiObject) -> None:
    frame = store.obs_meta.read()
    assert ids(store.loc[frame.age * 2 > 45]) == ids(store.iloc[(frame.age * 2 > 45).to_numpy()]) == ["03", "04"]


def test_some_collections(store: rl.RadiObject) -> None:
    images = store.select_collections(["T1w"]).iloc[1:]
    assert images.collection_names == list(images.collections) == ["T1w"]
    assert images.T1w.obs_subject_ids == IDS[1:]
    assert store.select_collections("seg").collection_names == ["seg"]
    assert store.select_collections(["seg", "T1w", "seg"]).collection_names == ["seg", "T1w"]
    with pytest.raises(KeyNotFoundError, match="collection 'seg' is not among those selected: T1w"):
        images["seg"]
    assert not hasattr(images, "seg")
    with pytest.raises(KeyNotFoundError, match=r"has no collection 'seg'; it has 'T1w'"):
        images.select_collections(["seg"])
    assert (store.is_view, images.is_view, store.iloc[:].is_view) == (False, True, True)


def test_subjects_of_a_selection(store: rl.RadiObject) -> None:
    view = store.iloc[[2, 0]]
    assert "sub-02" not in view
    assert 3 not in view
    assert ids(view.loc["sub-01"]) == ["01"]
    assert ids(view.loc["sub-03":"sub-01"]) == ["03", "01"]
    with pytest.raises(KeyNotFoundError, match=r"the selection from .* has no subject 'sub-02'"):
        view.loc["sub-02"]
    assert ids(store.iloc[[1, 1]]) == ["02", "02"]


def test_selections_of_volumes(store: rl.RadiObject) -> None:
    images = store.T1w
    assert images.head(2).obs_ids == ["sub-01_T1w", "sub-02_T1w"]
    assert images.tail(1).obs_ids == ["sub-04_T1w"]
    assert images.sample(3, seed=1).obs_ids == images.sample(3, seed=1).obs_ids
    assert images.filter("nx > 21 and stat_max < 1000").obs_ids == ["sub-03_T1w", "sub-04_T1w"]
    assert images.iloc[::-1].filter("nx > 21").obs_ids == ["sub-04_T1w", "sub-03_T1w"]
    assert images.sel(subject="sub-02").obs_ids == ["sub-02_T1w"]
    assert images.sel(subject=["sub-04", "sub-02"]).obs_ids == ["sub-02_T1w", "sub-04_T1w"]
    assert images.sel(obs_id="sub-03_T1w").obs_ids == ["sub-03_T1w"]
    assert images.sel(subject=["sub-01", "sub-02"], obs_id=["sub-02_T1w", "sub-03_T1w"]).obs_ids == ["sub-02_T1w"]
    assert images.sel().obs_ids == images.obs_ids
    with pytest.raises(KeyNotFoundError, match="collection 'T1w' has no subject 'sub-9'"):
        images.sel(subject=["sub-01", "sub-9"])
    with pytest.raises(KeyNotFoundError, match="collection 'T1w' has no volume 'sub-01_T1w'"):
        images.tail(2).sel(obs_id="sub-01_T1w")
    with pytest.raises(KeyNotFoundError, match="has no volume or subject 'sub-01'"):
        images.tail(2).loc["sub-01"]
    assert images.tail(2).loc["sub-04_T1w"].obs_id == images.tail(2).loc["sub-04"].obs_id == "sub-04_T1w"


def test_shapes_of_a_collection(store: rl.RadiObject) -> None:
    assert (store.T1w.shape, store.T1w.is_uniform) == (None, False)
    assert store.T1w.shapes == [(20 + n, 24, 18) for n in range(4)]
    assert (store.T1w.iloc[1:2].shape, store.T1w.iloc[1:2].is_uniform) == ((21, 24, 18), True)
    assert (store.T1w.head(0).shape, store.T1w.head(0).shapes) == (None, [])


def test_volumes_by_subject(store: rl.RadiObject) -> None:
    groups = dict(store.seg.iloc[[3, 0, 3]].groupby_subject())
    assert list(groups) == ["sub-04", "sub-01"]
    assert groups["sub-04"].obs_ids == ["sub-04_seg", "sub-04_seg"]
    assert store.seg.iloc[[3, 0, 3]].subjects == ["sub-04", "sub-01"]


def test_tables_by_columns_and_rows(store: rl.RadiObject) -> None:
    view = store.iloc[[3, 0, 2]]
    frame = view.obs_meta.read(["sex", "age"], rows=slice(1, 3))
    assert frame.to_dict("list") == {"sex": ["F", "F"], "age": [21, 23]}
    assert frame.index.tolist() == [0, 1]
    obs = view.T1w.obs.read(["obs_id", "nx"], rows=slice(None, 2))
    assert obs.to_dict("list") == {"obs_id": ["sub-04_T1w", "sub-01_T1w"], "nx": [23, 20]}
    assert view.T1w.obs.columns[:2] == ["obs_id", "obs_subject_id"]
    assert view.T1w.obs.read().columns.tolist() == view.T1w.obs.columns
    joined = view.obs_meta.read().merge(view.T1w.obs.read(["obs_subject_id", "nx"]), on="obs_subject_id")
    assert joined[["age", "nx"]].to_numpy().tolist() == [[24, 23], [21, 20], [23, 22]]
    assert len(store.head(0).obs_meta.read()) == len(store.T1w.head(0).obs.read()) == 0
    assert repr(view.obs_meta).startswith("ObsMeta(3 subjects; obs_subject_id, age, sex, score)")
    assert repr(view.T1w.obs).startswith("Obs(3 volumes of 'T1w'; obs_id, obs_subject_id, ")
    for table in (view.obs_meta, view.T1w.obs):
        with pytest.raises(KeyNotFoundError, match="has no column 'weight'; it has "):
            table.read(["weight"])
        with pytest.raises(ConfigError, match="columns='nx' is one name; give a list"):
            table.read("nx")
        with pytest.raises(ConfigError, match="rows=3 is a int; give a slice"):
            table.read(rows=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "select",
    [
        lambda store: store.filter("age > 22"),
        lambda store: store.select_collections("T1w").iloc[[2, 1]],
        lambda store: store.head(0),
    ],
)
def test_selections_pickle(store: rl.RadiObject, select: Callable[[Any], Any]) -> None:
    view = select(store)
    data = pickle.dumps(view)
    assert len(data) < 3000
    again = pickle.loads(data)
    assert ids(again) == ids(view)
    assert again.collection_names == view.collection_names
    assert repr(again) == repr(view)
    for one, other in zip(again.T1w, view.T1w, strict=True):
        np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())


def test_what_is_shown(store: rl.RadiObject) -> None:
    assert store.describe().splitlines() == [
        f"RadiObject {store.uri}, version 1",
        "4 subjects; columns: age, sex, score",
        "  collection  kind   volumes  dtype  shape                 spacing (mm)  axes",
        "  T1w         image  4        int16  20x24x18 to 23x24x18  1x1.2x2       RAS",
        "  seg         label  4        uint8  20x24x18 to 23x24x18  1x1.2x2       RAS",
    ]
    assert store.iloc[2].select_collections("seg").describe().splitlines()[1:] == [
        "1 of 4 subjects; columns: age, sex, score",
        "  collection  kind   volumes  dtype  shape     spacing (mm)  axes",
        "  seg         label  1        uint8  22x24x18  1x1.2x2       RAS",
    ]
    assert repr(store.T1w) == "VolumeCollection('T1w', 4 images, mixed shapes)"
    assert repr(store.seg.head(1)) == "VolumeCollection('seg', 1 labels, 20x24x18)"
    assert repr(store.seg.head(0)) == "VolumeCollection('seg', 0 labels, none)"


def test_what_a_notebook_shows(store: rl.RadiObject) -> None:
    page = store._repr_html_()
    assert "<td>T1w</td><td>image</td><td>4</td><td>int16</td><td>20x24x18 to 23x24x18</td>" in page
    assert page.count("<tr>") == 3
    page = store.T1w.head(2)._repr_html_()
    assert page.count("<tr>") == 3
    assert "<td>sub-02_T1w</td><td>sub-02</td><td>int16</td><td>21x24x18</td>" in page
