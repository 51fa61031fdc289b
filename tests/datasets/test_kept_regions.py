"""Patches and slices that are cut from regions which are read once: the same samples, mixed over volumes, fewer reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.storage import regions as kept
from tests.datasets.test_loader import digest, digests


def regions(brains: Any, **arguments: Any) -> rl.PatchDataset:
    positions = rl.RegionPositions(4, mix=arguments.pop("mix", 2))
    given: dict[str, Any] = {"image": "T1w", "label": "seg", "patch_size": (8, 9, 10), "patches_per_volume": 8}
    return rl.PatchDataset(brains.uri, positions=positions, **(given | arguments))


class Reads:
    """Counts the boxes that are asked of TileDB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boxes: list[Any] = []
        plain = rl.VolumeReader._read_stored

        def read(reader: Any, ref: Any, time: int, box: Any, target: Any) -> None:
            self.boxes.append((ref.uri, box))
            plain(reader, ref, time, box, target)

        monkeypatch.setattr(rl.VolumeReader, "_read_stored", read)


@pytest.mark.parametrize("threads", [0, 3])
def test_each_region_is_read_once_though_batches_mix_volumes(
    brains: Any, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    dataset = regions(brains)
    loader = rl.DataLoader(dataset, batch_size=4, shuffle=True, num_threads=threads)
    reads = Reads(monkeypatch)
    batches = list(loader)
    assert [len(batch["obs_id"]) for batch in batches] == [4] * 8
    wanted = {(p.volume, p.region) for p in map(dataset._resolve, rl.KeySampler(dataset).global_order(0))}
    assert 4 < len(wanted) <= 4 * 2  # two groups of a small volume may have one region
    assert len(reads.boxes) == len(set(reads.boxes)) == 2 * len(wanted)  # of image and label
    # Two groups come in turn; they are of one volume only where the shuffle put both next to each other.
    assert sum(len(set(batch["obs_id"])) == 2 for batch in batches) >= 6
    assert dataset._reader._regions.nbytes == 0  # nothing is kept after the epoch


def test_samples_do_not_depend_on_what_is_kept(brains: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(**arguments: Any) -> list[str]:
        dataset = regions(brains, **arguments)
        return sorted(digests(rl.DataLoader(dataset, batch_size=None, shuffle=True)))

    expected = epoch()
    assert len(expected) == 32
    assert epoch(mix=1) == epoch(mix=4) == expected
    monkeypatch.setattr(kept, "_BYTES", 0)
    assert epoch() == expected


def test_workers_and_threads_give_the_same_mixed_batches(brains: Any) -> None:
    def epoch(**arguments: Any) -> list[str]:
        return digests(rl.DataLoader(regions(brains), batch_size=4, shuffle=True, **arguments))

    expected = epoch(num_threads=0)
    assert epoch(num_threads=3) == expected
    assert epoch(num_workers=2, multiprocessing_context="fork") == expected


def test_patches_equal_the_volume(brains: Any) -> None:
    dataset = regions(brains, mix=3)
    for batch in rl.DataLoader(dataset, batch_size=8, shuffle=True):
        for number, subject in enumerate(batch["obs_subject_id"]):
            (a, b, c), (d, e, f) = batch["location"][number].tolist()
            for name, key in (("T1w", "image"), ("seg", "label")):
                expected = torch.from_numpy(brains.arrays[name][subject][a:d, b:e, c:f].copy())
                assert torch.equal(batch[key][number, 0], expected.to(batch[key].dtype))


@pytest.mark.parametrize("plane", ["axial", "coronal"])
@pytest.mark.parametrize("arguments", [{}, {"skip_empty": "label"}, {"context": 1}])
def test_blocks_of_slices_are_read_once(
    brains: Any, monkeypatch: pytest.MonkeyPatch, plane: str, arguments: dict[str, Any]
) -> None:
    def slices(block: int, mix: int) -> rl.SliceDataset:
        return rl.SliceDataset(
            brains.uri, image="T1w", label="seg", plane=plane, block=block, mix=mix, pad_to=24, crop_to=24, **arguments
        )

    dataset = slices(8, 2)
    loader = rl.DataLoader(dataset, batch_size=4, shuffle=True)
    reads = Reads(monkeypatch)
    found = {}
    for batch in loader:
        for number, subject in enumerate(batch["obs_subject_id"]):
            location = tuple(batch["location"][number].flatten().tolist())
            found[subject, location] = (batch["image"][number], batch["label"][number])
    blocks = sum(-(-int(n) // 8) for n in dataset.layout.counts)
    assert len(reads.boxes) == 2 * blocks
    assert dataset.layout.mix == 2
    single = slices(1, 1)
    assert len(found) == len(single) == len(dataset)
    for i in range(len(single)):
        sample = single[single.key(i)]
        image, label = found[sample["obs_subject_id"], tuple(sample["location"].flatten().tolist())]
        assert torch.equal(image, sample["image"])
        assert torch.equal(label, sample["label"])


def test_a_key_of_an_empty_slice_is_read_by_itself(brains: Any) -> None:
    dataset = rl.SliceDataset(brains.uri, image="T1w", label="seg", block=8, skip_empty="label")
    used = dataset.table.columns["used"][: int(dataset.layout.counts[0])].tolist()
    (empty, *_) = (i for i in range(dataset.table.shape(0)[2]) if i not in used)
    plain = rl.SliceDataset(brains.uri, image="T1w", label="seg")
    key = rl.SliceKey(0, "axial", empty)
    assert digest(dataset[key]) == digest(plain[key])


def test_wrong_arguments(brains: Any) -> None:
    with pytest.raises(ConfigError, match="mix=0 must be a whole number of at least 1"):
        rl.RegionPositions(mix=0)
    with pytest.raises(ConfigError, match="mix=0 must be a whole number of at least 1"):
        rl.SliceDataset(brains.uri, image="T1w", mix=0)
