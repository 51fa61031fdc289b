"""The bench of a store on an object store that answers slowly."""

from __future__ import annotations

from typing import Any

import radioloader as rl
from radioloader.bench import run_bench


def test_slow_storage_is_what_limits(s3: Any, remote: str, config: rl.StorageConfig) -> None:
    with s3.slow(0.03):  # however busy the machine is, decoding such small tiles takes less
        report = run_bench(
            remote, with_label=False, patch_size=8, batch_size=1, seconds=1, max_parallel=1, config=config, seed=0
        )
    assert report.remote
    assert report.cost.storage_share > 0.7
    assert report.figure("patches").rate.read_mb is None  # type: ignore[union-attr]
    assert report.collections[0].stored_bytes is not None
    assert report.collections[0].stored_bytes > 0
    assert report.limit.startswith("storage (")
