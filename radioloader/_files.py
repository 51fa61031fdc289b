"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to: at the end of the block that file takes the place of ``path``; of a block that fails nothing
    is left."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
