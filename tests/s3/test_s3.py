"""The same code on an object store gives the same as on a local disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import RadioloaderError, ReadError, StoreNotFoundError

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def remote_uri(cohort: Path, bucket: str, config: rl.StorageConfig) -> str:
    uri = f"{bucket}/studies/one"
    sources = {"T1w": cohort / "images", "seg": cohort / "labels"}
    report = rl.ingest(uri, sources, obs_meta=cohort / "participants.tsv", workers=2, config=config)
    assert [item.subject for item in report.ingested] == ["sub-01", "sub-02", "sub-03", "sub-04"], str(report)
    return uri


def test_voxels_geometry_and_tables_are_those_of_the_local_store(
    remote_uri: str, store_uri: str, config: rl.StorageConfig
) -> None:
    remote, local = rl.open(remote_uri, config=config), rl.open(store_uri)
    assert remote.obs_subject_ids == local.obs_subject_ids
    assert remote.collection_names == local.collection_names == ["T1w", "seg"]
    assert remote.obs_meta.read().equals(local.obs_meta.read())
    for name in ("T1w", "seg"):
        for a, b in zip(remote[name], local[name], strict=True):
            assert a.uri.startswith(remote_uri)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.to_numpy(), b.to_numpy())
            np.testing.assert_array_equal(a[2:9, -5:, 3], b[2:9, -5:, 3])
            np.testing.assert_array_equal(a.affine, b.affine)


def test_export(remote_uri: str, cohort: Path, config: rl.StorageConfig, tmp_path: Path) -> None:
    rl.open(remote_uri, config=config).T1w.loc["sub-02"].to_nifti(tmp_path / "out.nii.gz")
    out, source = nib.load(tmp_path / "out.nii.gz"), nib.load(cohort / "images" / "sub-02_T1w.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), np.asanyarray(source.dataobj))
    np.testing.assert_array_equal(out.affine, source.affine)


def test_the_same_command_skips_what_is_there(remote_uri: str, cohort: Path, config: rl.StorageConfig) -> None:
    report = rl.ingest(remote_uri, {"T1w": cohort / "images"}, workers=1, config=config)
    assert (len(report.skipped), len(report.ingested)) == (4, 0)
    assert report.version == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loaders_deliver_the_bytes_of_the_local_store(
    remote_uri: str, store_uri: str, config: rl.StorageConfig, method: str
) -> None:
    def dataset(uri: str, config: rl.StorageConfig | None) -> rl.PatchDataset:
        return rl.PatchDataset(uri, image="T1w", label="seg", patch_size=10, patches_per_volume=2, config=config)

    expected = list(rl.DataLoader(dataset(store_uri, None), batch_size=2, shuffle=True))
    ours = dataset(remote_uri, config)
    ours[rl.PatchKey(0)]  # the parent itself has read
    loader = rl.DataLoader(ours, batch_size=2, shuffle=True, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    assert len(batches) == len(expected) == 4
    for a, b in zip(batches, expected, strict=True):
        assert a["obs_id"] == b["obs_id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_missing_store_missing_bucket(bucket: str, config: rl.StorageConfig) -> None:
    with pytest.raises(StoreNotFoundError, match="no radioloader store at s3://cohorts/nothing"):
        rl.open(f"{bucket}/nothing", config=config)
    with pytest.raises(RadioloaderError, match="s3://no-such-bucket/x"):
        rl.open("s3://no-such-bucket/x", config=config)


def test_a_server_that_is_not_there_is_an_error_in_reasonable_time(config: rl.StorageConfig) -> None:
    nowhere = rl.StorageConfig(
        s3=rl.S3Config(region="us-east-1", endpoint="http://127.0.0.1:9", access_key_id="a", secret_access_key="b")
    )
    with pytest.raises(ReadError, match="could not open s3://cohorts/studies/one") as caught:
        rl.open("s3://cohorts/studies/one", config=nowhere)
    assert "secret" not in str(caught.value)


def test_secrets_do_not_show(remote_uri: str, config: rl.StorageConfig) -> None:
    store = rl.open(remote_uri, config=config)
    dataset = rl.PatchDataset(store, image="T1w", patch_size=8)
    for thing in (config, config.s3, store, store.T1w, store.T1w.iloc[0], dataset, rl.VolumeReader(config)):
        text = repr(thing) + str(thing)
        assert "the-secret-key" not in text
        assert "the-access-key" not in text


def test_selections_pickle_with_their_access(remote_uri: str, config: rl.StorageConfig) -> None:
    volume = rl.open(remote_uri, config=config).iloc[1:3]
    again = pickle.loads(pickle.dumps(volume))
    assert again.obs_subject_ids == ["sub-02", "sub-03"]
    np.testing.assert_array_equal(again.T1w.iloc[0].to_numpy(), volume.T1w.iloc[0].to_numpy())
