"""Opening an older version: exactly what was there then."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.store import Store
from radioloader.storage.versions import commits_at

IDS = ["sub-01", "sub-02", "sub-03", "sub-04"]


@pytest.fixture(scope="module")
def grown(make_cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three versions: two subjects; four with their ages; the first one's image replaced."""
    root = tmp_path_factory.mktemp("versions")
    images = sorted((make_cohort(root / "cohort") / "images").iterdir())
    rl.ingest(root / "store", {"T1w": images[:2]}, workers=1)
    rl.ingest(root / "store", {"T1w": images}, obs_meta=pd.DataFrame({"subject": IDS, "age": [1, 2, 3, 4]}), workers=1)
    images[0].write_bytes(images[3].read_bytes())
    rl.ingest(root / "store", {"T1w": images}, workers=1)
    return root / "store"


def test_each_version_is_what_it_was(grown: Path) -> None:
    first, second, third = (rl.open(grown, at=version) for version in (1, 2, 3))
    assert [store.version for store in (first, second, third, rl.open(grown))] == [1, 2, 3, 3]
    assert first.obs_subject_ids == first.T1w.obs_subject_ids == IDS[:2]
    assert second.obs_subject_ids == third.obs_subject_ids == IDS
    assert first.obs_meta.columns == ["obs_subject_id"]
    assert second.obs_meta.read().age.tolist() == third.obs_meta.read().age.tolist() == [1, 2, 3, 4]
    old, new = first.T1w.loc["sub-01"].to_numpy(), third.T1w.loc["sub-01"].to_numpy()
    np.testing.assert_array_equal(second.T1w.loc["sub-01"].to_numpy(), old)
    np.testing.assert_array_equal(new, third.T1w.loc["sub-04"].to_numpy())
    assert old.shape != new.shape
    assert len(first.history()) == 3


def test_a_time_takes_the_newest_version_of_it(grown: Path) -> None:
    times = [commit["time"] for commit in rl.open(grown).history()]
    assert times == sorted(times)
    for version, moment in enumerate(times, 1):
        zoned = datetime.datetime.fromtimestamp(moment, datetime.UTC)
        local = datetime.datetime.fromtimestamp(moment)
        for at in (moment, zoned, local, zoned.isoformat(), local.isoformat(), pd.Timestamp(zoned)):
            assert rl.open(grown, at=at).version == version, at
    assert rl.open(grown, at=times[1] - 0.001).version == 1
    assert rl.open(grown, at=time.time() + 1e6).version == 3
    with pytest.raises(KeyNotFoundError, match=r"has no version of 2001-02-03 .* or before; its first is of 20"):
        rl.open(grown, at="2001-02-03")


@pytest.mark.parametrize("at", [0, -1, 4, 10**30])
def test_versions_that_are_not_there(grown: Path, at: int) -> None:
    with pytest.raises(KeyNotFoundError, match=rf"has no version {at}; it has versions 1 to 3 \(see history"):
        rl.open(grown, at=at)


@pytest.mark.parametrize(
    "at", [True, "yesterday", "2026-13-01", float("nan"), float("inf"), b"1", datetime.date(2026, 1, 1), [1]]
)
def test_what_is_no_version_and_no_time(grown: Path, at: Any) -> None:
    with pytest.raises(ConfigError, match=r"is neither a version .* nor a time; give a time as"):
        rl.open(grown, at=at)


def test_an_empty_store_has_none(tmp_path: Path) -> None:
    store = Store.open_or_create(tmp_path / "s")
    assert commits_at(store, None).version == 0
    with pytest.raises(KeyNotFoundError, match="has no version 1; it has no version yet"):
        commits_at(store, 1)
    with pytest.raises(KeyNotFoundError, match="it has none at all"):
        commits_at(store, time.time())


def test_times_never_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open_or_create(tmp_path / "s")
    for now in (2_000_000, 1_000_000, 3_000_000):
        monkeypatch.setattr("time.time_ns", lambda now=now: now * 10**6)
        with store.write() as transaction:
            transaction.append(store.table("obs_meta"), {"obs_subject_id": [str(now)]})
            transaction.commit("one more", {})
    assert [commit["time"] for commit in store.history()] == [2000.0, 2000.0, 3000.0]
    assert commits_at(store, 2000.0).version == 2
