"""Names of files from ids, which may hold any character."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable

from radioloader.errors import ConfigError

__all__ = ["check_paths", "fold", "mark", "safe_name", "unique_names"]

_LONGEST = 120
"""Bytes: with what is put after it, a name stays below the 255 that file systems have."""
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))]
)
"""What Windows takes for a device whatever follows a dot (Naming Files, Paths, and Namespaces); digits may be superscripts."""


def safe_name(text: str) -> str:
    """A name that is one part of a path on every system, and nothing but a letter, digit, ``-``, ``_``, ``+`` or ``.``.

    Every other character becomes ``_``, and so do dots at the beginning (hidden files, ``..``) and at the end, and a ``-`` at the beginning
    (an option). A ``_`` follows what Windows takes for a device (``CON``, ``com1.x``). What is longer than 120 bytes of UTF-8 is cut, and
    gets 8 digits of the SHA-256 of the whole.
    """
    text = unicodedata.normalize("NFC", text)
    name = "".join(c if c.isalnum() or c in "-_+." or unicodedata.category(c)[0] == "M" else "_" for c in text)
    start = len(name) - len(name.lstrip(".-"))
    name = "_" * start + name[start:]
    kept = name.rstrip(".")
    name = kept + "_" * (len(name) - len(kept)) or "_"
    device, dot, rest = name.partition(".")
    if fold(device) in _DEVICES:
        name = f"{device}_{dot}{rest}"
    if len(name.encode()) > _LONGEST:
        name = name.encode()[: _LONGEST - 9].decode(errors="ignore") + mark(text)
    return name


def mark(text: str) -> str:
    """What tells an id from others of the same name: ``_`` and 8 digits of its SHA-256."""
    return "_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def fold(name: str) -> str:
    """The same for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def unique_names(ids: Iterable[str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """A :func:`safe_name` for each id; ids whose names would be the same, also where case is not told apart, get their :func:`mark`.

    Args:
        ids: The ids.
        taken: Names that are not to be given.
    """
    names = {id_: safe_name(id_) for id_ in ids}
    counts = Counter(fold(name) for name in names.values())
    reserved = {fold(name) for name in taken}
    return {
        id_: name + mark(id_) if counts[fold(name)] > 1 or fold(name) in reserved else name
        for id_, name in names.items()
    }


def check_paths(paths: Iterable[str]) -> None:
    """Make sure that no file would take the place of another, or of a folder.

    Args:
        paths: Relative to the folder, with ``/``.

    Raises:
        ConfigError: Two are the same, also where case is not told apart.
    """
    owner: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ConfigError(f"{path!r} is no path within the folder; give other names")
        key = fold(path)
        if key in owner or key in folders:
            raise ConfigError(
                f"{path} and {owner.get(key) or folders[key]} would be the same file; give other names (names, --name)"
            )
        owner[key] = path
        for end in range(1, len(parts)):
            folder = fold("/".join(parts[:end]))
            if folder in owner:
                raise ConfigError(f"{owner[folder]} would be a file and a folder; give other names (names, --name)")
            folders[folder] = path
