"""Everything that a store holds, as bytes to search in: what tables say once they are decoded, and what lies on disk."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiledb

__all__ = ["everything", "found", "searchable"]


def everything(uri: str | Path) -> Iterator[tuple[str, bytes]]:
    """Places and what is there: names of files and folders; bytes of files; metadata of groups and arrays; schemas; fragments; every
    value of every array, and what is compressed in a value once more, decompressed."""
    root = Path(uri)
    for path in sorted(root.rglob("*")):
        yield f"name of {path}", str(path.relative_to(root)).encode()
        if path.is_file():
            yield f"bytes of {path}", path.read_bytes()
    for path in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        kind = tiledb.object_type(str(path))
        if kind == "group":
            with tiledb.Group(str(path)) as group:
                yield f"metadata of {path}", repr(dict(group.meta)).encode()
                yield f"members of {path}", repr([(one.uri, one.name) for one in group]).encode()
        elif kind == "array":
            yield from _array(str(path))


def _array(uri: str) -> Iterator[tuple[str, bytes]]:
    yield f"schema of {uri}", repr(tiledb.ArraySchema.load(uri)).encode()
    for fragment in tiledb.array_fragments(uri):
        yield f"fragment of {uri}", repr(fragment).encode()
    with tiledb.open(uri) as array:
        yield f"metadata of {uri}", repr(dict(array.meta)).encode()
        values = array[:] if array.schema.sparse else {"": array[:]}
    for name, column in values.items() if isinstance(values, dict) else [("", values)]:
        data: Any = getattr(column, "data", column)
        data = np.asarray(column) if isinstance(data, memoryview) else np.asarray(data)
        if data.dtype != object:
            yield f"{name or 'voxels'} of {uri}", data.tobytes()
            continue
        for value in data.tolist():
            yield from _value(f"{name} of {uri}", value)


def _value(where: str, value: Any) -> Iterator[tuple[str, bytes]]:
    raw = value if isinstance(value, bytes) else str(value).encode()
    yield where, raw
    with contextlib.suppress(zlib.error):
        yield f"{where}, decompressed", zlib.decompress(raw)


def searchable(uri: str | Path) -> list[tuple[str, bytes]]:
    """:func:`everything` in lower case, with what says the same several times once."""
    return [(where, data) for data, where in {data.lower(): where for where, data in everything(uri)}.items()]


def found(data: list[tuple[str, bytes]], values: Mapping[str, str]) -> dict[str, list[str]]:
    """Where values are, of those that are: in any case, as UTF-8, UTF-16 or UTF-32 (as NumPy keeps text).

    Args:
        data: What :func:`searchable` gave.
        values: Texts by name.
    """
    wide = [(where, text) for where, text in data if b"\0" in text]
    result: dict[str, list[str]] = {}
    for name, value in values.items():
        low = value.lower()
        places = [where for where, text in data if low.encode() in text]
        for encoding in ("utf-16-le", "utf-32-le"):
            form = low.encode(encoding)
            places += [where for where, text in wide if form in text]
        if places:
            result[name] = places
    return result
