"""Which code belongs to an installed package, and to which version of it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Mapping

__all__ = ["is_installed", "version_of"]

_PLACES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# Also where they were not installed in the usual place, as in images that carry them in a folder.
_PACKAGES = frozenset(
    {"radioloader", "monai", "torchio", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "skimage", "itk"}
)


def _installed(path: str) -> bool:
    return (
        "site-packages" in path
        or "dist-packages" in path
        or path.startswith((*_PLACES, "<frozen", "<__array_function__"))
    )


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module belongs to an installed package or to Python, rather than to a script."""
    package = module.partition(".")[0]
    if module == "__main__":
        return False
    if package in _PACKAGES or package in sys.builtin_module_names or package in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or not path.endswith(".py"):
        return path is not None
    return _installed(path) and bool(_distributions().get(package))


@functools.cache
def version_of(module: str | None) -> str:
    """Version of the package that a module belongs to; empty for Python's own."""
    package = (module or "").partition(".")[0]
    if package in _PACKAGES:
        known = getattr(sys.modules.get(package), "__version__", None)
        if isinstance(known, str):
            return known
    for name in _distributions().get(package, ()):
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        # With the hashes of its files: a package that is installed again may keep its version.
        return f"{found.version} {hashlib.sha256((found.read_text('RECORD') or '').encode()).hexdigest()}"
    return ""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
