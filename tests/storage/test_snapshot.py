"""One consistent version: what a reader that was opened sees, whatever is committed later."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tiledb

import radioloader as rl
from radioloader.errors import KeyNotFoundError
from radioloader.storage.foreground import foreground_of, read_foreground
from radioloader.storage.snapshot import Snapshot


def test_the_catalog_says_what_the_files_say(cohort: Path, store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    assert snapshot.subject_ids == [f"sub-{n:02d}" for n in range(1, 5)]
    assert list(snapshot.collections) == ["T1w", "seg"]
    assert {name: info.kind for name, info in snapshot.collections.items()} == {"T1w": "image", "seg": "label"}
    assert snapshot.metadata_columns == ["age", "sex", "score"]
    for name, folder in (("T1w", "images"), ("seg", "labels")):
        index = snapshot.index(name)
        assert index.subject_ids.tolist() == snapshot.subject_ids
        assert index.obs_ids.tolist() == [f"{subject}_{name}" for subject in snapshot.subject_ids]
        for place, subject in enumerate(snapshot.subject_ids):
            image = nib.load(cohort / folder / f"{subject}_{name}.nii.gz")
            ref = index.ref(place)
            assert ref.shape == image.shape
            assert ref.dtype == image.get_data_dtype().name
            assert (ref.slope, ref.intercept) == (1.0, 0.0)
            assert (ref.obs_id, ref.obs_subject_id, ref.collection) == (f"{subject}_{name}", subject, name)
            assert Path(ref.uri).is_dir()
            assert Path(store_uri) in Path(ref.uri).parents
            np.testing.assert_array_equal(index.affines[place], image.affine)
            assert index.axcodes(place) == "".join(nib.aff2axcodes(image.affine))
            assert index.place(ref.obs_id) == place
            assert index.of_subject(subject) == [place]
    assert index.of_subject("nobody") == []


def test_statistics_of_the_catalog(cohort: Path, store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    voxels = np.asanyarray(nib.load(cohort / "images" / "sub-03_T1w.nii.gz").dataobj).astype(np.float64)
    place = snapshot.index("T1w").place("sub-03_T1w")
    found = {name: float(snapshot.detail("T1w", f"stat_{name}")[place]) for name in ("min", "max", "mean", "std")}
    assert (found["min"], found["max"]) == (voxels.min(), voxels.max())
    assert found["mean"] == pytest.approx(voxels.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(voxels.std(), rel=1e-9)


def test_the_foreground_index_lists_voxels_of_each_class(cohort: Path, store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    # In another order than the store's, and not all of them.
    subjects = snapshot.subject_ids[::-1][:3]
    found = read_foreground(snapshot.store, snapshot.index("seg"), [f"{subject}_seg" for subject in subjects])
    for volume, subject in enumerate(subjects):
        label = np.asanyarray(nib.load(cohort / "labels" / f"{subject}_seg.nii.gz").dataobj)
        classes = foreground_of(found, volume)
        assert sorted(classes) == [0, 1, 2]
        for value, (voxels, coordinates) in classes.items():
            assert voxels == (label == value).sum()
            assert len(coordinates) == min(voxels, 2048)
            assert len(np.unique(coordinates, axis=0)) == len(coordinates)
            assert (label[tuple(coordinates.T)] == value).all()


def test_unknown_names(store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    with pytest.raises(KeyNotFoundError, match=f"{store_uri} has no collection 'CT'; it has 'T1w', 'seg'"):
        snapshot.collection("CT")
    with pytest.raises(KeyNotFoundError, match="has no column 'weight'; it has 'age', 'sex', 'score'"):
        snapshot.metadata(["age", "weight"])
    with pytest.raises(KeyNotFoundError, match="collection 'T1w' has no volume 'nothing'"):
        snapshot.index("T1w").place("nothing")


def view(snapshot: Snapshot) -> dict[str, object]:
    """All that a snapshot shows."""
    return {
        "version": snapshot.commits.version,
        "subjects": snapshot.subject_ids,
        "collections": {name: snapshot.index(name).obs_ids.tolist() for name in snapshot.collections},
        "uris": {
            name: [snapshot.index(name).ref(i).uri for i in range(len(snapshot.index(name)))]
            for name in snapshot.collections
        },
        "metadata": {name: values.tolist() for name, values in snapshot.metadata().items()},
        "hashes": {name: snapshot.detail(name, "content_hash").tolist() for name in snapshot.collections},
    }


@pytest.mark.parametrize("asked_before", [True, False])
def test_later_commits_do_not_show(asked_before: bool, cohort: Path, tmp_path: Path) -> None:
    """New and changed volumes, new subjects, collections, columns and values, whether or not it had been asked before."""
    uri, files = tmp_path / "store", tmp_path / "files"
    shutil.copytree(cohort, files)
    frame = pd.DataFrame({"subject": ["sub-01", "sub-02"], "age": [30, 40]})
    first = {s: files / "images" / f"{s}_T1w.nii.gz" for s in ("sub-01", "sub-02")}
    assert rl.ingest(uri, {"T1w": first}, obs_meta=frame, workers=1).ok
    snapshot, witness = Snapshot.open(uri), view(Snapshot.open(uri))
    if asked_before:
        assert view(snapshot) == witness
    copy = pickle.loads(pickle.dumps(snapshot))

    shutil.copy(files / "images" / "sub-03_T1w.nii.gz", files / "images" / "sub-01_T1w.nii.gz")
    later = pd.DataFrame(
        {"subject": [f"sub-0{n}" for n in range(1, 5)], "age": [31, 41, 51, 61], "site": ["a", "b", None, "d"]}
    )
    report = rl.ingest(
        uri, {"T1w": files / "images", "other": files / "images"}, obs_meta=later, workers=1, allow_missing=True
    )
    assert report.ok
    assert view(snapshot) == witness
    assert view(copy) == witness
    new = view(Snapshot.open(uri))
    assert new["subjects"] == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert list(new["collections"]) == ["T1w", "other"]  # type: ignore[call-overload]
    assert new["metadata"] == {"age": [31, 41, 51, 61], "site": ["a", "b", None, "d"]}
    assert new["uris"]["T1w"][0] != witness["uris"]["T1w"][0]  # type: ignore[index]
    assert new["uris"]["T1w"][1] == witness["uris"]["T1w"][1]  # type: ignore[index]
    # the voxels that the old version names are still there
    old = snapshot.index("T1w").ref(0)
    truth = np.asanyarray(nib.load(cohort / "images" / "sub-01_T1w.nii.gz").dataobj)
    np.testing.assert_array_equal(rl.VolumeReader().read(old), truth)


def test_snapshots_pickle_as_uri_and_version(store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    witness = view(snapshot)
    small = pickle.dumps(snapshot)
    assert len(small) < 3000
    assert repr(view(pickle.loads(small))) == repr(witness)  # repr: a score is NaN


@pytest.mark.parametrize("tile", [{"extent": 7}, {"orientation": "coronal"}, {"custom": (5, 9, 64)}])
def test_tiles_are_those_of_the_arrays(cohort: Path, tmp_path: Path, tile: dict[str, Any]) -> None:
    for number, config in enumerate((tile, {"extent": 8})):  # two recipes in one collection
        rl.ingest(
            tmp_path / "store",
            {"T1w": [cohort / "images" / f"sub-0{n}_T1w.nii.gz" for n in (2 * number + 1, 2 * number + 2)]},
            subject_regex=r"sub-\d+",
            workers=1,
            config=rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(**config))),
        )
    snapshot = Snapshot.open(tmp_path / "store")
    index = snapshot.index("T1w")
    found = []
    for place in range(len(index)):
        with tiledb.open(index.ref(place).uri) as array:
            found.append([int(array.dim(axis).tile) for axis in range(3)])
    assert snapshot.tiles("T1w").tolist() == found
    assert len({tuple(tiles) for tiles in found}) > 1
