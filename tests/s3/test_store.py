"""A store in S3 is the same store: ingest, reading, datasets, worker processes, export."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import StoreNotFoundError


def digests(loader: Any) -> list[str]:
    result = []
    for batch in loader:
        content = hashlib.sha256()
        for value in batch.values():
            content.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
        result.append(content.hexdigest())
    return result


def test_it_is_the_store_that_a_local_ingest_makes(s3: Any, remote: str, store_uri: str, cohort: Path) -> None:
    ours, local = rl.open(remote, config=s3.config()), rl.open(store_uri)
    assert ours.uri == remote
    assert ours.collection_names == local.collection_names == ["T1w", "seg"]
    assert ours.obs_subject_ids == local.obs_subject_ids
    assert ours.obs_meta.read().equals(local.obs_meta.read())
    for name in ("T1w", "seg"):
        hidden = ["source"]
        assert ours[name].obs.read().drop(columns=hidden).equals(local[name].obs.read().drop(columns=hidden))
        for a, b in zip(ours[name], local[name], strict=True):
            np.testing.assert_array_equal(a.to_numpy(), b.to_numpy(), strict=True)
            np.testing.assert_array_equal(a.affine, b.affine)
            np.testing.assert_array_equal(a[3:9, -5:, 2], b[3:9, -5:, 2], strict=True)
            np.testing.assert_array_equal(a.coronal(4), b.coronal(4), strict=True)


def test_ingest_in_this_process_gives_the_same(s3: Any, remote: str, cohort: Path) -> None:
    uri = s3.uri()
    sources = {"T1w": {s: cohort / "images" / f"{s}_T1w.nii.gz" for s in ("sub-02", "sub-03")}}
    report = rl.ingest(uri, sources, workers=1, config=s3.config())
    assert [item.subject for item in report.ingested] == ["sub-02", "sub-03"]
    a, b = rl.open(uri, config=s3.config()).T1w, rl.open(remote, config=s3.config()).T1w.iloc[1:3]
    assert a.obs.read()["content_hash"].tolist() == b.obs.read()["content_hash"].tolist()
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.to_numpy(), y.to_numpy(), strict=True)
    # The same command again writes nothing.
    before = s3.keys(uri)
    again = rl.ingest(uri, sources, workers=1, config=s3.config())
    assert (len(again.skipped), len(again.ingested)) == (2, 0)
    assert s3.keys(uri) == before


def test_what_was_opened_pickles_with_its_access(s3: Any, remote: str) -> None:
    selection = rl.open(remote, config=s3.config()).iloc[1:3]
    again = pickle.loads(pickle.dumps(selection))
    assert again.obs_subject_ids == ["sub-02", "sub-03"]
    np.testing.assert_array_equal(again.T1w.iloc[0].to_numpy(), selection.T1w.iloc[0].to_numpy())


def test_export_gives_the_source_back(s3: Any, remote: str, cohort: Path, tmp_path: Path) -> None:
    for name, folder, suffix in (("T1w", "images", "T1w"), ("seg", "labels", "seg")):
        volume = rl.open(remote, config=s3.config())[name].loc["sub-03"]
        volume.to_nifti(tmp_path / "out.nii.gz")
        ours, source = nib.load(tmp_path / "out.nii.gz"), nib.load(cohort / folder / f"sub-03_{suffix}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(ours.dataobj), np.asanyarray(source.dataobj), strict=True)
        np.testing.assert_array_equal(ours.affine, source.affine)
        assert ours.get_data_dtype() == source.get_data_dtype()


def datasets(uri: str, config: rl.StorageConfig | None) -> list[tuple[Any, int]]:
    common: dict[str, Any] = {"image": "T1w", "label": "seg", "config": config}
    return [
        (rl.PatchDataset(uri, patch_size=(9, 10, 11), patches_per_volume=3, targets=["age", "sex"], **common), 4),
        (rl.PatchDataset(uri, patch_size=25, pad=True, pad_value=-9, **common), 4),
        (rl.SliceDataset(uri, plane="coronal", context=1, subjects=["sub-02"], **common), 8),
        (rl.VolumeDataset(uri, **common), 1),
    ]


def test_datasets_deliver_the_bytes_of_the_local_store(s3: Any, remote: str, store_uri: str) -> None:
    here = datasets(store_uri, None)
    for (ours, size), (local, _) in zip(datasets(remote, s3.config()), here, strict=True):
        expected = digests(rl.DataLoader(local, batch_size=size, shuffle=True))
        assert digests(rl.DataLoader(ours, batch_size=size, shuffle=True)) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_reach_the_store(s3: Any, remote: str, store_uri: str, method: str) -> None:
    local = rl.PatchDataset(store_uri, image="T1w", label="seg", patch_size=8, patches_per_volume=3)
    expected = digests(rl.DataLoader(local, batch_size=4, shuffle=True))
    ours = rl.PatchDataset(remote, image="T1w", label="seg", patch_size=8, patches_per_volume=3, config=s3.config())
    assert digests(rl.DataLoader(ours, batch_size=4, shuffle=True)) == expected  # this process has read
    loader = rl.DataLoader(ours, batch_size=4, shuffle=True, num_workers=2, multiprocessing_context=method, timeout=120)
    loader.set_epoch(0)
    assert digests(loader) == expected


def test_the_process_wide_default_works_too(s3: Any, remote: str) -> None:
    # In a process of its own: the default stays set.
    script = (
        "import sys, radioloader as rl; endpoint, key, secret, uri = sys.argv[1:]\n"
        "rl.configure(s3=rl.S3Config(endpoint=endpoint, region='us-east-1', access_key_id=key, secret_access_key=secret))\n"
        "store = rl.open(uri); print(len(store), store.T1w.iloc[0][0, 0, 0])\n"
    )
    s3_config = s3.config().s3
    arguments = [f"http://{s3_config.endpoint}", s3_config.access_key_id, s3_config.secret_access_key, remote]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = rl.open(remote, config=s3.config()).T1w.iloc[0][0, 0, 0]
    assert done.stdout.split() == ["4", str(expected)]


# ---- interruptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tables", [1, 3])
def test_an_interrupted_creation_is_completed_by_the_next_ingest(
    s3: Any, cohort: Path, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radioloader.storage.table import Table

    uri, config, create = s3.uri(), s3.config(), Table.create
    made = []

    def stop(table: Table, columns: Any) -> None:
        if len(made) == tables:
            raise KeyboardInterrupt
        made.append(table.uri)
        create(table, columns)
        if len(made) == 3 == tables:
            raise KeyboardInterrupt

    monkeypatch.setattr(Table, "create", stop)
    with pytest.raises(KeyboardInterrupt):
        rl.ingest(uri, {"T1w": cohort / "images"}, workers=1, config=config)
    monkeypatch.undo()
    assert len(made) == tables
    assert s3.keys(uri)
    with pytest.raises(StoreNotFoundError, match="there is no radioloader store at "):
        rl.open(uri, config=config)
    report = rl.ingest(uri, {"T1w": cohort / "images"}, workers=1, config=config)
    assert len(report.ingested) == 4
    store = rl.open(uri, config=config)
    assert len(store) == 4
    assert store.T1w.iloc[3].to_numpy().sum() == np.asanyarray(
        nib.load(cohort / "images" / "sub-04_T1w.nii.gz").dataobj
    ).sum(dtype=np.int64)


def test_an_interrupted_ingest_shows_whole_subjects_and_is_continued(s3: Any, cohort: Path) -> None:
    uri, config = s3.uri(), s3.config()
    sources = {"T1w": cohort / "images", "seg": cohort / "labels"}

    def stop(item: Any, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rl.ingest(uri, sources, workers=1, config=config, progress=stop, commit_interval_s=0)
    store = rl.open(uri, config=config)
    whole = store.obs_subject_ids
    assert whole in (["sub-01"], ["sub-01", "sub-02"])
    assert store.T1w.obs_subject_ids == store.seg.obs_subject_ids == whole
    report = rl.ingest(uri, sources, workers=1, config=config)
    assert [item.subject for item in report.skipped] == whole
    assert report.ok
    again = rl.open(uri, config=config)
    assert again.seg.obs_subject_ids == [f"sub-{number:02d}" for number in range(1, 5)]
    assert store.obs_subject_ids == whole  # the one that was open before shows what it showed


# ---- how many requests ---------------------------------------------------------------------------------------------------


def test_requests_are_few_and_do_not_grow_with_the_cohort(s3: Any, remote: str, cohort: Path) -> None:
    small = s3.uri()
    one = {
        "T1w": {"sub-01": cohort / "images" / "sub-01_T1w.nii.gz"},
        "seg": {"sub-01": cohort / "labels" / "sub-01_seg.nii.gz"},
    }
    assert rl.ingest(small, one, workers=1, config=s3.config()).ok

    def counted(function: Any) -> tuple[list[str], Any]:
        before = len(s3.requests())
        result = function()
        return s3.requests()[before:], result

    def make(uri: str, number: int) -> Any:
        # Settings of their own, and so a TileDB context that has read nothing ahead.
        return lambda: rl.PatchDataset(uri, image="T1w", label="seg", patch_size=8, config=s3.config(tries=number))

    of_one, _ = counted(make(small, 6))
    of_four, dataset = counted(make(remote, 7))
    assert len(of_four) <= len(of_one) + 5
    assert len(of_four) < 200
    assert not [line for line in of_four if "volumes" in line]  # no voxel array was opened
    first, _ = counted(lambda: dataset[rl.PatchKey(0, 0)])
    assert len(first) <= 24
    assert {line.split("\t")[0] for line in [*of_four, *first]} <= {"GET", "HEAD"}
    later = [counted(lambda draw=draw: dataset[rl.PatchKey(0, draw)])[0] for draw in range(1, 6)]
    assert max(len(requests) for requests in later) <= 2  # volumes this small were read ahead whole


def test_a_patch_of_a_large_volume_costs_few_requests(s3: Any, write_image: Any, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (96, 96, 96), dtype=np.int16)
    path = write_image(tmp_path / "sub-01.nii", voxels)
    tile = rl.WriteConfig(tile=rl.TileConfig(extent=32))
    uri, config = s3.uri(), rl.StorageConfig(write=tile, s3=s3.config(tries=6).s3)
    assert rl.ingest(uri, {"CT": [path]}, workers=1, config=config).ok
    dataset = rl.PatchDataset(uri, image="CT", patch_size=32, config=config)
    dataset[rl.PatchKey(0, 0)]
    for draw in range(1, 8):
        before = len(s3.requests())
        sample = dataset[rl.PatchKey(0, draw)]
        requests = s3.requests()[before:]
        start, stop = sample["location"].tolist()
        place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        np.testing.assert_array_equal(sample["image"][0].numpy(), voxels[place].astype(np.float32))
        # 8 tiles at most; those that lie side by side in the file share a request.
        assert 1 <= len(requests) <= 8
        assert all("a0.tdb" in line and line.startswith("GET") for line in requests)
