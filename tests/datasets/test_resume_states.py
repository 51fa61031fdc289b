"""States that do not fit the loader they are given to are refused in words; samplers with a state of their own, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.samplers.samplers import KeySampler
from tests.datasets.test_resume import make, patches, take


@pytest.mark.parametrize(
    ("dataset", "sampler", "text"),
    [
        ({"seed": 1}, {}, "dataset seed was 0, now it is 1; order seed was 0, now it is 1"),
        ({}, {"seed": 7}, "order seed was 0, now it is 7"),
        ({"patch_size": 9}, {}, r"patch_size was \[8, 8, 8\], now it is \[9, 9, 9\]"),
        ({"patches_per_volume": 7}, {}, "samples was 24, now it is 28"),
        ({"subjects": ["sub-01", "sub-02", "sub-04", "sub-03"]}, {}, "data was '"),
        ({"subjects": ["sub-01"]}, {}, "volumes was 4, now it is 1; data was"),
        ({"positions": rl.RegionPositions(2)}, {}, r"positions was 'UniformPositions\(\)', now it is 'RegionPositions"),
        ({"label": "seg"}, {}, "label was None, now it is 'seg'"),
        ({}, {"order": rl.Sequential()}, r"order was 'Shuffled\(\)', now it is 'Sequential\(\)'"),
        ({}, {"drop_last": True}, "drop_last was False, now it is True"),
        ({}, {"repeat": True}, "repeat was False, now it is True"),
    ],
    ids=str,
)
def test_another_order_is_refused(brains: Any, dataset: dict[str, Any], sampler: dict[str, Any], text: str) -> None:
    loader = make(patches(brains))
    take(loader, 2)
    with pytest.raises(ConfigError, match=rf"this state is of another order of samples.*: .*{text}"):
        make(patches(brains, **dataset), **sampler).load_state_dict(loader.state_dict())


def test_weights_that_changed_are_refused(brains: Any) -> None:
    dataset = patches(brains)
    for order, values in ((rl.Weighted("age"), [1, 1, 1, 9]), (rl.ClassBalanced("sex"), list("FFFM"))):
        loader = make(dataset, order=order)
        take(loader, 2)
        other = patches(brains)
        changed = type(other.layout)(other.layout.counts, column=lambda _, values=values: np.array(values))
        other.__dict__["layout"] = changed  # as if obs_meta had been edited
        with pytest.raises(ConfigError, match="digest of the epoch's order was '"):
            make(other, order=order).load_state_dict(loader.state_dict())
        make(dataset, order=order).load_state_dict(loader.state_dict())


def test_an_ingest_in_between_is_refused(make_cohort: Callable[..., Path], tmp_path: Path) -> None:
    first = make_cohort(tmp_path / "a", subjects=2)
    assert rl.ingest(tmp_path / "store", {"T1w": first / "images"}, workers=1).ok
    loader = make(rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8, patches_per_volume=3))
    take(loader, 1)
    make(rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8, patches_per_volume=3)).load_state_dict(
        loader.state_dict()
    )
    second = make_cohort(tmp_path / "b", subjects=3)
    files = {"sub-03": second / "images" / "sub-03_T1w.nii.gz"}
    assert rl.ingest(tmp_path / "store", {"T1w": files}, workers=1).ok
    with pytest.raises(ConfigError, match="volumes was 2, now it is 3; data was"):
        make(rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8, patches_per_volume=3)).load_state_dict(
            loader.state_dict()
        )


@pytest.mark.parametrize("wrong", [{}, {"epoch": 3}, None, [1], "state"])
def test_what_is_no_state(brains: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"this is not the state of a radioloader.DataLoader"):
        make(patches(brains)).load_state_dict(wrong)


def test_a_state_of_a_later_version(brains: Any) -> None:
    loader = make(patches(brains))
    with pytest.raises(ConfigError, match="has version 99, this radioloader reads up to 1; upgrade"):
        loader.load_state_dict(loader.state_dict() | {"version": 99})


class TwoBatches:
    """A batch sampler of a user's own."""

    def __init__(self, sampler: KeySampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[Any]]:
        keys = list(self.sampler)
        yield keys[:3]
        yield keys[3:]

    def __len__(self) -> int:
        return 2


def test_samplers_without_a_state(brains: Any) -> None:
    dataset = patches(brains)
    text = r"only a loader whose sampler is a radioloader.KeySampler has a state"
    for loader in (
        rl.DataLoader(dataset, sampler=[0, 1, 2]),
        rl.DataLoader(dataset, sampler=torch.utils.data.RandomSampler(dataset)),
        rl.DataLoader(dataset, batch_sampler=[[0, 1], [2]]),
        rl.DataLoader(torch.utils.data.Subset(dataset, [0, 1])),
    ):
        with pytest.raises(ConfigError, match=text):
            loader.state_dict()
        with pytest.raises(ConfigError, match=text):
            loader.load_state_dict({})
        assert next(iter(loader))["image"].shape[1:] == (1, 8, 8, 8)
    loader = rl.DataLoader(dataset, batch_sampler=TwoBatches(KeySampler(dataset)))
    assert [len(batch) for batch in take(loader)] == [3, 21]
    with pytest.raises(ConfigError, match="TwoBatches has no batch_size, so that batches cannot be counted in samples"):
        loader.state_dict()


def test_torchs_batch_sampler_has_a_state(brains: Any) -> None:
    dataset = patches(brains)

    def new() -> rl.DataLoader:
        sampler = torch.utils.data.BatchSampler(KeySampler(dataset), 5, drop_last=True)  # type: ignore[arg-type]
        return rl.DataLoader(dataset, batch_sampler=sampler)

    whole = take(new())
    assert [len(batch) for batch in whole] == [5, 5, 5, 5]
    loader = new()
    take(loader, 3)
    assert loader.state_dict()["progress"] == [[1, 15]]
    again = new()
    again.load_state_dict(loader.state_dict())
    assert take(again) == whole[3:]
    assert again.state_dict()["epoch"] == loader.state_dict()["epoch"] + 1


def test_without_batching(brains: Any) -> None:
    dataset = patches(brains)

    def new() -> rl.DataLoader:
        return rl.DataLoader(dataset, None, shuffle=True)

    whole = [str(sample["location"]) + sample["obs_id"] for sample in new()]
    loader = new()
    iterator = iter(loader)
    for _ in range(7):
        next(iterator)
    again = new()
    again.load_state_dict(loader.state_dict())
    assert [str(sample["location"]) + sample["obs_id"] for sample in again] == whole[7:]
