"""The compiled reader of tiles (``_decode.c``), where the package was installed on a machine with a C compiler."""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import importlib
import os
import sys
from typing import Any

import zstandard

__all__ = ["decoder"]

_FUNCTIONS = ("ZSTD_createDCtx", "ZSTD_decompressDCtx", "ZSTD_freeDCtx")


def _load() -> Any:
    """The module, with zstd; None where either is missing."""
    if sys.byteorder != "little" or os.environ.get("RADIOLOADER_COMPILED") == "0":
        return None
    try:
        module = importlib.import_module("radioloader.storage._decode")
    except ImportError:
        return None
    for path in _libraries():
        try:
            library = ctypes.CDLL(path)
            addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _FUNCTIONS]
        except (OSError, AttributeError):
            continue
        module.bind(*addresses)
        return module
    return None


def _libraries() -> list[str]:
    """Files that may hold zstd. The extension of the package ``zstandard`` for cffi does, with all its functions in reach."""
    beside = sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(zstandard.__file__)), "_cffi*.so")))
    system = ctypes.util.find_library("zstd") if not beside else None
    return [*beside, system] if system else beside


decoder: Any = _load()
"""The module ``_decode``, or None: ``_tiles.py`` then does its work in Python."""
