"""The folder that is written: nothing of it is seen before it is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radioloader.errors import ConfigError, ExportError
from radioloader.storage.uri import is_remote

__all__ = ["check_target", "whole_folder"]

_EXPORTING = ".exporting-"
_ABANDONED_AFTER_S = 3600.0
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def check_target(out: str | os.PathLike[str], store: str) -> Path:
    """The folder to write, absolute.

    Args:
        out: As it was given.
        store: URI of the store.

    Raises:
        ConfigError: It holds something, or cannot be a folder.
    """
    text = os.fspath(out)
    if not text or "\0" in text:
        raise ConfigError(f"out={text!r} is no path of a folder")
    if is_remote(text):
        raise ConfigError(f"out={text!r}: an export writes a local folder; copy it from there")
    path = Path(os.path.abspath(Path(text).expanduser()))
    if not is_remote(store) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(store)):
        raise ConfigError(f"{path} is within the store {store}; give a folder outside of it")
    _check_free(path)
    return path


def _check_free(path: Path) -> None:
    if path.is_dir():
        there = _content(path)
        if there:
            raise ConfigError(
                f"{path} holds {len(there)} files already, such as {there[0]}; export writes a new or an empty folder: give another one, "
                "or remove that one first"
            )
    elif os.path.lexists(path):
        raise ConfigError(f"{path} is there, and no folder; give another one")


def _content(folder: Path) -> list[str]:
    """What a folder holds but hidden folders of exports, which are of one that goes on or of one that was killed."""
    return sorted(
        name for name in os.listdir(folder) if not re.fullmatch(rf"{re.escape(_EXPORTING)}[0-9a-f]{{12}}", name)
    )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to write to, which becomes ``out`` at the end; after an error it is removed, and ``out`` is as it was.

    It is beside the folder that ``out`` is or leads to, or within that one where it is a mount point, our working directory, or in a folder
    that may not be written: so files are renamed and never copied, and each is seen whole.

    Raises:
        ExportError: It cannot be made, or ``out`` was filled meanwhile.
    """
    place = Path(os.path.realpath(out))
    try:
        scratch = _scratch(place)
    except OSError as error:
        where = place if place.is_dir() else place.parent
        raise ExportError(f"{out}: the folder {where} cannot be written: {error.strerror or error}") from error
    try:
        _remove_abandoned(scratch, place)
        yield scratch
        try:
            if scratch.parent == place:
                _fill(scratch, place)
            else:
                os.rename(scratch, place)  # over an empty folder too, in one step
        except OSError as error:
            if error.errno in _TAKEN and os.path.lexists(place):
                raise ExportError(
                    f"{out}: could not be made: another export made it meanwhile, or something else was put there; give another folder"
                ) from error
            left = (
                f"see what is left there ({place})" if place.is_dir() and _content(place) else "nothing was left there"
            )
            raise ExportError(f"{out}: could not be made: {error.strerror or error}; {left}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(place: Path) -> Path:
    digits = secrets.token_hex(6)
    beside = place.with_name(f".{place.name}{_EXPORTING}{digits}")
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        return beside
    inside = place / f"{_EXPORTING}{digits}"
    inside.mkdir()
    # The folder that somebody is in stays the one it is, and so does one with an export in it.
    if not _is_here(place) and os.listdir(place) == [inside.name]:
        # Whether it can be moved out says whether both are one file system, also where a mount binds a folder of the same one.
        with contextlib.suppress(OSError):
            inside.rename(beside)
            return beside
    return inside


def _remove_abandoned(scratch: Path, place: Path) -> None:
    """Remove hidden folders of exports to the same place that were killed: nothing came into them for an hour, by their disk's clock."""
    digits = "[0-9a-f]" * 12
    for left in (
        *place.parent.glob(f".{glob.escape(place.name)}{_EXPORTING}{digits}"),
        *place.glob(f"{_EXPORTING}{digits}"),
    ):
        with contextlib.suppress(OSError):
            now = scratch.stat().st_mtime
            # A folder is changed by each file that comes into it.
            last = max((os.stat(folder).st_mtime for folder, _, _ in os.walk(left)), default=now)
            if now - last > _ABANDONED_AFTER_S:
                shutil.rmtree(left)


def _fill(scratch: Path, place: Path) -> None:
    """Move the content of a folder within ``place`` up, folders first; all of it or nothing."""
    with _locked(place):
        if _content(place):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        names = sorted(os.listdir(scratch), key=lambda name: (not (scratch / name).is_dir(), name))
        try:
            for name in names:
                os.rename(scratch / name, place / name)
        except BaseException:
            for name in names:
                if not os.path.lexists(scratch / name):
                    with contextlib.suppress(OSError):
                        os.rename(place / name, scratch / name)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Held while files are moved, so that of two exports one is first; not on file systems that cannot lock a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_here(path: Path) -> bool:
    try:
        return os.path.samefile(path, os.curdir)
    except OSError:  # the folder that we are in is gone
        return False
