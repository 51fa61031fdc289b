"""One HTML file that fetches nothing: text, style, script, data and pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from radioloader._files import replacing
from radioloader.errors import ConfigError
from radioloader.overview.wording import isolated
from radioloader.storage.uri import is_remote, is_within

__all__ = ["PICTURES_A_CHUNK", "embed", "page_folder", "picture_chunks", "write_page"]

PICTURES_A_CHUNK = 25
"""Pictures are parsed chunk by chunk, when a page of the table shows one of them."""
_OURS = b'<meta name="generator" content="radioloader'
_HEAD = 4096
"""Bytes at the beginning of a page that say who made it."""
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def embed(value: Any) -> Markup:
    """JSON for a ``<script type="application/json">``: whatever texts it holds, none of them ends the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # Lone surrogates (file names that are no UTF-8) could not be written.
    return Markup(text.translate(_ESCAPES).encode("utf-8", "replace").decode("utf-8"))


def picture_chunks(pictures: Sequence[bytes]) -> Iterator[Markup]:
    """The pictures as base64, in JSON lists of :data:`PICTURES_A_CHUNK`."""
    for start in range(0, len(pictures), PICTURES_A_CHUNK):
        chunk = pictures[start : start + PICTURES_A_CHUNK]
        yield embed([base64.b64encode(data).decode("ascii") for data in chunk])


def page_folder(out: str | os.PathLike[str], store: str) -> Path:
    """The folder for a page, made and tried before anything is read for it.

    Args:
        out: As it was given.
        store: URI of the store.

    Raises:
        ConfigError: It cannot be written, is within the store, or has an ``index.html`` that is no report.
    """
    text = os.fspath(out)
    if is_remote(text):
        raise ConfigError(f"out={text!r}: a report is written to a local folder; copy it from there")
    folder = Path(text)
    path = folder / "index.html"
    try:
        if is_within(folder, store):
            raise ConfigError(f"out={text!r} is within the store {store}; choose a folder outside of it (--out)")
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        if path.is_dir():
            raise ConfigError(f"{str(path)!r} is a folder; choose another folder for the report (--out)")
        if path.exists():
            with path.open("rb") as file:
                ours = _OURS in file.read(_HEAD)
            if not ours:
                raise ConfigError(
                    f"{str(path)!r} is there and is no report of radioloader, so it is not replaced; choose another folder (--out), or "
                    "move that file"
                )
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the report cannot be written to {text!r}: {error}; choose another folder (--out)"
        ) from error
    return folder


def write_page(folder: Path, context: Mapping[str, Any], chunks: Iterable[Markup]) -> Path:
    """Write ``index.html`` into a folder, whole or not at all; the folder is made, and other files in it are left alone.

    Args:
        folder: Where to.
        context: Values of the template.
        chunks: Of pictures; written one after the other.

    Raises:
        ConfigError: The folder cannot be written.
    """
    style, script = _text("page.css"), _text("page.js")
    pieces = _template().generate(
        **context,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        chunks=chunks,
    )
    path = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as scratch,
            scratch.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
        ):
            file.writelines(pieces)
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {str(folder)!r}: {error}; choose another folder") from error
    return path


@cache
def _text(name: str) -> str:
    return files("radioloader.overview").joinpath(name).read_text(encoding="utf-8").strip()


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["isolated"] = isolated
    return environment.from_string(_text("page.html.j2"))


def _hash(text: str) -> str:
    """What a content security policy calls an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
