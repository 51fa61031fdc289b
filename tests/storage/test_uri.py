"""URIs of stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from radioloader.errors import ConfigError
from radioloader.storage.uri import is_remote, join, normalise


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert normalise("store") == str(tmp_path / "store")
    assert normalise(Path("a") / "store") == str(tmp_path / "a" / "store")
    assert normalise("~/store") == str(tmp_path / "home" / "store")
    assert normalise(f"{tmp_path}/store/") == str(tmp_path / "store")
    assert normalise(f"file://{tmp_path}/with%20space") == str(tmp_path / "with space")


def test_object_stores_stay_as_they_are() -> None:
    assert normalise("s3://bucket/prefix/") == "s3://bucket/prefix"
    assert is_remote("s3://bucket/prefix")
    assert is_remote("gs://bucket/prefix")
    assert not is_remote("/data/s3")
    assert not is_remote("s3")


def test_unusable_uris() -> None:
    with pytest.raises(
        ConfigError, match="the URI 'ftp://host/x' has the unknown scheme 'ftp'; use a path, file://, s3://"
    ):
        normalise("ftp://host/x")
    with pytest.raises(ConfigError, match="the URI of a store is empty"):
        normalise("")


def test_join() -> None:
    assert join("s3://bucket/prefix/", "c", "x") == "s3://bucket/prefix/c/x"
    assert join("/store", "obs_meta") == "/store/obs_meta"
