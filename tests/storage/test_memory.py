"""Memory stays where it is, however long a reader lives."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.storage import context
from radioloader.storage.reader import ReadRequest

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def resident_mb() -> float:
    """Without what the C library keeps of freed memory."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_patches(reader: rl.VolumeReader, refs: list[rl.VolumeRef], count: int) -> None:
    out = np.empty((8, 8, 8), np.int16)
    for number in range(count):
        reader.read(refs[number % len(refs)], rl.Box.at((number % 10, 0, 0), (8, 8, 8)), out=out)


@pytest.mark.parametrize("direct", [True, False])
def test_reading_for_long_keeps_no_memory(store_uri: str, counts: Callable[[int, int], int], direct: bool) -> None:
    # TileDB keeps 12 kB for each query in its context: 6,000 of them would be 70 MB.
    refs = [volume.ref for volume in rl.open(store_uri).T1w]
    reader = rl.VolumeReader(rl.StorageConfig(read=rl.ReadConfig(max_workers=1, direct=direct)))
    read_patches(reader, refs, 2500)
    before = resident_mb()
    read_patches(reader, refs, counts(6000, 40000))
    assert resident_mb() - before < 20


def test_a_context_that_is_replaced_changes_nothing(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "QUERIES_PER_CONTEXT", 7)
    # a configuration of its own, so that no other test shares these contexts
    config = rl.StorageConfig(read=rl.ReadConfig(max_workers=4, direct=False), s3=rl.S3Config(max_parallel_ops=3))
    store = rl.open(store_uri)
    volumes = list(store.T1w)
    expected = [volume.to_numpy().astype(np.float32) for volume in volumes]
    readers = [rl.VolumeReader(config), rl.VolumeReader(config)]
    for number in range(40):
        reader = readers[number % 2]
        outs = [np.empty(volume.shape, np.float32) for volume in volumes]
        reader.read_many([ReadRequest(volume.ref, None, out) for volume, out in zip(volumes, outs, strict=True)])
        for out, values in zip(outs, expected, strict=True):
            np.testing.assert_array_equal(out, values)
        assert reader.open_arrays <= len(volumes)
    assert len([key for key in context._leases if key == (os.getpid(), config.hash())]) <= 1
