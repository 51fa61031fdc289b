"""Selecting rows of a table by an expression: ``age > 40 and sex == 'F'``.

The expression is Python's: comparisons of a column with a constant (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in [...]``,
``not in [...]``, ``is None``, ``is not None``; ``18 <= age < 65``), ``and``, ``or``, ``not``, parentheses; a column of booleans may stand
alone. Names that are no Python names are put in backticks. A comparison with a missing value is neither true nor false, as in SQL:
neither it nor its opposite selects the row; ``is None`` does. TileDB evaluates it while it reads (query conditions): values are not
brought into Python.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.table import Column, Table

__all__ = ["Condition"]

Mask = npt.NDArray[np.bool_]
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "==",
    ast.IsNot: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_INT = (-(2**63), 2**63 - 1)
_NAT = -(2**63) + 1  # lowest time that is one
_WORDS = {"str": "text", "int": "whole numbers", "float": "numbers", "bool": "True or False", "datetime": "times"}
_BINDS = "& and | bind closer than comparisons: write 'and', 'or', or put each comparison in parentheses"
_QUOTED = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|`([^`]+)`""")


class Condition:
    """An expression over the columns of a table, checked.

    Args:
        expression: The expression.
        columns: The columns on disk, by the names that it may use.
        where: The table, for messages.

    Raises:
        ConfigError: The expression cannot be understood, or compares a column with a value of another kind.
        KeyNotFoundError: No such column.
    """

    def __init__(self, expression: str, columns: Mapping[str, Column], where: str) -> None:
        self._expression, self._columns, self._table = expression, columns, where
        if not str(expression).strip():
            raise self._refusal("it is empty")
        self._quoted: list[str] = []
        try:
            body = ast.parse(_QUOTED.sub(self._name, str(expression).strip()), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refusal(f"it is no expression: {error.args[0] if error.args else error}") from None
        self._plan = self._node(body, False)

    def _name(self, match: re.Match[str]) -> str:
        if match[2] is None:
            return match[0]
        self._quoted.append(match[2])
        return f"_quoted_{len(self._quoted) - 1}_"

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        """(n,) which of some rows of the table it selects.

        Args:
            table: The table.
            rows: (n,) their numbers.
        """
        return self._plan.rows(table, rows)

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self._expression!r} cannot be used to select from {self._table}: {why}; write comparisons of columns with constants, joined "
            "by and, or, not, such as: age > 40 and sex == 'F'. For all else, give a boolean mask: store.loc[mask]"
        )

    def _node(self, node: ast.AST, negated: bool) -> _Plan:
        if isinstance(node, ast.BoolOp):
            parts = [self._node(value, negated) for value in node.values]
            return _join(parts, every=isinstance(node.op, ast.And) != negated)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            return self._node(node.operand, not negated)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            if not all(
                isinstance(side, ast.Compare | ast.BoolOp | ast.BinOp | ast.UnaryOp) for side in (node.left, node.right)
            ):
                raise self._refusal(_BINDS)
            parts = [self._node(side, negated) for side in (node.left, node.right)]
            return _join(parts, every=isinstance(node.op, ast.BitAnd) != negated)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [
                self._comparison(left, operator, right, negated)
                for left, operator, right in zip(sides, node.ops, sides[1:], strict=False)
            ]
            return _join(parts, every=not negated)
        if self._is_column(node):
            name, column = self._column(node)
            if column.kind != "bool":
                raise self._refusal(
                    f"column {name!r} holds {_WORDS.get(column.kind, column.kind)}: compare it with a value"
                )
            return _Query(_leaf(column, "==", not negated))
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return _Constant(node.value != negated)
        raise self._refusal(f"{ast.unparse(node)!r} is no comparison")

    @staticmethod
    def _is_column(node: ast.AST) -> bool:
        return isinstance(node, ast.Name) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "attr"
        )

    def _column(self, node: ast.AST) -> tuple[str, Column]:
        if isinstance(node, ast.Call):  # attr("name") is how TileDB writes names that are none of Python's
            if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
                raise self._refusal(f"{ast.unparse(node)!r} must be attr('name')")
            name = str(node.args[0].value)
        else:
            assert isinstance(node, ast.Name)
            quoted = re.fullmatch(r"_quoted_(\d+)_", node.id)
            name = self._quoted[int(quoted[1])] if quoted and int(quoted[1]) < len(self._quoted) else node.id
        if name not in self._columns:
            raise KeyNotFoundError(
                f"{self._table} has no column {name!r}; it has {', '.join(map(repr, self._columns)) or 'none'} (text is put in quotes)"
            )
        return name, self._columns[name]

    def _comparison(self, left: ast.AST, operator: ast.cmpop, right: ast.AST, negated: bool) -> _Plan:
        sign = _OPERATORS[type(operator)]
        for side in (left, right):
            if isinstance(side, ast.BinOp) and isinstance(side.op, ast.BitAnd | ast.BitOr):
                raise self._refusal(_BINDS)
        if not self._is_column(left) and sign not in ("in", "not in"):
            left, right, sign = right, left, _TURNED.get(sign, sign)
        if not self._is_column(left):
            raise self._refusal(f"neither {ast.unparse(left)!r} nor {ast.unparse(right)!r} is a column")
        if self._is_column(right):
            self._column(right)
            raise self._refusal("two columns are compared with each other")
        name, column = self._column(left)
        sign = _OPPOSITE[sign] if negated else sign
        try:
            value = ast.literal_eval(right)
        except (ValueError, TypeError, SyntaxError, RecursionError):
            raise self._refusal(f"{ast.unparse(right)!r} is no constant") from None
        if sign not in ("in", "not in"):
            return self._one(name, column, sign, value)
        if not isinstance(value, list | tuple | set | frozenset):
            raise self._refusal(f"{name!r} is looked for in {value!r}, which is no list")
        if not all(part is None or isinstance(part, str | int | float) for part in value):
            raise self._refusal(f"the list that {name!r} is looked for in holds more than numbers and text")
        same, every = ("==", False) if sign == "in" else ("!=", True)
        # TileDB looks many up at once, but does not read the sign of a negative number there.
        listed = [part for part in value if _is_listed(part, column.kind)]
        rest = set(value) - set(listed) if len(listed) > 1 else value
        parts = [self._one(name, column, same, part) for part in rest]
        if len(listed) > 1:
            parts.append(_Query(f"attr({column.name!r}) {sign} {listed!r}"))
            if sign == "not in":
                parts.append(_missing(column, False))
        return _join(parts or [_Constant(every)], every=every)

    def _one(self, name: str, column: Column, sign: str, value: Any) -> _Plan:
        """A column and one value."""
        if value is None:
            if sign not in ("==", "!="):
                raise self._refusal(f"{name!r} is compared by {sign} with None")
            return _missing(column, sign == "==")
        return _compare(column, sign, self._value(name, column, value))

    def _value(self, name: str, column: Column, value: Any) -> Any:
        kind = column.kind
        if kind == "str" and isinstance(value, str):
            return value
        if kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):  # such as 1e999
                raise self._refusal(f"{name!r} is compared with an infinite number")
            return value
        if kind == "bool" and (isinstance(value, bool) or value in (0, 1)):
            return bool(value)
        if kind == "datetime" and isinstance(value, str):
            try:
                moment = np.datetime64(value, "ns")
            except ValueError:
                raise self._refusal(f"{value!r} is no time; write it as '2026-11-24' or '2026-11-24T10:30'") from None
            if not np.isnat(moment):
                return int(moment.astype(np.int64))
        raise self._refusal(f"column {name!r} holds {_WORDS.get(kind, 'bytes')}, which are compared with {value!r}")


