"""Selecting rows by an expression, against the same expression in Python over the same values."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.config import StorageConfig
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.condition import Condition
from radioloader.storage.table import Column, Table

COLUMNS = [
    Column("name", "str"),
    Column("sex", "str", nullable=True),
    Column("age", "int", nullable=True),
    Column("count", "int"),
    Column("weight", "float"),
    Column("smoker", "bool", nullable=True),
    Column("day", "datetime"),
    Column("my col", "int"),
    Column("raw", "bytes"),
]
ROWS: dict[str, list[Any]] = {
    "name": ["a", "b", "é'\"\\", "", "sub-01", "F", "`", "None"],
    "sex": ["F", "M", None, "", "F", None, "M", "f"],
    "age": [-5, 0, 40, None, 41, 2**62, -(2**62), None],
    "count": [0, 1, 2, 3, -1, -2, 2**63 - 1, -(2**63)],
    "weight": [1.5, float("nan"), -0.0, float("inf"), float("-inf"), 1e-300, 60.0, float("nan")],
    "smoker": [True, False, None, True, False, None, True, False],
    "day": [
        "2024-01-01",
        None,
        "1960-05-01T12:00",
        "2024-01-01T00:00:00.000000001",
        "1970-01-01",
        "2030-01-01",
        None,
        "2000-02-29",
    ],
    "my col": [0, 1, 2, 3, 4, 5, 6, 7],
    "raw": [b"x"] * 8,
}
SMALL = ["a", "F", "M", "", "sub-01", "é'\"\\"]
VALUES: dict[str, Any] = {
    "name": st.sampled_from(SMALL),
    "sex": st.sampled_from(SMALL),
    "age": st.sampled_from([-5, 0, 40, 40.0, 40.5, -5.5, 41, 2**62, 1e30, -1e30, 2**70]),
    "count": st.sampled_from([-1, 0, 1, 0.5, 2**63 - 1, -(2**63), 1e30]),
    "weight": st.sampled_from([-1, 0, 1.5, 60, 1e-300, 1e308]),
    "day": st.sampled_from(["2024-01-01", "1960-05-01T12:00", "2024-01-01T00:00:00.000000001", "1999-12-31"]),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = Table(str(tmp_path_factory.mktemp("condition") / "t"), StorageConfig())
    table.create(COLUMNS)
    values = ROWS | {"day": [None if day is None else np.datetime64(day, "ns") for day in ROWS["day"]]}
    table.append(5, {name: column[:3] for name, column in values.items()})
    table.append(5, {name: column[3:] for name, column in values.items()}, counter=3)
    return table


def select(table: Table, expression: str) -> list[int]:
    known = {column.name: column for column in COLUMNS}
    rows = np.arange(8, dtype=np.uint64) + np.uint64(5 << 24)
    return np.flatnonzero(Condition(expression, known, "the table").rows(table, rows)).tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("age > 40", [4, 5]),
        ("age >= 40.5", [4, 5]),
        ("age < 40.5 and sex == 'F'", [0]),
        ("age != 40", [0, 1, 4, 5, 6]),
        ("not age == 40", [0, 1, 4, 5, 6]),
        ("age is None", [3, 7]),
        ("age is not None and not sex is None", [0, 1, 4, 6]),
        ("age == None", [3, 7]),
        ("-10 <= age < 41", [0, 1, 2]),
        ("not (-10 <= age < 41)", [4, 5, 6]),
        ("40 < age", [4, 5]),
        ("age in [40, 41, None, 1e30, -5]", [0, 2, 3, 4, 7]),
        ("age not in [40, 41, -5]", [1, 5, 6]),
        ("age not in [40, None]", [0, 1, 4, 5, 6]),
        ("age in ()", []),
        ("age not in []", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("count == -9223372036854775808", [7]),
        ("count is None", []),
        ("count is not None", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("weight is None", [1, 7]),
        ("weight is not None", [0, 2, 3, 4, 5, 6]),
        ("weight is None or sex == 'F'", [0, 1, 4, 7]),
        ("weight == 0", [2]),
        ("weight != 60", [0, 2, 3, 4, 5]),
        ("weight > 1e308", [3]),
        ("smoker", [0, 3, 6]),
        ("not smoker", [1, 4, 7]),
        ("smoker != True", [1, 4, 7]),
        ("~smoker & (age > -6)", [1, 4]),
        ("(age > 40) | (sex == 'M')", [1, 4, 5, 6]),
        ("day == '2024-01-01'", [0]),
        ("day < '1970-01-01'", [2]),
        ("day >= '2024-01-01'", [0, 3, 5]),
        ("day is None", [1, 6]),
        ("day != '2024-01-01'", [2, 3, 4, 5, 7]),
        ("day in ['2024-01-01', '1970-01-01', None]", [0, 1, 4, 6]),
        ("`my col` >= 6", [6, 7]),
        ("attr('my col') >= 6", [6, 7]),
        ("name == '`'", [6]),
        ("name == 'None'", [7]),
        ("name in ['', \"é'\\\"\\\\\"]", [2, 3]),
        ("sex in ['F', '', None]", [0, 2, 3, 4, 5]),
        ("sex not in ['F', 'f']", [1, 3, 6]),
        ("name >= 'a'", [0, 1, 2, 4]),  # by bytes: a backtick comes before, and é after
        (" True ", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_what_is_selected(table: Table, expression: str, expected: list[int]) -> None:
    assert select(table, expression) == expected


def _holds(name: str, sign: str, value: Any, row: int) -> bool | None:
    """The comparison in Python; None where the value is missing."""
    mine = ROWS[name][row]
    if mine is None or mine != mine:
        return None
    if name == "day":
        mine, value = np.datetime64(mine, "ns"), np.datetime64(value, "ns")
    elif isinstance(mine, str):
        mine, value = mine.encode(), value.encode()
    return bool(
        {
            "==": lambda: mine == value,
            "!=": lambda: mine != value,
            "<": lambda: mine < value,
            "<=": lambda: mine <= value,
            ">": lambda: mine > value,
            ">=": lambda: mine >= value,
        }[sign]()
    )


_Outcome = tuple[bool | None, ...]


@st.composite
def comparisons(draw: Any) -> tuple[str, _Outcome]:
    name = draw(st.sampled_from(sorted(VALUES)))
    sign = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    value = draw(VALUES[name])
    return f"{name} {sign} {value!r}", tuple(_holds(name, sign, value, row) for row in range(8))


def _opposite(one: bool | None) -> bool | None:
    return None if one is None else not one


def _both(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _extend(parts: st.SearchStrategy[tuple[str, _Outcome]]) -> st.SearchStrategy[tuple[str, _Outcome]]:
    pairs = st.tuples(parts, parts)
    return st.one_of(
        parts.map(lambda p: (f"not ({p[0]})", tuple(map(_opposite, p[1])))),
        pairs.map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", tuple(map(_both, p[0][1], p[1][1])))),
        pairs.map(
            lambda p: (
                f"({p[0][0]}) or ({p[1][0]})",
                tuple(_opposite(_both(_opposite(a), _opposite(b))) for a, b in zip(p[0][1], p[1][1], strict=True)),
            )
        ),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=st.recursive(comparisons(), _extend, max_leaves=6))
def test_as_python_with_missing_values_of_sql(table: Table, case: tuple[str, _Outcome]) -> None:
    expression, outcome = case
    assert select(table, expression) == [row for row, holds in enumerate(outcome) if holds], expression


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "it is empty"),
        ("age >", "it is no expression: invalid syntax"),
        ("age = 3", "it is no expression"),
        ("age", "column 'age' holds whole numbers: compare it with a value"),
        ("age > 'x'", "column 'age' holds whole numbers, which are compared with 'x'"),
        ("age > True", "column 'age' holds whole numbers, which are compared with True"),
        ("sex == 3", "column 'sex' holds text, which are compared with 3"),
        ("smoker > 3", "column 'smoker' holds True or False"),
        ("day > 'noon'", "'noon' is no time; write it as '2026-11-24'"),
        ("day > 2024", "column 'day' holds times"),
        ("raw == b'x'", "column 'raw' holds bytes"),
        ("weight > 1e999", "'weight' is compared with an infinite number"),
        ("age > count", "two columns are compared with each other"),
        ("age + 1 > 3", "neither '3' nor 'age \\+ 1' is a column"),
        ("age > 1 + count", "'1 \\+ count' is no constant"),
        ("age > 20 & sex == 'M'", "& and | bind closer than comparisons"),
        ("age > 20 & smoker", "& and | bind closer than comparisons"),
        ("age & smoker", "& and | bind closer than comparisons"),
        ("sex.lower() == 'f'", "neither"),
        ("len(sex)", "'len\\(sex\\)' is no comparison"),
        ("age in 3", "'age' is looked for in 3, which is no list"),
        ("age in [[3]]", "holds more than numbers and text"),
        ("age < None", "'age' is compared by < with None"),
        ("__import__('os').system('true') == 0", "neither"),
        ("age > 1; age < 3", "it is no expression"),
    ],
)
def test_refusals(table: Table, expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        select(table, expression)
    assert str(caught.value).startswith(f"{expression!r} cannot be used to select from the table: ")


def test_unknown_columns(table: Table) -> None:
    with pytest.raises(
        KeyNotFoundError, match=r"the table has no column 'F'; it has 'name', 'sex', .*text is put in quotes"
    ):
        select(table, "sex == F or F == 3")
    with pytest.raises(KeyNotFoundError, match="has no column 'a b'"):
        select(table, "`a b` == 3")


def test_many_values(table: Table) -> None:
    names = [f"sub-{number:02d}" for number in range(2000)]
    assert select(table, f"name in {names!r}") == [4]
    assert select(table, f"name not in {names!r}") == [0, 1, 2, 3, 5, 6, 7]
    assert select(table, f"`my col` in {list(range(-500, 4))!r}") == [0, 1, 2, 3]


def test_columns_that_came_later(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"), StorageConfig())
    table.create([Column("a", "int")])
    table.append(1, {"a": [1, 2]})
    table.add_columns([Column("b", "int", nullable=True), Column("c", "float"), Column("d", "datetime")])
    table.append(1, {"a": [3], "b": [3], "c": [3.0], "d": [np.datetime64(datetime.date(2024, 1, 1), "ns")]}, counter=2)
    rows = np.arange(3, dtype=np.uint64) + np.uint64(1 << 24)
    known = table.columns()
    for name in "bcd":
        assert Condition(f"{name} is None", known, "t").rows(table, rows).tolist() == [True, True, False]
        assert Condition(f"{name} is not None", known, "t").rows(table, rows).tolist() == [False, False, True]
    assert Condition("b != 5 and c != 5", known, "t").rows(table, rows).tolist() == [False, False, True]
