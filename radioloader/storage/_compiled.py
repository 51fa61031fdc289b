"""The compiled reader of tiles (``_decode.c``), where the package was installed on a machine with a C compiler."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["SWITCH", "decoder"]

SWITCH = "RADIOLOADER_COMPILED"
"""Environment variable that leaves all reading to Python where it is 0."""

_FUNCTIONS = ("ZSTD_createDCtx", "ZSTD_decompressDCtx", "ZSTD_freeDCtx")


def _load() -> Any:
    """The module, with zstd; None where either is missing."""
    if sys.byteorder != "little" or os.environ.get(SWITCH) == "0":
        return None
    try:
        module = importlib.import_module("radioloader.storage._decode")
        source = Path(__file__).with_name("_decode.c").read_bytes()
    except (ImportError, OSError):  # it was not built, or what it was built from was left out of a bundle
        return None
    if hashlib.sha256(source).hexdigest() != module.SOURCE:
        return None  # compiled before the source changed: it may not do what is asked of it here
    # The extension of the package zstandard for cffi has all of zstd in reach.
    beside = sorted(str(path) for path in Path(zstandard.__file__).parent.glob("_cffi*.so"))
    for library in (*beside, "libzstd.so.1", "libzstd.1.dylib"):
        try:
            zstd = ctypes.CDLL(library)
            addresses = [ctypes.cast(getattr(zstd, name), ctypes.c_void_p).value for name in _FUNCTIONS]
        except (OSError, AttributeError):
            continue
        module.bind(*addresses)
        return module
    return None


decoder: Any = _load()
"""The module ``_decode``, or None: ``_tiles.py`` then does its work in Python."""
