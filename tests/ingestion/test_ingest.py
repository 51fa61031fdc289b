"""``radioloader.ingest`` as a whole: what a store holds after one call, and after the next ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.storage import foreground
from radioloader.storage.store import Store

ODD_NAMES = ["T1 w", "a/b", "../x", ".", "..", "ünïcode Ω", "x" * 300, "iloc", "new\nline", "per%20cent#?", "'quote\""]

Write = Callable[..., Path]
Content = Callable[[Any], dict[str, Any]]


def sources(root: Path) -> dict[str, Path]:
    return {"T1w": root / "images", "seg": root / "labels"}


def foreground_of(uri: Any, name: str = "seg") -> dict[str, Any]:
    index = rl.open(uri).snapshot.index(name)
    columns = foreground.read_foreground(Store.open(uri), index, index.obs_ids.tolist())
    return {obs_id: foreground.foreground_of(columns, volume) for volume, obs_id in enumerate(index.obs_ids.tolist())}


def statuses(report: rl.IngestReport) -> dict[str, str]:
    return {item.subject: item.status for item in report.items}


def test_a_cohort_is_ingested_whole(cohort: Path, tmp_path: Path, shows_sources: Callable[..., list[str]]) -> None:
    report = rl.ingest(tmp_path / "store", sources(cohort), obs_meta=cohort / "participants.tsv", workers=1)
    assert statuses(report) == {f"sub-{n:02d}": "ingested" for n in (1, 2, 3, 4)}
    assert (report.ok, report.failed, report.skipped, report.version, report.uri) == (
        True,
        [],
        [],
        1,
        str(tmp_path / "store"),
    )
    sizes = [nib.load(file).shape for file in sorted((cohort / "images").iterdir())]
    assert [item.voxel_bytes for item in report.ingested] == [
        3 * int(np.prod(size)) for size in sizes
    ]  # int16 and uint8
    assert report.items[0].files == {
        "T1w": str(cohort / "images/sub-01_T1w.nii.gz"),
        "seg": str(cohort / "labels/sub-01_seg.nii.gz"),
    }
    assert report.notes == ["subject ids come from: BIDS entities (sub-, ses-)", "labels, going by their names: seg"]
    assert shows_sources(tmp_path / "store", cohort) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    store = rl.open(tmp_path / "store")
    assert {name: store[name].kind for name in store.collection_names} == {"T1w": "image", "seg": "label"}
    assert store.T1w.obs_ids == [f"sub-{n:02d}_T1w" for n in (1, 2, 3, 4)]
    meta = store.obs_meta.read()
    assert meta.age.tolist() == [21, 22, 23, 24]
    assert meta.sex.tolist() == ["F", "M", "F", "M"]
    np.testing.assert_array_equal(meta.score, [0.25, np.nan, 0.75, 1.0])


def test_the_report_reads_well(cohort: Path, tmp_path: Path) -> None:
    report = rl.ingest(tmp_path / "store", sources(cohort), workers=1)
    lines = str(report).splitlines()
    assert lines[0] == f"4 ingested, 0 skipped (unchanged), 0 failed in {report.seconds:.1f} s -> {tmp_path}/store"
    assert lines[1:] == [
        "  note: subject ids come from: BIDS entities (sub-, ses-)",
        "  note: labels, going by their names: seg",
    ]
    assert 0 < report.seconds < 60


def test_the_catalog_holds_what_numpy_says(cohort: Path, tmp_path: Path) -> None:
    rl.ingest(tmp_path / "store", sources(cohort), workers=1)
    rows = rl.open(tmp_path / "store").T1w.obs.read()
    for row in rows.to_dict("records"):
        image = nib.load(cohort / "images" / f"{row['obs_subject_id']}_T1w.nii.gz")
        values = np.asanyarray(image.dataobj)
        assert (row["nx"], row["ny"], row["nz"], row["nt"]) == (*values.shape, 0)
        assert (row["dtype"], row["slope"], row["intercept"], row["nonfinite"]) == ("int16", 1.0, 0.0, 0)
        assert (row["stat_min"], row["stat_max"], row["nonzero"]) == (
            values.min(),
            values.max(),
            np.count_nonzero(values),
        )
        np.testing.assert_allclose([row["stat_mean"], row["stat_std"]], [values.mean(), values.std()], rtol=1e-12)
        np.testing.assert_allclose([row[f"spacing_{a}"] for a in "xyz"], image.header.get_zooms(), rtol=1e-6)
        assert row["axcodes"] == row["source_axcodes"] == "".join(nib.aff2axcodes(image.affine))
        assert row["source"] == str(cohort / "images" / f"{row['obs_subject_id']}_T1w.nii.gz")


def test_statistics_are_those_of_scaled_values(write_image: Write, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-100, 100, (6, 7, 8), dtype=np.int16)
    write_image(tmp_path / "i" / "a.nii", voxels, slope=-0.5, intercept=10.0)
    rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, workers=1)
    row = rl.open(tmp_path / "store").CT.obs.read().iloc[0]
    values = np.asanyarray(nib.load(tmp_path / "i" / "a.nii").dataobj)
    assert (row.slope, row.intercept) == (-0.5, 10.0)
    assert (row.stat_min, row.stat_max, row.nonzero) == (values.min(), values.max(), np.count_nonzero(values))
    np.testing.assert_allclose([row.stat_mean, row.stat_std], [values.mean(), values.std()], rtol=1e-12)


def test_the_foreground_of_labels_is_indexed_and_that_of_images_is_not(cohort: Path, tmp_path: Path) -> None:
    rl.ingest(tmp_path / "store", sources(cohort), workers=1)
    index = foreground_of(tmp_path / "store")
    assert sorted(index) == [f"sub-{n:02d}_seg" for n in (1, 2, 3, 4)]
    for obs_id, classes in index.items():
        label = np.asanyarray(nib.load(cohort / "labels" / f"{obs_id}.nii.gz").dataobj)
        assert list(classes) == [0, 1, 2]
        for value, (count, places) in classes.items():
            assert count == (label == value).sum()
            assert len(places) == min(count, 2048)
            assert (label[tuple(places.T)] == value).all()
    assert all(not classes for classes in foreground_of(tmp_path / "store", "T1w").values())


# Orientation


@pytest.mark.parametrize("target", ["RAS", "lps", "PIR"])
def test_orientation_turns_voxels_and_keeps_every_voxel_in_its_place(
    write_image: Write, tmp_path: Path, target: str
) -> None:
    generator = np.random.default_rng(0)
    for name, codes in (("a", "LPS"), ("b", "SAR"), ("c", "RAS")):
        affine = nib.orientations.inv_ornt_aff(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)), (5, 6, 7))
        affine = affine @ np.diag([1.0, 2.0, 3.0, 1.0])
        write_image(tmp_path / "i" / f"{name}.nii.gz", generator.integers(-9, 9, (5, 6, 7), dtype=np.int16), affine)
        write_image(tmp_path / "l" / f"{name}.nii.gz", generator.integers(0, 3, (5, 6, 7), dtype=np.uint8), affine)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i", "seg": tmp_path / "l"}, orientation=target, workers=1)
    assert report.ok, str(report)
    store = rl.open(tmp_path / "store")
    for collection, folder in (("CT", "i"), ("seg", "l")):
        for volume in store[collection]:
            source = nib.load(tmp_path / folder / f"{volume.obs_subject_id}.nii.gz")
            turned = source.as_reoriented(ornt_transform(io_orientation(source.affine), axcodes2ornt(target.upper())))
            assert volume.axcodes == target.upper() == "".join(nib.aff2axcodes(volume.affine))
            np.testing.assert_array_equal(volume.to_numpy(), np.asanyarray(turned.dataobj))
            np.testing.assert_allclose(volume.affine, turned.affine, atol=1e-12)
            volume.to_nifti(tmp_path / "out.nii")
            back = nib.load(tmp_path / "out.nii")
            np.testing.assert_array_equal(np.asanyarray(back.dataobj), np.asanyarray(source.dataobj))
            np.testing.assert_array_equal(back.affine, source.affine)
    for obs_id, classes in foreground_of(tmp_path / "store").items():
        stored = store.seg.loc[obs_id].to_numpy()
        assert {value: count for value, (count, _) in classes.items()} == {
            v: int((stored == v).sum()) for v in np.unique(stored).tolist()
        }
        for value, (_, places) in classes.items():
            assert (stored[tuple(places.T)] == value).all()


def test_a_wrong_orientation_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        rl.ingest(tmp_path / "store", sources(cohort), orientation="RAX")
    assert str(caught.value) == "orientation='RAX' is not three axis codes, one each of L/R, P/A and I/S, such as 'RAS'"
    assert not (tmp_path / "store").exists()


def test_collections_may_have_any_name(write_image: Write, tmp_path: Path) -> None:
    write_image(tmp_path / "i" / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    outside = sorted(tmp_path.iterdir())
    report = rl.ingest(tmp_path / "store", {name: {"a": tmp_path / "i" / "a.nii"} for name in ODD_NAMES}, workers=1)
    assert report.ok, str(report)
    store = rl.open(tmp_path / "store")
    assert store.collection_names == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert store[name].obs_ids == [f"a_{name}"]
        assert store[name].iloc[0].to_numpy()[1, 2, 3] == 23
    assert sorted(tmp_path.iterdir()) == sorted([*outside, tmp_path / "store"])
    assert statuses(rl.ingest(tmp_path / "store", {"a/b": {"a": tmp_path / "i" / "a.nii"}}, workers=1)) == {
        "a": "skipped"
    }


ODD_IDS = [
    "a b",
    "x/y",
    "../../up",
    "..",
    ".",
    "~",
    "ünï\U0001f9e0",
    "i" * 300,
    "-rf",
    "%2e%2e",
    "new\nline",
    "sub-01",
    "sub-1",
    "SUB-01",
    "'",
]


def test_subjects_may_have_any_id_and_nothing_leaves_the_store(write_image: Write, tmp_path: Path) -> None:
    files = {
        subject: write_image(tmp_path / "i" / f"{number}.nii", np.full((2, 3, 4), number, np.int16))
        for number, subject in enumerate(ODD_IDS)
    }
    import pandas as pd

    table = pd.DataFrame({"subject": ODD_IDS, "n": range(len(ODD_IDS))})
    report = rl.ingest(tmp_path / "deep" / "store", {"CT": files}, obs_meta=table, workers=1)
    assert report.ok, str(report)
    store = rl.open(tmp_path / "deep" / "store")
    assert store.obs_subject_ids == sorted(ODD_IDS)
    for number, subject in enumerate(ODD_IDS):
        volume = store.CT.loc[subject]
        assert (volume.obs_id, volume.to_numpy().max()) == (f"{subject}_CT", number)
    assert dict(zip(store.obs_subject_ids, store.obs_meta.read().n, strict=True)) == {
        s: n for n, s in enumerate(ODD_IDS)
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "i"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["store"]
    assert {item.status for item in rl.ingest(tmp_path / "deep" / "store", {"CT": files}, workers=1).items} == {
        "skipped"
    }


@pytest.mark.parametrize("name", ["my store", "per%20cent", "hash#1?x=2", "[1]", "ünïcode", "a'b\"c", "trailing."])
def test_stores_may_lie_anywhere(write_image: Write, tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "i" / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    for status in ("ingested", "skipped"):
        report = rl.ingest(tmp_path / name, {"CT": tmp_path / "i"}, workers=1)
        assert statuses(report) == {"a": status}
    assert rl.open(tmp_path / name).CT.iloc[0].to_numpy()[1, 2, 3] == 23
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["i", name])


def test_a_relative_path_and_an_empty_folder_will_do(
    write_image: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "i" / "a.nii", np.ones((2, 3, 4), np.int16))
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    report = rl.ingest("store", {"CT": "i"}, workers=1)
    assert report.uri == str(tmp_path / "store")
    assert statuses(report) == {"a": "ingested"}


# Progress and commits


def test_progress_may_be_a_callable(changing: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int, int]] = []
    (changing / "labels" / "sub-02_seg.nii.gz").unlink()
    rl.ingest(
        tmp_path / "store",
        sources(changing),
        workers=1,
        progress=lambda item, done, total: seen.append((item.subject, item.status, done, total)),
    )
    assert seen == [("sub-02", "failed", 1, 3), ("sub-01", "ingested", 2, 3), ("sub-03", "ingested", 3, 3)]


def test_commits_come_by_time(changing: Path, tmp_path: Path) -> None:
    rl.ingest(tmp_path / "often", sources(changing), workers=1, commit_interval_s=0.0)
    history = rl.open(tmp_path / "often").history()
    assert [(commit["version"], commit["message"], commit["changes"]) for commit in history] == [
        (n, "ingest of 2 volumes", {"columns": [], "obs_meta": 1, "volumes": 2}) for n in (1, 2, 3)
    ]
    rl.ingest(tmp_path / "once", sources(changing), workers=1, commit_interval_s=1000.0)
    assert rl.open(tmp_path / "once").version == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"grid_tolerance_mm": -1.0}, "grid_tolerance_mm=-1.0 must not be negative"),
        ({"grid_tolerance_mm": float("nan")}, "grid_tolerance_mm=nan must not be negative"),
        ({"commit_interval_s": -1.0}, "commit_interval_s=-1.0 must not be negative"),
        ({"images": {}}, "images is empty; give at least one collection, such as {'T1w': 'images/*.nii.gz'}"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(
    cohort: Path, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        rl.ingest(tmp_path / "store", **({"images": sources(cohort)} | options))
    assert str(caught.value) == text
    assert not (tmp_path / "store").exists()


# Real files


def test_real_files_of_many_kinds_are_ingested_together(nibabel_data: Path, tmp_path: Path) -> None:
    names = [
        "anatomical.nii",
        "functional.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "standard.nii.gz",
        "reoriented_anat_moved.nii",
    ]
    report = rl.ingest(tmp_path / "store", {"any": {name: nibabel_data / name for name in names}}, workers=1)
    assert report.ok, str(report)
    store = rl.open(tmp_path / "store")
    for volume in store["any"]:
        source = nib.load(nibabel_data / volume.obs_subject_id)
        np.testing.assert_array_equal(volume.to_numpy(), np.asanyarray(source.dataobj))
        np.testing.assert_array_equal(volume.affine, source.affine)


def test_a_real_task_is_ingested_and_indexed(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "hippocampus"
    report = rl.ingest(
        tmp_path / "store", {"T1w": f"{root}/imagesTr/*_00*", "seg": f"{root}/labelsTr/*_00*"}, workers=2
    )
    assert report.ok, str(report)
    assert len(report.ingested) >= 3
    for obs_id, classes in foreground_of(tmp_path / "store").items():
        label = np.asanyarray(nib.load(root / "labelsTr" / f"{obs_id.removesuffix('_seg')}.nii.gz").dataobj)
        assert {value: count for value, (count, _) in classes.items()} == {
            v: int((label == v).sum()) for v in np.unique(label).tolist()
        }
