"""A subject exists whole or not at all, wherever in a commit an ingest is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from radioloader.errors import StoreWriteError
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import Table

Content = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def pair(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 3 tiny subjects."""
    return make_cohort(tmp_path_factory.mktemp("pair"), subjects=3, shape=(12, 16, 10))


def ingest(pair: Path, uri: Path, interval: float = 0.0) -> rl.IngestReport:
    sources = {"T1w": pair / "images", "seg": pair / "labels"}
    return rl.ingest(uri, sources, obs_meta=pair / "participants.tsv", workers=1, commit_interval_s=interval)


@pytest.fixture(scope="module")
def reference(pair: Path, tmp_path_factory: pytest.TempPathFactory, content: Content) -> dict[str, Any]:
    uri = tmp_path_factory.mktemp("reference") / "store"
    ingest(pair, uri, 10.0)
    return content(uri)


class Stopper:
    """Wraps a method so that one call of it fails, before or after its work is done."""

    def __init__(self, method: Any, at: int, error: BaseException, *, after: bool) -> None:
        self.method, self.left, self.error, self.after = method, at, error, after

    def __get__(self, instance: Any, owner: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == -1 and not self.after:
                raise self.error
            result = self.method(instance, *args, **kwargs)
            if self.left == -1 and self.after:
                raise self.error
            return result

        return call


CTRL_C, FULL = KeyboardInterrupt(), StoreWriteError("no space left")
# The first commit appends obs of T1w, the T1w collection, obs and foreground of seg, the seg collection, obs_meta, and its own row; later
# ones append four tables and their row.
FIRST, LATER = 7, 5
# Of the first commit: before anything, amid its tables, before its row; of a later one: amid its tables, before its row.
QUICK = {0, 2, 5, 6, 7, 9, 11}


@pytest.mark.parametrize(
    ("at", "after", "error"),
    [
        *[pytest.param(at, False, CTRL_C, id=f"ctrl-c before {at}") for at in range(FIRST + LATER)],
        *[pytest.param(at, True, CTRL_C, id=f"ctrl-c after {at}") for at in (5, 6)],
        *[pytest.param(at, False, FULL, id=f"full before {at}") for at in (2, 8)],
    ],
)
def test_no_half_subject_wherever_a_commit_stops(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows_sources: Callable[..., list[str]],
    reference: dict[str, Any],
    content: Content,
    counts: Callable[[int, int], int],
    at: int,
    after: bool,
    error: BaseException,
) -> None:
    if error is CTRL_C and at not in QUICK and not counts(0, 1):
        pytest.skip("each takes a second; `make stress` stops before every append, and `make test` before half of them")
    uri = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", Stopper(Table.append, at, error, after=after))
        with pytest.raises(type(error)):
            ingest(pair, uri)
    shown = shows_sources(uri, pair)
    # What the interrupted commit held is committed by the one that is made on the way out.
    assert shown == [f"sub-{n:02d}" for n in range(1, 2 if at < FIRST else 3)]
    assert len(rl.open(uri).obs_meta.read()) == len(shown)
    report = ingest(pair, uri, 10.0)
    assert (len(report.skipped), len(report.ingested)) == (len(shown), 3 - len(shown))
    assert content(uri) == reference


@pytest.mark.parametrize("at", [0, 3, FIRST - 1])
def test_ctrl_c_in_the_one_commit_at_the_end_loses_nothing(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: dict[str, Any],
    content: Content,
    at: int,
) -> None:
    monkeypatch.setattr(Table, "append", Stopper(Table.append, at, CTRL_C, after=False))
    with pytest.raises(KeyboardInterrupt):
        ingest(pair, tmp_path / "store", 10.0)
    assert content(tmp_path / "store") == reference


@pytest.mark.parametrize(("at", "after"), [(0, False), (1, False), (1, True), (2, True)])
def test_ctrl_c_while_collections_are_made_loses_nothing(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows_sources: Callable[..., list[str]],
    reference: dict[str, Any],
    content: Content,
    at: int,
    after: bool,
) -> None:
    uri = tmp_path / "store"
    Store.open_or_create(uri)
    with monkeypatch.context() as patch:
        patch.setattr(Table, "create", Stopper(Table.create, at, CTRL_C, after=after))
        with pytest.raises(KeyboardInterrupt):
            ingest(pair, uri)
    assert shows_sources(uri, pair) == ["sub-01"]
    ingest(pair, uri, 10.0)
    assert content(uri) == reference


def test_a_full_disk_that_stays_full_keeps_what_was_committed(
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows_sources: Callable[..., list[str]],
    reference: dict[str, Any],
    content: Content,
) -> None:
    uri = tmp_path / "store"
    calls = 0

    def append(table: Table, *args: Any, **kwargs: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise StoreWriteError("no space left")
        return original(table, *args, **kwargs)

    original = Table.append
    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", append)
        with pytest.raises(StoreWriteError, match=r"^no space left; 1 finished subjects could not be committed"):
            ingest(pair, uri)
    assert shows_sources(uri, pair) == ["sub-01"]
    ingest(pair, uri)
    assert content(uri) == reference


def test_an_error_while_tables_are_consolidated_loses_nothing(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: dict[str, Any], content: Content
) -> None:
    uri = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(Table, "consolidate", Stopper(Table.consolidate, 2, KeyboardInterrupt(), after=False))
        with pytest.raises(KeyboardInterrupt):
            ingest(pair, uri)
    ingest(pair, uri)
    assert content(uri) == reference


def test_many_commits_are_consolidated_on_the_way(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: dict[str, Any], content: Content
) -> None:
    monkeypatch.setattr("radioloader.storage.table.CONSOLIDATE_AT", 1)
    uri = tmp_path / "store"
    ingest(pair, uri)
    assert content(uri) == reference
    assert len(list(uri.glob("commits/__fragments/*"))) == 1
    assert [commit["version"] for commit in rl.open(uri).history()] == [1, 2, 3]


def test_rows_that_were_abandoned_stay_out_of_later_commits(pair: Path, tmp_path: Path) -> None:
    uri = tmp_path / "store"
    ingest(pair, uri)
    store = rl.open(uri).snapshot.store
    table = store.table("obs_meta")
    with store.write() as transaction:
        transaction.append(table, {"obs_subject_id": ["ghost"]})
        assert transaction.pending
        transaction.abandon()
        assert not transaction.pending
        transaction.append(table, {"obs_subject_id": ["real"]})
        transaction.commit("test", {})
    assert rl.open(uri).obs_subject_ids == ["real", "sub-01", "sub-02", "sub-03"]
    assert isinstance(transaction, Transaction)
