"""SliceDataset: anatomical slices of volumes in any storage orientation, with neighbours as channels."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ShapeError

LETTERS = {"sagittal": "LR", "coronal": "AP", "axial": "IS"}


def normal_axis(codes: str, plane: str) -> int:
    return next(axis for axis, code in enumerate(codes) if code in LETTERS[plane])


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("context", [0, 2])
def test_slices_equal_nibabel_in_every_storage_orientation(turned: Any, plane: str, context: int) -> None:
    dataset = rl.SliceDataset(turned.uri, image="MR", label="seg", plane=plane, context=context, pad_value=-999)
    assert not dataset.random
    places = list(turned.subjects)
    number = 0
    for volume, codes in enumerate(places):  # subjects are named by their axis codes
        array, label = turned.arrays["MR"][codes], turned.arrays["seg"][codes]
        axis = normal_axis(codes, plane)
        widths = [(context, context) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(array, widths, constant_values=-999)
        for index in range(array.shape[axis]):
            key = rl.SliceKey(volume, plane, index)
            assert dataset.key(number) == key
            number += 1
            sample = dataset[key]
            neighbours = np.moveaxis(padded.take(range(index, index + 2 * context + 1), axis), axis, 0)
            np.testing.assert_array_equal(sample["image"].numpy(), neighbours.astype(np.float32))
            np.testing.assert_array_equal(sample["label"].numpy(), label.take(index, axis)[None])
            # The place of the slice itself, without neighbours.
            start, stop = [0, 0, 0], list(array.shape)
            start[axis], stop[axis] = index, index + 1
            assert sample["location"].tolist() == [start, stop]
            expected = turned.affines[codes] @ [*start, 1]
            np.testing.assert_allclose(sample["affine"].numpy()[:, 3], expected, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(sample["affine"].numpy()[:3, :3], turned.affines[codes][:3, :3])
    assert number == len(dataset)


def test_neighbours_of_each_channel_lie_side_by_side(mixed: Any) -> None:
    dataset = rl.SliceDataset(mixed.uri, image=["CT", "perf"], label="mask", plane="coronal", context=1)
    sample = dataset[rl.SliceKey(0, "coronal", 4)]
    assert sample["image"].shape == (6 * 3, 14, 10)
    channels = [mixed.arrays["CT"]["a"], *np.moveaxis(mixed.arrays["perf"]["a"], 3, 0)]
    expected = np.stack([channel[:, 4 + offset, :] for channel, offset in product(channels, (-1, 0, 1))])
    np.testing.assert_array_equal(sample["image"].numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(sample["label"].numpy(), np.moveaxis(mixed.arrays["mask"]["a"][:, 4, :], 2, 0))


def test_context_larger_than_the_volume(mixed: Any) -> None:
    sample = rl.SliceDataset(mixed.uri, image="PET", plane="axial", context=11, pad_value=1)[rl.SliceKey(0, "axial", 3)]
    padded = np.pad(mixed.arrays["PET"]["a"], [(0, 0), (0, 0), (11, 11)], constant_values=1)
    np.testing.assert_array_equal(sample["image"].numpy(), np.moveaxis(padded[..., 3:26], 2, 0).astype(np.float32))


@pytest.mark.parametrize("tiling", ["isotropic", "axial", "sagittal", "coronal", "custom"])
def test_slices_do_not_depend_on_the_tiles(turned: Any, tmp_path: Any, tiling: str) -> None:
    tile = rl.TileConfig(custom=(3, 64, 2)) if tiling == "custom" else rl.TileConfig(orientation=tiling, extent=4)
    folder = tmp_path / "files"
    folder.mkdir()
    store = rl.open(turned.uri)
    for volume in store.MR:
        volume.to_nifti(folder / f"{volume.obs_subject_id}.nii.gz")
    config = rl.StorageConfig(write=rl.WriteConfig(tile=tile))
    assert rl.ingest(tmp_path / "store", {"MR": folder}, workers=1, config=config).ok
    for plane in LETTERS:
        dataset = rl.SliceDataset(tmp_path / "store", image="MR", plane=plane, context=1)
        reference = rl.SliceDataset(turned.uri, image="MR", plane=plane, context=1)
        assert len(dataset) == len(reference)
        for index in range(0, len(reference), 5):
            a, b = dataset[index], reference[index]
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["affine"], b["affine"])


def test_slices_batch_across_volumes_and_integers_draw_nothing(mixed: Any) -> None:
    dataset = rl.SliceDataset(mixed.uri, image="PET", plane="sagittal")
    state = torch.get_rng_state()
    batch = next(iter(rl.DataLoader(dataset, batch_size=len(dataset))))
    assert batch["image"].shape == (42, 1, 12, 10)
    assert torch.equal(dataset[20]["image"], batch["image"][20])
    assert torch.equal(dataset[-1]["image"], batch["image"][41])
    stacked = np.concatenate([mixed.arrays["PET"][subject] for subject in "abc"])
    np.testing.assert_array_equal(batch["image"][:, 0].numpy(), stacked.astype(np.float32))
    torch.set_rng_state(state)
    dataset.__getitems__([3, 4])
    assert torch.equal(torch.get_rng_state(), state)


def test_slices_of_different_shapes_cannot_be_stacked(turned: Any) -> None:
    dataset = rl.SliceDataset(turned.uri, image="MR", plane="axial")
    with pytest.raises(ShapeError, match=r"volume 'ASR_MR' of shape .* and volume 'IRP_MR' of shape .*batch_size=1"):
        dataset.__getitems__([rl.SliceKey(0, "axial", 0), rl.SliceKey(1, "axial", 0)])


def test_a_slice_outside_the_volume(mixed: Any) -> None:
    dataset = rl.SliceDataset(mixed.uri, image="PET", plane="axial")
    for index in (10, -1):
        with pytest.raises(IndexError, match=f"index={index}.*: volume 'b_PET' has 10 axial slices"):
            dataset[rl.SliceKey(1, "axial", index)]
