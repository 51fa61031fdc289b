"""The loader as Lightning uses it."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import radioloader as rl


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_set_after_iter_is_the_one_that_comes(ten: str, workers: int) -> None:
    """Lightning makes the iterator first and sets the epoch then, when it resumes at the end of an epoch."""
    dataset = rl.PatchDataset(ten, image="T1w", patch_size=6, patches_per_volume=2)

    def loader() -> Any:
        context = "fork" if workers else None
        return rl.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers, multiprocessing_context=context)

    expected = loader()
    expected.set_epoch(2)
    found = loader()
    batches = iter(found)
    found.set_epoch(2)
    first = next(batches)
    assert first["location"].tolist() == next(iter(expected))["location"].tolist()
    state = found.state_dict()
    assert (state["epoch"], state["samples"]) == (2, 4)
    assert len(list(batches)) == 4


def test_workers_end_with_their_iterator(ten: str) -> None:
    dataset = rl.PatchDataset(ten, image="T1w", patch_size=6, patches_per_volume=2)
    loader: Any = rl.DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="fork")
    gc.disable()
    try:
        batches = iter(loader)
        next(batches)
        (worker,) = batches._workers
        del batches
        assert not worker.is_alive()
        assert loader.state_dict()["samples"] == 4  # the count outlives it
    finally:
        gc.enable()
