"""Append-only tables: what counts, what does not, and what consolidation leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import StorageConfig
from radioloader.errors import CatalogError, ReadError, StoreWriteError
from radioloader.storage.context import context_for
from radioloader.storage.table import CONSOLIDATE_AT, COUNTER_BITS, Column, Commits, Table, newest

KINDS = [
    Column("name", "str"),
    Column("note", "str", nullable=True),
    Column("data", "bytes"),
    Column("count", "int"),
    Column("maybe", "int", nullable=True),
    Column("score", "float"),
    Column("flag", "bool"),
    Column("perhaps", "bool", nullable=True),
    Column("when", "datetime"),
]


def commits(*pairs: tuple[int, int]) -> Commits:
    """Commits of (id, version), in any order."""
    ordered = sorted(pairs)
    return Commits(
        ids=np.array([id_ for id_, _ in ordered], np.uint64),
        versions=np.array([v for _, v in ordered], np.int64),
        times=np.array([1000 * v for _, v in ordered], np.int64),
    )


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table(str(tmp_path / "table"), StorageConfig())
    made.create([Column("id", "str"), Column("value", "int")])
    return made


def fragments(table: Table) -> int:
    return len(tiledb.array_fragments(table.uri, ctx=context_for(table.uri)))


def content(table: Table, known: Commits) -> dict[str, int]:
    rows = newest(table.read(), known, "id")
    return dict(zip(rows["id"].tolist(), rows["value"].tolist(), strict=True))


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), StorageConfig())
    table.create(KINDS)
    rows: dict[str, list[Any]] = {
        "name": ["", "Zoë / ../ 漢字\n", "plain"],
        "note": [None, "", "x" * 10_000],
        "data": [b"", b"\x00\xff\x00", b"abc"],
        "count": [-(2**63), 2**63 - 1, 0],
        "maybe": [None, 5, -(2**62) - 1],
        "score": [None, -0.0, 1e308],
        "flag": [True, False, True],
        "perhaps": [None, False, True],
        "when": [None, np.datetime64("2020-02-29T12:34:56.123456789", "ns"), np.datetime64("1969-01-01", "ns")],
    }
    assert table.append(7, rows) == 3
    got = table.read()
    assert got["name"].tolist() == rows["name"]
    assert got["note"].tolist() == rows["note"]
    assert got["data"].tolist() == rows["data"]
    assert got["count"].tolist() == rows["count"]
    assert got["count"].dtype == np.int64
    assert got["maybe"].tolist() == rows["maybe"]
    np.testing.assert_array_equal(got["score"], [np.nan, -0.0, 1e308])
    assert got["flag"].tolist() == rows["flag"]
    assert got["perhaps"].tolist() == rows["perhaps"]
    np.testing.assert_array_equal(got["when"], np.array([np.datetime64("NaT"), *rows["when"][1:]], "datetime64[ns]"))
    assert got["commit"].tolist() == [7, 7, 7]
    assert got["deleted"].tolist() == [False] * 3
    assert got["row"].tolist() == [(7 << COUNTER_BITS) + n for n in range(3)]
    assert {name: (column.kind, column.nullable) for name, column in table.columns().items()} == {
        column.name: (column.kind, column.nullable) for column in KINDS
    }


def test_columns_without_a_gap_keep_their_own_dtype(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), StorageConfig())
    table.create([Column("maybe", "int", nullable=True), Column("perhaps", "bool", nullable=True)])
    table.append(1, {"maybe": [1, 2], "perhaps": [True, False]})
    got = table.read()
    assert (got["maybe"].dtype, got["maybe"].tolist()) == (np.int64, [1, 2])
    assert (got["perhaps"].dtype, got["perhaps"].tolist()) == (np.bool_, [True, False])


def test_an_empty_table_has_typed_empty_columns(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), StorageConfig())
    table.create(KINDS)
    got = table.read()
    assert set(got) == {"row", "commit", "deleted", *(column.name for column in KINDS)}
    assert all(len(values) == 0 for values in got.values())
    assert newest(got, commits(), "name")["name"].tolist() == []


def test_only_wanted_columns_are_read(table: Table) -> None:
    table.append(1, {"id": ["a"], "value": [3]})
    assert set(table.read(["value"])) == {"row", "commit", "deleted", "value"}


def test_the_newest_committed_row_of_an_id_wins(table: Table) -> None:
    table.append(900, {"id": ["a", "b", "c"], "value": [1, 1, 1]})
    table.append(20, {"id": ["a"], "value": [2]})  # ids of commits are random: their order says nothing
    table.append(500, {"id": ["a", "b"], "value": [3, 3]})
    assert content(table, commits((900, 1), (20, 2))) == {"a": 2, "b": 1, "c": 1}
    assert content(table, commits((900, 1), (20, 2), (500, 3))) == {"a": 3, "b": 3, "c": 1}
    assert content(table, commits((900, 3), (20, 2), (500, 1))) == {"a": 1, "b": 1, "c": 1}


def test_uncommitted_rows_do_not_show(table: Table) -> None:
    table.append(5, {"id": ["a"], "value": [1]})
    table.append(6, {"id": ["a", "b"], "value": [2, 2]})
    assert content(table, commits((5, 1))) == {"a": 1}
    assert content(table, commits()) == {}
    assert content(table, commits((4, 1), (7, 2))) == {}
    assert content(table, commits((6, 2))) == {"a": 2, "b": 2}


def test_tombstones_hide_older_rows_only(table: Table) -> None:
    table.append(1, {"id": ["a", "b"], "value": [1, 1]})
    table.append(2, {"id": ["a"], "value": [0], "deleted": [True]})
    assert content(table, commits((1, 1), (2, 2))) == {"b": 1}
    assert content(table, commits((1, 1))) == {"a": 1, "b": 1}
    table.append(3, {"id": ["a"], "value": [9]})
    assert content(table, commits((1, 1), (2, 2), (3, 3))) == {"a": 9, "b": 1}


def test_rows_of_one_commit_count_in_the_order_in_which_they_were_appended(table: Table) -> None:
    counter = table.append(1, {"id": ["a", "a"], "value": [1, 2]})
    assert counter == 2
    assert content(table, commits((1, 1))) == {"a": 2}
    assert table.append(1, {"id": ["a"], "value": [3]}, counter=counter) == 3
    assert content(table, commits((1, 1))) == {"a": 3}
    assert table.append(1, {"id": [], "value": []}, counter=3) == 3


def test_ids_of_two_columns(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), StorageConfig())
    table.create([Column("id", "str"), Column("class", "int"), Column("value", "int")])
    table.append(1, {"id": ["a", "a", "b"], "class": [1, 2, 1], "value": [1, 2, 3]})
    table.append(2, {"id": ["a"], "class": [2], "value": [9]})
    rows = newest(table.read(), commits((1, 1), (2, 2)), "id", "class")
    assert list(zip(rows["id"], rows["class"], rows["value"], strict=True)) == [("a", 1, 1), ("a", 2, 9), ("b", 1, 3)]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abcd"), st.integers(0, 9), st.booleans()), max_size=25),
    st.permutations(range(7)),
    st.sets(st.integers(0, 6)),
)
def test_newest_equals_replaying_the_log(
    log: list[tuple[int, str, int, bool]], ids: list[int], committed: set[int]
) -> None:
    """Rows of versions 0 to 6, some of them committed, in any order on disk, against a plain dict."""
    truth: dict[str, int] = {}
    for version, key, value, deleted in sorted(log, key=lambda row: row[0]):
        if version in committed:
            truth.pop(key, None) if deleted else truth.update({key: value})
    rows = {
        "row": np.array([(ids[v] << COUNTER_BITS) + n for n, (v, *_) in enumerate(log)], np.uint64),
        "commit": np.array([ids[v] for v, *_ in log], np.uint64),
        "deleted": np.array([d for *_, d in log], np.bool_),
        "id": np.array([k for _, k, _, _ in log], object),
        "value": np.array([x for _, _, x, _ in log], np.int64),
    }
    # sorting by row keeps the order of rows of one commit
    order = np.random.default_rng(0).permutation(len(log))
    shuffled = {name: values[order] for name, values in rows.items()}
    got = newest(shuffled, commits(*[(ids[v], v) for v in committed]), "id")
    assert dict(zip(got["id"].tolist(), got["value"].tolist(), strict=True)) == truth
    assert got["id"].tolist() == sorted(truth)


def test_added_columns_are_missing_in_older_rows(table: Table) -> None:
    table.append(1, {"id": ["a"], "value": [1]})
    added = [
        Column("age", "int", nullable=True),
        Column("site", "str", nullable=True),
        Column("well", "bool", nullable=True),
        Column("score", "float"),
        Column("when", "datetime"),
    ]
    table.add_columns(added)
    table.add_columns(added)  # they are there already
    table.append(
        2, {"id": ["b"], "value": [2], "age": [40], "site": ["x"], "well": [False], "score": [0.5], "when": [None]}
    )
    table.append(3, {"id": ["c"], "value": [3]})
    rows = newest(table.read(), commits((1, 1), (2, 2), (3, 3)), "id")
    assert rows["value"].tolist() == [1, 2, 3]
    assert rows["age"].tolist() == [None, 40, None]
    assert rows["site"].tolist() == [None, "x", None]
    assert rows["well"].tolist() == [None, False, None]
    np.testing.assert_array_equal(rows["score"], [np.nan, 0.5, np.nan])
    assert np.isnat(rows["when"]).all()
    table.consolidate(force=True)
    again = newest(table.read(), commits((1, 1), (2, 2), (3, 3)), "id")
    assert {n: v.tolist() for n, v in again.items() if n not in ("score", "when")} == {
        n: v.tolist() for n, v in rows.items() if n not in ("score", "when")
    }


def test_a_column_keeps_its_kind(table: Table) -> None:
    with pytest.raises(
        CatalogError, match="column 'value' holds int values in the store, but the new values are str; convert"
    ):
        table.add_columns([Column("value", "str", nullable=True)])


def test_rows_that_do_not_fit(table: Table) -> None:
    with pytest.raises(CatalogError, match="column 'value' must have a value in every row"):
        table.append(1, {"id": ["a"], "value": [None]})
    with pytest.raises(CatalogError, match=r"has no columns \['other'\]"):
        table.append(1, {"id": ["a"], "value": [1], "other": [2]})
    assert len(table.read()["row"]) == 0


def test_consolidation_keeps_the_content(table: Table) -> None:
    count = CONSOLIDATE_AT + 5
    for version in range(1, count + 1):
        deleted = version % 10 == 0
        table.append(1000 - version, {"id": [f"id-{version % 7}"], "value": [version], "deleted": [deleted]})
        if version == CONSOLIDATE_AT:
            table.consolidate()
            assert fragments(table) == CONSOLIDATE_AT, "not before there are more"
    known = commits(*[(1000 - version, version) for version in range(1, count + 1) if version % 9])
    before, rows = content(table, known), table.read()
    table.consolidate()
    assert fragments(table) == 1
    assert content(table, known) == before
    after = table.read()
    order = np.argsort(rows["row"])
    assert {n: v[np.argsort(after["row"])].tolist() for n, v in after.items()} == {
        n: v[order].tolist() for n, v in rows.items()
    }
    table.append(5000, {"id": ["id-0"], "value": [-1]})
    assert content(table, commits((5000, 99)))["id-0"] == -1


WRITER = """
import sys
from radioloader.config import StorageConfig
from radioloader.storage.table import Table
table, repetitions = Table(sys.argv[1], StorageConfig()), int(sys.argv[2])
for version in range(1, repetitions + 1):
    table.append(version, {"id": [f"id-{version % 5}"], "value": [version]})
    if version % 8 == 0:
        table.consolidate(force=True)
