"""VolumeDataset: whole volumes equal nibabel's reading of the source files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ShapeError


def test_a_sample_is_nibabels_array(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", label="seg", targets=["age", "sex"])
    assert len(dataset) == 4
    assert dataset.subjects == brains.subjects
    assert not dataset.random
    for place, subject in enumerate(brains.subjects):
        sample = dataset[rl.VolumeKey(place)]
        assert set(sample) == {"image", "label", "affine", "location", "obs_subject_id", "obs_id", "age", "sex"}
        image, label = brains.arrays["T1w"][subject], brains.arrays["seg"][subject]
        assert sample["image"].dtype == torch.float32
        assert sample["label"].dtype == torch.uint8
        np.testing.assert_array_equal(sample["image"].numpy(), image[None].astype(np.float32))
        np.testing.assert_array_equal(sample["label"].numpy(), label[None])
        np.testing.assert_array_equal(sample["affine"].numpy(), brains.affines[subject])
        assert sample["affine"].dtype == torch.float64
        assert sample["location"].tolist() == [[0, 0, 0], list(image.shape)]
        assert sample["location"].dtype == torch.int64
        assert (sample["obs_subject_id"], sample["obs_id"]) == (subject, f"{subject}_T1w")
        assert sample["age"].item() == 21 + place
        assert sample["sex"] == "FMFM"[place]


def test_without_a_label_there_is_no_label(brains: Any) -> None:
    assert set(rl.VolumeDataset(brains.uri, image="T1w")[0]) == {
        "image",
        "affine",
        "location",
        "obs_subject_id",
        "obs_id",
    }


def test_collections_and_time_points_are_channels(mixed: Any) -> None:
    dataset = rl.VolumeDataset(mixed.uri, image=["CT", "perf", "PET"], label="mask")
    for place, subject in enumerate(mixed.subjects):
        sample = dataset[rl.VolumeKey(place)]
        arrays = mixed.arrays
        expected = np.concatenate(
            [arrays["CT"][subject][None], np.moveaxis(arrays["perf"][subject], 3, 0), arrays["PET"][subject][None]]
        )
        assert sample["image"].shape == (7, 14, 12, 10)
        np.testing.assert_array_equal(sample["image"].numpy(), expected.astype(np.float32))
        np.testing.assert_array_equal(sample["label"].numpy(), np.moveaxis(arrays["mask"][subject], 3, 0))
    swapped = rl.VolumeDataset(mixed.uri, image=["PET", "CT"])[0]["image"]
    np.testing.assert_array_equal(swapped[0].numpy(), mixed.arrays["PET"]["a"])


def test_scaled_values_are_those_of_nibabel(mixed: Any) -> None:
    # float64 times slope plus intercept, then cast: 0.5 and -1000.25 are exact in float32 as well.
    for dtype in (torch.float32, torch.float64):
        image = rl.VolumeDataset(mixed.uri, image="CT", dtype=dtype)[rl.VolumeKey(1)]["image"]
        assert image.dtype == dtype
        expected = mixed.arrays["CT"]["b"]
        assert expected.dtype == np.float64
        assert expected.min() == -998.75  # 3 * 0.5 - 1000.25
        np.testing.assert_array_equal(image[0].numpy(), expected.astype(image.numpy().dtype))


@pytest.mark.parametrize(
    ("collection", "dtype"), [("PET", torch.uint8), ("perf", torch.float32), (["PET", "PET"], torch.uint8)]
)
def test_dtype_none_keeps_the_stored_dtype(mixed: Any, collection: Any, dtype: torch.dtype) -> None:
    image = rl.VolumeDataset(mixed.uri, image=collection, dtype=None)[rl.VolumeKey(2)]["image"]
    assert image.dtype == dtype
    name = collection if isinstance(collection, str) else collection[0]
    expected = mixed.arrays[name]["c"]
    np.testing.assert_array_equal(image.numpy()[-1], expected[..., -1] if expected.ndim == 4 else expected, strict=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int16, torch.int32, torch.int64])
def test_other_dtypes_are_cast(brains: Any, dtype: torch.dtype) -> None:
    image = rl.VolumeDataset(brains.uri, image="T1w", dtype=dtype)[rl.VolumeKey(0)]["image"]
    assert image.dtype == dtype
    np.testing.assert_array_equal(image[0].numpy(), brains.arrays["T1w"]["sub-01"].astype(image.numpy().dtype))


def test_real_data_with_every_shape_its_own(shared_data: Any, tmp_path: Any) -> None:
    import nibabel as nib

    folder = shared_data / "hippocampus"
    images = sorted((folder / "imagesTr").glob("*.nii.gz"))[:5]
    labels = [folder / "labelsTr" / path.name for path in images]
    assert rl.ingest(tmp_path / "store", {"MR": images, "seg": labels}, workers=1).ok
    dataset = rl.VolumeDataset(tmp_path / "store", image="MR", label="seg")
    assert len(dataset) == 5
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        sample = dataset[rl.VolumeKey(place)]
        source = nib.load(image)
        np.testing.assert_array_equal(sample["image"][0].numpy(), np.asarray(source.dataobj, np.float32))
        np.testing.assert_array_equal(sample["label"][0].numpy(), np.asarray(nib.load(label).dataobj))
        np.testing.assert_array_equal(sample["affine"].numpy(), source.affine)


def test_subjects_in_the_order_that_was_asked(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", subjects=["sub-03", "sub-01"])
    assert dataset.subjects == ["sub-03", "sub-01"]
    assert [dataset[place]["obs_subject_id"] for place in range(2)] == ["sub-03", "sub-01"]
    np.testing.assert_array_equal(dataset[0]["image"][0].numpy(), brains.arrays["T1w"]["sub-03"].astype(np.float32))


def test_an_open_store_and_its_selections_work_like_the_uri(brains: Any) -> None:
    store = rl.open(brains.uri)
    assert rl.VolumeDataset(store, image="T1w").subjects == brains.subjects
    selection = store.iloc[[2, 0]]
    dataset = rl.VolumeDataset(selection, image="T1w")
    assert dataset.subjects == ["sub-03", "sub-01"]
    assert dataset[1]["obs_subject_id"] == "sub-01"


def test_volumes_of_different_shapes_cannot_be_stacked(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w")
    with pytest.raises(
        ShapeError,
        match=r"cannot stack volume 'sub-01_T1w' of shape \(20, 24, 18\) and volume 'sub-03_T1w' of shape \(22, 24, 18\); "
        r"crop or pad to one size, order by shape \(radioloader.EqualShapes\), or use batch_size=1",
    ):
        dataset.__getitems__([rl.VolumeKey(0), rl.VolumeKey(2)])
    with pytest.raises(ShapeError, match=r"'sub-01_T1w' .*'sub-02_T1w'"):
        next(iter(rl.DataLoader(dataset, batch_size=2)))
