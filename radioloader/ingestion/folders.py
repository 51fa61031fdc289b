"""Files of folders."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["walk"]


def walk(folder: str) -> Iterator[str]:
    """Files below a folder; hidden folders are left out, links to folders are followed once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        folders[:] = [
            f for f in folders if not f.startswith(".") and os.path.realpath(os.path.join(root, f)) not in seen
        ]
        yield from (os.path.join(root, file) for file in files)
