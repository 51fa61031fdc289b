"""Subjects' own columns: tables in, typed columns out, over several ingests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import CatalogError

Load = Callable[..., tuple[pd.DataFrame, list[str]]]

TABLE = """participant_id,age,weight,sex,alive,site,visits
001,31,70.5,M,True,07,1
002,n/a,,F,False,n/a,
003,33,65,n/a,True,09,3
"""


def expect_table(frame: pd.DataFrame) -> None:
    assert frame.columns.tolist() == ["obs_subject_id", "age", "weight", "sex", "alive", "site", "visits"]
    assert frame.obs_subject_id.tolist() == ["001", "002", "003"]
    assert frame.age.dtype == "Int64"
    assert frame.age.tolist() == [31, pd.NA, 33]
    assert frame.weight.dtype == np.float64
    np.testing.assert_array_equal(frame.weight, [70.5, np.nan, 65.0])
    assert frame.sex.dropna().tolist() == ["M", "F"]
    assert frame.sex.isna().tolist() == [False, False, True]
    assert frame.alive.dtype == np.bool_
    assert frame.alive.tolist() == [True, False, True]
    assert frame.visits.tolist() == [1, pd.NA, 3]


@pytest.mark.parametrize("ending", ["csv", "tsv", "TSV"])
def test_files_give_typed_columns_with_missing_values(load: Load, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"participants.{ending}"
    path.write_text(TABLE.replace(",", "\t") if ending.lower() == "tsv" else TABLE)
    frame, notes = load(path)
    expect_table(frame)
    assert notes == []
    assert frame.site.dropna().tolist() == ["07", "09"]  # a code: as numbers they would not come back


def test_a_frame_gives_typed_columns_with_missing_values(load: Load) -> None:
    table = pd.DataFrame(
        {
            "age": pd.array([31, None, 33], "Int64"),
            "weight": [70.5, None, 65.0],
            "sex": ["M", "F", None],
            "alive": [True, False, True],
            "site": ["07", None, "09"],
            "visits": pd.array([1, None, 3], "Int64"),
        },
        index=pd.Index(["001", "002", "003"], name="subject_id"),
    )
    before = table.copy()
    frame, notes = load(table)
    expect_table(frame)
    assert frame.site.dropna().tolist() == ["07", "09"]
    assert notes == []
    pd.testing.assert_frame_equal(table, before)  # the caller's table is not touched


def test_other_kinds_of_columns_of_a_frame(load: Load) -> None:
    table = pd.DataFrame(
        {
            "subject": ["001", "002", "003"],
            "scan": pd.to_datetime(["2024-05-01T10:30:00", None, "2020-02-29T00:00:00"]),
            "zone": pd.to_datetime(["2024-05-01T10:30:00+02:00", None, "2020-02-29T00:00:00+02:00"]),
            "grade": pd.Categorical(["high", "low", None]),
            "flag": pd.array([True, None, False], "boolean"),
            "mixed": [True, None, False],
            "big": [2**60, 1, -(2**60)],
            "far": [1.0, np.inf, np.nan],
            "ünïcode [mm]/x": ["é", "", "日本"],
        }
    )
    frame, _ = load(table)
    assert frame.scan.tolist() == [pd.Timestamp("2024-05-01T10:30:00"), pd.NaT, pd.Timestamp("2020-02-29")]
    assert frame.zone.tolist() == [pd.Timestamp("2024-05-01T08:30:00"), pd.NaT, pd.Timestamp("2020-02-28T22:00:00")]
    assert frame.grade.dropna().tolist() == ["high", "low"]
    assert frame.flag.tolist() == [True, pd.NA, False]
    assert frame.mixed.tolist() == [True, pd.NA, False]
    assert frame.big.tolist() == [2**60, 1, -(2**60)]
    np.testing.assert_array_equal(frame.far, [1.0, np.inf, np.nan])
    assert frame["ünïcode [mm]/x"].tolist() == ["é", "", "日本"]


@pytest.mark.parametrize("key", ["obs_subject_id", "participant_id", "subject_id", "subject"])
def test_the_id_column_goes_by_the_usual_names_and_keeps_leading_zeros(load: Load, tmp_path: Path, key: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        f"\ufeffage,{key}\n1,001\n2,002\n3,003\n", encoding="utf-8"
    )  # with the byte order mark that spreadsheets write
    frame, notes = load(path)
    assert frame.columns.tolist() == ["obs_subject_id", "age"]
    assert (frame.obs_subject_id.tolist(), frame.age.tolist(), notes) == (["001", "002", "003"], [1, 2, 3], [])


def test_bare_labels_of_a_bids_table_are_matched_to_sub_ids(load: Load, images: Path, tmp_path: Path) -> None:
    source = {f"sub-{name}": images / f"{name}.nii.gz" for name in ("001", "002", "003")}
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\n001\t1\n002\t2\n003\t3\n")
    frame, notes = load(path, source)
    assert (frame.obs_subject_id.tolist(), frame.age.tolist(), notes) == (
        ["sub-001", "sub-002", "sub-003"],
        [1, 2, 3],
        [],
    )


@pytest.mark.parametrize("label", ["sub-01", "01"])
def test_sessions_get_the_row_of_their_person(load: Load, images: Path, tmp_path: Path, label: str) -> None:
    source = {
        "sub-01_ses-1": images / "001.nii.gz",
        "sub-01_ses-2": images / "002.nii.gz",
        "sub-02": images / "003.nii.gz",
    }
    path = tmp_path / "participants.tsv"
    path.write_text(f"participant_id\tage\tsex\n{label}\t31\tF\n{label.replace('1', '2')}\t44\tM\n")
    frame, notes = load(path, source)
    assert frame.obs_subject_id.tolist() == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert (frame.age.tolist(), frame.sex.tolist()) == ([31, 31, 44], ["F", "F", "M"])
    assert notes == [
        f"{path}: 2 subjects have no row of their own and get that of the person, such as 'sub-01_ses-1' that of 'sub-01'"
    ]


def test_a_session_with_a_row_of_its_own_keeps_it(load: Load, images: Path) -> None:
    source = {"sub-01_ses-1": images / "001.nii.gz", "sub-01_ses-2": images / "002.nii.gz"}
    table = pd.DataFrame({"participant_id": ["sub-01", "sub-01_ses-2"], "age": [31, 32]})
    frame, _ = load(table, source)
    assert frame.age.tolist() == [31, 32]


def test_unknown_and_missing_subjects_are_noted(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("subject,age\n001,1\nzz,5\nyy,6\n")
    frame, notes = load(path)
    assert frame.age.tolist() == [1, pd.NA, pd.NA]
    assert notes == [
        f"{path}: no row for 2 of 3 subjects, such as ['002', '003']; their columns are missing",
        f"{path}: 2 rows have no subject among the images, such as ['yy', 'zz']; they were left out",
    ]


def test_a_later_ingest_adds_columns_values_and_subjects(load: Load, images: Path) -> None:
    first = {name: images / f"{name}.nii.gz" for name in ("001", "002")}
    frame, _ = load(pd.DataFrame({"subject": ["001", "002"], "age": [1, 2]}), first)
    assert frame.age.tolist() == [1, 2]
    # other columns and one more subject; what is left out stays
    second = pd.DataFrame(
        {"subject": ["002", "003"], "sex": ["F", "M"], "score": [0.5, 0.25], "day": pd.to_datetime(["2020-01-01"] * 2)}
    )
    frame, _ = load(second)
    assert frame.columns.tolist() == ["obs_subject_id", "age", "sex", "score", "day"]
    assert frame.age.tolist() == [1, 2, pd.NA]
    assert frame.sex.isna().tolist() == [True, False, False]
    assert frame.sex.tolist()[1:] == ["F", "M"]
    np.testing.assert_array_equal(frame.score, [np.nan, 0.5, 0.25])
    assert frame.day.isna().tolist() == [True, False, False]
    # a correction
    frame, _ = load(pd.DataFrame({"subject": ["001", "002", "003"], "age": [1, 5, 3]}))
    assert frame.age.tolist() == [1, 5, 3]
    assert frame.sex.tolist()[1:] == ["F", "M"]


def test_columns_added_later_survive_consolidation(load: Load, images: Path, tmp_path: Path) -> None:
    load(
        pd.DataFrame({"subject": ["001", "002"], "age": [1, 2]}),
        {name: images / f"{name}.nii.gz" for name in ("001", "002")},
    )
    table = {
        "subject": ["003"],
        "sex": ["M"],
        "score": [0.5],
        "ok": [True],
        "visits": [4],
        "day": pd.to_datetime(["2020-01-01"]),
    }
    before, _ = load(pd.DataFrame(table))
    store = rl.open(tmp_path / "store")
    for name in ("obs_meta", "commits", "collections"):
        store.snapshot.store.table(name).consolidate(force=True)
    after = rl.open(tmp_path / "store").obs_meta.read()
    pd.testing.assert_frame_equal(before, after)
    assert after.sex.isna().tolist() == after.ok.isna().tolist() == after.visits.isna().tolist() == [True, True, False]


def test_an_unchanged_table_writes_no_version(load: Load, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"subject": ["001", "002", "003"], "age": [1, None, 3], "s": ["a", None, "c"], "f": [0.5, np.nan, np.inf]}
    )
    table["day"] = pd.to_datetime(["2020-01-01", None, "2020-01-03"])
    load(table)
    load(table)
    store = rl.open(tmp_path / "store")
    assert store.version == 1
    assert store.history()[0]["changes"] == {"obs_meta": 3, "volumes": 3, "columns": ["age", "day", "f", "s"]}


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([1, 2, 3], ["1", "x", "3"], "'x' does not fit, the column holds whole numbers"),
        ([1, 2, 3], [1.0, 2.5, 3.0], "2.5 does not fit, the column holds whole numbers"),
        ([0.5, 1.5, 2.5], ["a", "b", "c"], "'a' does not fit, the column holds numbers"),
        ([True, False, True], ["yes", "no", "no"], "'yes' does not fit, the column holds true and false"),
        (
            pd.to_datetime(["2020-01-01"] * 3),
            ["2020-01-02", "soon", "late"],
            "'soon' does not fit, the column holds times",
        ),
    ],
)
def test_values_of_another_kind_than_the_column_are_refused(
    load: Load, first: Any, second: Any, text: str, tmp_path: Path
) -> None:
    ids = ["001", "002", "003"]
    load(pd.DataFrame({"subject": ids, "v": first}))
    with pytest.raises(CatalogError) as caught:
        load(pd.DataFrame({"subject": ids, "v": second}))
    assert (
        str(caught.value)
        == f"obs_meta, column 'v': {text} since it was created; convert it, or use another column name"
    )
    assert rl.open(tmp_path / "store").obs_meta.read().v.tolist() == list(first)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["a", "b", "c"], [1, 2, 3], ["1", "2", "3"]),
        ([0.5, 1.5, 2.5], [1, 2, 3], [1.0, 2.0, 3.0]),
        ([1, 2, 3], [1.0, 5.0, 3.0], [1, 5, 3]),
        ([1, 2, 3], ["1", "5", "3"], [1, 5, 3]),
        ([True, False, True], [0, 0, 1], [False, False, True]),
        ([True, False, True], ["True", "false", "TRUE"], [True, False, True]),
    ],
)
def test_values_that_fit_the_columns_kind_are_converted(
    load: Load, first: list[Any], second: list[Any], expected: list[Any]
) -> None:
    ids = ["001", "002", "003"]
    load(pd.DataFrame({"subject": ids, "v": first}))
    frame, _ = load(pd.DataFrame({"subject": ids, "v": second}))
    assert frame.v.tolist() == expected


def test_tables_that_cannot_be_used_are_refused_in_words_and_leave_no_store(images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"subject,age\n001,\xff\xfe\x00\n")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("subject,age\n001,1\n002,2,3,4\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    twice = pd.DataFrame([["001", 1, 2]], columns=["subject", "age", "age"])
    cases: list[tuple[Any, str]] = [
        (
            tmp_path / "no.csv",
            f"{tmp_path}/no.csv: there is no such file; obs_meta is a DataFrame or the path of a .csv or .tsv file",
        ),
        (broken, f"{broken}: could not be read as a table: 'utf-8' codec can't decode"),
        (ragged, f"{ragged}: line 3 has 4 cells, and the first line names 2 columns; quote cells"),
        (empty, f"{empty}: could not be read as a table: it has no columns"),
        (
            pd.DataFrame({"name": ["001"], "age": [3]}),
            "obs_meta: no column holds the subject id; expected one of obs_subject_id, participant_id, subject_id, subject, "
            "got ['name', 'age']",
        ),
        (
            pd.DataFrame({"subject": ["b", "a", "b", "c", "a"]}),
            "obs_meta: subject is not unique, such as ['a', 'b']; keep one row for each subject",
        ),
        (
            pd.DataFrame({"subject": ["001", None, "003", None]}),
            "obs_meta: 2 rows have no subject, the first is row 2; fill it in, or remove the row",
        ),
        (twice, "obs_meta: the column 'age' occurs more than once; rename one"),
    ]
    for table, text in cases:
        with pytest.raises(CatalogError) as caught:
            rl.ingest(tmp_path / "store", {"CT": images}, obs_meta=table, workers=1)
        assert str(caught.value).startswith(text)
    assert not (tmp_path / "store").exists()


def test_tables_that_do_not_fit_the_cohort_leave_no_store(images: Path, tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (
            pd.DataFrame({"subject": ["x", "y"]}),
            "obs_meta: none of its 2 rows is of a subject here; its subject are like ['x', 'y'], the subjects like ['001', '002', '003']; "
            "use the same ids in both",
        ),
        (
            pd.DataFrame({"subject": ["001"], "n": np.array([2**64 - 1], np.uint64)}),
            "obs_meta, column 'n': 18446744073709551615 is a whole number of more than 64 bits with sign (-2**63 to 2**63 - 1); convert "
            "the column to text",
        ),
        (
            pd.DataFrame({"subject": ["001"], "day": np.array(["1600-01-01"], "datetime64[s]")}),
            "obs_meta, column 'day': Timestamp('1600-01-01 00:00:00') is outside the times that a store holds, 1677 to 2262; convert the "
            "column to text",
        ),
        (
            pd.DataFrame({"subject": ["001"], "t": ["abc\0"]}),
            "obs_meta, column 't': 'abc\\x00' holds a NUL character, which a store does not keep; remove it",
        ),
        (
            pd.DataFrame([["001", 1, 2]], columns=["subject", 1, "1"]),
            "obs_meta: the columns 1 and '1' have the same name in a store; rename one",
        ),
        (
            pd.DataFrame({"subject": ["001"], "a\0": [1]}),
            "obs_meta: the column name 'a\\x00' holds a NUL character, which a store does not keep; rename it",
        ),
        ([1], "obs_meta is a list; give a DataFrame or the path of a .csv or .tsv file"),
        ({"a": 1}, "obs_meta is a dict; give a DataFrame or the path of a .csv or .tsv file"),
        (tmp_path, f"{tmp_path}: this is a folder; obs_meta is a DataFrame or the path of a .csv or .tsv file"),
    ]
    for table, text in cases:
        with pytest.raises(CatalogError) as caught:
            rl.ingest(tmp_path / "store", {"CT": images}, obs_meta=table, workers=1)
        assert str(caught.value) == text
    assert not (tmp_path / "store").exists()
