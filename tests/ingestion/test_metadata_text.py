"""What the text of a table's file means, and what a later table may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.errors import CatalogError
from radioloader.ingestion.metadata import read_table
from tests.ingestion.test_metadata import Load


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "", "-3"], "int", [1, pd.NA, -3]),
        (["007", "010", ""], "str", ["007", "010"]),
        (["0", "00", "1"], "str", ["0", "00", "1"]),
        (["0012", "3.5", ""], "str", ["0012", "3.5"]),
        (["1_000", "2", ""], "str", ["1_000", "2"]),
        (["+1", "2", ""], "float", [1.0, 2.0, np.nan]),
        (["1.50", " 2", "1e-3"], "float", [1.5, 2.0, 0.001]),
        (["12345678901234567890", "1", ""], "str", ["12345678901234567890", "1"]),
        (["12345678901234567", "0.5", ""], "str", ["12345678901234567", "0.5"]),
        (["TRUE", "false", "True"], "bool", [True, False, True]),
        (["True", "maybe", ""], "str", ["True", "maybe"]),
        (
            ["2024-05-01", "", "1900-12-31"],
            "datetime",
            [pd.Timestamp("2024-05-01"), pd.NaT, pd.Timestamp("1900-12-31")],
        ),
        (
            ["2024-05-01T10:30:00+02:00", "2024-05-01T10:30Z", ""],
            "datetime",
            [pd.Timestamp("2024-05-01T08:30"), pd.Timestamp("2024-05-01T10:30"), pd.NaT],
        ),
        (["2024-05-01T10:30:00Z", "2024-05-01T10:30:00", ""], "str", ["2024-05-01T10:30:00Z", "2024-05-01T10:30:00"]),
        (["2024-02-30", "2024-02-01", ""], "str", ["2024-02-30", "2024-02-01"]),
        (["1600-01-01", "2024-02-01", ""], "str", ["1600-01-01", "2024-02-01"]),
        (["01.05.2024", "5/1/2024", ""], "str", ["01.05.2024", "5/1/2024"]),
    ],
)
def test_a_column_of_a_file_is_text_unless_nothing_is_lost(
    load: Load, tmp_path: Path, cells: list[str], kind: str, values: list[Any]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("subject,v\n" + "".join(f"{n:03d},{cell}\n" for n, cell in enumerate(cells, 1)))
    frame, _ = load(path)
    column = rl.open(tmp_path / "store").snapshot.store.table("obs_meta").columns()["user.v"]
    assert column.kind == kind
    if kind == "float":
        np.testing.assert_array_equal(frame.v, values)
    else:
        assert (frame.v.dropna() if kind == "str" else frame.v).tolist() == values


def test_a_later_file_gives_each_column_its_kind_in_the_store(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("subject,site,visits,dose,ok,day\n001,A12,1,0.5,True,2024-05-01\n")
    load(path)
    path.write_text("subject,site,visits,dose,ok,day\n002,,2.0,3,0,2024-06-01T12:00\n003,0012,3,4,true,\n")
    frame, _ = load(path)
    assert frame.site.tolist()[::2] == ["A12", "0012"]
    assert frame.site.isna().tolist() == [False, True, False]
    assert (frame.visits.tolist(), frame.dose.tolist(), frame.ok.tolist()) == (
        [1, 2, 3],
        [0.5, 3, 4],
        [True, False, True],
    )
    assert frame.day.tolist() == [pd.Timestamp("2024-05-01"), pd.Timestamp("2024-06-01T12:00"), pd.NaT]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("1", "007", "'007' does not fit, the column holds whole numbers since it was created"),
        ("0.5", "007", "'007' does not fit, the column holds numbers since it was created"),
        ("True", "maybe", "'maybe' does not fit, the column holds true and false since it was created"),
        ("2024-05-01", "5/6/2024", "'5/6/2024' does not fit, the column holds times since it was created"),
        ("2024-05-01", "20240501", "'20240501' does not fit, the column holds times since it was created"),
    ],
)
def test_text_that_would_be_changed_is_refused(load: Load, tmp_path: Path, first: str, second: str, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"subject,v\n001,{first}\n")
    load(path)
    path.write_text(f"subject,v\n002,{first}\n003,{second}\n")
    with pytest.raises(CatalogError) as caught:
        load(path)
    assert str(caught.value) == f"{path}, column 'v': {text}; convert it, or use another column name"


def test_missing_values_of_a_later_table_replace_older_ones(load: Load) -> None:
    load(pd.DataFrame({"subject": ["001", "002"], "age": [1, 2]}))
    frame, _ = load(pd.DataFrame({"subject": ["001"], "age": [None]}))
    assert frame.age.tolist() == [pd.NA, 2, pd.NA]


def test_ids_that_are_numbers_in_a_frame_become_text() -> None:
    assert read_table(pd.DataFrame({"subject": [1, 2]})).ids == ["1", "2"]


def test_a_float_column_of_a_frame_stays_float(load: Load) -> None:
    frame, _ = load(pd.DataFrame({"subject": ["001", "002"], "age": [34.0, np.nan]}))
    assert frame.age.dtype == np.float64
    frame, _ = load(pd.DataFrame({"subject": ["003"], "age": [35.5]}))
    np.testing.assert_array_equal(frame.age, [34.0, np.nan, 35.5])


def test_a_column_without_values_appears_when_it_has_one(load: Load) -> None:
    frame, _ = load(pd.DataFrame({"subject": ["001"], "city": [None]}))
    assert frame.columns.tolist() == ["obs_subject_id"]
    frame, _ = load(pd.DataFrame({"subject": ["002"], "city": ["Berlin"]}))
    assert frame.city.dropna().tolist() == ["Berlin"]


def test_numbers_that_do_not_fit_name_their_column(load: Load) -> None:
    for value, text in ((2**63, "obs_meta, column 'n': 9223372036854775808"), ("\ud800", "obs_meta, column 'n'")):
        with pytest.raises(CatalogError) as caught:
            load(pd.DataFrame({"subject": ["001"], "n": [value]}))
        assert str(caught.value).startswith(text)