"""


def test_a_table_is_read_while_another_process_consolidates_it(table: Table, counts: Callable[[int, int], int]) -> None:
    """Every read sees all rows that were appended before it began, whatever becomes of their files meanwhile."""
    repetitions = counts(80, 3000)
    every = commits(*[(version, version) for version in range(1, repetitions + 1)])
    with subprocess.Popen([sys.executable, "-c", WRITER, table.uri, str(repetitions)]) as writer:
        seen, reads = 0, 0
        while writer.poll() is None:
            rows = table.read()
            found = sorted(set(rows["commit"].tolist()))
            assert found == list(range(1, len(found) + 1)), "a row in between is missing"
            assert len(found) >= seen, "rows that were there are gone"
            seen, reads = len(found), reads + 1
            time.sleep(0.001)
    assert writer.returncode == 0
    assert reads > 10
    assert content(table, every) == {
        f"id-{n}": max(v for v in range(1, repetitions + 1) if v % 5 == n) for n in range(5)
    }


def test_missing_and_damaged_tables_are_read_errors(table: Table, tmp_path: Path) -> None:
    table.append(1, {"id": ["a"] * 500, "value": list(range(500))})
    (data,) = Path(table.uri).glob("__fragments/*/a0.tdb")
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    with pytest.raises(ReadError, match=f"could not read the table {table.uri}: "):
        table.read()
    absent = Table(str(tmp_path / "absent"), StorageConfig())
    with pytest.raises(ReadError, match=f"could not read the table {absent.uri}: "):
        absent.read()
    with pytest.raises(ReadError, match=f"could not read the table {absent.uri}: "):
        absent.columns()
    with pytest.raises(StoreWriteError, match=f"could not write to the table {absent.uri}: "):
        absent.append(1, {"id": ["a"], "value": [1]})
    with pytest.raises(StoreWriteError, match=f"could not consolidate the table {absent.uri}: "):
        absent.consolidate(force=True)
    with pytest.raises(StoreWriteError, match=f"could not create the table {table.uri}: "):
        table.create([Column("id", "str")])


@pytest.mark.usefixtures("little_memory")
def test_flipped_bits_in_a_table_are_always_noticed(table: Table, counts: Callable[[int, int], int]) -> None:
    table.append(1, {"id": [f"id-{n}" for n in range(500)], "value": list(range(500))})
    truth = {name: values.tolist() for name, values in table.read().items()}
    generator = np.random.default_rng(0)
    files = sorted(Path(table.uri).glob("__fragments/*/*.tdb"))
    noticed = 0
    for _ in range(counts(40, 400)):
        file = files[int(generator.integers(len(files)))]
        if file.name == "__fragment_metadata.tdb":
            continue
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[generator.integers(len(damaged))] ^= 1 << int(generator.integers(8))
        file.write_bytes(damaged)
        try:
            got = table.read()
        except ReadError:
            noticed += 1
        else:
            assert {name: values.tolist() for name, values in got.items()} == truth, file
        file.write_bytes(whole)
    assert noticed > 10


def test_commits_locate() -> None:
    known = commits((50, 2), (7, 3), (2**39 - 1, 1))
    assert known.version == 3
    found, version = known.locate(np.array([7, 8, 50, 2**39 - 1, 2**39, 0], np.uint64))
    assert found.tolist() == [True, False, True, True, False, False]
    assert version[found].tolist() == [3, 2, 1]
    assert commits().version == 0
    assert commits().locate(np.array([1], np.uint64))[0].tolist() == [False]


def test_bytes_that_a_nullable_column_would_cut_off_are_refused(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), StorageConfig())
    table.create([Column("plain", "bytes"), Column("optional", "bytes", nullable=True)])
    table.append(1, {"plain": [b"a\0\0", b"\0\0"], "optional": [b"a\0b", None]})
    read = table.read()
    assert read["plain"].tolist() == [b"a\0\0", b"\0\0"]
    assert read["optional"].tolist() == [b"a\0b", None]
    with pytest.raises(CatalogError, match="'optional' cannot hold bytes that end in NUL"):
        table.append(2, {"plain": [b"a"], "optional": [b"a\0"]})
