"""What goes wrong with S3, in time, by name, and without a secret in any text."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiledb

import radioloader as rl
from radioloader.errors import (
    ConfigError,
    NotAStoreError,
    RadioloaderError,
    ReadError,
    StoreNotFoundError,
    StoreVersionError,
    StoreWriteError,
)
from radioloader.storage.context import context_for


def no_secret_in(text: str, s3: Any) -> None:
    assert text
    for secret in s3.secrets:
        assert secret not in text


def fails(s3: Any, error: type[RadioloaderError], match: str, function: Any, *arguments: Any, **keywords: Any) -> None:
    """``function`` raises ``error``, and neither it nor what caused it shows a secret."""
    with pytest.raises(error, match=match) as caught:
        function(*arguments, **keywords)
    shown: BaseException | None = caught.value
    while shown is not None:
        no_secret_in(f"{shown!r} {shown}", s3)
        shown = shown.__cause__ or shown.__context__


def test_nothing_there(s3: Any) -> None:
    uri = s3.uri()
    fails(
        s3,
        StoreNotFoundError,
        f"there is no radioloader store at {uri}; create one with",
        rl.open,
        uri,
        config=s3.config(),
    )
    assert s3.keys(uri) == []


def test_a_bucket_that_does_not_exist(s3: Any, cohort: Path) -> None:
    uri, config = "s3://no-such-bucket/store", s3.config()
    fails(s3, ReadError, f"could not open {uri}: .*NoSuchBucket", rl.open, uri, config=config)
    images = {"T1w": cohort / "images"}
    fails(s3, ReadError, f"could not open {uri}: .*NoSuchBucket", rl.ingest, uri, images, workers=1, config=config)


@pytest.mark.parametrize("name", ["readme.txt", "deep/down/readme.txt"])
def test_a_prefix_that_holds_something_else(s3: Any, cohort: Path, name: str) -> None:
    uri, config = s3.uri(), s3.config()
    key = f"{uri.removeprefix('s3://cohorts/')}/{name}"
    s3.client.put_object(Bucket="cohorts", Key=key, Body=b"mine")
    text = f"{uri} is a folder with other content, not a radioloader store; give another path"
    fails(s3, NotAStoreError, text, rl.open, uri, config=config)
    fails(s3, NotAStoreError, text, rl.ingest, uri, {"T1w": cohort / "images"}, workers=1, config=config)
    assert s3.keys(uri) == [name]


def test_tiledb_things_of_others(s3: Any, cohort: Path) -> None:
    config = s3.config()
    group, array = s3.uri(), s3.uri()
    ctx = context_for(group, config)
    tiledb.Group.create(group, ctx=ctx)
    tiledb.Group.create(f"{group}/theirs", ctx=ctx)
    schema = tiledb.ArraySchema(
        domain=tiledb.Domain(tiledb.Dim("x", domain=(0, 1), dtype="uint8", ctx=ctx), ctx=ctx),
        attrs=[tiledb.Attr("a", dtype="uint8", ctx=ctx)],
        ctx=ctx,
    )
    tiledb.Array.create(array, schema, ctx=ctx)
    for uri, what in ((group, "another TileDB group"), (array, "a TileDB array")):
        before = s3.keys(uri)
        for function, arguments in ((rl.open, ()), (rl.ingest, ({"T1w": cohort / "images"},))):
            fails(
                s3,
                NotAStoreError,
                f"{uri} is {what}, not a radioloader store",
                function,
                uri,
                *arguments,
                config=config,
            )
        assert s3.keys(uri) == before


def test_a_store_of_a_newer_version(s3: Any) -> None:
    uri, config = s3.uri(), s3.config()
    ctx = context_for(uri, config)
    tiledb.Group.create(uri, ctx=ctx)
    with tiledb.Group(uri, "w", ctx=ctx) as group:
        group.meta["format"] = "radioloader"
        group.meta["format_version"] = 99
    fails(
        s3,
        StoreVersionError,
        f"{uri} has format version 99, this radioloader reads up to 1",
        rl.open,
        uri,
        config=config,
    )


def test_a_voxel_array_that_is_gone(s3: Any, cohort: Path) -> None:
    uri, config = s3.uri(), s3.config()
    assert rl.ingest(uri, {"T1w": cohort / "images"}, workers=1, config=config).ok
    dataset = rl.PatchDataset(uri, image="T1w", patch_size=8, config=config)
    array = rl.open(uri, config=config).T1w.loc["sub-02"].uri
    prefix = array.removeprefix("s3://cohorts/")
    for key in s3.keys(array):
        s3.client.delete_object(Bucket="cohorts", Key=f"{prefix}/{key}")
    dataset[rl.PatchKey(0)]
    match = rf"could not read box \[.*\] of subject 'sub-02', collection 'T1w', volume 'sub-02_T1w' \({array}\)"
    fails(s3, ReadError, match, dataset.__getitem__, rl.PatchKey(1))


def test_a_place_that_may_not_be_written(s3: Any, cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise tiledb.TileDBError("S3: Failed to create object: Access Denied")

    monkeypatch.setattr(tiledb.Group, "create", refuse)
    fails(
        s3,
        StoreWriteError,
        "could not create a store at s3://.*Access Denied",
        rl.ingest,
        s3.uri(),
        {"T1w": cohort / "images"},
        workers=1,
        config=s3.config(),
    )


# ---- servers that do not answer ------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_is_not_there(s3: Any, closed: str) -> None:
    started = time.monotonic()
    match = "could not open s3://cohorts/x: .*(Could not connect|Failed to connect)"
    fails(s3, ReadError, match, rl.open, "s3://cohorts/x", config=s3.config(endpoint=closed))
    assert time.monotonic() - started < 20


def test_a_server_that_does_not_answer(s3: Any, silent: str) -> None:
    started = time.monotonic()
    config = s3.config(endpoint=silent, request_timeout_s=1, tries=1)
    fails(
        s3, ReadError, "could not open s3://cohorts/x: .*Timeout was reached", rl.open, "s3://cohorts/x", config=config
    )
    assert 1 <= time.monotonic() - started < 20


def test_timeouts_and_tries_are_settings(s3: Any) -> None:
    settings = rl.S3Config(connect_timeout_s=1.5, request_timeout_s=2, tries=3).tiledb()
    assert settings["vfs.s3.connect_timeout_ms"] == "1500"
    assert settings["vfs.s3.request_timeout_ms"] == "2000"
    assert settings["vfs.s3.connect_max_tries"] == "3"
    # TileDB takes names that it does not know without a word.
    known = tiledb.Config()
    assert {name for name in settings if name not in known} == set()
    for name, wrong, text in (
        ("tries", 0, "=0 must be a whole number of at least 1"),
        ("connect_timeout_s", 0.5, "=0.5 must be at least 1 second"),
        ("request_timeout_s", float("nan"), "=nan must be at least 1 second"),
    ):
        with pytest.raises(ConfigError, match=f"S3Config.{name}{text}"):
            rl.S3Config(**{name: wrong})  # type: ignore[arg-type]


# ---- secrets ---------------------------------------------------------------------------------------------------------------


def test_no_repr_shows_a_secret(s3: Any, remote: str) -> None:
    config = s3.config()
    assert config.s3.secret_access_key in s3.secrets
    store = rl.open(remote, config=config)
    dataset = rl.PatchDataset(store, image="T1w", patch_size=8)
    loader = rl.DataLoader(dataset)
    dataset[0]
    for thing in (
        config,
        config.s3,
        store,
        store.snapshot,
        store.snapshot.store,
        store.T1w,
        store.T1w.iloc[0],
        store.obs_meta,
        store.obs_meta.read(),
        store.history(),
        rl.VolumeReader(config),
        dataset,
        dataset.table,
        loader,
        loader.sampler,
    ):
        no_secret_in(repr(thing), s3)
        no_secret_in(str(thing), s3)


def test_nothing_in_the_bucket_holds_a_secret(s3: Any, remote: str) -> None:
    prefix = remote.removeprefix("s3://cohorts/")
    keys = s3.keys(remote)
    assert len(keys) > 20
    for key in keys:
        body = s3.client.get_object(Bucket="cohorts", Key=f"{prefix}/{key}")["Body"].read()
        assert not any(secret.encode() in body or secret in key for secret in s3.secrets)
