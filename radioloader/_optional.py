"""The one way to import an optional package."""

from __future__ import annotations

import importlib
from types import ModuleType

from radioloader.errors import MissingDependencyError

__all__ = ["require"]


def require(name: str, *, extra: str) -> ModuleType:
    """Import the optional module ``name``.

    Args:
        name: Dotted module name, such as ``"monai"`` or ``"lightning.pytorch"``.
        extra: The extra of radioloader that installs it.

    Raises:
        MissingDependencyError: The top-level package is not installed. An import error inside an installed package is
            not hidden: it is raised as it is.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"this needs the package {package!r}, which is not installed; install it with: pip install 'radioloader[{extra}]'"
        ) from error
