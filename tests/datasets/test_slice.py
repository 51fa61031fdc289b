"""SliceDataset: anatomical slices of volumes in any storage orientation, with neighbours as channels."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, ShapeError

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


# ---- what is left out, read together, brought to a size ------------------------------------------------------------------

AXES = ("sagittal", "coronal", "axial")


@pytest.fixture(scope="module")
def sparse(write_image: Any, tmp_path_factory: Any) -> Any:
    """3 subjects in different orientations whose image has empty borders (of value -5), with holes in the middle, and sparse labels.
    A second image is not empty elsewhere. Gives the URI, arrays and codes."""
    root = tmp_path_factory.mktemp("sparse")
    generator = np.random.default_rng(4)
    files: dict[str, dict[str, Any]] = {"A": {}, "B": {}, "seg": {}}
    arrays: dict[str, dict[str, Any]] = {"A": {}, "B": {}, "seg": {}}
    for number, codes in enumerate(("RAS", "LPI", "PIR")):
        shape = (12 + number, 11, 10)
        affine = np.zeros((4, 4))
        for axis, code in enumerate(codes):
            affine["LRPAIS".index(code) // 2, axis] = 1.0 if code in "RAS" else -1.0
        affine[3, 3] = 1
        first = np.full(shape, -5, np.int16)
        first[2:9, 3:8, 1:7] = generator.integers(-4, 50, (7, 5, 6))
        first[4] = -5  # a hole
        second = np.zeros(shape, np.float32)
        second[10, 9, 8] = 0.5
        label = np.zeros(shape, np.uint8)
        label[3, 4:6, 2] = 2
        label[7, 7, 5] = 1
        for name, array in (("A", first), ("B", second), ("seg", label)):
            arrays[name][codes] = array
            files[name][codes] = write_image(root / name / f"{codes}.nii.gz", array, affine)
    config = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=4)))
    assert rl.ingest(root / "store", files, labels=["seg"], workers=1, config=config).ok
    return str(root / "store"), arrays, ("LPI", "PIR", "RAS")


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize(
    ("image", "what"), [("A", "image"), (["A", "B"], "image"), ("A", "label"), (["A", "B"], "label")]
)
def test_empty_slices_are_left_out(sparse: Any, plane: str, image: Any, what: str) -> None:
    uri, arrays, subjects = sparse
    dataset = rl.SliceDataset(uri, image=image, label="seg", plane=plane, skip_empty=what)
    asked = ["seg"] if what == "label" else [image] if isinstance(image, str) else image
    expected = []
    for volume, codes in enumerate(subjects):
        axis = normal_axis(codes, plane)
        for index in range(arrays["A"][codes].shape[axis]):
            slabs = [
                (arrays[name][codes].take(index, axis), 0 if name == "seg" else arrays[name][codes].min())
                for name in asked
            ]
            if any((slab != lowest).any() for slab, lowest in slabs):
                expected.append(rl.SliceKey(volume, plane, index))
    assert [dataset.key(number) for number in range(len(dataset))] == expected
    assert len(expected) < sum(arrays["A"][codes].shape[normal_axis(codes, plane)] for codes in subjects)
    for number in (0, len(expected) // 2, len(expected) - 1):
        key = expected[number]
        codes = subjects[key.volume]
        axis = normal_axis(codes, plane)
        np.testing.assert_array_equal(dataset[number]["label"][0].numpy(), arrays["seg"][codes].take(key.index, axis))
    seen = [box.tolist() for batch in rl.DataLoader(dataset, shuffle=True) for box in batch["location"]]
    assert len(seen) == len(expected)


def test_a_volume_of_which_nothing_is_left_is_never_visited(write_image: Any, tmp_path: Any) -> None:
    for number, name in enumerate("abc"):
        label = np.zeros((5, 6, 7), np.uint8)
        if number != 1:
            label[:, :, 2 + number] = 1
        write_image(tmp_path / "MR" / f"{name}.nii.gz", np.full((5, 6, 7), number + 1, np.uint8))
        write_image(tmp_path / "seg" / f"{name}.nii.gz", label)
    import pandas as pd

    table = pd.DataFrame({"subject": list("abc"), "group": ["x", "y", "y"], "weight": [1, 5, 1]})
    assert rl.ingest(
        tmp_path / "store", {"MR": tmp_path / "MR", "seg": tmp_path / "seg"}, labels=["seg"], obs_meta=table, workers=1
    ).ok
    dataset = rl.SliceDataset(tmp_path / "store", image="MR", label="seg", skip_empty="label")
    assert [dataset.key(i) for i in range(len(dataset))] == [rl.SliceKey(0, "axial", 2), rl.SliceKey(2, "axial", 4)]
    for order in (None, rl.Weighted("weight", 8), rl.ClassBalanced("group", 8), rl.BlockShuffled(1)):
        loader = rl.DataLoader(dataset, 2, sampler=rl.KeySampler(dataset, order=order))
        found = {
            (name, int(box[0, 2]))
            for batch in loader
            for name, box in zip(batch["obs_subject_id"], batch["location"], strict=True)
        }
        assert found == {("a", 2), ("c", 4)}
    empty = rl.SliceDataset(tmp_path / "store", image="MR", label="seg", subjects=["a", "c"], skip_empty="label")
    assert len(empty) == 2
    with pytest.raises(rl.RadioloaderError, match="skip_empty='label' leaves no slice: all are empty"):
        rl.SliceDataset(tmp_path / "store", image="MR", label="seg", subjects=["b"], skip_empty="label")
    with pytest.raises(rl.RadioloaderError, match="skip_empty='image' leaves no slice"):
        rl.SliceDataset(tmp_path / "store", image="MR", skip_empty="image")


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize("context", [0, 2])
def test_blocks_stay_together_and_change_no_sample(turned: Any, plane: str, context: int) -> None:
    arguments: dict[str, Any] = {
        "image": "MR",
        "label": "seg",
        "plane": plane,
        "context": context,
        "pad_to": 20,
        "crop_to": 20,
    }
    dataset = rl.SliceDataset(turned.uri, block=4, **arguments)
    plain = rl.SliceDataset(turned.uri, **arguments)
    keys = list(rl.KeySampler(dataset))
    assert sorted(keys, key=lambda k: (k.volume, k.index)) == [plain.key(i) for i in range(len(plain))]
    starts = [i for i, key in enumerate(keys) if key.index % 4 == 0]
    for start in starts:
        first = keys[start]
        length = min(4, int(dataset.layout.counts[first.volume]) - first.index)
        assert keys[start : start + length] == [
            rl.SliceKey(first.volume, plane, first.index + k) for k in range(length)
        ]
    for start in starts[::3]:
        for sample, key in zip(dataset.__getitems__(keys[start : start + 4]), keys[start : start + 4], strict=True):
            alone = plain[key]
            assert torch.equal(sample["image"], alone["image"])
            assert torch.equal(sample["label"], alone["label"])
            assert torch.equal(sample["affine"], alone["affine"])


def test_a_block_is_read_at_once(brains: Any, monkeypatch: Any) -> None:
    from radioloader.storage import _tiles

    asked: list[Any] = []
    plain = _tiles.TileHandle.read
    monkeypatch.setattr(_tiles.TileHandle, "read", lambda s, ranges, out: asked.append(ranges) or plain(s, ranges, out))
    for block, context, expected in ((8, 0, 4), (8, 1, 4), (1, 0, None)):
        # 16 slices of tiles of 8 in each of 2 volumes.
        dataset = rl.SliceDataset(
            brains.uri, image="T1w", plane="sagittal", block=block, context=context, subjects=["sub-01", "sub-02"]
        )
        keys = [rl.SliceKey(v, "sagittal", i) for v in range(2) for i in range(16)]
        asked.clear()
        if block == 8:
            for start in range(0, 32, 8):
                dataset.__getitems__(keys[start : start + 8])
            assert len(asked) == expected
        else:
            for key in keys:
                dataset[key]
            assert len(asked) == 32


@pytest.mark.parametrize(
    ("pad_to", "crop_to"), [(16, None), (None, 8), (12, 12), ((9, 20), (9, 20)), ((4, 16), (8, 30)), ((1, 1), (3, 2))]
)
@pytest.mark.parametrize("plane", AXES)
def test_slices_of_one_size_against_numpy(turned: Any, plane: str, pad_to: Any, crop_to: Any) -> None:
    dataset = rl.SliceDataset(
        turned.uri, image="MR", label="seg", plane=plane, context=1, pad_to=pad_to, crop_to=crop_to, pad_value=-9
    )
    pairs = [(size, size) if isinstance(size, int) else size for size in (pad_to, crop_to)]
    for volume, codes in enumerate(turned.subjects):
        axis = normal_axis(codes, plane)
        for index in (0, 3, turned.arrays["MR"][codes].shape[axis] - 1):
            sample = dataset[rl.SliceKey(volume, plane, index)]
            for name, fill in (("MR", -9), ("seg", 0)):
                array = np.moveaxis(turned.arrays[name][codes], axis, 0)
                around = np.pad(array, [(1, 1), (0, 0), (0, 0)], constant_values=fill)[index : index + 3]
                expected = fit(around if name == "MR" else array[index : index + 1], (1, 2), *pairs, fill)
                found = sample["image" if name == "MR" else "label"].numpy()
                np.testing.assert_array_equal(found, expected.astype(found.dtype))
            corner = turned.affines[codes] @ [*sample["location"][0].tolist(), 1]
            np.testing.assert_allclose(sample["affine"].numpy()[:, 3], corner, rtol=0, atol=1e-9)
            assert tuple(dataset.layout.shapes[volume]) == sample["image"].shape[1:]


def fit(array: Any, axes: tuple[int, ...], pad_to: Any, crop_to: Any, fill: float) -> Any:
    """Pad and crop in the middle, the odd voxel before when padding and after when cropping."""
    for place, axis in enumerate(axes):
        n = array.shape[axis]
        if pad_to is not None and n < pad_to[place]:
            missing = pad_to[place] - n
            widths = [(-(-missing // 2), missing // 2) if a == axis else (0, 0) for a in range(array.ndim)]
            array = np.pad(array, widths, constant_values=fill)
        n = array.shape[axis]
        if crop_to is not None and n > crop_to[place]:
            array = array.take(range((n - crop_to[place]) // 2, (n - crop_to[place]) // 2 + crop_to[place]), axis)
    return array


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"skip_empty": "both"}, "skip_empty='both' is not one of None, 'image', 'label'"),
        ({"skip_empty": "label"}, "skip_empty='label' needs a label collection: give label="),
        ({"block": 0}, "block=0 must be a whole number of at least 1"),
        ({"pad_to": (1, 2, 3)}, r"pad_to=\(1, 2, 3\) must be one or 2 whole numbers of at least 1"),
        ({"crop_to": 0}, "crop_to=0 must be one or 2 whole numbers of at least 1"),
        ({"crop_to": 2.5}, "crop_to=2.5 must be one or 2 whole numbers of at least 1"),
    ],
)
def test_wrong_arguments(brains: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(rl.RadioloaderError, match=text):
        rl.SliceDataset(brains.uri, image="T1w", **arguments)


def test_a_plane_by_its_orientation(turned: Any) -> None:
    for plane in ("axial", "sagittal", "coronal"):
        named = rl.SliceDataset(turned.uri, image="MR", plane=plane)
        given = rl.SliceDataset(turned.uri, image="MR", plane=rl.SliceOrientation(plane))
        assert (given.plane, given.fingerprint(), given.key(3)) == (plane, named.fingerprint(), named.key(3))
    with pytest.raises(ConfigError, match="plane='isotropic' is not one of 'axial', 'coronal', 'sagittal'"):
        rl.SliceDataset(turned.uri, image="MR", plane=rl.SliceOrientation.ISOTROPIC)
