"""The queue beside TorchIO's."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

tio = pytest.importorskip("torchio")

import radioloader as rl  # noqa: E402
from radioloader.errors import ConfigError  # noqa: E402
from radioloader.torchio import Queue, SubjectsDataset  # noqa: E402


@pytest.fixture
def make(brain_store: str) -> Callable[..., Any]:
    def dataset(transform: Any = None) -> Any:
        return SubjectsDataset(brain_store, {"t1": "T1w"}, {"seg": "tissue"}, transform, progress=False, num_workers=1)

    return dataset


@pytest.fixture(scope="module")
def voxels(datalist: list[dict[str, Any]]) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(nib.load(item["image"]).dataobj) for item in datalist]


def identity(patch: Any, voxels: list[np.ndarray[Any, Any]]) -> tuple[int, ...]:
    """Subject and place of a patch, whose voxels are those of the file."""
    number = int(patch["obs_subject_id"][1:])
    a, b, c, d, e, f = (int(n) for n in patch["location"])
    assert np.array_equal(patch["t1"].data[0].numpy(), voxels[number][a:d, b:e, c:f])
    return (number, a, b, c)


def taken(loader: Any) -> set[tuple[Any, ...]]:
    """Subject and place of each patch of an epoch, in which each subject has its four."""
    batches = list(loader)
    subjects = [s for batch in batches for s in batch["obs_subject_id"]]
    places = [tuple(place) for batch in batches for place in batch["location"].tolist()]
    assert Counter(subjects) == {"s0": 4, "s1": 4, "s2": 4}
    found = set(zip(subjects, places, strict=True))
    assert len(found) == 12
    return found


def test_every_patch_once_in_the_order_of_torchio(make: Callable[..., Any], voxels: list[Any]) -> None:
    queue = Queue(make(), 6, 4, tio.UniformSampler((16, 20, 12)))
    assert len(queue) == queue.iterations_per_epoch == 12
    epochs = [[identity(queue[i], voxels) for i in range(12)] for _ in range(2)]
    for epoch in epochs:
        assert Counter(number for number, *_ in epoch) == {0: 4, 1: 4, 2: 4}
        # One subject and a half are shuffled at a time.
        assert len({number for number, *_ in epoch[:6]}) == 2
    assert epochs[0] != epochs[1]
    plain = Queue(make(), 6, 4, tio.UniformSampler(16), shuffle_subjects=False, shuffle_patches=False)
    assert [identity(plain[i], voxels)[0] for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    assert repr(plain) == "Queue(max_length=6, num_subjects=3, samples_per_volume=4, iterations_per_epoch=12)"
    assert plain.get_max_memory() == 4 * 2 * 16**3 * 6


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_patch_comes_once_whatever_the_workers(workers: int, make: Callable[..., Any]) -> None:
    queue = Queue(make(), 6, 4, tio.UniformSampler(16), num_workers=2)
    loader = tio.SubjectsLoader(queue, batch_size=2, num_workers=workers, persistent_workers=workers == 2)
    assert not taken(loader) & taken(loader)


def test_what_was_asked_before_a_fork_does_not_matter(make: Callable[..., Any]) -> None:
    queue = Queue(make(), 6, 4, tio.UniformSampler(16), num_workers=1)
    queue[0]
    for _ in range(2):
        loader = tio.SubjectsLoader(queue, batch_size=2, num_workers=2, timeout=60, multiprocessing_context="fork")
        taken(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_orders_of_others(workers: int, make: Callable[..., Any]) -> None:
    from torch.utils.data import RandomSampler

    dataset = make()
    random = Queue(dataset, 4, 4, tio.UniformSampler(16), RandomSampler(dataset), shuffle_subjects=False)
    for queue, shuffle in ((random, False), (Queue(dataset, 4, 4, tio.UniformSampler(16)), True)):
        loader = tio.SubjectsLoader(queue, batch_size=2, num_workers=workers, shuffle=shuffle)
        epochs = [taken(loader) for _ in range(3)]
        assert not epochs[0] & epochs[1]


def test_the_same_after_torchs_seed(make: Callable[..., Any]) -> None:
    def places(seed: int, threads: int) -> list[Any]:
        torch.manual_seed(seed)
        queue = Queue(make(), 6, 4, tio.LabelSampler(16, "seg"), num_workers=threads)
        return [place for batch in tio.SubjectsLoader(queue, batch_size=4) for place in batch["location"].tolist()]

    assert places(1, 0) == places(1, 2) != places(2, 0)


def test_a_patch_is_what_torchios_sampler_cuts(make: Callable[..., Any]) -> None:
    queue = Queue(make(), 2, 1, tio.UniformSampler((16, 20, 12)), shuffle_subjects=False)
    patch = queue[0]
    state = torch.get_rng_state()
    start = [int(n) for n in patch["location"][:3]]
    queue[1]
    assert torch.equal(torch.get_rng_state(), state)  # whatever threads do, nobody else's numbers change
    expected = queue.sampler.crop(make()[int(patch["obs_subject_id"][1:])], start, (16, 20, 12))
    assert list(patch) == list(expected)
    for name in ("t1", "seg"):
        assert torch.equal(patch[name].data, expected[name].data)
        assert np.array_equal(patch[name].affine, expected[name].affine)
    assert torch.equal(patch["location"], expected["location"])
    assert patch.applied_transforms == expected.applied_transforms


def test_our_loader_gives_the_same_with_any_number_of_workers(make: Callable[..., Any]) -> None:
    queue = Queue(make(), 6, 4, tio.UniformSampler(16), patch_transform=tio.RandomNoise(), seed=5)
    epochs = {}
    for name, arguments in {
        "one": {"num_threads": 0},
        "threads": {"num_threads": 2},
        "fork": {"num_workers": 2},
        "spawn": {"num_workers": 1, "multiprocessing_context": "spawn"},
    }.items():
        loader = rl.DataLoader(queue, batch_size=4, shuffle=True, **arguments)
        epochs[name] = [[float(b["t1"][tio.DATA].double().sum()) for b in loader] for _ in range(2)]
    assert epochs["threads"] == epochs["fork"] == epochs["spawn"] == epochs["one"]
    assert epochs["one"][0] != epochs["one"][1]
    assert len(epochs["one"][0]) == 3


SAMPLERS = {
    "uniform": lambda: tio.UniformSampler((16, 20, 12)),
    "label": lambda: tio.LabelSampler(14, "seg"),
    "classes": lambda: tio.LabelSampler((13, 16, 12), "seg", {0: 1, 1: 3, 2: 2}),
    "weighted": lambda: tio.WeightedSampler(15, "t1"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_centres_are_distributed_as_torchios(
    name: str, make: Callable[..., Any], datalist: list[dict[str, Any]]
) -> None:
    from scipy.stats import chi2_contingency

    sampler, count = SAMPLERS[name](), 500
    label = np.asarray(nib.load(datalist[0]["label"]).dataobj)
    subject = tio.Subject(t1=tio.ScalarImage(datalist[0]["image"]), seg=tio.LabelMap(datalist[0]["label"]))
    queue = Queue(make(), 1, count, sampler, shuffle_subjects=False)
    half = np.asarray(sampler.patch_size, int) // 2
    torch.manual_seed(0)
    counts: list[Counter[Any]] = []
    for patches in (sampler(subject, count), (queue[i] for i in range(count))):
        centres = [np.asarray(patch["location"])[:3] + half for patch in patches]
        counts.append(Counter((*(centre // 20).tolist(), int(label[tuple(centre)])) for centre in centres))
    cells = [cell for cell in counts[0] | counts[1] if counts[0][cell] + counts[1][cell] >= 12]
    rest = [sum(counter.values()) - sum(counter[cell] for cell in cells) for counter in counts]
    table = [[*(c[cell] for cell in cells), *([r] if sum(rest) else [])] for c, r in zip(counts, rest, strict=True)]
    assert len(cells) > 5
    assert chi2_contingency(table).pvalue > 1e-3


def test_centres_by_label_are_voxels_of_the_label_that_have_room(
    make: Callable[..., Any], datalist: list[dict[str, Any]]
) -> None:
    label = np.asarray(nib.load(datalist[0]["label"]).dataobj)
    sampler = tio.LabelSampler((30, 40, 20), "seg", {0: 0, 1: 1, 2: 1, 7: 5})  # there is no class 7
    queue = Queue(make(), 1, 300, sampler, shuffle_subjects=False)
    starts = np.array([np.asarray(queue[i]["location"])[:3] for i in range(300)])
    centres = starts + np.array([15, 20, 10])
    found = label[tuple(centres.T)]
    assert 100 < (found == 1).sum() < 200
    assert ((found == 1) | (found == 2)).all()
    with pytest.raises(RuntimeError, match="Empty probability map"):
        Queue(make(), 1, 1, tio.LabelSampler(20, "seg", {9: 1}))[0]


def test_random_transforms_of_the_dataset_run_on_whole_subjects(make: Callable[..., Any], voxels: list[Any]) -> None:
    calls: list[str] = []

    class Flip(tio.RandomFlip):
        def apply_transform(self, subject: Any) -> Any:
            calls.append(subject["obs_subject_id"])
            return super().apply_transform(subject)

    queue = Queue(make(Flip(axes=0, flip_probability=1)), 6, 4, tio.UniformSampler(16))
    flipped = [volume[::-1] for volume in voxels]
    patches = [identity(queue[i], flipped) for i in range(12)]
    assert Counter(number for number, *_ in patches) == {0: 4, 1: 4, 2: 4}
    assert len(calls) <= 4  # one of three subjects is in two windows
    loader = rl.DataLoader(queue, batch_size=3, num_threads=0, shuffle=True)
    assert sum(batch["t1"][tio.DATA].shape[0] for batch in loader) == 12
    assert len(calls) <= 8


def test_a_sampler_of_ones_own(make: Callable[..., Any], voxels: list[Any]) -> None:
    class Corner(tio.data.sampler.sampler.RandomSampler):
        def _generate_patches(self, subject: Any, num_patches: int | None = None) -> Any:
            while True:
                yield self.extract_patch(subject, (1, 2, 3))

    queue = Queue(make(), 2, 1, Corner(10))
    assert {identity(queue[i], voxels)[1:] for i in range(3)} == {(1, 2, 3)}


def test_ranks_share_the_subjects(make: Callable[..., Any]) -> None:
    from torch.utils.data.distributed import DistributedSampler

    dataset, seen = make(), []
    for rank in range(3):
        sampler = DistributedSampler(dataset, num_replicas=3, rank=rank)
        queue = Queue(dataset, 6, 2, tio.UniformSampler(16), sampler, shuffle_subjects=False)
        assert len(queue) == 2
        seen += [queue[i]["obs_subject_id"] for i in range(2)]
    assert Counter(seen) == {"s0": 2, "s1": 2, "s2": 2}


def test_reading_threads_end_with_the_queue(make: Callable[..., Any]) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("radioloader-queue")]

    queue = Queue(make(), 6, 4, tio.UniformSampler(16), num_workers=2)
    queue[0]
    mine = threads()
    assert mine
    del queue
    gc.collect()
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


def test_wrong_arguments(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="max_length"):
        Queue(make(), 0, 4, tio.UniformSampler(16))
    with pytest.raises(ConfigError, match="shuffle_subjects cannot be set"):
        Queue(make(), 6, 4, tio.UniformSampler(16), range(3))
    with pytest.raises(ConfigError, match="patch_transform must be callable"):
        Queue(make(), 6, 4, tio.UniformSampler(16), patch_transform=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is no sampler of TorchIO"):
        Queue(make(), 6, 4, tio.UniformSampler)
    with pytest.raises(ConfigError, match="subjects_dataset is a NoneType"):
        Queue(None, 6, 4, tio.UniformSampler(16))
    with pytest.raises(IndexError, match="patch 12 is out of range"):
        Queue(make(), 6, 4, tio.UniformSampler(16))[12]
    with pytest.raises(RuntimeError, match="cannot be larger"):
        Queue(make(), 6, 4, tio.UniformSampler(90))[0]
