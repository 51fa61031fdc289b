"""iloc and loc of stores and collections, against pandas and plain lists; the subjects' table with every kind of gap."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import KeyNotFoundError

IDS = ["sub-01", "sub-02", "sub-03", "sub-04"]


@pytest.fixture(scope="module")
def store(store_uri: str) -> rl.RadiObject:
    return rl.open(store_uri)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    key=st.one_of(
        st.slices(4), st.integers(-6, 5), st.lists(st.integers(-4, 3)), st.lists(st.booleans(), min_size=4, max_size=4)
    )
)
def test_iloc_is_that_of_pandas(store: rl.RadiObject, key: Any) -> None:
    series = pd.Series(IDS)
    try:
        expected = series.iloc[key]
    except IndexError:
        for thing in (store, store.T1w):
            with pytest.raises(IndexError, match="is out of range, there are 4"):
                thing.iloc[key]
        return
    if isinstance(expected, str):
        assert store.iloc[key].obs_subject_ids == [expected]
        assert store.T1w.iloc[key].obs_subject_id == expected
    else:
        assert store.iloc[key].obs_subject_ids == expected.tolist()
        assert store.T1w.iloc[key].obs_subject_ids == expected.tolist()


ends = st.one_of(st.none(), st.sampled_from(IDS))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    key=st.one_of(st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, -1, -2])), st.lists(st.sampled_from(IDS)))
)
def test_loc_is_that_of_pandas(store: rl.RadiObject, key: Any) -> None:
    """Both ends of a slice are included, in either direction."""
    expected = pd.Series(IDS, index=IDS).loc[key].tolist()
    assert store.loc[key].obs_subject_ids == expected
    assert store.T1w.loc[key].obs_subject_ids == expected


@pytest.mark.parametrize("wrap", [np.array, torch.tensor, pd.Series, pd.array, list, tuple])
def test_masks_of_every_kind(store: rl.RadiObject, wrap: Callable[[list[bool]], Any]) -> None:
    mask = wrap([True, False, False, True])
    for thing in (store, store.T1w):
        assert thing.iloc[mask].obs_subject_ids == ["sub-01", "sub-04"]
        assert thing.loc[mask].obs_subject_ids == ["sub-01", "sub-04"]
    for wrong in ([True, False, True], [True] * 5):
        with pytest.raises(IndexError, match=rf"the mask has shape \({len(wrong)},\), expected \(4,\)"):
            store.iloc[wrap(wrong)]


def test_places_of_every_kind(store: rl.RadiObject) -> None:
    for key in (
        np.array([3, 0]),
        torch.tensor([3, 0]),
        pd.Series([3, 0]),
        (3, 0),
        [np.int64(3), np.uint8(0)],
        iter([3, 0]),
    ):
        assert store.iloc[key].obs_subject_ids == ["sub-04", "sub-01"]
    for one in (np.int64(2), torch.tensor(2)):
        assert store.iloc[one].obs_subject_ids == ["sub-03"]
    for wrong in (1.0, [0.5], None, "a", True):
        with pytest.raises(TypeError, match="iloc takes integers, slices, lists and boolean masks, got"):
            store.iloc[wrong]


def test_nothing_may_be_selected(store: rl.RadiObject) -> None:
    empty = store.iloc[[]]
    assert len(empty) == 0
    assert empty.obs_subject_ids == []
    assert len(empty.T1w) == 0
    assert empty.obs_meta.read().shape == (0, 4)
    assert list(empty.T1w) == []
    assert "0 subjects" in repr(empty)


def test_views_of_views(store: rl.RadiObject) -> None:
    view = store.loc[["sub-04", "sub-02", "sub-01"]]
    assert view.iloc[1:].obs_subject_ids == ["sub-02", "sub-01"]
    assert view.loc["sub-04":"sub-02"].obs_subject_ids == ["sub-04", "sub-02"], "places of this view, not of the store"
    assert view.seg.obs_ids == ["sub-04_seg", "sub-02_seg", "sub-01_seg"]
    assert view.obs_meta.read()["obs_subject_id"].tolist() == ["sub-04", "sub-02", "sub-01"]
    assert len(view.obs_meta) == 3
    assert "sub-03" not in view
    with pytest.raises(KeyNotFoundError, match="has no subject 'sub-03'"):
        view.loc["sub-03"]
    assert view.T1w.loc["sub-02_T1w"].obs_subject_id == "sub-02"
    with pytest.raises(KeyNotFoundError, match="collection 'T1w' has no volume or subject 'sub-03'"):
        view.T1w.loc["sub-03"]
    with pytest.raises(KeyNotFoundError, match=r"loc takes ids \(str\), got 1; use iloc for places"):
        view.loc[1]


def test_collections_iterate_and_tell_their_shapes(store: rl.RadiObject, cohort: Path) -> None:
    assert [volume.obs_subject_id for volume in store.T1w] == IDS
    assert store.T1w.shapes == [nib.load(cohort / "images" / f"{s}_T1w.nii.gz").shape for s in IDS]
    assert repr(store.T1w) == "VolumeCollection('T1w', 4 images, mixed shapes)"
    assert repr(store.seg.iloc[:1]) == "VolumeCollection('seg', 1 labels, 20x24x18)"
    assert repr(store.seg.iloc[0]) == "Volume('sub-01_seg', 20x24x18 uint8, 1x1.2x2 mm, RAS)"
    with pytest.raises(TypeError, match=r"takes the name of a collection, got 0; select subjects with iloc or loc"):
        store[0]  # type: ignore[index]
    assert not hasattr(store, "nothing")
    assert not hasattr(store, "_nothing")


def test_the_rows_of_a_collection(store: rl.RadiObject, cohort: Path) -> None:
    frame = store.T1w.iloc[[2, 0]].obs.read()
    assert frame["obs_subject_id"].tolist() == ["sub-03", "sub-01"]
    assert frame["source"].tolist() == [str(cohort / "images" / f"{s}_T1w.nii.gz") for s in ("sub-03", "sub-01")]
    assert frame[["nx", "ny", "nz", "nt"]].to_numpy().tolist() == [[22, 24, 18, 0], [20, 24, 18, 0]]
    assert not {"header", "uri"} & set(frame.columns)


def test_subjects_without_a_volume_in_a_collection(cohort: Path, tmp_path: Path) -> None:
    images = {s: cohort / "images" / f"{s}_T1w.nii.gz" for s in IDS}
    labels = {s: cohort / "labels" / f"{s}_seg.nii.gz" for s in IDS[1:3]}
    assert rl.ingest(tmp_path / "s", {"T1w": images, "seg": labels}, allow_missing=True, workers=1).ok
    store = rl.open(tmp_path / "s")
    assert (len(store), len(store.T1w), len(store.seg)) == (4, 4, 2)
    assert store.iloc[:2].seg.obs_subject_ids == ["sub-02"]
    assert store.loc["sub-04"].seg.obs_ids == []


def test_names_that_are_attributes_are_reached_by_index(cohort: Path, tmp_path: Path) -> None:
    assert rl.ingest(tmp_path / "s", {"uri": cohort / "images", "a b/../c": cohort / "images"}, workers=1).ok
    store = rl.open(tmp_path / "s")
    assert store.uri == str(tmp_path / "s")
    assert len(store["uri"]) == len(store["a b/../c"]) == 4
    assert not (tmp_path / "c").exists()


def test_gaps_of_every_kind_in_the_subjects_table(cohort: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "participant_id": IDS,
            "age": pd.array([20, None, 22, 23], dtype="Int64"),
            "visits": [1, 2, 3, 4],
            "score": [0.5, np.nan, 1.5, -0.0],
            "smoker": pd.array([True, None, False, True], dtype="boolean"),
            "enrolled": [True, False, True, True],
            "site": ["a", None, "", "ü 漢"],
            "when": pd.to_datetime(
                ["2020-02-29", None, "1969-07-20 20:17:40.123456789", "2021-01-01"], format="ISO8601"
            ),
            "empty": [None, None, None, None],
        }
    )
    assert rl.ingest(tmp_path / "s", {"T1w": cohort / "images"}, obs_meta=frame, workers=1).ok
    store = rl.open(tmp_path / "s")
    found = store.obs_meta.read()
    # a column without any value has no kind yet; it appears with its first value
    assert found.columns.tolist() == ["obs_subject_id", *frame.columns[1:-1]] == store.obs_meta.columns
    assert found["age"].dtype == "Int64"
    assert found["age"].isna().tolist() == [False, True, False, False]
    assert found["age"].dropna().tolist() == [20, 22, 23]
    assert (found["visits"].dtype, found["visits"].tolist()) == (np.int64, [1, 2, 3, 4])
    np.testing.assert_array_equal(found["score"], [0.5, np.nan, 1.5, -0.0])
    assert found["smoker"].dtype == "boolean"
    assert found["smoker"].isna().tolist() == [False, True, False, False]
    assert found["smoker"].dropna().tolist() == [True, False, True]
    assert (found["enrolled"].dtype, found["enrolled"].tolist()) == (np.bool_, [True, False, True, True])
    assert found["site"].isna().tolist() == [False, True, False, False]
    assert found["site"].dropna().tolist() == ["a", "", "ü 漢"]
    assert found["when"].isna().tolist() == [False, True, False, False]
    assert found["when"].dropna().tolist() == frame["when"].dropna().tolist()
    assert store.obs_meta.read(["when", "age"]).columns.tolist() == ["when", "age"]
    assert store.obs_meta.read(["age", "obs_subject_id"]).columns.tolist() == ["age", "obs_subject_id"], (
        "in the order asked"
    )
    assert store.iloc[[3, 1]].obs_meta.read(["visits"])["visits"].tolist() == [4, 2]
    whole = store.loc[found[(found["age"] > 20).fillna(False)]["obs_subject_id"]]
    assert whole.obs_subject_ids == ["sub-03", "sub-04"]


def test_reading_metadata_and_selecting_open_no_voxel_array(store_uri: str, tmp_path: Path) -> None:
    """Held to it by a store whose voxel arrays are gone: all but voxels works, and voxels say what is missing."""
    shutil.copytree(store_uri, tmp_path / "s")
    for volumes in (tmp_path / "s" / "c").glob("*/volumes"):
        shutil.rmtree(volumes)
    store = rl.open(tmp_path / "s")
    reader = store._reader
    assert repr(store)
    for collection in (store.T1w, store.iloc[1:].seg, store.loc[["sub-02"]].T1w):
        assert repr(collection)
        assert collection.shapes
        assert len(collection.obs.read()) == len(collection)
        for volume in collection:
            assert (volume.ndim, volume.dtype.kind in "iu", len(volume.spacing), volume.affine.shape) == (
                3,
                True,
                3,
                (4, 4),
            )
            assert volume[5:5].shape == (0, 24, 18), "nothing is read for an empty selection"
    assert store.obs_meta.read().shape == (4, 4)
    assert store.history()[0]["version"] == 1
    assert reader.open_arrays == 0
    volume = store.T1w.loc["sub-02"]
    for read, box in (
        (lambda: volume.to_numpy(), "[0:21, 0:24, 0:18]"),
        (lambda: volume[3, 4:6, -1], "[3:4, 4:6, 17:18]"),
        (lambda: volume.axial(2), "[0:21, 0:24, 2:3]"),
    ):
        with pytest.raises(rl.errors.ReadError) as caught:
            read()
        for part in ("subject 'sub-02'", "collection 'T1w'", volume.uri, box):
            assert part in str(caught.value)
