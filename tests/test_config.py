"""Settings: what is allowed, what TileDB gets, what is hidden."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from radioloader import (
    CompressionConfig,
    ReadConfig,
    S3Config,
    SliceOrientation,
    StorageConfig,
    TileConfig,
    WriteConfig,
    configure,
)
from radioloader.config import available_cores, get_config
from radioloader.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TileConfig(orientation="oblique"),
            r"TileConfig.orientation='oblique' is not one of 'isotropic', 'axial', 'sagittal', 'coronal', 'custom'",
        ),
        (lambda: TileConfig(extent=0), "TileConfig.extent=0 must be at least 1 voxel"),
        (lambda: TileConfig(custom=(4, 4)), r"TileConfig.custom=\(4, 4\) must be three extents \(x, y, z\)"),
        (lambda: TileConfig(custom=(4, 0, 4)), r"TileConfig.custom=\(4, 0, 4\) must be three extents"),
        (lambda: TileConfig(orientation="custom"), r"TileConfig\(orientation='custom'\) needs custom=\(x, y, z\)"),
        (lambda: CompressionConfig(codec="gzip"), "CompressionConfig.codec='gzip' is not one of 'zstd', 'lz4', 'none'"),
        (
            lambda: CompressionConfig(shuffle="floats"),
            "CompressionConfig.shuffle='floats' is not one of True, False, 'in",
        ),
        (lambda: CompressionConfig(level=23), "CompressionConfig.level=23 is outside -50..22"),
        (lambda: ReadConfig(cache_mb="512"), "ReadConfig.cache_mb='512' must be a whole number of at least 0"),
        (lambda: ReadConfig(cache_mb=-1), "ReadConfig.cache_mb=-1 must be a whole number of at least 0"),
        (lambda: WriteConfig(max_workers=True), "WriteConfig.max_workers=True must be a whole number of at least 1"),
        (lambda: ReadConfig(max_workers=0), "ReadConfig.max_workers=0 must be a whole number of at least 1"),
        (lambda: ReadConfig(concurrency=0), "ReadConfig.concurrency=0 must be a whole number of at least 1"),
        (lambda: ReadConfig(max_open_arrays=0), "ReadConfig.max_open_arrays=0 must be a whole number of at least 1"),
        (
            lambda: WriteConfig.preset("tiny"),
            r"WriteConfig.preset\('tiny'\): the presets are 'balanced', 'fast', 'small'",
        ),
        (lambda: WriteConfig(max_workers=0), "WriteConfig.max_workers=0 must be a whole number of at least 1"),
        (lambda: S3Config(scheme="ftp"), "S3Config.scheme='ftp' is not 'http' or 'https'"),
        (lambda: S3Config(endpoint="ftp://host"), "S3Config.scheme='ftp' is not 'http' or 'https'"),
        (lambda: S3Config(max_parallel_ops=0), "S3Config.max_parallel_ops=0 must be a whole number of at least 1"),
        (
            lambda: S3Config(multipart_part_size_mb=4),
            "S3Config.multipart_part_size_mb=4: S3 takes no parts under 5 MiB",
        ),
    ],
)
def test_values_that_are_not_allowed(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert isinstance(caught.value, ValueError)


def test_presets() -> None:
    assert WriteConfig.preset("balanced") == WriteConfig()
    assert WriteConfig.preset("fast").compression.level < WriteConfig().compression.level
    assert WriteConfig.preset("small", tile=TileConfig(extent=8)) == WriteConfig(
        tile=TileConfig(extent=8), compression=CompressionConfig(level=19, shuffle=True)
    )


def test_tiles() -> None:
    assert TileConfig(orientation="axial").orientation is SliceOrientation.AXIAL  # type: ignore[arg-type]
    assert TileConfig() == TileConfig(orientation=SliceOrientation.ISOTROPIC, extent=32)
    custom = TileConfig(custom=[4, 5, 6])  # type: ignore[arg-type]
    assert (custom.custom, custom.orientation) == ((4, 5, 6), SliceOrientation.CUSTOM)
    assert hash(custom) == hash(TileConfig(custom=(4, 5, 6)))


def test_settings_are_frozen_hashable_and_pickle() -> None:
    config = StorageConfig(s3=S3Config(secret_access_key="s3cret"), write=WriteConfig(tile=TileConfig(extent=8)))
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(pickle.loads(pickle.dumps(config)))
    with pytest.raises(FrozenInstanceError):
        config.read = ReadConfig()  # type: ignore[misc]


def test_secrets_are_not_shown() -> None:
    config = StorageConfig(s3=S3Config(access_key_id="AKIAKEY", secret_access_key="s3cret", session_token="tok3n"))
    for text in (repr(config), str(config), repr(config.s3)):
        assert not [word for word in ("AKIAKEY", "s3cret", "tok3n") if word in text]


def test_the_hash_follows_what_shapes_a_context() -> None:
    base = StorageConfig()
    assert base.hash() == StorageConfig().hash()
    assert replace(base, write=WriteConfig(tile=TileConfig(extent=8))).hash() == base.hash()
    assert replace(base, read=ReadConfig(max_workers=3, max_open_arrays=9)).hash() == base.hash()
    assert replace(base, read=ReadConfig(concurrency=2)).hash() != base.hash()
    keyed = replace(base, s3=S3Config(secret_access_key="a"))
    assert keyed.hash() == base.hash(), "local data need no key"
    assert keyed.hash(remote=True) != base.hash(remote=True)
    assert base.hash(remote=True) != base.hash()
    assert "secret" not in base.hash()


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from radioloader import StorageConfig; print(StorageConfig().hash())"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == StorageConfig().hash()


def test_small_reads_are_not_batched_locally() -> None:
    settings = StorageConfig().tiledb()
    assert (settings["vfs.min_batch_size"], settings["vfs.min_batch_gap"]) == ("0", "0")
    assert settings["sm.mem.malloc_trim"] == "false"
    assert not [name for name in settings if name.startswith("vfs.s3")]
    assert StorageConfig().tiledb(remote=True)["vfs.min_batch_gap"] == "65536"


def test_s3_settings_under_tiledbs_names() -> None:
    plain = S3Config().tiledb()
    assert plain["vfs.s3.use_virtual_addressing"] == "true"
    assert "vfs.s3.endpoint_override" not in plain
    assert "vfs.s3.aws_access_key_id" not in plain
    other = S3Config(
        endpoint="http://host:9000/", region="eu-west-1", access_key_id="k", secret_access_key="s", session_token="t"
    ).tiledb()
    assert other["vfs.s3.scheme"] == "http"
    assert other["vfs.s3.endpoint_override"] == "host:9000"
    assert other["vfs.s3.use_virtual_addressing"] == "false"
    assert other["vfs.s3.region"] == "eu-west-1"
    assert [other[f"vfs.s3.aws_{n}"] for n in ("access_key_id", "secret_access_key", "session_token")] == [
        "k",
        "s",
        "t",
    ]
    assert S3Config(endpoint="host", path_style=False).tiledb()["vfs.s3.use_virtual_addressing"] == "true"
    assert S3Config(multipart_part_size_mb=5).tiledb()["vfs.s3.multipart_part_size"] == str(5 * 2**20)


def test_configure_changes_what_is_given_and_keeps_the_rest() -> None:
    before = get_config()
    try:
        assert configure(read=ReadConfig(max_workers=3)).read.max_workers == 3
        assert configure(write=WriteConfig(max_workers=5)).read.max_workers == 3
        assert get_config() == replace(before, read=ReadConfig(max_workers=3), write=WriteConfig(max_workers=5))
        assert configure() == get_config()
    finally:
        configure(read=before.read, write=before.write, s3=before.s3)
    assert get_config() == before


def test_readers_and_stores_take_the_defaults_when_they_are_made(store_uri: str) -> None:
    import radioloader as rl

    before = get_config()
    try:
        configure(read=ReadConfig(max_open_arrays=3))
        reader, store = rl.VolumeReader(), rl.open(store_uri)
    finally:
        configure(read=before.read)
    assert reader.config.read.max_open_arrays == 3
    assert store.snapshot.store.config.read.max_open_arrays == 3


def test_available_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import builtins

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    real = builtins.open
    for content, cores in (
        ("max 100000", 6),
        ("200000 100000", 2),
        ("50000 100000", 1),
        ("1000000 100000", 6),
        ("", 6),
    ):
        (tmp_path / "cpu.max").write_text(content)
        monkeypatch.setattr(
            builtins,
            "open",
            lambda path, *a, **k: real(
                tmp_path / "cpu.max" if str(path).startswith("/sys/fs/cgroup") else path, *a, **k
            ),
        )
        assert available_cores() == cores, content
    monkeypatch.setattr(builtins, "open", real)
    assert 1 <= available_cores() <= 6
