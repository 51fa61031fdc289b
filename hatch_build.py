"""Compiles ``radioloader/storage/_decode.c`` when the package is installed, where there is a C compiler; the package works without."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = "radioloader/storage/_decode.c"


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """Leaves the extension beside its source, which an editable install imports, and has wheels hold it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if sys.platform == "win32":  # it reads files as POSIX has it
            return
        try:
            built = _compile(root)
        except Exception as error:
            # No compiler, no headers of Python, a compiler that is too old: each fails in its own way.
            self.app.display_warning(
                f"radioloader is installed without its compiled reader, which reads several times as fast: {error}"
            )
            return
        build_data["artifacts"].append(built)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(root: Path) -> str:
    """Path of the extension, relative to ``root``."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    source = root / _SOURCE
    # Where the source changed and nobody installed anew, radioloader/storage/_compiled.py leaves the extension alone.
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    extension = Extension(
        "radioloader.storage._decode",
        [str(source)],
        define_macros=[("SOURCE", f'"{digest}"')],
        extra_compile_args=["-O3", "-std=c11", "-fvisibility=hidden"],
    )
    command = build_ext(Distribution({"name": "radioloader", "ext_modules": [extension]}))
    command.ensure_finalized()
    command.build_lib = str(root)
    with tempfile.TemporaryDirectory() as folder:
        command.build_temp = folder
        command.run()
    return str(Path(command.get_ext_fullpath(extension.name)).relative_to(root))
