"""Training and evaluation on real ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

import radioloader as rl

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
import radioloader as rl


def samples(loader, batches=None):
    found = []
    for number, batch in enumerate(loader, 1):
        for subject, box in zip(batch["obs_subject_id"], batch["location"].tolist()):
            found.append([subject, box])
        if number == batches:
            break
    return found


def main():
    out, uri, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    options = {"num_workers": workers, "multiprocessing_context": sys.argv[4] if workers else None}
    patches = rl.PatchDataset(uri, image="T1w", label="seg", patch_size=8, patches_per_volume=5, seed=5)
    loader = rl.DataLoader(patches, batch_size=2, shuffle=True, **options)  # before the process group exists
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    result = {"world": world, "epochs": [samples(loader) for _ in range(2)]}
    loader.set_epoch(7)
    result["first"] = samples(loader, batches=2)
    result["state"] = loader.state_dict()
    again = rl.DataLoader(patches, batch_size=2, shuffle=True, **options)
    again.load_state_dict(result["state"])
    result["rest"] = samples(again)
    loader.set_epoch(7)
    loader.load_state_dict({**result["state"], "progress": [], "samples": 0})
    result["whole"] = samples(loader)
    # Evaluation: 4 cases; every rank makes another number of steps, and there is a barrier at the end.
    grid = rl.PatchDataset(uri, image="T1w", patch_size=(12, 12, 18), positions=rl.GridPositions())
    counts = {}
    for batch in rl.DataLoader(grid, batch_size=3, **options):
        for subject in batch["obs_subject_id"]:
            counts[subject] = counts.get(subject, 0) + 1
    result["cases"] = counts
    result["gathered"] = rl.gather_cases(counts, grid)
    (out / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


SUBJECTS = [f"sub-{number:02d}" for number in range(1, 5)]


QUICK = (3, 1, "fork")


@pytest.fixture(scope="module")
def three(torchrun: Callable[..., Any], store_uri: str) -> Any:
    """What three ranks with a worker each saw."""
    return torchrun(SCRIPT, QUICK[0], store_uri, *QUICK[1:])


def worlds(counts: Callable[[int, int], int]) -> list[tuple[int, int, str]]:
    """World size, workers of each rank, and how they are started."""
    if counts(0, 1) == 0:
        return [
            QUICK
        ]  # each loader of a forkserver's or spawned workers imports torch anew; other tests start those without ranks
    starts = [(0, "fork"), (1, "spawn"), (2, "fork"), (2, "spawn"), (2, "forkserver")]
    return [(world, *start) for world, start in product((1, 2, 3, 4), starts)]


def pairs(samples: Any) -> Counter[str]:
    return Counter(str(sample) for sample in samples)


def test_ranks_share_each_epoch_and_each_case(
    torchrun: Callable[..., Any], counts: Callable[[int, int], int], store_uri: str, three: Any
) -> None:
    dataset = rl.PatchDataset(store_uri, image="T1w", label="seg", patch_size=8, patches_per_volume=5, seed=5)
    expected = {}
    for epoch in (0, 1, 7):
        sampler = rl.KeySampler(dataset)
        sampler.set_epoch(epoch)
        expected[epoch] = pairs(
            [s["obs_subject_id"], s["location"].tolist()] for s in (dataset[key] for key in sampler)
        )
    for world, workers, start in worlds(counts):
        ranks = three if (world, workers, start) == QUICK else torchrun(SCRIPT, world, store_uri, workers, start)
        assert [rank["world"] for rank in ranks] == [world] * world
        for epoch in range(2):
            assert len({len(rank["epochs"][epoch]) for rank in ranks}) == 1, "equal steps"
            together = sum((pairs(rank["epochs"][epoch]) for rank in ranks), Counter())
            assert set(together) == set(expected[epoch])
            assert together.total() - expected[epoch].total() == -20 % world
        # A stop within the epoch: the same state everywhere, and the rest is exactly what was missing, in the same order.
        assert all(rank["state"] == ranks[0]["state"] for rank in ranks)
        for rank in ranks:
            assert rank["first"] + rank["rest"] == rank["whole"]
        whole = sum((pairs(rank["first"] + rank["rest"]) for rank in ranks), Counter())
        assert set(whole) == set(expected[7])
        # Each case on exactly one rank, with all its patches, and the whole result everywhere.
        cases = dict.fromkeys(SUBJECTS, 4)
        assert sum((Counter(rank["cases"]) for rank in ranks), Counter()) == Counter(cases)
        assert sum(len(rank["cases"]) for rank in ranks) == 4
        assert all(rank["gathered"] == cases for rank in ranks)


OPENED = """
import json, sys
from pathlib import Path
import torch.distributed as dist
import radioloader as rl

out, uri = Path(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo")
dataset = rl.PatchDataset(uri, image="T1w", label="seg", patch_size=8, patches_per_volume=6)
for batch in rl.DataLoader(dataset, batch_size=2, shuffle=True):
    pass
opened = sorted(uri.rpartition("/")[2] for uri in dataset._reader._handles)
(out / f"{dist.get_rank()}.json").write_text(json.dumps({"opened": opened}))
dist.destroy_process_group()
"""


def test_a_rank_opens_its_own_volumes_only(torchrun: Callable[..., Any], store_uri: str) -> None:
    ranks = torchrun(OPENED, 2, store_uri)
    assert [len(rank["opened"]) for rank in ranks] == [4, 4]  # 2 subjects, image and label each
    assert not set(ranks[0]["opened"]) & set(ranks[1]["opened"])


def test_a_state_goes_on_with_another_number_of_ranks(store_uri: str, three: Any) -> None:
    dataset = rl.PatchDataset(store_uri, image="T1w", label="seg", patch_size=8, patches_per_volume=5, seed=5)
    sampler = rl.KeySampler(dataset)
    sampler.set_epoch(7)
    epoch = pairs([s["obs_subject_id"], s["location"].tolist()] for s in (dataset[key] for key in sampler))
    first = sum((pairs(rank["first"]) for rank in three), Counter())
    state = three[0]["state"]
    assert (state["samples"], state["progress"], first.total()) == (12, [[3, 4]], 12)
    left = Counter()
    for rank in range(2):
        loader = rl.DataLoader(dataset, batch_size=2, sampler=rl.KeySampler(dataset, rank=rank, world_size=2))
        loader.load_state_dict(state)
        batches = list(loader)
        assert torch.is_tensor(batches[0]["image"])
        left += pairs(
            [subject, box]
            for b in batches
            for subject, box in zip(b["obs_subject_id"], b["location"].tolist(), strict=True)
        )
    assert first + left == epoch
