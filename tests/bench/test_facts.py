"""What is said of collections, and reading their files into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.bench.choose import choose
from radioloader.bench.facts import collection_facts, warm
from radioloader.storage.snapshot import Snapshot


def test_facts_are_those_of_the_files(store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    image, label = collection_facts(snapshot, choose(snapshot, image=[], label=None))
    assert (image.name, image.role, image.volumes, image.measured) == ("T1w", "image", 4, 4)
    assert (label.name, label.role) == ("seg", "label")
    assert image.shapes == ((20, 24, 18), (23, 24, 18))
    assert (image.dtypes, label.dtypes) == (("int16",), ("uint8",))
    assert image.tiles == ((8, 8, 8),)
    assert (image.codec, label.codec) == ("zstd level 1, byte shuffle", "zstd level 1")
    assert image.direct
    voxels = sum((20 + n) * 24 * 18 for n in range(4))
    assert (image.raw_bytes, label.raw_bytes) == (2 * voxels, voxels)
    folders = [path for path in Path(store_uri).glob("c/*/volumes") if any(path.iterdir())]
    sizes = {sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders}
    assert {image.stored_bytes, label.stored_bytes} == sizes


@pytest.mark.parametrize(
    ("compression", "dtype", "codec", "direct"),
    [
        (rl.CompressionConfig("lz4"), "int16", "lz4, byte shuffle", False),
        (rl.CompressionConfig("none"), "int16", "none", False),
        (rl.CompressionConfig(level=3, shuffle=False), "int16", "zstd level 3", True),
        (rl.CompressionConfig(checksum=True), "int16", "zstd level 1, byte shuffle, checksum", False),
        (rl.CompressionConfig(), "float32", "zstd level 1", True),
        (rl.CompressionConfig(shuffle=True), "float32", "zstd level 1, byte shuffle", True),
    ],
)
def test_codecs(
    compression: rl.CompressionConfig, dtype: str, codec: str, direct: bool, make_store: Callable[..., str]
) -> None:
    config = rl.StorageConfig(write=rl.WriteConfig(compression=compression))
    snapshot = Snapshot.open(make_store({"A": {"a": np.zeros((4, 4, 4), dtype)}}, config=config))
    (facts,) = collection_facts(snapshot, choose(snapshot, image=[], label=None))
    assert (facts.codec, facts.direct) == (codec, direct)


def test_one_subject_is_warmed_at_least(store_uri: str) -> None:
    snapshot = Snapshot.open(store_uri)
    choice = choose(snapshot, image=[], label=None)
    assert warm(snapshot, choice, seconds=60) == choice.subjects
    assert warm(snapshot, choice, seconds=0) == choice.subjects[:1]
