"""PatchDataset: patches equal nibabel's arrays, wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader.datasets.columns import Columns
from radioloader.samplers.positions import Site

Array = np.ndarray[Any, Any]


def cut(array: Array, location: Array, fill: float = 0.0) -> Array:
    """The voxels ``location`` (2, 3) of ``array``, ``fill`` outside, by padding the whole array: slow and plain."""
    margin = int(max(np.abs(location).max(), *array.shape[:3]))
    widths = [(margin, margin)] * 3 + [(0, 0)] * (array.ndim - 3)
    padded = np.pad(array, widths, constant_values=fill)
    (x0, y0, z0), (x1, y1, z1) = (location + margin).tolist()
    return padded[x0:x1, y0:y1, z0:z1]


def check(sample: dict[str, Any], files: Any, fill: float = 0.0, image: str = "T1w", label: str = "seg") -> None:
    """A sample holds the voxels of its location, in float32, and its affine maps them to where the volume's does."""
    subject = sample["obs_subject_id"]
    location = sample["location"].numpy()
    expected = cut(files.arrays[image][subject].astype(np.float64), location, fill)
    np.testing.assert_array_equal(sample["image"].numpy(), expected[None].astype(np.float32))
    np.testing.assert_array_equal(sample["label"].numpy(), cut(files.arrays[label][subject], location)[None])
    corners = np.array([[0, 0, 0, 1], [3, 1, 2, 1], [*sample["image"].shape[1:], 1]]).T
    in_volume = corners.copy()
    in_volume[:3] += location[0][:, None]
    np.testing.assert_allclose(
        sample["affine"].numpy() @ corners, files.affines[subject] @ in_volume, rtol=0, atol=1e-9
    )


def test_patches_are_nibabels_arrays(brains: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=(8, 10, 6), patches_per_volume=5)
    assert dataset.random
    assert len(dataset) == 20
    starts = set()
    for volume in range(4):
        for draw in range(5):
            sample = dataset[rl.PatchKey(volume, draw, 3)]
            assert sample["obs_subject_id"] == brains.subjects[volume]
            assert sample["image"].shape == sample["label"].shape == (1, 8, 10, 6)
            first, stop = sample["location"].tolist()
            assert [b - a for a, b in zip(first, stop, strict=True)] == [8, 10, 6]
            assert min(first) >= 0
            check(sample, brains)
            starts.add((volume, *first))
    assert len(starts) > 15


def test_every_axis_and_border_is_reached(brains: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=(18, 22, 16), subjects=["sub-01"])
    starts = {
        tuple(dataset[rl.PatchKey(0, draw)]["location"][0].tolist()) for draw in range(300)
    }  # 3 * 3 * 3 positions
    assert starts == {(x, y, z) for x in range(3) for y in range(3) for z in range(3)}


def test_the_key_of_an_index(brains: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=3)
    keys = [dataset.key(index, epoch=4) for index in range(len(dataset))]
    assert keys == [rl.PatchKey(volume, draw, 4) for volume in range(4) for draw in range(3)]


@pytest.mark.parametrize("pad_value", [0.0, -1024.0, 7.5])
def test_patches_larger_than_the_volume_are_padded(brains: Any, pad_value: float) -> None:
    dataset = rl.PatchDataset(
        brains.uri, image="T1w", label="seg", patch_size=(30, 10, 27), pad=True, pad_value=pad_value
    )
    for volume, width in enumerate((20, 21, 22, 23)):
        sample = dataset[rl.PatchKey(volume)]
        start = sample["location"][0].tolist()
        assert (start[0], start[2]) == ((width - 30) // 2, (18 - 27) // 2)  # centred
        assert 0 <= start[1] <= 14
        assert sample["image"].shape == (1, 30, 10, 27)
        assert sample["image"][0, 0, 0, 0] == pad_value
        assert sample["label"][0, 0, 0, 0] == 0
        check(sample, brains, fill=pad_value)


def test_pad_changes_nothing_where_the_volume_is_large_enough(brains: Any) -> None:
    plain = rl.PatchDataset(brains.uri, image="T1w", patch_size=8)
    padded = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, pad=True, pad_value=9)
    for volume in range(4):
        a, b = plain[rl.PatchKey(volume)], padded[rl.PatchKey(volume)]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["location"], b["location"])


