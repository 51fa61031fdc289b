"""``DataLoader(num_threads=k)``: the same batches, read ahead by threads that end with their owner."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler, Subset

import radioloader as rl
from radioloader.datasets import ahead, memory
from radioloader.errors import ConfigError, ReadError
from tests.datasets.test_loader import digest, digests


def patches(brains: Any, **arguments: Any) -> rl.PatchDataset:
    given: dict[str, Any] = {"image": "T1w", "label": "seg", "patch_size": (8, 9, 10), "patches_per_volume": 4}
    return rl.PatchDataset(brains.uri, **(given | {"targets": ["age", "sex"]} | arguments))


def noisy(sample: dict[str, Any]) -> dict[str, Any]:
    """Draws from all three global generators."""
    noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
    return {**sample, "image": sample["image"] + noise}


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("radioloader-batch")]


def gone() -> bool:
    """Whether the reading threads end."""
    end = time.monotonic() + 20
    while names() and time.monotonic() < end:
        time.sleep(0.01)
    return not names()


@pytest.mark.parametrize("transform", [None, noisy])
def test_any_number_of_threads_gives_the_same_batches(brains: Any, transform: Any) -> None:
    def epochs(**arguments: Any) -> list[list[str]]:
        loader = rl.DataLoader(patches(brains, transform=transform), batch_size=3, shuffle=True, **arguments)
        return [digests(loader), digests(loader)]

    expected = epochs(num_threads=0)
    assert len(expected[0]) == 6
    assert expected[0] != expected[1]
    for threads in (1, 2, 4, None):
        assert epochs(num_threads=threads) == expected
    assert epochs(num_workers=2, multiprocessing_context="fork") == expected
    assert not names()


def test_single_samples_and_own_collate_functions(brains: Any) -> None:
    dataset = patches(brains)
    expected = [dataset[dataset.key(i)] for i in range(16)]
    loader = rl.DataLoader(dataset, batch_size=None, num_threads=2)
    assert [digest(a) for a in loader] == [digest(b) for b in expected]
    own = rl.DataLoader(dataset, batch_size=4, num_threads=2, collate_fn=lambda samples: [s["obs_id"] for s in samples])
    assert list(own) == [[sample["obs_id"]] * 4 for sample in expected[::4]]


def test_integers_draw_in_the_order_of_the_batches(brains: Any) -> None:
    dataset = patches(brains)

    def epoch(threads: int) -> list[str]:
        torch.manual_seed(5)
        # torch's loader takes a number for its workers before the first key; here nobody does.
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(3))
        return digests(rl.DataLoader(dataset, 2, sampler=sampler, num_threads=threads))

    assert epoch(1) == epoch(1) == epoch(4)


def test_the_scripts_generators_stay_as_they_are(brains: Any) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for _ in rl.DataLoader(patches(brains, transform=noisy), batch_size=2, shuffle=True, num_threads=3):
        pass
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


def test_transforms_run_where_the_batch_is_taken(brains: Any) -> None:
    seen = []

    def note(sample: dict[str, Any]) -> dict[str, Any]:
        seen.append(threading.current_thread())
        return sample

    list(rl.DataLoader(patches(brains, transform=note), batch_size=4, num_threads=2))
    assert set(seen) == {threading.main_thread()}


def test_threads_end_with_their_iterator(brains: Any) -> None:
    loader = rl.DataLoader(patches(brains), batch_size=2, num_threads=2)
    for _ in loader:
        assert names()
    assert not names()
    running = iter(loader)
    next(running)
    assert names()
    del running
    assert gone()
    for _ in loader:
        break
    assert gone()


def test_another_epoch_before_the_first_batch(brains: Any) -> None:
    """Lightning makes the iterator, then says which epoch it is."""
    loader = rl.DataLoader(patches(brains), batch_size=2, shuffle=True, num_threads=2)
    loader.set_epoch(7)
    expected = digests(loader)
    loader.set_epoch(1)
    running = iter(loader)
    loader.set_epoch(7)
    assert [digest(batch) for batch in running] == expected
    assert gone()


def test_an_error_comes_in_its_turn(brains: Any, tmp_path: Path) -> None:
    shutil.copytree(brains.uri, tmp_path / "store")
    missing = rl.open(tmp_path / "store").T1w.loc["sub-02"].uri
    shutil.rmtree(missing)
    dataset = rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8, patches_per_volume=4)
    running = iter(rl.DataLoader(dataset, batch_size=4, num_threads=3))
    assert next(running)["obs_subject_id"] == ["sub-01"] * 4
    with pytest.raises(ReadError, match=r"subject 'sub-02', collection 'T1w'"):
        next(running)
    assert next(running)["obs_subject_id"] == ["sub-03"] * 4
    assert next(running)["obs_subject_id"] == ["sub-04"] * 4
    with pytest.raises(StopIteration):
        next(running)
    skipping = rl.PatchDataset(tmp_path / "store", image="T1w", patch_size=8, patches_per_volume=4, on_error="skip")
    loader = rl.DataLoader(skipping, batch_size=8, num_threads=2)
    assert [len(batch["obs_id"]) for batch in loader] == [4, 8]
    assert loader.stats.skipped == 4


def test_a_key_that_does_not_exist_comes_in_its_turn(brains: Any) -> None:
    dataset = patches(brains)
    running = iter(rl.DataLoader(dataset, 1, sampler=[0, 99, 1], num_threads=3))
    next(running)
    with pytest.raises(IndexError, match="99 is out of range"):
        next(running)
    next(running)


def test_resuming_within_an_epoch(brains: Any) -> None:
    whole = digests(rl.DataLoader(patches(brains), batch_size=2, shuffle=True, num_threads=3))
    loader = rl.DataLoader(patches(brains), batch_size=2, shuffle=True, num_threads=3)
    running = iter(loader)
    taken = [digest(next(running)) for _ in range(3)]
    state = loader.state_dict()
    again = rl.DataLoader(patches(brains), batch_size=2, shuffle=True, num_threads=2)
    again.load_state_dict(state)
    assert taken + digests(again) == whole


def test_few_batches_wait(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def most_ahead(threads: int) -> int:
        begun = []
        plain = rl.PatchDataset.begin
        with monkeypatch.context() as patch:
            patch.setattr(rl.PatchDataset, "begin", lambda self, keys: begun.append(keys) or plain(self, keys))
            ahead_of = []
            for taken, _ in enumerate(rl.DataLoader(patches(brains), batch_size=1, num_threads=threads), 1):
                time.sleep(0.02)
                ahead_of.append(len(begun) - taken)
        return max(ahead_of)

    assert most_ahead(4) == 5
    assert most_ahead(1) == 2
    monkeypatch.setattr(ahead, "_MOST_BYTES", 1)
    assert most_ahead(4) == 2


def test_what_is_read_is_counted(brains: Any) -> None:
    loader = rl.DataLoader(patches(brains), batch_size=4, num_threads=2)
    list(loader)
    assert loader.stats.batches == 4
    assert loader.stats.seconds["read"] > 0


def test_wrong_arguments(brains: Any) -> None:
    dataset = patches(brains)
    with pytest.raises(ConfigError, match="num_threads=2 and num_workers=2"):
        rl.DataLoader(dataset, num_threads=2, num_workers=2)
    with pytest.raises(ConfigError, match="num_threads=-1 must be a whole number of at least 0"):
        rl.DataLoader(dataset, num_threads=-1)
    with pytest.raises(ConfigError, match="datasets of this package"):
        rl.DataLoader(Subset(dataset, [0, 1]), num_threads=2)
    assert len(list(rl.DataLoader(Subset(dataset, [0, 1])))) == 2


def test_batches_are_read_into_pinned_memory(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an accelerator torch has no pinned memory: what it is asked for is looked at."""
    asked = []
    plain = torch.empty
    monkeypatch.setattr(
        memory.torch, "empty", lambda *a, pin_memory=False, **k: asked.append(pin_memory) or plain(*a, **k)
    )
    dataset = patches(brains)
    list(rl.DataLoader(dataset, batch_size=4, num_threads=2, pin_memory=False))
    assert asked
    assert not any(asked)
    asked.clear()
    monkeypatch.setattr(ahead, "_pinning_device", lambda loader: "cuda")
    monkeypatch.setattr(ahead, "pin_memory", lambda batch, device: batch)
    list(rl.DataLoader(dataset, batch_size=4, num_threads=2, pin_memory=True))
    assert asked
    assert all(asked)
