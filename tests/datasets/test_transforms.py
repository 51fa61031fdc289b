"""Transforms are seeded by the sample's key, whatever generator they use, and leave the script's own generators alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.datasets.seeding import SeededTransform
from radioloader.errors import ShapeError

Sample = dict[str, Any]


def noise(sample: Sample) -> Sample:
    """One number from each global generator."""
    sample["torch"] = torch.rand(())
    sample["numpy"] = np.random.rand()  # noqa: NPY002
    sample["random"] = random.random()
    return sample


def numbers(sample: Sample) -> tuple[float, float, float]:
    return float(sample["torch"]), float(sample["numpy"]), float(sample["random"])


def patches(files: Any, transform: Callable[[Any], Any], **arguments: Any) -> rl.PatchDataset:
    return rl.PatchDataset(
        files.uri, **{"image": "T1w", "label": "seg", "patch_size": 8, "transform": transform} | arguments
    )


KEYS = [rl.PatchKey(volume, draw, epoch) for volume in range(4) for draw in range(2) for epoch in range(2)]


def test_random_numbers_depend_on_the_key_alone(brains: Any) -> None:
    dataset = patches(brains, noise)
    expected = {key: numbers(dataset[key]) for key in KEYS}
    for place in range(3):
        assert len({found[place] for found in expected.values()}) == len(KEYS)
    shuffled = random.Random(1).sample(KEYS, len(KEYS))
    for samples in (dataset.__getitems__(shuffled), [patches(brains, noise)[key] for key in shuffled]):
        assert [numbers(sample) for sample in samples] == [expected[key] for key in shuffled]
    other = patches(brains, noise, seed=1)
    assert all(numbers(other[key]) != expected[key] for key in KEYS)


def test_a_slice_and_its_neighbour_get_different_numbers(brains: Any) -> None:
    dataset = rl.SliceDataset(brains.uri, image="T1w", transform=noise)
    samples = dataset.__getitems__([rl.SliceKey(0, "axial", index) for index in range(18)])
    assert len({numbers(sample) for sample in samples}) == 18
    again = dataset[rl.SliceKey(0, "axial", 7)]
    assert numbers(again) == numbers(samples[7])


def test_the_scripts_generators_are_as_they_were(brains: Any) -> None:
    dataset = patches(brains, noise)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    found: tuple[list[float], ...] = ([], [], [])
    for _ in range(3):
        dataset[KEYS[0]]
        found[0].append(torch.rand(()).item())
        found[1].append(np.random.rand())  # noqa: NPY002
        found[2].append(random.random())
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]


def test_the_generators_are_restored_after_an_error(brains: Any) -> None:
    def broken(sample: Sample) -> Sample:
        noise(sample)
        raise ZeroDivisionError("no good")

    torch.manual_seed(4)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    with pytest.raises(ZeroDivisionError, match="no good"):
        patches(brains, broken)[KEYS[3]]
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert before[2] == random.getstate()


def test_an_error_in_a_transform_names_the_sample(brains: Any) -> None:
    def broken(sample: Sample) -> Sample:
        raise ZeroDivisionError("no good")

    with pytest.raises(ZeroDivisionError, match="no good") as caught:
        patches(brains, broken).__getitems__([rl.PatchKey(1), rl.PatchKey(0, 4, 2)])
    assert caught.value.__notes__ == ["in the transform of volume 'sub-02_T1w', PatchKey(volume=1, draw=0, epoch=0)"]


def test_a_transform_that_returns_nothing_is_an_error(brains: Any) -> None:
    def forgetful(sample: Sample) -> Any:
        sample["image"] *= 2

    with pytest.raises(
        TypeError, match=r"the transform returned None for volume 'sub-03_T1w'; it must return the sample"
    ):
        patches(brains, forgetful)[rl.PatchKey(2)]


def test_integers_seed_transforms_from_torchs_generator(brains: Any) -> None:
    for dataset in (patches(brains, noise), rl.VolumeDataset(brains.uri, image="T1w", transform=noise)):
        torch.manual_seed(8)
        first = [numbers(dataset[1]) for _ in range(3)]
        torch.manual_seed(8)
        assert [numbers(dataset[1]) for _ in range(3)] == first
        assert len(set(first)) == 3


def test_threads_do_not_mix_their_numbers(brains: Any) -> None:
    dataset = patches(brains, noise)
    expected = [numbers(dataset[key]) for key in KEYS]
    found: dict[int, list[tuple[float, float, float]]] = {}

    def work(number: int) -> None:
        found[number] = [numbers(dataset[key]) for key in KEYS]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_a_fork_in_the_middle_of_a_transform_does_not_block_the_workers(brains: Any) -> None:
    # Another thread transforms, and holds the lock of the generators, when the workers are forked.
    inside, go_on = threading.Event(), threading.Event()

    def slow(sample: Sample) -> Sample:
        inside.set()
        assert go_on.wait(60)
        return sample

    thread = threading.Thread(target=SeededTransform(slow), args=({}, 0))
    thread.start()
    assert inside.wait(60)
    try:
        loader = rl.DataLoader(
            patches(brains, noise), batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=60
        )
        assert len(list(loader)) == 1
    finally:
        go_on.set()
        thread.join()


# ---- MONAI, TorchIO ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["compose", "single"])
def test_monais_randomizable_transforms_are_reproducible(brains: Any, monai_transforms: Any, kind: str) -> None:
    m = monai_transforms

    def make() -> Any:
        flip = m.RandFlipd(keys=["image", "label"], prob=0.5, spatial_axis=0)
        gauss = m.RandGaussianNoised(keys=["image"], prob=1.0, std=5.0)
        return m.Compose([flip, gauss]) if kind == "compose" else gauss

    dataset = patches(brains, make())
    expected = {key: dataset[key]["image"].clone() for key in KEYS}
    assert len({tuple(image.flatten().tolist()) for image in expected.values()}) == len(KEYS)
    plain = patches(brains, lambda sample: sample)
    assert all(not torch.equal(plain[key]["image"], image) for key, image in expected.items())
    for key in reversed(KEYS):
        assert torch.equal(dataset[key]["image"], expected[key])
    # A transform that was used before gives what a new one gives; so does a batch.
    batch = rl.collate(patches(brains, make()).__getitems__(KEYS))
    assert type(batch["image"]) is torch.Tensor
    assert torch.equal(batch["image"], torch.stack([image.as_subclass(torch.Tensor) for image in expected.values()]))


def test_monais_flip_keeps_image_and_label_together(brains: Any, monai_transforms: Any) -> None:
    flip = monai_transforms.RandFlipd(keys=["image", "label"], prob=0.5, spatial_axis=0)
    plain, dataset = patches(brains, lambda sample: sample), patches(brains, flip)
    flipped = 0
    for key in KEYS:
        before, after = plain[key], dataset[key]
        turned = not torch.equal(after["image"], before["image"])
        flipped += turned
        for name in ("image", "label"):
            expected = before[name].flip(1) if turned else before[name]
            assert torch.equal(after[name].as_subclass(torch.Tensor), expected)
    assert 0 < flipped < len(KEYS)


def test_torchio_in_a_transform_is_reproducible(brains: Any) -> None:
    tio = pytest.importorskip("torchio")
    augment = tio.RandomNoise(std=(1, 5))

    def transform(sample: Sample) -> Sample:
        sample["image"] = augment(sample["image"])
        return sample

    dataset = patches(brains, transform)
    expected = [dataset[key]["image"] for key in KEYS]
    assert not torch.equal(expected[0], expected[1])
    for key, image in reversed(list(zip(KEYS, expected, strict=True))):
        assert torch.equal(dataset[key]["image"], image)


# ---- what a transform may return -----------------------------------------------------------------------------------------


def test_a_transform_may_bring_different_shapes_to_one(brains: Any) -> None:
    def crop(sample: Sample) -> Sample:
        return sample | {"image": sample["image"][:, :16, :16, :16]}

    dataset = rl.VolumeDataset(brains.uri, image="T1w", transform=crop)
    (batch,) = rl.DataLoader(dataset, batch_size=4)
    expected = np.stack([brains.arrays["T1w"][subject][:16, :16, :16] for subject in brains.subjects])
    np.testing.assert_array_equal(batch["image"][:, 0].numpy(), expected.astype(np.float32))


def test_shapes_that_a_transform_leaves_different_are_named(brains: Any) -> None:
    dataset = rl.VolumeDataset(brains.uri, image="T1w", transform=lambda sample: sample)
    with pytest.raises(
        ShapeError, match=r"cannot stack 'image': volume 'sub-01_T1w' has shape .*, volume 'sub-02_T1w'"
    ):
        next(iter(rl.DataLoader(dataset, batch_size=4)))


def test_a_collate_of_ones_own_gets_different_shapes(brains: Any) -> None:
    def pad(samples: list[Sample]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([sample["image"][0] for sample in samples], batch_first=True)

    dataset = rl.VolumeDataset(brains.uri, image="T1w", transform=lambda sample: sample)
    (batch,) = rl.DataLoader(dataset, batch_size=4, collate_fn=pad)
    assert batch.shape == (4, 23, 24, 18)
    np.testing.assert_array_equal(batch[1, :21].numpy(), brains.arrays["T1w"]["sub-02"].astype(np.float32))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_may_drop_and_add_keys(brains: Any, workers: int) -> None:
    def two(sample: Sample) -> Sample:
        return {"x": sample["image"] * 2, "y": sample["label"].amax(), "meta": {"who": sample["obs_subject_id"]}}

    loader = rl.DataLoader(
        patches(brains, two), batch_size=4, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    (batch,) = loader
    assert set(batch) == {"x", "y", "meta"}
    assert batch["meta"]["who"] == brains.subjects
    assert batch["y"].shape == (4,)
    plain = patches(brains, lambda sample: sample)
    assert torch.equal(batch["x"], torch.stack([plain[rl.PatchKey(v)]["image"] * 2 for v in range(4)]))
    assert batch["x"].is_shared() is bool(workers)


def test_a_transform_may_return_something_else_than_a_dict(brains: Any) -> None:
    def pair(sample: Sample) -> Any:
        return sample["image"], sample["location"]

    images, locations = next(iter(rl.DataLoader(patches(brains, pair), batch_size=3)))
    assert (images.shape, locations.shape) == ((3, 1, 8, 8, 8), (3, 2, 3))


def test_keys_that_only_some_samples_have_are_named(brains: Any) -> None:
    def sometimes(sample: Sample) -> Sample:
        if sample["obs_subject_id"] == "sub-02":
            del sample["label"]
        return sample

    with pytest.raises(ShapeError, match=r"volume 'sub-01_T1w' has the key 'label', volume 'sub-02_T1w' has not"):
        next(iter(rl.DataLoader(patches(brains, sometimes), batch_size=4)))


def test_changing_a_sample_in_place_changes_no_other(brains: Any) -> None:
    def zero_first(sample: Sample) -> Sample:
        if sample["obs_subject_id"] == "sub-01":
            sample["image"].zero_()
        return sample

    plain = patches(brains, lambda sample: sample)
    samples = patches(brains, zero_first).__getitems__([rl.PatchKey(v) for v in range(4)])
    assert not samples[0]["image"].any()
    for volume in (1, 2, 3):
        assert torch.equal(samples[volume]["image"], plain[rl.PatchKey(volume)]["image"])
