"""Where a read's time goes: an object store answers slowly, a local disk does not."""

from __future__ import annotations

from typing import Any

import radioloader as rl


def shares(uri: str, config: rl.StorageConfig | None) -> float:
    dataset = rl.PatchDataset(uri, image="T1w", patch_size=16, patches_per_volume=4, config=config)
    loader: Any = rl.DataLoader(dataset, batch_size=1, shuffle=True)
    loader.stats.measure_reads()
    for _ in range(3):
        list(loader)
    storage, measured = loader.stats.measured_reads
    assert 0 < storage <= measured
    return float(storage / measured)


def test_slow_storage_is_told_from_decoding(s3: Any, remote: str, config: rl.StorageConfig, store_uri: str) -> None:
    with s3.slow(0.03):  # however busy the machine is, decoding such small tiles takes less
        assert shares(remote, config) > 0.8
    assert shares(store_uri, None) < 0.7
