"""Loaders in one call: thin fronts of the same classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.ml.distributed import create_distributed_dataloader, set_epoch

HERE = {"num_workers": 0}


@pytest.fixture(scope="module")
def store(brains: Any) -> Any:
    return rl.open(brains.uri)


def names(loader: Any) -> list[str]:
    return [name for batch in loader for name in batch["obs_subject_id"]]


def test_training_patches_are_those_of_the_dataset_and_differ_by_epoch(store: Any, brains: Any) -> None:
    loader = rl.create_training_dataloader(store.T1w, patch_size=(8, 6, 4), patches_per_volume=2, batch_size=3, **HERE)
    epochs = [list(loader), list(loader)]
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=(8, 6, 4), patches_per_volume=2)
    for number, batches in enumerate(epochs):
        sampler = rl.KeySampler(dataset)
        sampler.set_epoch(number)
        expected = [dataset[key] for key in sampler]
        assert [len(batch["obs_id"]) for batch in batches] == [3, 3, 2]
        assert torch.equal(torch.cat([b["image"] for b in batches]), torch.stack([s["image"] for s in expected]))
    assert not torch.equal(epochs[0][0]["location"], epochs[1][0]["location"])


def test_several_collections_are_channels_and_selections_are_kept(store: Any) -> None:
    batch = next(iter(rl.create_training_dataloader([store.T1w, store.seg], patch_size=8, **HERE)))
    assert batch["image"].shape == (4, 2, 8, 8, 8)
    part = store.iloc[1:3]
    assert sorted(names(rl.create_training_dataloader(part.T1w, patch_size=8, **HERE))) == ["sub-02", "sub-03"]
    both = rl.create_training_dataloader([part.T1w, store.iloc[2:].seg], patch_size=8, **HERE)
    assert names(both) == ["sub-03"]  # what all of them have


@pytest.mark.parametrize("kind", ["column", "by subject", "by volume", "function"])
def test_labels_of_every_kind(store: Any, kind: str) -> None:
    labels: Any = {
        "column": "age",
        "by subject": {f"sub-{n:02d}": 20 + n for n in range(1, 5)},
        "by volume": {f"sub-{n:02d}_T1w": 20 + n for n in range(1, 5)},
        "function": lambda obs_id: 20 + int(obs_id[4:6]),
    }[kind]
    loader = rl.create_training_dataloader(
        store.T1w, labels=labels, patch_size=8, transform=lambda s: {**s, "twice": 2 * s["label"]}, **HERE
    )
    (batch,) = loader
    expected = [20 + int(name[-2:]) for name in batch["obs_subject_id"]]
    assert batch["label"].tolist() == expected
    assert batch["twice"].tolist() == [2 * value for value in expected]


def test_a_column_of_labels_is_mapped_and_needs_no_transform(store: Any) -> None:
    for size in (None, 8):
        loader = rl.create_validation_dataloader(store.T1w, labels="age", patch_size=size, batch_size=1, **HERE)
        assert loader.dataset.transform is None  # type: ignore[attr-defined]
        assert loader.dataset.table.columns["target.label"].tolist() == [21, 22, 23, 24]  # type: ignore[attr-defined]
        for batch in loader:
            assert batch["label"].tolist() == [20 + int(batch["obs_subject_id"][0][-2:])]


def test_arrays_are_labels_and_what_is_missing_is_not(store: Any) -> None:
    labels: dict[str, Any] = {f"sub-{n:02d}": np.array([n, 10 * n]) for n in range(1, 5)}
    (batch,) = rl.create_training_dataloader(store.T1w, labels=labels, patch_size=8, **HERE)
    expected = [labels[name].tolist() for name in batch["obs_subject_id"]]
    assert batch["label"].tolist() == expected
    for nothing in (None, float("nan"), np.float32("nan"), np.datetime64("NaT")):
        with pytest.raises(KeyNotFoundError, match="1 of 4 volumes have no label"):
            rl.create_training_dataloader(store.T1w, labels={**labels, "sub-02": nothing}, patch_size=8, **HERE)


def test_validation_covers_each_volume_once_in_order(store: Any, brains: Any) -> None:
    loader = rl.create_validation_dataloader(store.T1w, patch_size=12, batch_size=2, **HERE)
    rebuilt = {s: np.full(brains.arrays["T1w"][s].shape, np.nan) for s in brains.subjects}
    for batch in loader:
        for image, box, subject in zip(
            batch["image"], batch["location"].tolist(), batch["obs_subject_id"], strict=True
        ):
            rebuilt[subject][tuple(slice(a, b) for a, b in zip(*box, strict=True))] = image[0].numpy()
    for subject in brains.subjects:
        np.testing.assert_array_equal(rebuilt[subject], brains.arrays["T1w"][subject])
    assert names(rl.create_validation_dataloader(store.T1w, batch_size=1, **HERE)) == brains.subjects


def test_inference_gives_whole_volumes(store: Any, brains: Any) -> None:
    for _ in range(2):
        for batch, subject in zip(rl.create_inference_dataloader(store.T1w, **HERE), brains.subjects, strict=True):
            assert batch["obs_subject_id"] == [subject]
            np.testing.assert_array_equal(
                batch["image"][0, 0].numpy(), brains.arrays["T1w"][subject].astype(np.float32)
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_segmentation_pairs_image_and_mask(store: Any, brains: Any, workers: int) -> None:
    loader = rl.create_segmentation_dataloader(
        store.T1w, store.seg, patch_size=8, patches_per_volume=10, foreground_sampling=1.0, num_workers=workers
    )
    for batch in loader:
        assert "label" not in batch
        for mask, box, subject in zip(batch["mask"], batch["location"].tolist(), batch["obs_subject_id"], strict=True):
            where = tuple(slice(a, b) for a, b in zip(*box, strict=True))
            np.testing.assert_array_equal(mask[0].numpy(), brains.arrays["seg"][subject][where])
        assert (batch["mask"] > 0).flatten(1).any(1).all()


def test_a_selection_of_the_mask_is_kept(store: Any) -> None:
    for size in (None, 8):
        loader = rl.create_segmentation_dataloader(store.T1w, store.seg.iloc[:2], patch_size=size, batch_size=1, **HERE)
        assert sorted(names(loader)) == ["sub-01", "sub-02"]
    loader = rl.create_segmentation_dataloader(store.T1w.iloc[1:], store.seg.iloc[:2], patch_size=8, **HERE)
    assert names(loader) == ["sub-02"]
    with pytest.raises(ConfigError, match=r"no subject is in all of the collections 'T1w', 'seg'"):
        rl.create_segmentation_dataloader(store.T1w.iloc[2:], store.seg.iloc[:2], **HERE)
    with pytest.raises(ConfigError, match=r"mask must be one collection of an open store, .* got list"):
        rl.create_segmentation_dataloader(store.T1w, [store.seg], **HERE)  # type: ignore[arg-type]


def test_segmentation_transforms_see_what_they_should(store: Any) -> None:
    seen: list[set[str]] = []

    def image(sample: dict[str, Any]) -> dict[str, Any]:
        seen.append(set(sample))
        return {**sample, "image": sample["image"] * 0 + 5}

    def spatial(sample: dict[str, Any]) -> dict[str, Any]:
        assert {"image", "mask"} <= set(sample)
        return {**sample, "mask": sample["mask"].flip(1)}

    plain = rl.create_segmentation_dataloader(store.T1w, store.seg, patch_size=8, **HERE)
    loader = rl.create_segmentation_dataloader(
        store.T1w, store.seg, patch_size=8, image_transform=image, spatial_transform=spatial, **HERE
    )
    for a, b in zip(plain, loader, strict=True):
        assert (b["image"] == 5).all()
        assert torch.equal(b["mask"], a["mask"].flip(2))
    assert all("mask" not in names_ for names_ in seen)


def test_distributed_parts_share_the_epoch(store: Any) -> None:
    loaders = [
        create_distributed_dataloader(store.T1w, rank=rank, world_size=2, patch_size=8, batch_size=1, **HERE)
        for rank in range(2)
    ]
    parts = [names(loader) for loader in loaders]
    assert [len(part) for part in parts] == [2, 2]
    assert sorted(parts[0] + parts[1]) == [f"sub-{n:02d}" for n in range(1, 5)]
    boxes = []
    for _ in range(2):
        set_epoch(loaders[0], 5)
        boxes.append([str(batch["location"].tolist()) for batch in loaders[0]])
    assert boxes[0] == boxes[1]


def test_wrong_arguments(store: Any, mixed: Any) -> None:
    with pytest.raises(ConfigError, match=r"give collections of an open store, such as radioloader.open\(uri\).T1w"):
        rl.create_training_dataloader("cohort", **HERE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the collections are of different stores"):
        rl.create_training_dataloader([store.T1w, rl.open(mixed.uri).PET], **HERE)
    with pytest.raises(ConfigError, match=r"target 'score' is missing for 1 subjects, such as \['sub-02'\]"):
        rl.create_training_dataloader(store.T1w, labels="score", **HERE)
    with pytest.raises(ConfigError, match="labels must be a column, a mapping or a function, got int"):
        rl.create_training_dataloader(store.T1w, labels=3, **HERE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="foreground_sampling needs patch_size"):
        rl.create_segmentation_dataloader(store.T1w, store.seg, foreground_sampling=True, **HERE)
    with pytest.raises(ConfigError, match="share='a' must be a probability"):
        rl.create_segmentation_dataloader(store.T1w, store.seg, patch_size=8, foreground_sampling="a", **HERE)  # type: ignore[arg-type]


def test_workers_follow_the_machine(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.datasets.factory.available_cores", lambda: 1)
    loader = rl.create_inference_dataloader(store.T1w)
    assert (loader.num_workers, loader.persistent_workers, loader.pin_memory) == (1, True, False)
    assert rl.create_inference_dataloader(store.T1w, num_workers=0).persistent_workers is False
