"""RadiObject, VolumeCollection and Volume on a small store."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import KeyNotFoundError, ReadError, ShapeError

IDS = ["sub-01", "sub-02", "sub-03", "sub-04"]


@pytest.fixture(scope="module")
def store(store_uri: str) -> rl.RadiObject:
    return rl.open(store_uri)


def source(cohort: Path, subject: str, kind: str = "T1w") -> Any:
    return nib.load(cohort / {"T1w": "images", "seg": "labels"}[kind] / f"{subject}_{kind}.nii.gz")


def test_what_is_inside(store: rl.RadiObject) -> None:
    assert store.obs_subject_ids == IDS
    assert len(store) == 4
    assert store.collection_names == ["T1w", "seg"]
    assert (store.T1w.kind, store["seg"].kind) == ("image", "label")
    assert store.T1w.obs_ids == [f"{subject}_T1w" for subject in IDS]
    assert "sub-02" in store
    assert "sub-9" not in store
    assert "4 subjects" in repr(store)
    assert "T1w" in dir(store)


def test_metadata(store: rl.RadiObject) -> None:
    frame = store.obs_meta.read()
    assert frame.columns.tolist() == ["obs_subject_id", "age", "sex", "score"]
    assert frame.age.tolist() == [21, 22, 23, 24]
    assert frame.sex.tolist() == ["F", "M", "F", "M"]
    np.testing.assert_array_equal(frame.score, [0.25, np.nan, 0.75, 1.0])
    assert store.obs_meta.read(["sex"]).columns.tolist() == ["sex"]
    assert store.iloc[[2, 0]].obs_meta.read().age.tolist() == [23, 21]
    with pytest.raises(KeyNotFoundError, match="no column 'weight'; it has 'age', 'sex', 'score'"):
        store.obs_meta.read(["weight"])


def test_selecting_subjects(store: rl.RadiObject) -> None:
    assert store.iloc[1].obs_subject_ids == ["sub-02"]
    assert store.iloc[-1].obs_subject_ids == ["sub-04"]
    assert store.iloc[1:3].obs_subject_ids == ["sub-02", "sub-03"]
    assert store.iloc[[3, 0]].obs_subject_ids == ["sub-04", "sub-01"]
    assert store.loc["sub-03"].obs_subject_ids == ["sub-03"]
    assert store.loc[["sub-03", "sub-01"]].obs_subject_ids == ["sub-03", "sub-01"]
    assert store.loc["sub-02":"sub-03"].obs_subject_ids == ["sub-02", "sub-03"], "both ends, as in pandas"
    mask = store.obs_meta.read().age > 22
    assert store.iloc[mask.to_numpy()].obs_subject_ids == ["sub-03", "sub-04"]
    assert store.iloc[mask.tolist()].obs_subject_ids == ["sub-03", "sub-04"], "a list of bools is a mask"
    assert store.iloc[mask].T1w.obs_subject_ids == ["sub-03", "sub-04"]
    assert store.iloc[1:].iloc[1:].obs_subject_ids == ["sub-03", "sub-04"]


def test_what_does_not_exist(store: rl.RadiObject) -> None:
    with pytest.raises(KeyNotFoundError, match="no subject 'sub-9'"):
        store.loc["sub-9"]
    with pytest.raises(IndexError, match="place 4 is out of range, there are 4"):
        store.iloc[4]
    with pytest.raises(KeyNotFoundError, match="no collection 'T2w'; it has 'T1w', 'seg'"):
        store["T2w"]
    with pytest.raises(AttributeError, match="no collection 'T2w'"):
        store.T2w  # noqa: B018
    with pytest.raises(KeyNotFoundError, match="no volume or subject 'x'"):
        store.T1w.loc["x"]
    with pytest.raises(TypeError, match="use loc for ids"):
        store.iloc["sub-01"]
    with pytest.raises(TypeError, match="iloc takes integers"):
        store.iloc[True]
    with pytest.raises(IndexError, match="mask has shape"):
        store.iloc[np.array([True])]


@pytest.mark.parametrize("subject", IDS)
@pytest.mark.parametrize("kind", ["T1w", "seg"])
def test_volumes_are_those_of_the_files(store: rl.RadiObject, cohort: Path, subject: str, kind: str) -> None:
    volume, image = store[kind].loc[subject], source(cohort, subject, kind)
    assert volume.shape == image.shape
    assert volume.dtype == image.get_data_dtype()
    np.testing.assert_array_equal(volume.affine, image.affine)
    np.testing.assert_allclose(volume.spacing, image.header.get_zooms(), rtol=1e-5)
    np.testing.assert_array_equal(volume.to_numpy(), np.asanyarray(image.dataobj))
    assert volume.obs_id == f"{subject}_{kind}"
    assert store.loc[subject][kind].iloc[0].obs_subject_id == subject


indices = st.one_of(
    st.integers(-20, 19),
    st.slices(24),
    st.just(Ellipsis),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(index=st.one_of(indices, st.lists(indices, max_size=4).map(tuple)))
def test_indexing_is_numpys(store_uri: str, index: Any) -> None:
    volume = rl.open(store_uri).T1w.iloc[0]
    array = volume.to_numpy()
    try:
        expected = array[index]
    except IndexError:
        with pytest.raises(IndexError):
            volume[index]
        return
    found = volume[index]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_indices_that_numpy_has_and_a_volume_has_not(store: rl.RadiObject) -> None:
    for index in ([1, 2], np.array([1, 2]), "x", None, True):
        with pytest.raises(TypeError, match="a volume takes integers, slices"):
            store.T1w.iloc[0][index]


@pytest.mark.parametrize("orientation", [None, "PIR", "LPS"])
def test_anatomical_slices(cohort: Path, tmp_path: Path, orientation: str | None) -> None:
    rl.ingest(tmp_path / "s", {"T1w": cohort / "images"}, orientation=orientation, workers=1)
    volume = rl.open(tmp_path / "s").T1w.iloc[1]
    array = volume.to_numpy()
    for plane, codes in {"axial": "IS", "coronal": "PA", "sagittal": "LR"}.items():
        axis = next(a for a, code in enumerate(volume.axcodes) if code in codes)
        np.testing.assert_array_equal(getattr(volume, plane)(3), array.take(3, axis))
        np.testing.assert_array_equal(getattr(volume, plane)(-1), array.take(-1, axis))
        with pytest.raises(IndexError, match=f"{plane} slice 99 is outside the {array.shape[axis]} slices"):
            getattr(volume, plane)(99)


@pytest.mark.parametrize("orientation", [None, "RAS", "PIR"])
def test_exports_give_the_file_back(cohort: Path, tmp_path: Path, orientation: str | None) -> None:
    rl.ingest(tmp_path / "s", {"T1w": cohort / "images"}, orientation=orientation, workers=1)
    for volume in rl.open(tmp_path / "s").T1w:
        image = source(cohort, volume.obs_subject_id)
        volume.to_nifti(tmp_path / "out.nii.gz")
        out = nib.load(tmp_path / "out.nii.gz")
        assert out.get_data_dtype() == image.get_data_dtype()
        np.testing.assert_array_equal(np.asanyarray(out.dataobj), np.asanyarray(image.dataobj))
        np.testing.assert_array_equal(out.affine, image.affine)
        volume.save_on_source_grid(volume.to_numpy() > 0, tmp_path / "mask.nii.gz")
        mask = nib.load(tmp_path / "mask.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), np.asanyarray(image.dataobj) > 0)
        np.testing.assert_array_equal(mask.affine, image.affine)


def test_arrays_that_are_not_on_the_grid_are_refused(store: rl.RadiObject, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"shape \(3, 3, 3\).*sub-01.*grid \(20, 24, 18\)"):
        store.T1w.iloc[0].save_on_source_grid(np.zeros((3, 3, 3)), tmp_path / "x.nii.gz")
    with pytest.raises(ShapeError, match="dtype object"):
        store.T1w.iloc[0].save_on_source_grid(np.zeros((20, 24, 18), object), tmp_path / "x.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_opened_before_a_voxel_is_asked_for(store_uri: str, tmp_path: Path) -> None:
    shutil.copytree(store_uri, tmp_path / "s")
    for volumes in (tmp_path / "s" / "c").glob("*/volumes"):
        shutil.rmtree(volumes)
    store = rl.open(tmp_path / "s")
    volume = store.iloc[1:].loc["sub-03"].T1w.iloc[0]
    assert volume.shape == (22, 24, 18)
    assert volume.axcodes == "RAS"
    assert len(store.obs_meta.read()) == 4
    assert store.T1w.obs.read().stat_max.max() == 999
    with pytest.raises(ReadError) as caught:
        volume[0:2, 0:3, 0:4]
    for part in ("sub-03", "T1w", volume.uri, "[0:2, 0:3, 0:4]"):
        assert part in str(caught.value)


def test_a_reader_keeps_the_version_it_opened(cohort: Path, tmp_path: Path) -> None:
    images = sorted((cohort / "images").iterdir())
    rl.ingest(tmp_path / "s", {"T1w": images[:2]}, workers=1)
    before = rl.open(tmp_path / "s")
    rl.ingest(
        tmp_path / "s",
        {"T1w": images},
        obs_meta=pd.DataFrame({"subject": IDS, "age": [1, 2, 3, 4]}),
        workers=1,
    )
    after = rl.open(tmp_path / "s")
    assert (before.version, after.version) == (1, 2)
    assert before.obs_subject_ids == ["sub-01", "sub-02"]
    assert before.T1w.obs_subject_ids == ["sub-01", "sub-02"]
    assert before.obs_meta.columns == ["obs_subject_id"]
    assert after.obs_subject_ids == IDS
    assert after.obs_meta.columns == ["obs_subject_id", "age"]
    assert [entry["version"] for entry in after.history()] == [1, 2]


def test_pickles_are_small_and_show_the_same(store: rl.RadiObject) -> None:
    for thing in (store, store.iloc[1:3], store.T1w, store.T1w.iloc[1]):
        data = pickle.dumps(thing)
        assert len(data) < 3000
        again = pickle.loads(data)
        assert repr(again) == repr(thing)
    view = pickle.loads(pickle.dumps(store.iloc[1:3]))
    np.testing.assert_array_equal(view.T1w.iloc[0].to_numpy(), store.T1w.loc["sub-02"].to_numpy())


def test_an_id_with_two_meanings_is_refused(cohort: Path, tmp_path: Path) -> None:
    images = sorted((cohort / "images").iterdir())
    rl.ingest(tmp_path / "s", {"T1w": {"a": images[0], "a_T1w": images[1]}}, workers=1)
    collection = rl.open(tmp_path / "s").T1w
    assert collection.loc["a"].obs_subject_id == "a"
    assert collection.loc["a_T1w_T1w"].obs_subject_id == "a_T1w"
    with pytest.raises(KeyNotFoundError, match="another subject's volume"):
        collection.loc["a_T1w"]


def test_closing(store_uri: str) -> None:
    with rl.open(store_uri) as store:
        expected = store.T1w.iloc[0][0]
    np.testing.assert_array_equal(store.T1w.iloc[0][0], expected, err_msg="it opens again when it is used again")
