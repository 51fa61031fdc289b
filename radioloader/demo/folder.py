"""The demo's folder: it works only in a folder of its own, and never deletes anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radioloader.errors import ConfigError

__all__ = ["claim_folder", "replace_file"]

_MARKER = "demo.json"


def claim_folder(out: Path, *, settings: Mapping[str, Any]) -> None:
    """Make `out` the folder of a demo with these settings, or check that it already is.

    Args:
        out: Does not exist yet, is empty, or was made by an earlier demo with the same settings. Other files that
            someone put into such a folder are left alone.
        settings: What the cohort depends on.

    Raises:
        ConfigError: `out` holds something else. Nothing was changed.
    """
    marker = out / _MARKER
    wanted = {"made_by": "radioloader demo", **settings}
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder that does not exist yet, or an empty one")
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            found = None
        if found != wanted:
            raise ConfigError(
                f"--out {out} holds a demo with other settings: {marker} says {found}, this run would be {wanted}; "
                "give another folder, or the same settings to run it again"
            )
        return
    # A killed first run may have left the unfinished marker, and nothing else.
    if out.exists() and any(entry.name != _part(marker).name for entry in out.iterdir()):
        raise ConfigError(
            f"--out {out} is not empty and was not made by the demo; "
            "give a folder that does not exist yet, or an empty one"
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_file(marker, (json.dumps(wanted, indent=1) + "\n").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also when the process is killed."""
    part = _part(path)
    part.write_bytes(data)
    os.replace(part, path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
