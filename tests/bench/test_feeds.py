"""The loaders that are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.bench.amplification import in_patches, in_slices
from radioloader.bench.choose import choose
from radioloader.bench.feeds import Feeds


def feeds(uri: str, **arguments: Any) -> Feeds:
    store = rl.open(uri)
    choice = choose(store.snapshot, image=[], label=None)
    return Feeds(store, choice, **{"patch_size": (8, 10, 12), "batch_size": 3} | arguments)


def test_patches(store_uri: str) -> None:
    feed = feeds(store_uri).patches(num_threads=2)
    assert feed.way.settings == "num_workers=0, num_threads=2"
    assert feed.way.how == "PatchDataset(positions=UniformPositions())"
    assert feed.loader.threads == 2
    batch = next(iter(feed.loader))
    assert batch["image"].shape == batch["label"].shape == (3, 1, 8, 10, 12)
    expected = np.mean([in_patches((20 + n, 24, 18), (8, 10, 12), (8, 8, 8)) for n in range(4)])
    assert feed.in_tiles == pytest.approx(expected)
    assert feed.decoded == pytest.approx(expected * 8 * 10 * 12)
    assert feed.nbytes == batch["image"].nbytes + batch["label"].nbytes


def test_patches_in_groups_of_four_volumes(store_uri: str) -> None:
    feed = feeds(store_uri, batch_size=4).patches(regions=True)
    assert (feed.way.what, feed.in_tiles) == ("patches in groups", None)
    assert feed.way.how == "PatchDataset(positions=RegionPositions(patches=8, mix=4))"
    assert len(set(next(iter(feed.loader))["obs_id"])) > 1


def test_a_patch_larger_than_the_volumes_is_padded(store_uri: str) -> None:
    feed = feeds(store_uri, patch_size=(32, 8, 8)).patches()
    batch = next(iter(feed.loader))
    assert batch["image"].shape == (3, 1, 32, 8, 8)
    assert (batch["image"][:, :, 0] == 0).all()


def test_whole_volumes_come_one_by_one(store_uri: str) -> None:
    feed = feeds(store_uri).volumes()
    batches = list(feed.loader)
    assert sorted(batch["image"].shape[2] for batch in batches) == [20, 21, 22, 23]
    assert feed.decoded == pytest.approx(24 * 24 * 24)  # three tiles of 8 on each axis, cut off by no volume
    assert feed.nbytes == max(batch["image"].nbytes + batch["label"].nbytes for batch in batches)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1)])
def test_slices_of_different_shapes_are_stacked(store_uri: str, plane: str, axis: int) -> None:
    feed = feeds(store_uri).slices(plane)
    shapes = {tuple(batch["image"].shape[2:]) for batch in feed.loader}
    assert shapes == {(23, 24) if plane == "axial" else (23, 18)}
    assert feed.in_tiles == pytest.approx(np.mean([in_slices((20 + n, 24, 18), axis, (8, 8, 8)) for n in range(4)]))


def test_blocks_are_as_thick_as_tiles(store_uri: str) -> None:
    made = feeds(store_uri)
    assert made.block("axial") == 8
    feed = made.slices("axial", blocks=True)
    # Volumes of several shapes: as it is written there, it runs.
    assert feed.way.how == "SliceDataset(plane='axial', block=8, mix=4, pad_to=[23, 24])"
    assert (feed.way.what, feed.in_tiles) == ("axial slices in blocks", None)
    assert feed.cycle == 11  # batches of 3 in which four blocks are used up
    one = made.restricted(("sub-01",)).slices("axial", blocks=True)
    assert one.way.how == "SliceDataset(plane='axial', block=8, mix=4)"


def test_only_patches_are_transformed(store_uri: str) -> None:
    made = feeds(store_uri, transform=lambda sample: {"x": sample["image"] * 0 + 7})
    assert (next(iter(made.patches().loader))["x"] == 7).all()
    assert "image" in next(iter(made.slices("axial").loader))
    assert "image" in next(iter(made.volumes().loader))


def test_fewer_subjects(store_uri: str) -> None:
    made = feeds(store_uri).restricted(("sub-02",))
    assert set(next(iter(made.patches().loader))["obs_subject_id"]) == {"sub-02"}
    assert made.shapes.tolist() == [[21, 24, 18]]


def test_time_points_count_as_channels(make_store: Callable[..., str]) -> None:
    series = np.zeros((9, 8, 7, 5), np.float32)
    feed = feeds(make_store({"fMRI": {"a": series}}), patch_size=(4, 4, 4)).patches()
    batch = next(iter(feed.loader))
    assert batch["image"].shape == (3, 5, 4, 4, 4)
    assert feed.nbytes == batch["image"].nbytes
    assert batch["image"].dtype == torch.float32
