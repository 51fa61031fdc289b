"""Changes of a store in a bucket, and copies to and from it."""

from __future__ import annotations

from pathlib import Path

import pytest

import radioloader as rl
from radioloader.errors import KeyNotFoundError
from radioloader.storage.vacuum import vacuum
from tests.container.content import content

pytestmark = pytest.mark.timeout(300)


def test_there_and_back(bucket: str, config: rl.StorageConfig, store_uri: str, tmp_path: Path) -> None:
    local = rl.open(store_uri).head(2)
    uri = f"{bucket}/copies/one"
    report = local.head(1).materialize(uri, config=config, workers=2)
    assert (report.subjects, report.volumes, report.failed) == (1, 2, {})
    there = rl.open(uri, config=config)
    assert content(there) == content(local.head(1))
    assert there.append(local, workers=1).skipped == 1  # type: ignore[union-attr]
    assert content(there) == content(local)
    there.materialize(tmp_path / "back", workers=1)
    assert content(rl.open(tmp_path / "back")) == content(local)
    second = f"{bucket}/copies/two"
    there.select_collections("seg").materialize(second, crop=((0, 12), (0, 12), (0, 12)), workers=1)
    assert [volume.shape for volume in rl.open(second, config=config).seg] == [(12, 12, 12)] * 2
    _changes(there, content(local))


def _changes(there: rl.RadiObject, before: dict[str, object]) -> None:
    """Remove, rename, give up: the store has two subjects at version 2."""
    there.remove("sub-01")
    there.rename(collections={"seg": "mask"})
    after = content(there)
    assert after["subjects"] == ["sub-02"]
    assert there.collection_names == ["T1w", "mask"]
    config = there.snapshot.store.config
    assert content(rl.open(there.uri, config=config, at=2)) == before
    assert (there.vacuum().volumes, there.version) == (0, 4)
    done = there.vacuum(keep=1)
    assert (done.volumes, done.forgotten, there.version) == (2, 3, 5)
    assert done.bytes > 0
    assert content(rl.open(there.uri, config=config)) == after
    with pytest.raises(KeyNotFoundError, match="has no version 2; it has versions 4 to 5"):
        rl.open(there.uri, config=config, at=2)
    assert vacuum(there.snapshot.store, keep=None, grace_s=0.0).volumes == 0