def test_several_collections_and_time_points(mixed: Any) -> None:
    dataset = rl.PatchDataset(mixed.uri, image=["PET", "perf", "CT"], label="mask", patch_size=(5, 4, 3))
    sample = dataset[rl.PatchKey(1, 2)]
    location, arrays = sample["location"].numpy(), mixed.arrays
    expected = np.concatenate(
        [
            cut(arrays["PET"]["b"], location)[None],
            np.moveaxis(cut(arrays["perf"]["b"], location), 3, 0),
            cut(arrays["CT"]["b"], location)[None],
        ]
    )
    np.testing.assert_array_equal(sample["image"].numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(sample["label"].numpy(), np.moveaxis(cut(arrays["mask"]["b"], location), 3, 0))


def test_padding_of_scaled_volumes_is_not_scaled(mixed: Any) -> None:
    # pad_value is a value of the image, not one of what is stored.
    dataset = rl.PatchDataset(mixed.uri, image="CT", label="mask", patch_size=16, pad=True, pad_value=-3000)
    sample = dataset[rl.PatchKey(0)]
    np.testing.assert_array_equal(
        sample["image"][0].numpy(), cut(mixed.arrays["CT"]["a"], sample["location"].numpy(), -3000.0).astype(np.float32)
    )
    assert sample["image"].min() == -3000


def test_dtype_none_keeps_the_stored_dtype(brains: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=30, pad=True, pad_value=-5, dtype=None)
    sample = dataset[rl.PatchKey(3)]
    assert sample["image"].dtype == torch.int16
    expected = cut(brains.arrays["T1w"]["sub-04"], sample["location"].numpy(), -5)
    np.testing.assert_array_equal(sample["image"][0].numpy(), expected, strict=True)


def test_grid_patches_cover_and_put_together_are_the_volume(brains: Any) -> None:
    dataset = rl.PatchDataset(
        brains.uri, image="T1w", label="seg", patch_size=(8, 10, 6), positions=rl.GridPositions(overlap=(2, 0, 1))
    )
    assert not dataset.random
    assert len(dataset) == (3 + 4 + 4 + 4) * 3 * 4  # places on x of the 4 volumes, on y, on z
    built = {subject: np.full(brains.arrays["T1w"][subject].shape, np.nan) for subject in brains.subjects}
    for batch in rl.DataLoader(dataset, batch_size=7):
        for subject, image, (start, stop) in zip(
            batch["obs_subject_id"], batch["image"].numpy(), batch["location"].tolist(), strict=True
        ):
            built[subject][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = image[0]
    for subject in brains.subjects:
        np.testing.assert_array_equal(built[subject], brains.arrays["T1w"][subject])


def test_grid_keys_have_no_epoch_of_their_own(brains: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, positions=rl.GridPositions())
    assert torch.equal(dataset[rl.PatchKey(1, 4, 0)]["image"], dataset[rl.PatchKey(1, 4, 9)]["image"])
    with pytest.raises(IndexError, match="grid patch 27 is out of range, the volume has 27"):
        dataset[rl.PatchKey(0, 27)]


def test_patches_per_volume_does_not_concern_grids(brains: Any) -> None:
    one = rl.PatchDataset(brains.uri, image="T1w", patch_size=12, positions=rl.GridPositions())
    many = rl.PatchDataset(brains.uri, image="T1w", patch_size=12, positions=rl.GridPositions(), patches_per_volume=9)
    assert len(one) == len(many) == 4 * 2 * 2 * 2


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    patch=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30)),
    volume=st.integers(0, 3),
    draw=st.integers(0, 10**6),
    epoch=st.integers(0, 10**6),
    seed=st.integers(-(2**63), 2**63),
)
def test_any_patch_equals_nibabel(
    brains: Any, patch: tuple[int, int, int], volume: int, draw: int, epoch: int, seed: int
) -> None:
    dataset = rl.PatchDataset(
        brains.uri, image="T1w", label="seg", patch_size=patch, pad=True, pad_value=-77, seed=seed
    )
    check(dataset[rl.PatchKey(volume, draw, epoch)], brains, fill=-77)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    patch=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    draw=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int32]),
    threads=st.integers(1, 3),
)
def test_any_batch_on_any_orientation_equals_nibabel(
    turned: Any, patch: tuple[int, int, int], draw: int, dtype: torch.dtype, threads: int
) -> None:
    dataset = rl.PatchDataset(
        turned.uri,
        image="MR",
        label="seg",
        patch_size=patch,
        pad=True,
        dtype=dtype,
        config=rl.StorageConfig(read=rl.ReadConfig(max_workers=threads)),
    )
    keys = [rl.PatchKey(volume, draw) for volume in range(len(dataset.subjects))]
    for sample in dataset.__getitems__(keys):
        assert sample["image"].dtype == dtype
        check(sample, turned, image="MR")


def test_counts_of_many_kinds_of_volumes(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=4, positions=rl.GridPositions())
    n = 3000
    shapes = np.stack([4 + np.arange(n) % 50, 4 + np.arange(n) // 50, np.full(n, 4)], axis=1)
    dataset.table.columns = Columns(
        {"shapes": shapes, "tile.0": np.full((n, 3), 8), "subjects": np.arange(n).astype(str), "shape.0": shapes}
    )
    monkeypatch.setattr(dataset, "_site", lambda volume: Site(shape=dataset.table.shape(volume)))
    counts = dataset._index()["counts"]
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, (-(-shapes // 4)).prod(axis=1))
