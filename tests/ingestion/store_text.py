"""Everything that a store holds, as bytes to search in: what tables say once they are decoded, and what lies on disk."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiledb

__all__ = ["everything", "holding"]


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


def holding(uri: str | Path, value: str) -> list[str]:
    """Where a text is found, in any case, as UTF-8 or UTF-16 or UTF-32 (as NumPy keeps it)."""
    forms = [value.lower().encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-32-le")]
    return [where for where, data in everything(uri) for low in [data.lower()] if any(form in low for form in forms)]
