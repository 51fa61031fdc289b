"""URIs of stores: local paths and object stores under one form."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from radioloader.errors import ConfigError

__all__ = ["is_remote", "is_within", "join", "normalise"]

_REMOTE = ("s3", "azure", "gcs", "gs")


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names an object store rather than a local path."""
    return uri.partition("://")[0] in _REMOTE and "://" in uri


def normalise(uri: str | os.PathLike[str]) -> str:
    """An absolute local path, or an object store URI without a trailing slash.

    Raises:
        ConfigError: The scheme is not known.
    """
    text = os.fspath(uri)
    if not text:
        raise ConfigError("the URI of a store is empty; give a path or an s3:// URI")
    scheme, separator, _ = text.partition("://")
    if separator and scheme in _REMOTE:
        return text.rstrip("/")
    if separator and scheme == "file":
        text = unquote(urlparse(text).path)
    elif separator:
        raise ConfigError(
            f"the URI {text!r} has the unknown scheme {scheme!r}; use a path, file://, s3://, azure:// or gcs://"
        )
    return str(Path(text).expanduser().absolute())


def is_within(path: str | os.PathLike[str], store: str) -> bool:
    """Whether a local ``path`` is the store, or lies in it, links followed. In a remote store none does."""
    if is_remote(store):
        return False
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(store))


def join(uri: str, *parts: str) -> str:
    """``uri`` with path parts appended."""
    return "/".join([uri.rstrip("/"), *parts])
