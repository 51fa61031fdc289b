"""A store that the tests of Lightning share. Do not change it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import radioloader as rl

sys.path.append(str(Path(__file__).parent))  # for noting.py, which ddp_script.py imports as well


@pytest.fixture(scope="session")
def ten(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of 10 small subjects."""
    root = make_cohort(tmp_path_factory.mktemp("ten"), subjects=10, shape=(12, 15, 9))
    report = rl.ingest(
        root / "store", {"T1w": root / "images", "seg": root / "labels"}, obs_meta=root / "participants.tsv", workers=1
    )
    assert report.ok
    return str(root / "store")
