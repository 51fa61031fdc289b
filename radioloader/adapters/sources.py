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
from radioloader.formats.nifti_names import SUFFIXES, source_files

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
        # Also what is to be a file and is none.
        texts = [value for value in self.data.values() if isinstance(value, str) and os.sep in value]
        paths = dict.fromkeys([*self.files.values(), *texts])
        return ", ".join(paths) or ", ".join(f"{key}={_short(value)}" for key, value in self.data.items())

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
        return json.dumps([stamps, digest({str(key): value for key, value in self.data.items()}, files=False)])

    def hash(self) -> str:
        """SHA-256 in hex of the content of the files and of all else in the item. Not of where the files lie.

        Raises:
            FormatError: A file cannot be read.
            ConfigError: The item holds what cannot be hashed.
        """
        sum = hashlib.sha256()
        for place, path in self.files.items():
            for file in _files(path):
                # Not the folder; but transforms may go by the name.
                name = os.path.relpath(file, path if os.path.isdir(path) else os.path.dirname(path) or ".")
                sum.update(f"{place}\0{name}\0".encode("utf-8", "surrogatepass"))
                sum.update(_content(file))
        try:
            sum.update(digest(_without_files(self.data), files=False).encode())
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


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{value!r:.40}" if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _paths(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _paths(part, f"{place}[{key!r}]" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _paths(part, f"{place}[{number}]")
    elif _is_path(value):
        yield place, str(value)


def _is_path(value: Any) -> bool:
    if isinstance(value, os.PathLike):
        return True
    return isinstance(value, str) and "\0" not in value and len(value) < 4096 and os.path.exists(value)


def _without_files(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_files(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_files(part) for part in value]
    return "file" if _is_path(value) else value


def _files(path: str) -> list[str]:
    """The files that a path stands for: of a pair both, of a folder all."""
    if not os.path.isdir(path):
        if path.lower().endswith(SUFFIXES):
            return [str(file) for file in dict.fromkeys(source_files(path))]
        return [path, *_companions(path)]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def _companions(path: str) -> list[str]:
    """The files with the voxels of a MetaImage or NRRD header."""
    patterns = {".mhd": rb"(?im)^ElementDataFile\s*=\s*(.+?)\s*$", ".nhdr": rb"(?im)^data ?file:\s*(.+?)\s*$"}
    pattern = patterns.get(os.path.splitext(path)[1].lower())
    if pattern is None or not os.path.isfile(path):
        return []
    with open(path, "rb") as stream:
        names = [os.fsdecode(name) for name in re.findall(pattern, stream.read(2**16))]
    files = [os.path.join(os.path.dirname(path), name) for name in names]
    return [file for file in files if os.path.isfile(file)]


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
