"""Batches: one tensor each, views of it as samples, shared memory in a worker; collate of all that a transform may leave."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.datasets.collate import Batch, collate
from radioloader.datasets.memory import allocate
from radioloader.errors import ShapeError


@pytest.fixture
def batch(mixed: Any) -> Any:
    dataset = rl.PatchDataset(mixed.uri, image=["CT", "perf"], label="mask", patch_size=6)
    return dataset.__getitems__([rl.PatchKey(volume) for volume in (2, 0, 1)])


def test_samples_are_views_of_the_batch(batch: Any) -> None:
    assert isinstance(batch, Batch)
    assert len(batch) == 3
    collated = collate(batch)
    assert collated is batch.collated
    assert collated["image"].shape == (3, 6, 6, 6, 6)
    assert collated["label"].shape == (3, 2, 6, 6, 6)
    assert collated["affine"].shape == (3, 4, 4)
    assert collated["location"].shape == (3, 2, 3)
    assert collated["obs_subject_id"] == ["c", "a", "b"]
    assert collated["obs_id"] == ["c_CT", "a_CT", "b_CT"]
    for name in ("image", "label", "affine", "location"):
        whole = collated[name]
        assert whole.is_contiguous()
        for place, sample in enumerate(batch):
            assert sample[name].untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
            assert sample[name].data_ptr() == whole[place].data_ptr()
            assert torch.equal(sample[name], whole[place])


def test_a_sample_alone_is_that_of_the_batch(mixed: Any, batch: Any) -> None:
    dataset = rl.PatchDataset(mixed.uri, image=["CT", "perf"], label="mask", patch_size=6)
    alone = dataset[rl.PatchKey(0)]
    assert alone.keys() == batch[1].keys()
    for name, value in alone.items():
        assert torch.equal(value, batch[1][name]) if isinstance(value, torch.Tensor) else value == batch[1][name]


def test_every_voxel_of_the_batch_is_written(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Batches are allocated uninitialised: whatever was there before must not show through.
    results = []
    for rubbish in (0, 255):

        def filled(*arguments: Any, fill: int = rubbish, **keywords: Any) -> dict[str, torch.Tensor]:
            tensors = allocate(*arguments, **keywords)
            for tensor in tensors.values():
                tensor.view(torch.uint8).fill_(fill)
            return tensors

        monkeypatch.setattr("radioloader.datasets.batch.allocate", filled)
        dataset = rl.PatchDataset(
            brains.uri, image="T1w", label="seg", patch_size=(30, 6, 25), pad=True, pad_value=3, targets=["age"]
        )
        results.append(collate(dataset.__getitems__([rl.PatchKey(v, 1) for v in range(4)])))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]) if isinstance(value, torch.Tensor) else value == results[1][name]


def test_a_batch_pickles_and_copies_as_a_list(batch: Any) -> None:
    for again in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert isinstance(again, Batch)
        assert len(again) == 3
        assert torch.equal(again[1]["image"], batch[1]["image"])
        assert torch.equal(collate(again)["label"], collate(batch)["label"])


def storages(batch: dict[str, Any]) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in batch.values() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_a_worker_sends_few_blocks_of_shared_memory(brains: Any, strategy: str) -> None:
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(strategy)
    try:
        dataset = rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=17, targets=["age"])
        here = list(rl.DataLoader(dataset, batch_size=4))
        there = list(rl.DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="fork"))
    finally:
        torch.multiprocessing.set_sharing_strategy(before)
    assert len(storages(here[0])) == 5  # ordinary memory: one for each of image, label, affine, location, age
    (batch,) = there
    # One for images, one for labels, one for all that is small: a location that is kept keeps no voxels.
    assert len(storages(batch)) == 3
    assert batch["location"].untyped_storage().nbytes() < 4096
    assert batch["age"].untyped_storage().data_ptr() == batch["affine"].untyped_storage().data_ptr()
    for name, value in here[0].items():
        if isinstance(value, torch.Tensor):
            assert batch[name].is_shared()
            assert batch[name].data_ptr() % 64 == 0
            assert torch.equal(batch[name], value)
        else:
            assert batch[name] == value


def test_allocate_in_this_process() -> None:
    tensors = allocate({"a": ((2, 3), torch.uint8), "b": ((), torch.float64)})
    assert {name: (tuple(t.shape), t.dtype, t.is_shared()) for name, t in tensors.items()} == {
        "a": ((2, 3), torch.uint8, False),
        "b": ((), torch.float64, False),
    }


# ---- collate ---------------------------------------------------------------------------------------------------------


def test_collate_of_every_kind_of_value() -> None:
    samples = [
        {
            "image": torch.full((1, 2), float(i)),
            "array": np.full((3,), i, np.int16)[::-1],
            "number": i,
            "real": np.float32(i / 2),
            "flag": i == 1,
            "text": f"t{i}",
            "pair": {"x": torch.tensor(i), "y": f"y{i}"},
            "mixture": [None, "a", 3][i],
            "letters": np.array(["a", "b"]),
        }
        for i in range(3)
    ]
    result = rl.collate(samples)
    assert list(result) == list(samples[0])
    assert torch.equal(result["image"], torch.tensor([[[0.0, 0]], [[1, 1]], [[2, 2]]]))
    assert torch.equal(result["array"], torch.tensor([[i] * 3 for i in range(3)], dtype=torch.int16))
    assert result["number"].tolist() == [0, 1, 2]
    assert result["number"].dtype == torch.int64
    assert result["real"].tolist() == [0.0, 0.5, 1.0]
    assert result["flag"].tolist() == [False, True, False]
    assert result["text"] == ["t0", "t1", "t2"]
    assert result["pair"]["x"].tolist() == [0, 1, 2]
    assert result["pair"]["y"] == ["y0", "y1", "y2"]
    assert result["mixture"] == [None, "a", 3]
    assert [letters.tolist() for letters in result["letters"]] == [["a", "b"]] * 3


def test_collate_copies_what_it_stacks() -> None:
    one = {"image": torch.zeros(2), "array": np.zeros(2)}
    result = rl.collate([one])
    result["image"] += 1
    result["array"] += 1
    assert one["image"].tolist() == one["array"].tolist() == [0, 0]


def test_collate_widens_dtypes_that_differ() -> None:
    # A random cast or normalisation may turn some samples to floats and not others.
    result = rl.collate([{"image": torch.tensor([1], dtype=torch.int16)}, {"image": torch.tensor([0.5])}])
    assert result["image"].dtype == torch.float32
    assert result["image"].tolist() == [[1.0], [0.5]]


def test_collate_of_arrays_that_torch_does_not_take_as_they_are() -> None:
    frozen, swapped = np.arange(3.0), np.arange(3, dtype=">i4")
    frozen.flags.writeable = False
    result = rl.collate([{"a": frozen, "b": swapped, "c": np.arange(6).reshape(2, 3).T}])
    assert result["a"].tolist() == [[0, 1, 2]]
    assert result["b"].tolist() == [[0, 1, 2]]
    assert result["c"].tolist() == [[[0, 3], [1, 4], [2, 5]]]


def test_collate_errors_name_the_key_and_the_volumes() -> None:
    a = {"obs_id": "sub-01_T1w", "image": torch.zeros(1, 4, 5)}
    b = {"obs_id": "sub-02_T1w", "image": torch.zeros(1, 4, 6)}
    with pytest.raises(
        ShapeError,
        match=r"cannot stack 'image': volume 'sub-01_T1w' has shape \(1, 4, 5\), volume 'sub-02_T1w' has \(1, 4, 6\); crop or pad to one "
        "size, or use batch_size=1",
    ):
        rl.collate([a, b])
    with pytest.raises(
        ShapeError,
        match=r"cannot stack 'x.y': sample 0 of the batch \(counted from 0\) has shape \(1,\), sample 1 of the batch .* has \(2,\)",
    ):
        rl.collate([{"x": {"y": torch.zeros(1)}}, {"x": {"y": torch.zeros(2)}}])
    text = (
        "cannot collate: volume 'sub-01_T1w' has the key 'image', volume 'sub-02_T1w' has not; "
        "a transform must give every sample the same keys"
    )
    for samples in ([a, {"obs_id": "sub-02_T1w"}], [{"obs_id": "sub-02_T1w"}, a]):
        with pytest.raises(ShapeError) as caught:
            rl.collate(samples)
        assert str(caught.value) == text
    with pytest.raises(ShapeError, match="there are no samples to collate"):
        rl.collate([])


def test_real_data_in_batches(shared_data: Path, tmp_path: Path) -> None:
    import nibabel as nib

    images = sorted((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:6]
    labels = [shared_data / "hippocampus" / "labelsTr" / path.name for path in images]
    assert rl.ingest(tmp_path / "store", {"MR": images, "seg": labels}, workers=1).ok
    dataset = rl.PatchDataset(tmp_path / "store", image="MR", label="seg", patch_size=24, patches_per_volume=4)
    arrays = {
        image.name.removesuffix(".nii.gz"): (nib.load(image).dataobj, nib.load(label).dataobj)
        for image, label in zip(images, labels, strict=True)
    }
    seen = 0
    for batch in rl.DataLoader(dataset, batch_size=8, shuffle=True):
        for place, subject in enumerate(batch["obs_subject_id"]):
            where = tuple(slice(a, b) for a, b in zip(*batch["location"][place].tolist(), strict=True))
            image, label = arrays[subject]
            np.testing.assert_array_equal(batch["image"][place, 0].numpy(), np.asarray(image[where], np.float32))
            np.testing.assert_array_equal(batch["label"][place, 0].numpy(), np.asarray(label[where]))
            seen += 1
    assert seen == 24


@pytest.mark.parametrize("transform", [None, dict])
def test_a_batch_of_no_keys(brains: Any, transform: Any) -> None:
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=4, transform=transform)
    for keys in ([], [None]):
        with pytest.raises(ShapeError, match="there are no samples to read: a batch needs at least one key"):
            dataset.__getitems__(keys)