class _Plan(Protocol):
    """How rows are found."""

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        """(n,) which of ``rows`` are meant."""


@dataclass(frozen=True)
class _Constant:
    """All rows, or none."""

    every: bool

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        return np.full(rows.shape, self.every)


@dataclass(frozen=True)
class _Query:
    """The rows that a condition in TileDB's words selects."""

    words: str

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        return np.isin(rows, table.rows_where(self.words))


@dataclass(frozen=True)
class _Complement:
    """The rows that a plan does not select."""

    of: _Plan

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        return ~self.of.rows(table, rows)


@dataclass(frozen=True)
class _Joint:
    """The rows that every one of some plans selects, or any of them."""

    parts: tuple[_Plan, ...]
    every: bool

    def rows(self, table: Table, rows: npt.NDArray[np.uint64]) -> Mask:
        masks = [part.rows(table, rows) for part in self.parts]
        return reduce(np.logical_and if self.every else np.logical_or, masks)


def _join(parts: list[_Plan], *, every: bool) -> _Plan:
    """One query where that can be, else as few as can be."""
    if len(parts) == 1:
        return parts[0]
    words = [f"({part.words})" for part in parts if isinstance(part, _Query)]
    others = [part for part in parts if not isinstance(part, _Query)]
    query = [_Query((" and " if every else " or ").join(words))] if words else []
    return query[0] if query and not others else _Joint((*query, *others), every)


def _leaf(column: Column, sign: str, value: Any) -> str:
    text = repr(int(value) if isinstance(value, bool) else value)
    return (
        f"attr({column.name!r}) {sign} val({text})"
        if not text.startswith("-")
        else f"attr({column.name!r}) {sign} {text}"
    )


def _missing(column: Column, missing: bool) -> _Plan:
    """Rows with or without a value. Those without are found as the others' complement: to conditions of TileDB, rows that were written
    before the column was added have neither a value nor none."""
    if column.kind == "float":
        # NaN is the one value that is neither below zero nor not.
        present = _Query(f"({_leaf(column, '<', 0.0)}) or ({_leaf(column, '>=', 0.0)})")
    elif column.kind == "datetime":
        present = _Query(_leaf(column, ">=", _NAT))
    elif column.nullable:
        present = _Query(f"attr({column.name!r}) != None")
    else:
        return _Constant(not missing)
    return _Complement(present) if missing else present


def _compare(column: Column, sign: str, value: Any) -> _Plan:
    kind = column.kind
    if kind == "int":
        return _whole(column, sign, value)
    if kind == "float":
        value = float(value)
        if sign == "!=":  # not of NaN, which equals nothing
            return _Query(f"({_leaf(column, '<', value)}) or ({_leaf(column, '>', value)})")
    if kind == "datetime" and sign in ("!=", "<", "<="):
        return _join([_Query(_leaf(column, sign, value)), _missing(column, False)], every=True)
    return _Query(_leaf(column, sign, value))


def _is_listed(part: object, kind: str) -> bool:
    return isinstance(part, str) if kind == "str" else kind == "int" and type(part) is int and 0 <= part <= _INT[1]


def _whole(column: Column, sign: str, value: float) -> _Plan:
    """Whole numbers and a number that need not be one, nor one of those that the column can hold."""
    present = _missing(column, False)
    if not _INT[0] <= value <= _INT[1]:
        holds = sign == "!=" or ((sign in ("<", "<=")) == (value > 0) and sign != "==")
        return present if holds else _Constant(False)
    whole = math.floor(value)
    if whole != value:
        if sign in ("==", "!="):
            return present if sign == "!=" else _Constant(False)
        sign = ">" if sign in (">", ">=") else "<="
    return _Query(_leaf(column, sign, whole))
