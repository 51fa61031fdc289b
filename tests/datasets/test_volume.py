"""VolumeDataset: whole volumes equal nibabel's reading of the source files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, ShapeError


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


@pytest.mark.parametrize(
    ("pad_to", "crop_to"),
    [(24, 24), (None, 15), (27, None), ((22, 24, 21), (22, 20, 40)), ((21, 10, 18), (21, 24, 17)), (1, 1)],
)
def test_volumes_of_one_size_against_numpy(brains: Any, pad_to: Any, crop_to: Any) -> None:
    dataset = rl.VolumeDataset(
        brains.uri, image="T1w", label="seg", pad_to=pad_to, crop_to=crop_to, pad_value=-3, dtype=None
    )
    sizes = [(size,) * 3 if isinstance(size, int) else size for size in (pad_to, crop_to)]
    for volume, subject in enumerate(brains.subjects):
        sample = dataset[volume]
        for name, key, fill in (("T1w", "image", -3), ("seg", "label", 0)):
            array = brains.arrays[name][subject]
            for axis in range(3):
                n = array.shape[axis]
                if sizes[0] is not None and (missing := sizes[0][axis] - n) > 0:
                    widths = [(-(-missing // 2), missing // 2) if a == axis else (0, 0) for a in range(3)]
                    array = np.pad(array, widths, constant_values=fill)
                n = array.shape[axis]
                if sizes[1] is not None and n > sizes[1][axis]:
                    first = (n - sizes[1][axis]) // 2
                    array = array.take(range(first, first + sizes[1][axis]), axis)
            np.testing.assert_array_equal(sample[key][0].numpy(), array, strict=True)
        np.testing.assert_allclose(
            sample["affine"].numpy()[:, 3], brains.affines[subject] @ [*sample["location"][0].tolist(), 1], atol=1e-9
        )
        assert tuple(dataset.layout.shapes[volume]) == sample["image"].shape[1:]
    if pad_to == crop_to:
        (batch,) = rl.DataLoader(dataset, batch_size=4)
        assert batch["image"].shape == (4, 1, *sizes[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_volumes_of_different_shapes_in_batches_of_equal_shape(turned: Any, workers: int) -> None:
    # 6 volumes of 6 shapes, twice under a crop: two of the shapes are then one.
    dataset = rl.VolumeDataset(turned.uri, image="MR", label="seg", crop_to=(9, 9, 9))
    shapes = {subject: tuple(min(n, 9) for n in turned.arrays["MR"][subject].shape) for subject in turned.subjects}
    sampler = rl.KeySampler(dataset, order=rl.EqualShapes(2))
    loader = rl.DataLoader(
        dataset, 2, sampler=sampler, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    seen = []
    for batch in loader:
        found = {shapes[subject] for subject in batch["obs_subject_id"]}
        assert found == {tuple(batch["image"].shape[2:])}
        for subject, image, (start, stop) in zip(
            batch["obs_subject_id"], batch["image"], batch["location"].tolist(), strict=True
        ):
            part = turned.arrays["MR"][subject][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
            np.testing.assert_array_equal(image[0].numpy(), part.astype(np.float32))
        seen += batch["obs_subject_id"]
    assert sorted(seen) == sorted(turned.subjects)
    sizes = [list(shapes.values()).count(shape) for shape in set(shapes.values())]
    assert len(loader) == sum(-(-size // 2) for size in sizes)
    assert max(sizes) > 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pad_to": 0}, "pad_to=0 must be one or 3 whole numbers of at least 1"),
        ({"crop_to": (8, 8)}, r"crop_to=\(8, 8\) must be one or 3 whole numbers of at least 1"),
        ({"crop_to": True}, "crop_to=True must be one or 3 whole numbers"),
    ],
)
def test_wrong_sizes(brains: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        rl.VolumeDataset(brains.uri, image="T1w", **arguments)
