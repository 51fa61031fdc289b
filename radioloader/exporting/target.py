"""The folder that is written: nothing of it is seen before it is whole."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radioloader.errors import ConfigError, ExportError
from radioloader.storage.uri import is_remote

__all__ = ["check_target", "whole_folder"]


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
        there = sorted(os.listdir(path))
        if there:
            raise ConfigError(
                f"{path} holds {len(there)} files already, such as {there[0]}; export writes a new or an empty folder: give another one, "
                "or remove that one first"
            )
    elif os.path.lexists(path):
        raise ConfigError(f"{path} is there, and no folder; give another one")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` to write to, which becomes ``out`` at the end; after an error it is removed, and ``out`` is not there.

    Raises:
        ExportError: It cannot be made, or ``out`` was filled meanwhile.
    """
    scratch = out.with_name(f".{out.name}.exporting-{secrets.token_hex(6)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
    except OSError as error:
        raise ExportError(f"{out}: the folder {out.parent} cannot be written: {error.strerror or error}") from error
    try:
        yield scratch
        try:
            _put(scratch, out)
        except OSError as error:
            raise ExportError(f"{out}: could not be made: {error.strerror or error}; nothing was left there") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(scratch: Path, out: Path) -> None:
    # Over an empty folder too, in one step. But the folder that somebody is in stays the one it is, and so do links and mount points.
    if not out.is_symlink() and not (out.is_dir() and _is_here(out)):
        try:
            os.rename(scratch, out)
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV) or os.listdir(out):
                raise
    if os.listdir(out):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    for name in sorted(os.listdir(scratch)):
        shutil.move(scratch / name, out / name)


def _is_here(path: Path) -> bool:
    try:
        return os.path.samefile(path, os.curdir)
    except OSError:  # the folder that we are in is gone
        return False
