"""The store that the cohort report is timed on."""

from __future__ import annotations

from pathlib import Path

import radioloader as rl
from benchmarks.overview import make_store


def test_phantoms_and_those_that_are_odd_on_purpose(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 12, (16, 14, 12))
    store = rl.open(tmp_path / "store")
    assert store.T1w.shapes == store.seg.shapes == [(16, 14, 12)] * 12
    report = rl.report(store.uri, tmp_path / "out", pictures=False)
    assert {obs_id for _, obs_id in report.outliers} == {"sub-00005_T1w", "sub-00005_seg", "sub-00011_seg"}
