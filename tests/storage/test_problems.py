"""What a store remembers of things that are not in it."""

from __future__ import annotations

from pathlib import Path

from radioloader.config import get_config
from radioloader.storage.problems import FAILED, LEFT_OUT, Problem, change_problems, read_problems
from radioloader.storage.store import Store

ONE = Problem(FAILED, "sub-1", "", "truncated")
TWO = Problem(LEFT_OUT, "", "/a/b.nii.gz", "a stray")


def change(store: Store, add: list[Problem], solved: list[Problem]) -> bool:
    with store.write() as transaction:
        change_problems(store, transaction, add, solved)
        if transaction.pending:
            transaction.commit("test", {})
            return True
    return False


def test_problems_come_change_and_go(tmp_path: Path) -> None:
    store = Store.open_or_create(tmp_path / "store", config=get_config())
    assert read_problems(store, store.commits()) == []
    assert not (tmp_path / "store" / "problems").exists()
    assert change(store, [ONE, TWO], [])
    before = store.commits()
    assert read_problems(store, before) == [ONE, TWO]
    assert not change(store, [ONE], [])  # nothing new: no commit
    other = Problem(FAILED, "sub-1", "", "not NIfTI")
    assert change(store, [other], [TWO])
    assert read_problems(store, store.commits()) == [other]
    assert read_problems(store, before) == [ONE, TWO]  # a version shows what it knew
    assert not change(store, [], [TWO])
    assert change(store, [], [other])
    assert read_problems(store, store.commits()) == []


def test_what_is_found_again_is_not_solved(tmp_path: Path) -> None:
    store = Store.open_or_create(tmp_path / "store", config=get_config())
    change(store, [ONE], [])
    assert not change(store, [ONE], [ONE])
    assert read_problems(store, store.commits()) == [ONE]


def test_rows_that_were_not_committed_do_not_show(tmp_path: Path) -> None:
    store = Store.open_or_create(tmp_path / "store", config=get_config())
    with store.write() as transaction:
        change_problems(store, transaction, [ONE], [])
    assert read_problems(store, store.commits()) == []
    assert change(store, [ONE], [])
    assert read_problems(store, store.commits()) == [ONE]
