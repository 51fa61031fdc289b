"""Cells of the table, by the kind of the column that they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from radioloader.overview.pairing import Entry
from radioloader.overview.rows import left_out, table

ENTRIES = [Entry("a", ("T1w", 0), ()), Entry("b", ("T1w", 1), ())]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array(["x", None], dtype=object), "text", ["x", None]),
        (np.array([1.5, np.nan]), "number", [1.5, None]),
        (np.array([3, None], dtype=object), "number", [3, None]),
        (np.array([3, 2**40]), "number", [3, 2**40]),
        (np.array([True, None], dtype=object), "text", ["True", None]),
        (np.array([None, False], dtype=object), "text", [None, "False"]),
        (np.array(["2024-01-11", "NaT"], dtype="M8[ns]"), "text", ["2024-01-11", None]),
        (
            np.array(["2024-01-11T10:30", "2024-02-01"], dtype="M8[ns]"),
            "text",
            ["2024-01-11T10:30:00", "2024-02-01T00:00:00"],
        ),
        (np.array([np.inf, 1.23456789]), "number", [None, 1.23457]),
    ],
)
def test_user_columns(values: Any, kind: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from radioloader.overview import rows

    monkeypatch.setattr(rows, "_standard", lambda *_: [])
    found = table({}, ENTRIES, {}, [[], []], {"column": values}, ["a", "b"])
    assert found["columns"] == [{"label": "column", "kind": kind, "hidden": False}]
    assert [row["v"] for row in found["rows"]] == [[value] for value in expected]


def test_columns_without_room_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from radioloader.overview import rows

    monkeypatch.setattr(rows, "_standard", lambda *_: [])
    user = {f"c{number}": np.array([1, 2]) for number in range(33)}
    found = table({}, ENTRIES, {}, [[], []], user, ["a", "b"])
    assert len(found["columns"]) == 30
    assert left_out(user) == ["c30", "c31", "c32"]
