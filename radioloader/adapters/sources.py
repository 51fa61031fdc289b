"""Which files an item of a datalist stands for, and what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from radioloader.adapters.digest import UnhashableError, digest
from radioloader.errors import FormatError
from radioloader.formats.nifti import SUFFIXES, source_files

__all__ = ["Item", "as_item", "settled"]

_FRESH_NS = 2_000_000_000
"""A file that changed less than this before it was looked at may change again without a sign: file times are coarse."""


@dataclass(frozen=True)
class Item:
    """One entry of a datalist.

    Attributes:
        data: The entry as it was given.
        files: Path of each file or folder in it, by where it stands: ``image``, or ``image[1]`` in a list.
    """

    data: Mapping[Any, Any]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """The item in words."""
        return ", ".join(self.files.values()) or ", ".join(f"{key}={value!r:.40}" for key, value in self.data.items())

    def subject(self, hash_: str) -> str:
        """Name of the first file without its suffix, and what tells it from others of that name."""
        name = os.path.basename(next(iter(self.files.values()), "item"))
        stem = re.sub(r"(\.nii)?(\.gz)?$|\.[^.]*$", "", name) or "item"
        return f"{stem}-{hash_[:12]}"

    @property
    def places(self) -> dict[str, str]:
        """Where each path stands, by path: what is stored does not depend on where the files lie."""
        return {path: place for place, path in self.files.items()}

    def stamps(self) -> str:
        """Sizes and times of the files now, and all else, as JSON: as long as they are the same, so is what is in the files. Empty
        where there are no files.

        Raises:
            FormatError: A file is gone.
        """
        if not self.files:
            return ""
        stamps = [_stamp(file) for path in self.files.values() for file in _files(path)]
        return json.dumps([stamps, digest({str(key): value for key, value in self.data.items()})])

    def hash(self) -> str:
        """SHA-256 in hex of the content of the files and of all else in the item. Not of where the files lie.

        Raises:
            FormatError: A file cannot be read.
            ConfigError: The item holds what cannot be hashed.
        """
        sum = hashlib.sha256()
        for place, path in self.files.items():
            for file in _files(path):
                # Names count within a folder only, where readers go by them.
                name = os.path.relpath(file, path) if os.path.isdir(path) else _suffix(file)
                sum.update(f"{place}\0{name}\0".encode("utf-8", "surrogatepass"))
                sum.update(_content(file))
        try:
            sum.update(digest(_without_files(self.data)).encode())
        except UnhashableError as error:
            raise UnhashableError(f"the item {self.name} cannot be told from another one: {error}") from error
        return sum.hexdigest()


def settled(stamps: str) -> bool:
    """Whether no file changed so lately that its time might not tell the next change."""
    newest = max((max(stamp[2], stamp[3]) for stamp in json.loads(stamps)[0]), default=0) if stamps else 0
    return time.time_ns() - int(newest) > _FRESH_NS


def as_item(data: Mapping[Any, Any]) -> Item:
    """An entry of a datalist with the files that it names."""
    return Item(data, dict(_paths(data)))


def _paths(data: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        for number, part in enumerate(value if isinstance(value, list | tuple) else [value]):
            if _is_path(part):
                yield (f"{key}[{number}]" if isinstance(value, list | tuple) else str(key)), str(part)


def _is_path(value: Any) -> bool:
    if isinstance(value, os.PathLike):
        return True
    return isinstance(value, str) and "\0" not in value and len(value) < 4096 and os.path.exists(value)


def _without_files(data: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        key: ["file" if _is_path(part) else part for part in value]
        if isinstance(value, list | tuple)
        else ("file" if _is_path(value) else value)
        for key, value in data.items()
    }


def _files(path: str) -> list[str]:
    """The files that a path stands for: of a pair both, of a folder all."""
    if not os.path.isdir(path):
        return [str(file) for file in dict.fromkeys(source_files(path))] if path.lower().endswith(SUFFIXES) else [path]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def _stamp(file: str) -> list[Any]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise FormatError(f"{file}: could not be read: {error.strerror or error}") from error
    return [os.path.abspath(file), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _content(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise FormatError(f"{file}: could not be read: {error.strerror or error}") from error


def _suffix(file: str) -> str:
    """What readers are chosen by."""
    name = os.path.basename(file).lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), os.path.splitext(name)[1])
