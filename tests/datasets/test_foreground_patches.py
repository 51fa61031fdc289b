"""Patches by foreground and by probability, end to end: what is in their middle, and what is read to choose it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError

Array = np.ndarray[Any, Any]
SIZE = (7, 6, 5)


@pytest.fixture(scope="module")
def lesions(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Array]]:
    """4 subjects with a large organ (1) and a small lesion (2) in it or at the border; ``d`` has neither. And a map of where to look."""
    root = tmp_path_factory.mktemp("lesions")
    generator = np.random.default_rng(0)
    labels = {}
    files: dict[str, dict[str, Path]] = {"CT": {}, "seg": {}, "heat": {}}
    for number, name in enumerate("abcd"):
        label = np.zeros((24 + number, 22, 20), np.uint8)
        if name != "d":
            label[5:14, 6:15, 4:12] = 1
            label[8 + number : 10 + number, 9:11, 6:8] = 2
        if name == "c":
            label[25, 0, 19] = 2
        labels[name] = label
        image = generator.integers(-1000, 1000, label.shape, dtype=np.int16)
        files["CT"][name] = write_image(root / "CT" / f"{name}.nii.gz", image)
        files["seg"][name] = write_image(root / "seg" / f"{name}.nii.gz", label)
        heat = (label == 2).astype(np.float32) * 3 + (label == 1)
        files["heat"][name] = write_image(root / "heat" / f"{name}.nii.gz", heat)
    config = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)))
    assert rl.ingest(root / "store", files, labels=["seg"], workers=1, config=config).ok
    return str(root / "store"), labels


def patches(uri: Any, positions: Any, **arguments: Any) -> rl.PatchDataset:
    return rl.PatchDataset(
        uri, **{"image": "CT", "label": "seg", "patch_size": SIZE, "positions": positions, "dtype": None} | arguments
    )


def middle(dataset: rl.PatchDataset, draws: int, volume: int) -> Counter[int]:
    """Class of the middle voxel of so many patches."""
    samples = dataset.__getitems__([rl.PatchKey(volume, draw) for draw in range(draws)])
    x, y, z = (n // 2 for n in SIZE)
    return Counter(int(sample["label"][0, x, y, z]) for sample in samples)


def near(found: int, share: float, total: int) -> bool:
    return abs(found - share * total) <= 4 * np.sqrt(total * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.75, 1.0])
def test_the_share_of_patches_centred_on_foreground(
    lesions: tuple[str, dict[str, Array]], share: float, counts: Callable[[int, int], int]
) -> None:
    uri, labels = lesions
    total = counts(400, 4000)
    for volume, name in enumerate("ab"):
        found = middle(patches(uri, rl.ForegroundPositions(share)), total, volume)
        # The others lie anywhere: where their middle can be, so much is foreground.
        label = labels[name][3 : labels[name].shape[0] - 3, 3:20, 2:18]
        for value in (1, 2):
            expected = share / 2 + (1 - share) * float((label == value).mean())
            assert near(found[value], expected, total), (name, value, found)


def test_ratios_by_class(lesions: tuple[str, dict[str, Array]], counts: Callable[[int, int], int]) -> None:
    uri, _ = lesions
    total = counts(400, 4000)
    dataset = patches(uri, rl.ForegroundPositions(ratios={0: 1, 1: 1, 2: 2, 9: 40}))
    found = middle(dataset, total, 0)
    # Patches near the border are moved: the middle of one that was centred on background there may be another class, so only those
    # of the organ, which lies inside, are counted exactly.
    assert near(found[1], 1 / 4, total)
    assert near(found[2], 2 / 4, total)
    # The lesion at a corner: its patch is moved into the volume, and holds it.
    samples = patches(uri, rl.ForegroundPositions(1.0, classes=(2,))).__getitems__(
        [rl.PatchKey(2, d) for d in range(100)]
    )
    assert all((sample["label"] == 2).any() for sample in samples)
    assert {tuple(s["location"][0].tolist()) for s in samples if s["location"][0, 0] > 15} == {(19, 0, 15)}
    # A volume without any: patches anywhere.
    starts = {tuple(dataset[rl.PatchKey(3, d)]["location"][0].tolist()) for d in range(100)}
    assert len(starts) > 90


def test_choosing_a_centre_reads_no_voxel(
    lesions: tuple[str, dict[str, Array]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(lesions[0], tmp_path / "store")
    expected = patches(lesions[0], rl.ForegroundPositions())
    store = rl.open(tmp_path / "store")
    for collection in (store.seg, store.CT):
        for volume in collection:
            shutil.rmtree(volume.uri)
    # There is no voxel left, of a label or of an image.
    dataset = patches(tmp_path / "store", rl.ForegroundPositions())
    reads: list[Any] = []
    monkeypatch.setattr(rl.VolumeReader, "_read", lambda self, requests: reads.extend(requests) or [])
    keys = [rl.PatchKey(volume, draw, epoch) for volume in range(4) for draw in range(20) for epoch in range(2)]
    boxes = [place.box for place in dataset._resolved(keys)]
    assert reads == []
    assert dataset._reader.open_arrays == 0
    monkeypatch.undo()
    assert [sample["location"].tolist() for sample in expected.__getitems__(keys)] == [
        [list(box.start), list(box.stop)] for box in boxes
    ]


@pytest.mark.parametrize(
    ("method", "positions"),
    [
        ("fork", rl.ForegroundPositions(0.5)),
        ("fork", rl.WeightedPositions("heat")),
        ("spawn", rl.WeightedPositions("heat")),
    ],
    ids=str,
)
def test_workers_choose_the_same_patches(lesions: tuple[str, dict[str, Array]], method: str, positions: Any) -> None:
    dataset = patches(lesions[0], positions, patches_per_volume=4)
    here = list(rl.DataLoader(dataset, 4, shuffle=True))
    there = rl.DataLoader(dataset, 4, shuffle=True, num_workers=1, multiprocessing_context=method, timeout=100)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["location"], b["location"])
        assert torch.equal(a["label"], b["label"])


def test_probability_maps(lesions: tuple[str, dict[str, Array]], counts: Callable[[int, int], int]) -> None:
    uri, labels = lesions
    dataset = patches(uri, rl.WeightedPositions("heat"))
    total = counts(400, 4000)
    found = middle(dataset, total, 0)
    organ, lesion = (labels["a"] == 1).sum(), (labels["a"] == 2).sum()
    share = float(3 * lesion / (3 * lesion + organ))
    assert set(found) == {1, 2}
    assert near(found[2], share, total)
    assert (
        len({tuple(dataset[rl.PatchKey(3, d)]["location"][0].tolist()) for d in range(50)}) > 45
    )  # an empty map: anywhere
    with pytest.raises(KeyNotFoundError, match="has no collection 'nowhere'"):
        patches(uri, rl.WeightedPositions("nowhere"))


def test_maps_with_time_points_are_refused(mixed: Any) -> None:
    with pytest.raises(ConfigError, match=r"reads the collection 'perf', which has more than one time point"):
        rl.PatchDataset(mixed.uri, image="CT", patch_size=4, positions=rl.WeightedPositions("perf"))


def test_tile_aligned_patches_end_to_end(lesions: tuple[str, dict[str, Array]]) -> None:
    dataset = patches(lesions[0], rl.TileAlignedPositions(), patch_size=(16, 8, 8))
    starts = {tuple(dataset[rl.PatchKey(0, d)]["location"][0].tolist()) for d in range(200)}
    assert starts == {(x, y, z) for x in (0, 8) for y in (0, 8) for z in (0, 8)}
    with pytest.raises(
        ConfigError, match=r"needs a patch of whole tiles: patch_size=\(16, 9, 8\), but tiles are \(8, 8, 8\)"
    ):
        patches(lesions[0], rl.TileAlignedPositions(), patch_size=(16, 9, 8))


def test_the_patches_of_a_region_cost_about_one_query(
    lesions: tuple[str, dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from radioloader.storage import _tiles

    asked: list[Any] = []
    plain = _tiles.TileHandle.read
    monkeypatch.setattr(
        _tiles.TileHandle, "read", lambda self, ranges, out: asked.append(ranges) or plain(self, ranges, out)
    )
    together = patches(lesions[0], rl.RegionPositions(4), label=None, patches_per_volume=8, patch_size=8)
    scattered = patches(lesions[0], rl.UniformPositions(), label=None, patches_per_volume=8, patch_size=8)
    numbers = []
    for dataset in (together, scattered):
        asked.clear()
        for batch in rl.DataLoader(dataset, 4, shuffle=True):
            if dataset is together:
                assert len(set(batch["obs_id"])) == 1
                starts = batch["location"][:, 0]
                assert ((starts.amax(0) - starts.amin(0)) < 8).all()
        numbers.append(len(asked))
    # One for each of 32 / 4 batches, and a few more where patches that end with a tile make the box around them no cheaper.
    assert 8 <= numbers[0] <= 12
    assert numbers[1] > 16


@pytest.mark.parametrize(
    "positions", [rl.ForegroundPositions(classes=(9,)), rl.ForegroundPositions(ratios={0: 1, 9: 3})]
)
def test_classes_that_no_volume_has_are_refused(brains: Any, positions: rl.ForegroundPositions) -> None:
    with pytest.raises(ConfigError, match="no volume has class 9; the labels hold 0, 1, 2"):
        patches(brains.uri, positions, image="T1w", patch_size=8)


def test_some_classes_that_no_volume_has_are_told(brains: Any, caplog: pytest.LogCaptureFixture) -> None:
    patches(brains.uri, rl.ForegroundPositions(classes=(1, 9)), image="T1w", patch_size=8)
    assert "no volume has class 9; the labels hold 0, 1, 2" in caplog.text
    caplog.clear()
    patches(brains.uri, rl.ForegroundPositions(ratios={1: 1, 9: 0}), image="T1w", patch_size=8)
    assert not caplog.text
