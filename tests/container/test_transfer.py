"""Stores made of others: materialize, append, replace, from_volume_collections."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.ndimage

import radioloader as rl
from radioloader.container import moving
from radioloader.errors import CatalogError, ConfigError, StoreWriteError
from radioloader.geometry import axcodes
from radioloader.ingestion.statistics import foreground
from radioloader.storage.catalog import occupied_slices
from tests.container.content import content


@pytest.fixture(scope="module")
def store(store_uri: str) -> rl.RadiObject:
    """Four subjects, T1w and seg, with age, sex and score."""
    return rl.open(store_uri)


def details(store: rl.RadiObject, name: str, *leave: str) -> list[dict[str, Any]]:
    """The rows of a collection but for where arrays lie."""
    columns = [c for c in store.snapshot.detail_columns(name) if c not in ("uri", *leave)]
    found = store.snapshot.details(name, columns)
    return [{c: found[c][place] for c in columns} for place in store[name].places]


def coordinates(store: rl.RadiObject, name: str) -> Any:
    table = store.snapshot.store.table("c", store.snapshot.collection(name).id, "foreground")
    rows = table.read()
    return sorted(
        zip(rows["obs_id"], rows["class"].tolist(), rows["voxels"].tolist(), rows["coordinates"], strict=True)
    )


def test_a_copy_is_the_same_in_all(store: rl.RadiObject, tmp_path: Path) -> None:
    report = store.materialize(tmp_path / "copy", workers=1)
    copy = rl.open(tmp_path / "copy")
    assert (report.subjects, report.volumes, report.skipped, report.failed, report.version) == (4, 8, 0, {}, 1)
    assert content(copy) == content(store)
    for name in store.collections:
        assert details(copy, name) == details(store, name)
        assert copy[name].info.recipe == store[name].info.recipe
        assert copy[name].kind == store[name].kind
    assert coordinates(copy, "seg") == coordinates(store, "seg")
    assert copy.history()[0]["message"] == "materialized 8 volumes of 4 subjects"
    again = store.materialize(tmp_path / "copy", workers=1)
    assert (again.subjects, again.volumes, again.skipped, again.version) == (0, 0, 4, 1)
    assert str(again).startswith("0 volumes of 0 subjects written, 4 subjects skipped (there already), 0 failed in ")


def test_a_selection(store: rl.RadiObject, tmp_path: Path) -> None:
    view = store.filter("sex == 'M'").select_collections("seg")
    view.materialize(tmp_path / "men", message="men only", workers=2)
    made = rl.open(tmp_path / "men")
    assert content(made) == content(view)
    assert (made.obs_subject_ids, made.collection_names) == (["sub-02", "sub-04"], ["seg"])
    assert made.history()[0]["message"] == "men only"


def test_other_tiles_and_filters(store: rl.RadiObject, tmp_path: Path) -> None:
    write = rl.WriteConfig(
        tile=rl.TileConfig(orientation="axial"), compression=rl.CompressionConfig(codec="lz4", checksum=True)
    )
    store.materialize(tmp_path / "axial", write=write, workers=1)
    made = rl.open(tmp_path / "axial")
    assert content(made) == content(store)
    assert [volume.tile for volume in made.T1w] == [(20 + n, 24, 1) for n in range(4)]
    for name in store.collections:
        assert details(made, name, "recipe") == details(store, name, "recipe")
    assert coordinates(made, "seg") == coordinates(store, "seg")
    assert store.materialize(tmp_path / "axial", write=write, workers=1).skipped == 4


def test_a_crop(store: rl.RadiObject, tmp_path: Path) -> None:
    store.materialize(tmp_path / "crop", crop=((2, 14), (-5, 12), (3, 99)), workers=1)
    made = rl.open(tmp_path / "crop")
    for name in store.collections:
        for old, new, row in zip(store[name], made[name], details(made, name), strict=True):
            expected = old.to_numpy()[2:14, 0:12, 3:]
            np.testing.assert_array_equal(new.to_numpy(), expected, strict=True)
            np.testing.assert_allclose(new.affine @ [0, 0, 0, 1], old.affine @ [2, 0, 3, 1])
            np.testing.assert_array_equal(new.affine[:3, :3], old.affine[:3, :3])
            assert (new.statistics["min"], new.statistics["max"]) == (expected.min(), expected.max())
            empty = 0 if name == "seg" else expected.min()
            mask = occupied_slices(row["occupied"], new.shape, 0)
            np.testing.assert_array_equal(mask, (expected != empty).any(axis=(1, 2)))
    index = {(obs_id, class_): voxels for obs_id, class_, voxels, _ in coordinates(made, "seg")}
    for volume in made.seg:
        for row in foreground(volume.to_numpy(), b"0" * 32):
            assert index[volume.obs_id, row["class"]] == row["voxels"]
    assert store.materialize(tmp_path / "crop", crop=((2, 14), (-5, 12), (3, 99)), workers=1).skipped == 4
    with pytest.raises(ConfigError, match="has something else already: volume 'sub-01_T1w' of collection 'T1w'"):
        store.materialize(tmp_path / "crop", workers=1)


def test_what_was_cropped_and_turned_is_exported_on_the_files_grid(
    store: rl.RadiObject, cohort: Path, tmp_path: Path
) -> None:
    store.materialize(tmp_path / "s", crop=((2, 14), (3, 12), (3, 9)), orientation="PIR", workers=1)
    for volume in rl.open(tmp_path / "s").T1w:
        assert (volume.axcodes, volume.shape) == ("PIR", (9, 6, 12))
        assert axcodes(volume.affine) == "PIR"
        volume.to_nifti(tmp_path / "out.nii")
        image, source = nib.load(tmp_path / "out.nii"), nib.load(cohort / "images" / f"{volume.obs_id}.nii.gz")
        np.testing.assert_array_equal(image.affine, source.affine)
        expected = np.zeros(source.shape, np.int16)
        expected[2:14, 3:12, 3:9] = np.asarray(source.dataobj)[2:14, 3:12, 3:9]
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


@pytest.mark.parametrize("spacing", [2.0, (0.7, 2.4, 3.1), (1.0, 1.2, 2.0), 50.0])
def test_another_spacing(store: rl.RadiObject, tmp_path: Path, spacing: Any) -> None:
    view = store.iloc[:2]
    view.materialize(tmp_path / "s", spacing=spacing, workers=1)
    made = rl.open(tmp_path / "s")
    wanted = np.broadcast_to(spacing, 3)
    for name in ("T1w", "seg"):
        for old, new in zip(view[name], made[name], strict=True):
            np.testing.assert_allclose(new.spacing, wanted, rtol=1e-6)
            extents = np.array(old.shape) * old.spacing
            assert new.shape == tuple(np.ceil(extents / wanted - 1e-3).astype(int))
            middle = [(np.array(v.affine) @ [*((np.array(v.shape) - 1) / 2), 1])[:3] for v in (old, new)]
            np.testing.assert_allclose(middle[0], middle[1], atol=1e-9)
            places = np.stack(np.meshgrid(*map(np.arange, new.shape), indexing="ij")).reshape(3, -1)
            at = (np.linalg.inv(old.affine) @ new.affine @ np.vstack([places, np.ones(places.shape[1])]))[:3]
            values = old.to_numpy().astype(np.float64)
            expected = scipy.ndimage.map_coordinates(values, at, order=1 if name == "T1w" else 0, mode="nearest")
            if name == "T1w":
                np.testing.assert_allclose(new.to_numpy().reshape(-1), expected, atol=0.501)
            else:
                # Where a centre lies half-way between two voxels, either is the nearest.
                assert (new.to_numpy().reshape(-1) == expected).mean() > 0.9
                assert set(np.unique(new.to_numpy())) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": (1, 2, 3)}, r"crop=\(1, 2, 3\) must be a Box, or first voxel and end"),
        ({"spacing": 0}, "spacing=0 must be a number of mm"),
        ({"spacing": (1, 2)}, r"spacing=\(1, 2\) must be a number of mm"),
        ({"spacing": "fine"}, "spacing='fine' must be"),
        ({"orientation": "RAX"}, "orientation='RAX' is not three axis codes"),
        ({"workers": 0}, "workers=0 must be a whole number of at least 1"),
    ],
)
def test_refusals(store: rl.RadiObject, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.materialize(tmp_path / "s", **arguments)
    with pytest.raises(ConfigError, match="cannot be written into itself; give another place"):
        store.materialize(store.uri)


def test_a_volume_that_cannot_be_read_costs_its_subject(store: rl.RadiObject, tmp_path: Path) -> None:
    shutil.copytree(store.uri, tmp_path / "broken")
    broken = rl.open(tmp_path / "broken")
    shutil.rmtree(broken.seg.loc["sub-02"].uri)
    report = broken.materialize(tmp_path / "copy", workers=1)
    assert list(report.failed) == ["sub-02"]
    assert "could not read subject 'sub-02', collection 'seg'" in report.failed["sub-02"]
    assert (report.ok, report.subjects) == (False, 3)
    assert rl.open(tmp_path / "copy").obs_subject_ids == ["sub-01", "sub-03", "sub-04"]
    assert store.materialize(tmp_path / "copy", workers=1).subjects == 1
    assert content(rl.open(tmp_path / "copy")) == content(store)


def test_a_crop_beside_a_volume_costs_its_subject(store: rl.RadiObject, tmp_path: Path) -> None:
    report = store.materialize(tmp_path / "s", crop=((21, 40), (0, 5), (0, 5)), workers=1)
    assert list(report.failed) == ["sub-01", "sub-02"]
    assert "the crop lies beside subject 'sub-01', collection 'T1w'" in report.failed["sub-01"]
    assert [volume.shape for volume in rl.open(tmp_path / "s").seg] == [(1, 5, 5), (2, 5, 5)]


def test_appending_one_after_the_other_gives_the_whole(store: rl.RadiObject, tmp_path: Path) -> None:
    store.iloc[2:].materialize(tmp_path / "s", workers=1)
    grown = rl.open(tmp_path / "s")
    before = content(grown)
    report = grown.append(store.iloc[:3], workers=1)
    assert isinstance(report, rl.TransferReport)
    assert (report.subjects, report.volumes, report.skipped, grown.version) == (2, 4, 1, 2)
    assert content(grown) == content(store)
    assert content(rl.open(tmp_path / "s", at=1)) == before
    assert grown.history()[-1]["message"] == "appended 4 volumes of 2 subjects"


def test_a_subject_that_is_chosen_twice_comes_once(store: rl.RadiObject, tmp_path: Path) -> None:
    report = store.iloc[[1, 0, 1]].materialize(tmp_path / "s", workers=1)
    assert (report.subjects, report.volumes) == (2, 4)
    assert content(rl.open(tmp_path / "s")) == content(store.head(2))
    assert len(list((tmp_path / "s").glob("c/*/volumes/*/__schema"))) == 4


def test_collections_may_come_one_by_one(store: rl.RadiObject, tmp_path: Path) -> None:
    store.select_collections("seg").materialize(tmp_path / "s", workers=1)
    grown = rl.open(tmp_path / "s")
    grown.append(store.select_collections("T1w"), workers=1)
    assert content(grown) == content(store)


def test_what_differs_is_an_error_or_replaced(store: rl.RadiObject, make_cohort: Any, tmp_path: Path) -> None:
    shutil.copytree(store.uri, tmp_path / "s")
    mine = rl.open(tmp_path / "s")
    other = make_cohort(tmp_path / "other", subjects=2, seed=5)
    meta = pd.DataFrame({"subject": ["sub-01", "sub-02"], "age": [21, 99], "site": ["a", None]})
    rl.ingest(tmp_path / "o", {"T1w": other / "images", "seg": other / "labels"}, obs_meta=meta, workers=1)
    theirs = rl.open(tmp_path / "o")
    before = content(mine)
    with pytest.raises(
        ConfigError, match=r"something else already: volume 'sub-01_T1w' of collection 'T1w' \(and 2 more\); nothing"
    ):
        mine.append(theirs, workers=1)
    assert (mine.version, content(rl.open(mine.uri))) == (1, before)
    report = mine.replace(theirs, workers=1)
    assert isinstance(report, rl.TransferReport)
    assert (report.subjects, report.volumes) == (2, 2), "labels are the same"
    after = content(mine)
    assert after["T1w"] == before["T1w"] | content(theirs)["T1w"]
    assert after["seg"] == before["seg"]
    assert after["seg index"] == before["seg index"]
    frame = mine.obs_meta.read()
    assert frame.age.tolist() == [21, 99, 23, 24]
    assert frame.site.fillna("-").tolist() == ["a", "-", "-", "-"]
    assert frame.sex.tolist() == ["F", "M", "F", "M"]
    assert content(rl.open(mine.uri, at=1)) == before


def test_kinds_must_fit(store: rl.RadiObject, make_cohort: Any, tmp_path: Path) -> None:
    other = make_cohort(tmp_path / "other", subjects=1)
    meta = pd.DataFrame({"subject": ["sub-01"], "age": ["old"]})
    rl.ingest(tmp_path / "o", {"T1w": other / "labels"}, labels=["T1w"], obs_meta=meta, workers=1)
    theirs = rl.open(tmp_path / "o")
    shutil.copytree(store.uri, tmp_path / "s")
    mine = rl.open(tmp_path / "s")
    with pytest.raises(ConfigError, match=r"collection 'T1w' of .* holds images, and that of .* holds labels"):
        mine.append(theirs)
    theirs.rename(collections={"T1w": "mask"})
    with pytest.raises(
        CatalogError, match=r"column 'user.age' holds int values in the store, but the new values are str"
    ):
        mine.replace(theirs, workers=1)
    assert content(rl.open(mine.uri)) == content(store)


def test_classes_must_mean_the_same(make_cohort: Any, tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    for name, classes in (("mine", {"liver": 1, "tumour": 2}), ("theirs", {"liver": 2, "tumour": 1})):
        some = sorted((cohort / "labels").iterdir())
        files = some[:2] if name == "mine" else some[2:]
        assert rl.ingest(tmp_path / name, {"seg": files}, classes={"seg": classes}, workers=1).ok
    mine, theirs = rl.open(tmp_path / "mine"), rl.open(tmp_path / "theirs")
    with pytest.raises(
        ConfigError, match=r"has the classes {'liver': 1, 'tumour': 2}, and that of .* has {'liver': 2, 'tumour': 1}"
    ):
        mine.append(theirs, workers=1)
    assert len(mine.seg) == 2
    theirs.rename(collections={"seg": "other"})
    assert mine.append(theirs, workers=1).ok
    assert mine.other.classes == {"liver": (2,), "tumour": (1,)}


def test_a_full_disk_keeps_what_was_finished(
    store: rl.RadiObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = moving.copy_array
    calls = iter(range(100))

    def full(*arguments: Any, **options: Any) -> None:
        if next(calls) == 5:
            raise StoreWriteError("no space left on device")
        copied(*arguments, **options)

    monkeypatch.setattr(moving, "copy_array", full)
    with pytest.raises(
        StoreWriteError, match="no space left on device; what was finished before is kept: make room, and run the same"
    ):
        store.materialize(tmp_path / "s", workers=1)
    assert content(rl.open(tmp_path / "s")) == content(store.head(2))
    assert store.materialize(tmp_path / "s", workers=1).skipped == 2
    assert content(rl.open(tmp_path / "s")) == content(store)


def test_files_are_ingested(store: rl.RadiObject, make_cohort: Any, tmp_path: Path) -> None:
    shutil.copytree(store.uri, tmp_path / "s")
    mine = rl.open(tmp_path / "s")
    more = make_cohort(tmp_path / "more", subjects=6)
    report = mine.append({"T1w": more / "images", "seg": more / "labels"}, workers=1)
    assert isinstance(report, rl.IngestReport)
    assert report.ok
    assert mine.obs_subject_ids[-1] == "sub-06"
    for arguments, message in (
        (({"T1w": more}, {"replace": True}), "append takes replace= and message= for a store"),
        ((store, {"labels": ["seg"]}), "append takes 'labels' for files"),
        ((3, {}), "append takes a store .* or sources of files by collection, got int"),
    ):
        with pytest.raises(ConfigError, match=message):
            mine.append(arguments[0], **arguments[1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="append is for a whole store"):
        mine.head(2).append(store)


def test_from_images_and_from_collections(make_cohort: Any, tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    one = rl.RadiObject.from_images(
        tmp_path / "a", {"T1w": cohort / "images"}, obs_meta=cohort / "participants.tsv", workers=1
    )
    two = rl.RadiObject.from_niftis(tmp_path / "b", {"seg": cohort / "labels"}, workers=1)
    both = rl.RadiObject.from_volume_collections(
        tmp_path / "c", {"MR": one.T1w.head(3), "mask": two.seg.tail(3)}, workers=1
    )
    assert both.collection_names == ["MR", "mask"]
    assert both.MR.obs_ids == ["sub-01_MR", "sub-02_MR", "sub-03_MR"]
    assert both.mask.obs_subject_ids == ["sub-02", "sub-03", "sub-04"]
    assert both.obs_meta.read().age.tolist() == [21, 22, 23, 24]
    np.testing.assert_array_equal(both.mask.loc["sub-04"].to_numpy(), two.seg.loc["sub-04"].to_numpy())
    assert {obs_id for obs_id, *_ in coordinates(both, "mask")} == set(both.mask.obs_ids)
    report = rl.ingest(tmp_path / "c", {"MR": sorted((cohort / "images").iterdir())[:3]}, workers=1)
    assert [item.status for item in report.items] == ["skipped"] * 3
    (cohort / "images" / "sub-01_T1w.nii.gz").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 failed"):
        rl.RadiObject.from_images(tmp_path / "d", {"T1w": cohort / "images"}, workers=1)


@pytest.mark.parametrize("make", [None, ProcessPoolExecutor])
def test_in_processes(store: rl.RadiObject, tmp_path: Path, make: Callable[..., Any] | None) -> None:
    import multiprocessing

    executor = make and make(2, mp_context=multiprocessing.get_context("spawn"))
    store.materialize(tmp_path / "s", crop=((2, 14), (0, 20), (0, 18)), workers=2, executor=executor)
    store.materialize(tmp_path / "t", crop=((2, 14), (0, 20), (0, 18)), workers=1)
    assert content(rl.open(tmp_path / "s")) == content(rl.open(tmp_path / "t"))
    if executor:
        executor.shutdown()
