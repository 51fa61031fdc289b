"""Ways of using a loader that scripts have: several iterators, samplers of their own, states loaded at any time, errors that are caught."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Sampler

import radioloader as rl
from radioloader.errors import ConfigError

FORK = {"num_workers": 1, "multiprocessing_context": "fork", "timeout": 60}


@pytest.fixture(scope="module")
def patches(brains: Any) -> rl.PatchDataset:
    return rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=4)


def boxes(batches: Any) -> list[str]:
    return [str(box) for batch in batches for box in batch["location"].tolist()]


@pytest.mark.parametrize("workers", [{}, FORK, {**FORK, "persistent_workers": True}], ids=["0", "1", "persistent"])
def test_the_scripts_generators_are_left_as_they_were(patches: rl.PatchDataset, workers: dict[str, Any]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    loader = rl.DataLoader(patches, batch_size=4, shuffle=True, **workers)
    for _ in range(2):
        assert len(list(loader)) == 4
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[2]


def worker_seed(samples: list[Any]) -> int:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    return int(info.seed)


def test_workers_are_seeded_anew_in_each_epoch_and_the_same_in_each_run(patches: rl.PatchDataset) -> None:
    def seeds() -> list[int]:
        loader = rl.DataLoader(patches, batch_size=16, shuffle=True, collate_fn=worker_seed, **FORK)
        return [next(iter(loader)) for _ in range(3)]

    first = seeds()
    assert len(set(first)) == 3
    assert seeds() == first


def test_samplers_without_a_length(patches: rl.PatchDataset) -> None:
    class Own(Sampler[int]):
        def __iter__(self) -> Any:
            return iter([3, 1, 2])

    assert [len(b["obs_id"]) for b in rl.DataLoader(patches, batch_sampler=(x for x in [[0], [1, 2]]))] == [1, 2]
    assert [len(b["obs_id"]) for b in rl.DataLoader(patches, batch_size=2, sampler=Own())] == [2, 1]


@pytest.mark.parametrize("workers", [{}, FORK], ids=["0", "1"])
def test_a_state_that_is_loaded_after_iter_holds(patches: rl.PatchDataset, workers: dict[str, Any]) -> None:
    source = rl.DataLoader(patches, batch_size=4, shuffle=True)
    everything = boxes(source)
    source.set_epoch(0)
    next(iter(source))
    state = source.state_dict()
    loader = rl.DataLoader(patches, batch_size=4, shuffle=True, **workers)
    iterator = iter(loader)
    loader.load_state_dict(state)
    assert boxes(iterator) == everything[4:]
    assert (loader.state_dict()["epoch"], loader.state_dict()["progress"]) == (1, [])
    # Loaded in the middle of a loop, it is the next iteration that goes by it.
    loader.set_epoch(3)
    for number, _ in enumerate(loader):
        if number == 1:
            loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert boxes(loader) == everything[4:]


@pytest.mark.parametrize("workers", [{}, FORK], ids=["0", "1"])
def test_a_batch_that_raised_had_its_turn(brains: Any, workers: dict[str, Any]) -> None:
    def picky(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["obs_subject_id"] == "sub-02":
            raise ValueError("not this one")
        return sample

    dataset = rl.VolumeDataset(brains.uri, image="T1w", transform=picky)
    sampler = rl.KeySampler(dataset, shuffle=False)
    loader = rl.DataLoader(dataset, sampler=sampler, **workers)
    iterator, seen = iter(loader), []
    for _ in range(3):
        try:
            seen += next(iterator)["obs_subject_id"]
        except ValueError:
            seen.append("error")
    assert seen == ["sub-01", "error", "sub-03"]
    state = loader.state_dict()
    assert state["progress"] == [[1, 3]]
    again = rl.DataLoader(dataset, sampler=rl.KeySampler(dataset, shuffle=False))
    again.load_state_dict(state)
    assert [batch["obs_subject_id"] for batch in again] == [["sub-04"]]


def test_what_has_no_state_says_so(patches: rl.PatchDataset) -> None:
    if "in_order" not in torch.utils.data.DataLoader.__init__.__annotations__:
        pytest.skip("in_order came with torch 2.6")
    loader = rl.DataLoader(patches, batch_size=4, shuffle=True, in_order=False)
    with pytest.raises(ConfigError, match="with in_order=False batches come in any order"):
        loader.state_dict()


def test_one_sampler_in_our_loader_and_in_torchs(patches: rl.PatchDataset) -> None:
    sampler = rl.KeySampler(patches)
    ours = rl.DataLoader(patches, batch_size=4, sampler=sampler)
    theirs = torch.utils.data.DataLoader(patches, batch_size=4, sampler=sampler, collate_fn=rl.collate)
    epochs = [boxes(ours), boxes(theirs), boxes(theirs), boxes(ours)]
    expected = []
    for epoch in range(4):
        fresh = rl.KeySampler(patches)
        fresh.set_epoch(epoch)
        expected.append(boxes([rl.collate(patches.__getitems__(list(fresh)))]))
    assert epochs == expected


def test_a_sampler_of_another_dataset_is_refused(brains: Any, patches: rl.PatchDataset) -> None:
    other = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=4, subjects=["sub-03", "sub-02"])
    with pytest.raises(
        ConfigError, match="the sampler is of another dataset than the loader's, they differ in: volumes, data, samples"
    ):
        rl.DataLoader(patches, sampler=rl.KeySampler(other))
    twin = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=4)
    assert len(list(rl.DataLoader(patches, batch_size=16, sampler=rl.KeySampler(twin)))) == 1
