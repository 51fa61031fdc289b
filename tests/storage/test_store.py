"""The store as a whole: what may be opened or created where, the commit log, the writer's lock."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiledb

from radioloader import StorageConfig
from radioloader.errors import (
    CatalogError,
    NotAStoreError,
    ReadError,
    StoreNotFoundError,
    StoreVersionError,
    StoreWriteError,
)
from radioloader.storage.context import context_for
from radioloader.storage.store import FORMAT_VERSION, Store
from radioloader.storage.table import Column, Table, newest


def subjects(store: Store) -> list[str]:
    rows = newest(store.table("obs_meta").read(["obs_subject_id"]), store.commits(), "obs_subject_id")
    return rows["obs_subject_id"].tolist()


def test_a_new_store_is_empty_and_opens(tmp_path: Path) -> None:
    made = Store.open_or_create(tmp_path / "deep" / "store")
    opened = Store.open(tmp_path / "deep" / "store")
    assert opened.uri == made.uri == str(tmp_path / "deep" / "store")
    assert opened.commits().version == 0
    assert opened.history() == []
    assert subjects(opened) == []
    assert sorted(p.name for p in Path(made.uri).iterdir() if not p.name.startswith("__")) == [
        "collections",
        "commits",
        "obs_meta",
    ]
    assert os.listdir(tmp_path / "deep") == ["store"], "nothing is left of its making"


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path / "store")
    Store.open_or_create(tmp_path / "store")
    assert Store.open(tmp_path / "store").commits().version == 0


def test_an_empty_folder_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a mount point, or the folder that a shell stands in."""
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    inode = os.stat(".").st_ino
    Store.open_or_create(".")
    assert os.stat(tmp_path / "here").st_ino == os.stat(".").st_ino == inode
    assert sorted(os.listdir(".")) == [
        ".lock",
        "__group",
        "__meta",
        "__tiledb_group.tdb",
        "collections",
        "commits",
        "obs_meta",
    ]
    assert sorted(os.listdir(tmp_path)) == ["here", "link"]
    for path in (".", tmp_path / "here", tmp_path / "link"):
        assert Store.open(path).commits().version == 0
    with Store.open(".").write() as transaction:
        transaction.append(Store.open(".").table("obs_meta"), {"obs_subject_id": ["a"]})
        transaction.commit("one", {})
    assert subjects(Store.open(tmp_path / "link")) == ["a"]


def test_a_creation_inside_a_folder_that_was_killed_goes_on(tmp_path: Path) -> None:
    script = """
import os, sys
from radioloader.storage.store import Store
steps = int(sys.argv[2])
def trace(event, arguments):
    global steps
    if event in ("open", "os.mkdir", "os.rename", "os.listdir") and sys.argv[1] in str(arguments[0]):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(trace)
Store.open_or_create(sys.argv[1])
print("done")
"""
    seen = set()
    for steps in range(100):
        uri = tmp_path / f"store-{steps}"
        uri.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, str(uri), str(steps)], capture_output=True, text=True, check=False
        )
        if done.stdout == "done\n":
            break
        assert done.returncode == -9, done.stderr
        left = sorted(os.listdir(uri))
        seen.add(len(left))
        if "__meta" not in left:
            with pytest.raises(StoreNotFoundError):
                Store.open(uri)
        store = Store.open_or_create(uri)
        assert (store.commits().version, subjects(store)) == (0, [])
        with store.write():
            # after the last step an empty folder may be left
            assert not [path for path in uri.glob(".creating-*") if any(path.iterdir())]
    assert steps > 8, "killed at many places"
    assert len(seen) > 4


def test_a_lock_does_not_make_other_content_ours(tmp_path: Path) -> None:
    for name, entry in (("a", "mine.txt"), ("b", "commits/mine.txt"), ("c", "c/x")):
        path = tmp_path / name / entry
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        (tmp_path / name / ".lock").touch()
        with pytest.raises(NotAStoreError, match="is a folder with other content"):
            Store.open_or_create(tmp_path / name)
        assert path.read_text() == "mine"


