"""An epoch that was left somewhere goes on there: with other workers, ranks and batch sizes, exactly what was missing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.samplers.samplers import KeySampler

Name = tuple[str, str, str]


def names(batch: dict[str, Any]) -> list[Name]:
    """What tells the samples of an epoch apart: volume, place and voxels."""
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12] for image in batch["image"]]
    return list(zip(batch["obs_id"], [str(box.tolist()) for box in batch["location"]], digests, strict=True))


def make(
    dataset: Any,
    *,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 2,
    workers: int = 0,
    threads: int | None = None,
    **arguments: Any,
) -> rl.DataLoader:
    sampler = KeySampler(dataset, rank=rank, world_size=world, **arguments)
    context = "fork" if workers else None
    return rl.DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        num_threads=threads,
        multiprocessing_context=context,
        timeout=60 * bool(workers),
    )


def take(loader: rl.DataLoader, count: int | None = None) -> list[list[Name]]:
    result: list[list[Name]] = []
    for batch in loader:
        result.append(names(batch))
        if len(result) == count:
            break
    return result


def flat(batches: list[list[Name]]) -> list[Name]:
    return [name for batch in batches for name in batch]


def patches(files: Any, **arguments: Any) -> rl.PatchDataset:
    return rl.PatchDataset(files.uri, **{"image": "T1w", "patch_size": 8, "patches_per_volume": 6} | arguments)


def slices(files: Any) -> rl.SliceDataset:
    return rl.SliceDataset(files.uri, image="T1w", block=4, pad_to=24, crop_to=24, subjects=["sub-01", "sub-03"])


KINDS: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "uniform": lambda files: (patches(files), {}),
    "regions": lambda files: (patches(files, positions=rl.RegionPositions(3)), {}),
    "weighted": lambda files: (patches(files), {"order": rl.Weighted("age", 22)}),
    "windows": lambda files: (patches(files, patches_per_volume=5), {"order": rl.BlockShuffled(2)}),
    "slices": lambda files: (slices(files), {}),
    "grid": lambda files: (patches(files, positions=rl.GridPositions(), patch_size=12), {"order": rl.Shuffled()}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"world": 1, "batch_size": 2, "workers": 0}, {"world": 1, "batch_size": 2, "workers": 2}),
        ({"world": 1, "batch_size": 3, "workers": 2}, {"world": 1, "batch_size": 4, "workers": 0}),
        ({"world": 2, "batch_size": 2, "workers": 0}, {"world": 3, "batch_size": 1, "workers": 0}),
        ({"world": 3, "batch_size": 2, "workers": 0}, {"world": 1, "batch_size": 5, "workers": 0}),
        ({"world": 2, "batch_size": 3, "workers": 0}, {"world": 2, "batch_size": 2, "workers": 0}),
    ],
)
def test_the_rest_of_an_epoch_is_what_was_missing(
    brains: Any, kind: str, before: dict[str, int], after: dict[str, int]
) -> None:
    dataset, arguments = KINDS[kind](brains)
    whole = make(dataset, **arguments)
    whole.set_epoch(3)
    epoch = flat(take(whole))
    assert len(set(epoch)) == len(epoch)
    if kind in ("windows", "grid", "slices") and before["workers"] + after["workers"]:
        before, after = before | {"workers": 0}, after | {"workers": 0}  # workers once or twice are enough
    consumed, states = [], []
    for rank in range(before["world"]):
        loader = make(dataset, rank=rank, **before, **arguments)
        loader.set_epoch(3)
        consumed += flat(take(loader, 2))
        states.append(json.dumps(loader.state_dict()))
    assert len(set(states)) == 1  # equal on every rank, plain types
    state = json.loads(states[0])
    assert state["epoch"] == 3
    assert state["samples"] == len(set(consumed))
    rest = []
    for rank in range(after["world"]):
        loader = make(dataset, rank=rank, **after, **arguments)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        loader.set_epoch(3)  # repeated, as training scripts do
        rest += flat(take(loader))
        assert loader.state_dict()["epoch"] == 4
        assert loader.state_dict()["progress"] == []
        following = flat(take(loader, 1))
        assert not set(following) & set(epoch) or not dataset.random
    assert (
        not set(consumed) & set(rest) or before["world"] == after["world"]
    )  # with its own world a rank pads as it would have
    assert set(consumed) | set(rest) == set(epoch)
    assert len(rest) - len(set(rest)) <= (after["world"] - 1) * dataset.layout.unit  # padding, of whole units
    if before["world"] == after["world"] == 1:
        assert consumed + rest == epoch  # in the order as well


def test_the_same_world_goes_on_batch_by_batch(brains: Any) -> None:
    dataset = patches(brains)
    for rank in range(3):
        whole = take(make(dataset, rank=rank, world=3))
        for k in range(1, len(whole)):
            loader = make(dataset, rank=rank, world=3)
            assert take(loader, k) == whole[:k]
            again = make(dataset, rank=rank, world=3)
            again.load_state_dict(loader.state_dict())
            assert take(again) == whole[k:]
            assert take(again, 1) == take(loader, 1)  # and the next epoch


def test_several_kills_in_several_worlds(brains: Any) -> None:
    dataset = patches(brains, patches_per_volume=9)
    whole = make(dataset)
    epoch = flat(take(whole))
    state = make(dataset).state_dict()
    consumed: list[Name] = []
    for world, batch_size, count in ((2, 2, 2), (3, 1, 1), (3, 2, 2), (1, 4, 1), (2, 1, 10**6)):
        part = []
        states = []
        for rank in range(world):
            loader = make(dataset, rank=rank, world=world, batch_size=batch_size)
            loader.load_state_dict(state)
            part += flat(take(loader, count))
            states.append(loader.state_dict())
        assert states == [states[0]] * world
        state = json.loads(json.dumps(states[0]))
        assert not set(part) & set(consumed)
        consumed += part
    assert Counter(consumed).total() - len(set(consumed)) <= 1
    assert set(consumed) == set(epoch)
    assert state["epoch"] == 1


def test_the_end_of_an_epoch_is_the_start_of_the_next(brains: Any) -> None:
    dataset = patches(brains)
    loader = make(dataset, batch_size=5)
    loader.set_epoch(6)
    take(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["progress"], state["samples"]) == (7, [], 0)
    last = make(dataset, batch_size=5)
    last.set_epoch(6)
    take(last, 5)  # the last batch, of 4, without asking for a sixth
    assert last.state_dict() == state
    fresh = make(dataset, batch_size=5)
    fresh.load_state_dict(state)
    expected = make(dataset, batch_size=5)
    expected.set_epoch(7)
    assert take(fresh) == take(expected)


def test_a_state_of_an_epoch_that_has_not_begun(brains: Any) -> None:
    dataset = patches(brains)
    loader = make(dataset)
    assert (loader.state_dict()["epoch"], loader.state_dict()["samples"]) == (0, 0)
    loader.set_epoch(2)
    state = loader.state_dict()
    iter(loader)
    assert loader.state_dict() == state
    again = make(dataset)
    again.load_state_dict(state)
    assert take(again) == take(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_abandoned_iterators_use_no_epoch(brains: Any, workers: int) -> None:
    dataset = patches(brains)
    loader = make(dataset, workers=workers)
    expected = take(make(dataset))
    for _ in range(3):
        iter(loader)  # workers have read ahead
    assert loader.state_dict()["epoch"] == 0
    assert take(loader) == expected
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_what_workers_made_in_advance_does_not_count(brains: Any, workers: int) -> None:
    dataset = patches(brains)
    loader = make(dataset, workers=workers)
    iterator = iter(loader)
    for taken in range(4):
        assert loader.state_dict()["samples"] == 2 * taken
        next(iterator)
    del iterator


def test_drop_last_leaves_the_tail_out(brains: Any) -> None:
    dataset = patches(brains)  # 24 samples

    def new(batch_size: int) -> rl.DataLoader:
        return rl.DataLoader(dataset, batch_size, shuffle=True, drop_last=True)

    loader = new(5)
    whole = take(loader)
    assert [len(batch) for batch in whole] == [5, 5, 5, 5]
    assert loader.state_dict()["epoch"] == 1
    loader = new(5)
    take(loader, 3)
    again = new(7)
    again.load_state_dict(loader.state_dict())
    rest = take(again)
    assert [len(batch) for batch in rest] == [7]
    assert flat(rest)[:5] == whole[3]
    assert again.state_dict()["epoch"] == 1
    # 4 samples are left, fewer than a batch: the epoch is over.
    loader = new(20)
    take(loader, 1)
    mid = new(5)
    mid.load_state_dict(
        loader.state_dict() | {"epoch": 0, "progress": [[1, 20]]} | {"order": new(5).state_dict()["order"]}
    )
    assert mid.state_dict()["epoch"] == 1
    assert len(take(mid)) == 4


def test_evaluation_goes_on_and_the_next_is_whole(brains: Any) -> None:
    dataset = patches(brains, positions=rl.GridPositions(), patch_size=(12, 24, 18))  # 4 volumes with 2 patches each
    whole = [take(make(dataset, rank=rank, world=3, training=False, shuffle=False)) for rank in range(3)]
    assert [len(part) for part in whole] == [2, 1, 1]
    loader = make(dataset, rank=0, world=3, training=False, shuffle=False)
    assert take(loader, 1) == whole[0][:1]
    state = loader.state_dict()
    for rank in range(3):
        again = make(dataset, rank=rank, world=3, training=False, shuffle=False)
        again.load_state_dict(state)
        assert take(again) == whole[rank][1:]
        assert take(again) == whole[rank]  # also where nothing was left of the first


def test_the_world_may_come_after_the_loader(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning and scripts that make their loaders before torch.distributed is initialised.
    dataset = patches(brains)
    loader = rl.DataLoader(dataset, 2, shuffle=True)
    monkeypatch.setattr("radioloader.samplers.samplers.rank_and_world", lambda: (1, 2))
    consumed = take(loader, 2)
    state = loader.state_dict()
    assert state["progress"] == [[2, 4]]
    again = rl.DataLoader(dataset, 2, shuffle=True)
    again.load_state_dict(state)
    assert consumed + take(again) == take(make(dataset, rank=1, world=2))


def test_set_epoch_in_the_middle_begins_it_anew(brains: Any) -> None:
    dataset = patches(brains)
    loader = make(dataset)
    whole = take(make(dataset))
    take(loader, 3)
    loader.set_epoch(0)
    assert loader.state_dict()["samples"] == 0
    assert take(loader) == whole


# ---- equal shapes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_shapes(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """11 small volumes, of two shapes."""
    root = tmp_path_factory.mktemp("shapes")
    for number in range(11):
        shape = (6, 5, 4) if number % 3 else (4, 5, 6)
        write_image(
            root / "MR" / f"s{number:02d}.nii.gz", np.random.default_rng(number).integers(0, 99, shape, np.int16)
        )
    assert rl.ingest(root / "store", {"MR": root / "MR"}, workers=1).ok
    return str(root / "store")


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 1), (1, 2), (2, 3), (2, 2)])
def test_batches_of_equal_shape_go_on(two_shapes: str, before: int, after: int) -> None:
    dataset = rl.VolumeDataset(two_shapes, image="MR")
    order = rl.EqualShapes(3)
    whole = take(make(dataset, batch_size=3, order=order))
    assert sorted(map(len, whole)) == [1, 1, 3, 3, 3]
    consumed, rest, state = [], [], {}
    for rank in range(before):
        loader = make(dataset, rank=rank, world=before, batch_size=3, order=order)
        consumed += take(loader, 1)
        state = loader.state_dict()
    assert state["samples"] == len(flat(consumed))
    for rank in range(after):
        loader = make(dataset, rank=rank, world=after, batch_size=3, order=order)
        loader.load_state_dict(json.loads(json.dumps(state)))
        rest += take(loader)
    assert {frozenset(batch) for batch in (*consumed, *rest)} == {frozenset(batch) for batch in whole}  # whole batches
    if before != after:
        assert not {frozenset(batch) for batch in consumed} & {frozenset(batch) for batch in rest}


def test_another_batch_size_breaks_equal_shapes(two_shapes: str) -> None:
    dataset = rl.VolumeDataset(two_shapes, image="MR")
    with pytest.raises(ConfigError, match="batch_size=2, but the order makes batches of 3; give both the same"):
        make(dataset, batch_size=2, order=rl.EqualShapes(3))
    state = make(dataset, batch_size=3, order=rl.EqualShapes(3)).state_dict()
    with pytest.raises(
        ConfigError, match=r"order was 'EqualShapes\(batch_size=3, .*now it is 'EqualShapes\(batch_size=2"
    ):
        make(dataset, batch_size=2, order=rl.EqualShapes(2)).load_state_dict(state)


# ---- nothing is read for what is skipped ---------------------------------------------------------------------------------


def test_skipping_reads_nothing(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = patches(brains, label="seg", positions=rl.ForegroundPositions(0.5))
    read: list[Any] = []
    plain = rl.VolumeReader.try_many
    monkeypatch.setattr(
        rl.VolumeReader, "try_many", lambda self, requests: read.extend(requests) or plain(self, requests)
    )
    loader = make(dataset, threads=0)
    take(loader, 10)
    assert len(read) == 10 * 2 * 2
    read.clear()
    again = make(dataset, threads=0)
    again.load_state_dict(loader.state_dict())
    assert read == []
    next(iter(again))
    assert len(read) == 2 * 2
    assert len(take(again, 1)) == 1
