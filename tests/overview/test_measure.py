"""Percentiles, planes and samples, compared with numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.overview import measure as module
from radioloader.overview.measure import PERCENTILES, SAMPLE, VolumeVoxels, focus_of, measure
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.types import Box
from tests.overview.conftest import Made


@pytest.fixture
def reader() -> Iterator[VolumeReader]:
    with VolumeReader() as reader:
        yield reader


def opened(made: Made, reader: VolumeReader, subject: str, name: str = "T1w") -> VolumeVoxels:
    snapshot = Snapshot.open(made.uri)
    index = snapshot.index(name)
    (place,) = index.of_subject(subject)
    x, y, z = snapshot.tiles(name)[place].tolist()
    return VolumeVoxels(reader, index.ref(place), (x, y, z))


def test_percentiles_are_numpys(clean: Made, reader: VolumeReader) -> None:
    found = measure(opened(clean, reader, "s05"))
    assert found.percentiles == tuple(np.percentile(clean.images["s05"], PERCENTILES))
    assert found.voxels == clean.images["s05"].size
    assert len(found.sample) == SAMPLE
    assert set(found.sample.tolist()) <= set(clean.images["s05"].ravel().tolist())


def test_only_finite_voxels_count(planted: Made, reader: VolumeReader) -> None:
    array = planted.images["holes"]
    found = measure(opened(planted, reader, "holes"))
    assert found.percentiles == tuple(np.percentile(array[np.isfinite(array)], PERCENTILES))
    assert found.voxels == array.size - 3


def test_of_4d_the_first_time_point(planted: Made, reader: VolumeReader) -> None:
    found = measure(opened(planted, reader, "series"))
    assert found.percentiles == tuple(np.percentile(planted.images["series"][..., 0], PERCENTILES))


def test_nothing_finite(make_store: Any, reader: VolumeReader) -> None:
    made = make_store({"a": (np.full((3, 4, 5), np.nan, np.float32), None, np.eye(4))})
    assert measure(opened(made, reader, "a")).percentiles == ()


@pytest.fixture
def large(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A volume that is too large to be read whole, for which the limit is lowered, in tiles of 8."""
    monkeypatch.setattr(module, "WHOLE", 2000)
    label = np.zeros((30, 26, 21), np.uint8)
    label[20:28, 3:9, 12:17] = 1
    image = np.random.default_rng(0).integers(0, 1000, label.shape).astype(np.int16)
    config = rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)))
    made: Made = make_store({"a": (image, label, np.eye(4))}, config=config)
    return made


def test_large_volumes_are_sampled(large: Made, reader: VolumeReader) -> None:
    voxels = opened(large, reader, "a")
    values = voxels.values()
    assert 0 < values.size <= 2000
    assert values.tolist() == opened(large, reader, "a").values().tolist()
    image = large.images["a"]
    assert measure(voxels).percentiles == tuple(np.percentile(values, PERCENTILES))
    assert abs(np.median(values) - np.median(image)) < 60
    whole = np.zeros_like(image)
    sizes = []
    for box, part in voxels.blocks():
        whole[box.slices()] = part
        sizes.append(part.size)
    assert (whole == image).all()
    assert len(sizes) > 1
    assert (voxels.plane(1, 7) == image[:, 7:8, :]).all()
    assert (voxels.read(Box((1, 2, 3), (9, 9, 9))) == image[1:9, 2:9, 3:9]).all()


def test_focus_is_where_most_of_the_label_is(large: Made, clean: Made, planted: Made, reader: VolumeReader) -> None:
    x, y, z = focus_of(opened(large, reader, "a", "seg")) or (0, 0, 0)
    assert (20 <= x < 28, 3 <= y < 9, 12 <= z < 17) == (True, True, True)
    label = clean.labels["s00"] > 0
    x, y, z = focus_of(opened(clean, reader, "s00", "seg")) or (0, 0, 0)
    assert label[x].sum() == label.sum(axis=(1, 2)).max()
    assert label[:, y].sum() == label.sum(axis=(0, 2)).max()
    assert label[:, :, z].sum() == label.sum(axis=(0, 1)).max()
    assert focus_of(opened(planted, reader, "empty", "seg")) is None