@pytest.mark.parametrize("version", [None, "two", "1", 0, -3, 1.5])
def test_a_format_version_that_is_none_is_explained(store: Store, version: int | str | None) -> None:
    with tiledb.Group(store.uri, "w", ctx=context_for(store.uri)) as group:
        if version is None:
            del group.meta["format_version"]
        else:
            group.meta["format_version"] = version
    found = "no format version" if version is None else f"the format version {version!r}"
    for method in (Store.open, Store.open_or_create):
        with pytest.raises(NotAStoreError) as caught:
            method(store.uri)
        assert str(caught.value).startswith(
            f"{store.uri} says that it is a radioloader store, but has {found}, expected a whole number from 1 on; restore it"
        )


def test_opening_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        StoreNotFoundError,
        match=f"there is no radioloader store at {tmp_path}/none; create one with: radioloader ingest",
    ):
        Store.open(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", [Store.open, Store.open_or_create])
def test_other_things_are_told_apart_and_left_alone(method: Callable[..., Store], tmp_path: Path) -> None:
    ctx = context_for(str(tmp_path))
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    tiledb.Group.create(str(tmp_path / "group"), ctx=ctx)
    schema = tiledb.ArraySchema(
        domain=tiledb.Domain(tiledb.Dim(name="x", domain=(0, 3), tile=4, dtype=np.int32, ctx=ctx), ctx=ctx),
        attrs=[tiledb.Attr(name="a", dtype=np.int32, ctx=ctx)],
        ctx=ctx,
    )
    tiledb.Array.create(str(tmp_path / "array"), schema, ctx=ctx)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    for name, what in (
        ("file", "is a file, not a radioloader store; give another path"),
        ("folder", "is a folder with other content, not a radioloader store; give another path, or an empty folder"),
        ("group", "is another TileDB group, not a radioloader store"),
        ("array", "is a TileDB array, not a radioloader store"),
    ):
        with pytest.raises(NotAStoreError, match=f"{tmp_path}/{name} {what}"):
            method(tmp_path / name)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_a_newer_format_is_refused_with_the_way_out(store: Store) -> None:
    with tiledb.Group(store.uri, "w", ctx=context_for(store.uri)) as group:
        group.meta["format_version"] = FORMAT_VERSION + 1
    for method in (Store.open, Store.open_or_create):
        with pytest.raises(
            StoreVersionError,
            match=f"{store.uri} has format version 2, this radioloader reads up to 1; upgrade it with: pip install --upgrade radioloader",
        ):
            method(store.uri)


def test_a_store_whose_tables_are_gone_is_a_read_error(store: Store) -> None:
    import shutil

    shutil.rmtree(Path(store.uri) / "commits")
    with pytest.raises(ReadError, match=f"could not read the table {store.uri}/commits"):
        Store.open(store.uri).commits()


def test_odd_names_work(tmp_path: Path) -> None:
    for name in ("with space", "ünïcode 漢字", "100%", "a#b?c", "[x]*"):
        made = Store.open_or_create(tmp_path / name)
        with made.write() as transaction:
            transaction.append(made.table("obs_meta"), {"obs_subject_id": ["a"]})
            transaction.commit("one", {})
        assert subjects(Store.open(tmp_path / name)) == ["a"]
        assert (tmp_path / name / "commits").is_dir()


def test_a_commit_makes_rows_exist_all_at_once(store: Store) -> None:
    meta = store.table("obs_meta")
    with store.write() as transaction:
        assert not transaction.pending
        transaction.append(meta, {"obs_subject_id": ["a", "b"]})
        transaction.append(meta, {"obs_subject_id": ["c"]})
        transaction.append(meta, {"obs_subject_id": []})
        assert transaction.pending
        assert subjects(store) == []
        assert store.commits().version == 0
        before = time.time()
        assert transaction.commit("three", {"obs_meta": 3}) == 1
        assert subjects(store) == ["a", "b", "c"]
        assert not transaction.pending
        transaction.append(meta, {"obs_subject_id": ["b"], "deleted": [True]})
        assert transaction.commit("one fewer", {"obs_meta": 1}) == 2
    assert subjects(store) == ["a", "c"]
    history = store.history()
    assert [(h["version"], h["message"], h["changes"]) for h in history] == [
        (1, "three", {"obs_meta": 3}),
        (2, "one fewer", {"obs_meta": 1}),
    ]
    assert all(before - 1 <= h["time"] <= time.time() + 1 for h in history)


def test_what_was_not_committed_never_shows(store: Store) -> None:
    meta = store.table("obs_meta")
    with store.write() as transaction:
        transaction.append(meta, {"obs_subject_id": ["lost"]})
    with store.write() as transaction:
        transaction.append(meta, {"obs_subject_id": ["forgotten"]})
        transaction.abandon()
        assert not transaction.pending
        transaction.append(meta, {"obs_subject_id": ["kept"]})
        transaction.commit("kept", {})
    assert subjects(store) == ["kept"]
    assert store.commits().version == 1


def test_tables_are_consolidated_when_commits_pile_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.storage.table.CONSOLIDATE_AT", 4)
    meta = store.table("obs_meta")
    with store.write() as transaction:
        for number in range(13):
            transaction.append(meta, {"obs_subject_id": [f"sub-{number:02d}"]})
            transaction.commit(f"commit {number}", {"number": number})
    assert subjects(store) == [f"sub-{number:02d}" for number in range(13)]
    assert [h["changes"]["number"] for h in store.history()] == list(range(13))
    ctx = context_for(store.uri)
    for name in ("obs_meta", "commits"):
        assert len(tiledb.array_fragments(f"{store.uri}/{name}", ctx=ctx)) <= 5


def test_remains_of_an_interrupted_creation_are_removed_when_they_are_old(tmp_path: Path) -> None:
    for name, age in ((".store.creating-old", 4000), (".store.creating-new", 10), (".other.creating-old", 4000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Store.open_or_create(tmp_path / "store")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.creating-old", ".store.creating-new", "store"]


def test_a_place_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StoreWriteError, ReadError, NotAStoreError), match=f"{tmp_path}/file"):
        Store.open_or_create(tmp_path / "file" / "store")


def test_collections_have_generated_names(store: Store) -> None:
    store.create_collection("0123abcd", {"obs": [Column("obs_id", "str")]})
    assert (Path(store.uri) / "c" / "0123abcd" / "obs").is_dir()
    assert store.collection_uri("0123abcd") == f"{store.uri}/c/0123abcd"
    assert Table(f"{store.uri}/c/0123abcd/obs", StorageConfig()).columns() == {"obs_id": Column("obs_id", "str")}
    # what was begun is completed, as after an interruption on an object store
    store.create_collection("0123abcd", {"obs": [Column("obs_id", "str")], "foreground": [Column("class", "int")]})
    assert Table(f"{store.uri}/c/0123abcd/foreground", StorageConfig()).columns() == {"class": Column("class", "int")}
    (Path(store.uri) / "c" / "in-the-way").write_text("")
    with pytest.raises(StoreWriteError, match=f"could not create a collection in {store.uri}"):
        store.create_collection("in-the-way", {})


def test_handles_pickle(store: Store) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.uri, copy.config) == (store.uri, store.config)
    assert subjects(copy) == []


def test_commit_ids_are_unique(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([5, 5, 5, 9])
    monkeypatch.setattr("radioloader.storage.store.secrets.randbits", lambda bits: next(numbers))
    with store.write() as transaction:
        transaction.append(store.table("obs_meta"), {"obs_subject_id": ["a"]})
        transaction.commit("one", {})
    assert transaction._id == 9
    assert store.commits().ids.tolist() == [5]


def test_rows_that_cannot_be_written_leave_the_store_as_it_was(store: Store) -> None:
    with pytest.raises(CatalogError), store.write() as transaction:
        transaction.append(store.table("obs_meta"), {"obs_subject_id": [None]})
    assert subjects(store) == []
    assert store.commits().version == 0
