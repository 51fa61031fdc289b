"""``dataset[key]`` is a pure function of the key; ``dataset[i]`` draws from torch's generator."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, default_collate

import radioloader as rl


def digest(sample: dict[str, Any]) -> str:
    """A hash of all that a sample holds."""
    result = hashlib.sha256()
    for name in sorted(sample):
        value = sample[name]
        content = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        result.update(f"{name} {getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}".encode() + content)
    return result.hexdigest()


def digests(samples: Sequence[dict[str, Any]]) -> list[str]:
    return [digest(sample) for sample in samples]


@pytest.fixture
def patches(brains: Any) -> rl.PatchDataset:
    return rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=8, patches_per_volume=3, targets=["age"])


def test_any_order_and_any_batch_gives_the_same_bytes(patches: rl.PatchDataset) -> None:
    keys = [rl.PatchKey(volume, draw, epoch) for volume in range(4) for draw in range(3) for epoch in range(3)]
    expected = {key: digest(patches[key]) for key in keys}
    assert len(set(expected.values())) == len(keys)
    generator = random.Random(0)
    for size in (1, 5, 36):
        order = generator.sample(keys, len(keys))
        for start in range(0, len(order), size):
            part = order[start : start + size]
            assert digests(patches.__getitems__(part)) == [expected[key] for key in part]
    assert digests(patches.__getitems__([keys[7]] * 3)) == [expected[keys[7]]] * 3


def test_reading_by_key_neither_uses_nor_changes_the_global_generators(patches: rl.PatchDataset) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        results.append(digest(patches[rl.PatchKey(2, 1, 5)]))
        after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1][1].tolist() == after[1][1].tolist()
        assert before[2] == after[2]
    assert results[0] == results[1]


def test_a_dataset_that_is_made_anew_or_pickled_gives_the_same_bytes(brains: Any, patches: rl.PatchDataset) -> None:
    again = rl.PatchDataset(rl.open(brains.uri), image="T1w", label="seg", patch_size=8, targets=["age"])
    copy = pickle.loads(pickle.dumps(patches))
    for key in (rl.PatchKey(0), rl.PatchKey(3, 2, 7)):
        assert digest(again[key]) == digest(copy[key]) == digest(patches[key])
    assert copy.__dict__.keys() == patches.__dict__.keys()


def starts(dataset: rl.PatchDataset, keys: Sequence[rl.PatchKey]) -> list[list[int]]:
    return [sample["location"][0].tolist() for sample in dataset.__getitems__(list(keys))]


def test_seed_epoch_volume_and_draw_each_decide(brains: Any) -> None:
    def found(seed: int, volume: int, draw: int, epoch: int) -> list[int]:
        dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=(4, 4, 4), seed=seed)
        return starts(dataset, [rl.PatchKey(volume, draw, epoch)])[0]

    places = [found(*case) for case in ((0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1))]
    assert len({tuple(place) for place in places}) == 5


def test_literal_positions(brains: Any) -> None:
    # Written down: they may not change with a release, a platform or numpy's version.
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8)
    keys = [rl.PatchKey(0, 0), rl.PatchKey(0, 1), rl.PatchKey(3, 0), rl.PatchKey(0, 0, 1)]
    assert starts(dataset, keys) == [[9, 1, 6], [8, 9, 6], [5, 3, 6], [2, 13, 2]]


def test_another_subject_does_not_change_the_others_patches(
    cohort: Path, store_uri: str, make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    # Subjects 0 to 3 of a larger cohort, whose new subject even sorts first.
    few = rl.PatchDataset(store_uri, image="T1w", patch_size=8)
    files = {path.name.split("_")[0]: path for path in (cohort / "images").iterdir()}
    files["aaa-first"] = files["sub-01"]
    assert rl.ingest(tmp_path / "store", {"T1w": files}, workers=1).ok
    many = rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8)
    assert many.subjects == ["aaa-first", *few.subjects]
    for volume in range(4):
        for draw in range(3):
            a, b = few[rl.PatchKey(volume, draw, 2)], many[rl.PatchKey(volume + 1, draw, 2)]
            assert digest(a) == digest(b)
    # The same voxels under another id are drawn from independently.
    assert starts(many, [rl.PatchKey(0, d) for d in range(5)]) != starts(many, [rl.PatchKey(1, d) for d in range(5)])


def test_a_selection_of_subjects_has_their_patches(brains: Any, patches: rl.PatchDataset) -> None:
    some = rl.PatchDataset(
        brains.uri, image="T1w", label="seg", patch_size=8, targets=["age"], subjects=["sub-04", "sub-02"]
    )
    assert digest(some[rl.PatchKey(0, 2, 1)]) == digest(patches[rl.PatchKey(3, 2, 1)])
    assert digest(some[rl.PatchKey(1, 2, 1)]) == digest(patches[rl.PatchKey(1, 2, 1)])


# ---- integers ----------------------------------------------------------------------------------------------------------


def test_integers_draw_from_torchs_generator(patches: rl.PatchDataset) -> None:
    torch.manual_seed(5)
    first = digests([patches[index] for index in range(12)])
    again = digests([patches[index] for index in range(12)])
    torch.manual_seed(5)
    assert digests([patches[index] for index in range(12)]) == first
    assert not set(first) & set(again)
    torch.manual_seed(6)
    assert digests([patches[index] for index in range(12)]) != first
    torch.manual_seed(5)
    assert digests(patches.__getitems__(list(range(12)))) == first  # one batch draws like one by one
    assert [patches[index]["obs_subject_id"] for index in range(12)] == [s for s in patches.subjects for _ in range(3)]


def test_integers_of_any_kind_and_negative_ones(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w")
    expected = digest(dataset[rl.VolumeKey(3)])
    for index in (3, -1, np.int64(3), torch.tensor(3), np.uint8(3)):
        assert digest(dataset[index]) == expected
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"sample {index} is out of range, the dataset has 4"):
            dataset[index]
    assert [sample["obs_subject_id"] for sample in dataset] == dataset.subjects  # iteration ends by IndexError


@pytest.mark.parametrize("wrong", ["sub-01", 1.0, None, (0, 1), rl.VolumeKey(0), rl.SliceKey(0, "axial", 0)])
def test_what_is_no_key(patches: rl.PatchDataset, wrong: Any) -> None:
    with pytest.raises(TypeError, match="PatchDataset takes PatchKeys and integers, got "):
        patches[wrong]


def test_keys_of_volumes_that_are_not_there(patches: rl.PatchDataset) -> None:
    for volume in (4, -1):
        with pytest.raises(
            IndexError, match=rf"PatchKey\(volume={volume}, draw=0, epoch=0\): the dataset has 4 volumes"
        ):
            patches[rl.PatchKey(volume)]


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_loader(patches: rl.PatchDataset, workers: int) -> None:
    def epochs() -> list[list[str]]:
        torch.manual_seed(3)
        loader = torch.utils.data.DataLoader(
            patches,
            batch_size=5,
            shuffle=True,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        result = []
        for _ in range(2):
            seen = list(loader)
            assert [len(batch["obs_id"]) for batch in seen] == [5, 5, 2]
            assert sorted(name for batch in seen for name in batch["obs_subject_id"]) == sorted(patches.subjects * 3)
            assert seen[0]["image"].shape == (5, 1, 8, 8, 8)
            assert seen[0]["affine"].shape == (5, 4, 4)
            assert seen[0]["age"].dtype == torch.int64
            result.append([hashlib.sha256(batch["image"].numpy().tobytes()).hexdigest() for batch in seen])
        return result

    first, second = epochs()
    assert not set(first) & set(second)  # epochs differ
    assert epochs() == [first, second]  # and manual_seed reproduces them


def test_subset_and_concat(patches: rl.PatchDataset, brains: Any) -> None:
    torch.manual_seed(1)
    subset = Subset(patches, [11, 0, 5])
    whole = next(iter(rl.DataLoader(subset, batch_size=3)))
    assert whole["obs_subject_id"] == ["sub-04", "sub-01", "sub-02"]
    for image, location, subject in zip(whole["image"], whole["location"], whole["obs_subject_id"], strict=True):
        array = brains.arrays["T1w"][subject]
        part = array[tuple(slice(a, b) for a, b in zip(*location.tolist(), strict=True))]
        np.testing.assert_array_equal(image[0].numpy(), part.astype(np.float32))
    both = ConcatDataset(
        [patches, rl.PatchDataset(brains.uri, image="T1w", label="seg", patch_size=8, targets=["age"])]
    )
    assert len(both) == 16
    batches = list(torch.utils.data.DataLoader(both, batch_size=8))
    assert [name for batch in batches for name in batch["obs_subject_id"]] == [
        *[s for s in patches.subjects for _ in range(3)],
        *patches.subjects,
    ]


def test_default_collate_gives_what_ours_gives(patches: rl.PatchDataset) -> None:
    samples = patches.__getitems__([rl.PatchKey(v, 1) for v in range(4)])
    ours, theirs = rl.collate(samples), default_collate(samples)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == theirs[name].dtype
            assert torch.equal(value, theirs[name])
        else:
            assert value == theirs[name]
