"""Names of NIfTI files: their suffixes, and which two files make a pair."""

from __future__ import annotations

import os
from pathlib import Path

from radioloader.errors import FormatError

__all__ = ["SUFFIXES", "source_files", "stem"]

SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img")


def stem(path: str | os.PathLike[str]) -> str:
    """File name without its NIfTI suffix."""
    name = os.path.basename(os.fspath(path))
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def source_files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The header file and the voxel file of a source: the same one for .nii, two for .hdr/.img.

    Raises:
        FormatError: Not a NIfTI suffix, or a file of the pair is missing.
    """
    path = Path(path)
    name = path.name.lower()
    suffix = next((s for s in SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        raise FormatError(f"{path}: not a NIfTI file name; expected one of {', '.join(SUFFIXES)}")
    if suffix.startswith(".nii"):
        files = (path, path)
    else:
        sibling = _sibling(path, path.name[: -len(suffix)], suffix)
        files = (path, sibling) if suffix.startswith(".hdr") else (sibling, path)
    for file in files:
        if file.is_symlink() and not file.exists():
            raise FormatError(f"{file}: a link to {file.readlink()}, which does not exist; fetch or restore it")
        if not file.exists():
            raise FormatError(
                f"{path}: the file {file.name} does not exist"
                + (" (a .hdr/.img pair needs both)" if file != path else "")
            )
    return files


def _sibling(path: Path, base: str, suffix: str) -> Path:
    """The other file of a pair: compressed like this one when both forms are there."""
    kind = "img" if suffix.startswith(".hdr") else "hdr"
    kinds = (kind.upper(), kind) if path.name[len(base) + 1].isupper() else (kind, kind.upper())
    endings = (".gz", ".GZ", "") if suffix.endswith(".gz") else ("", ".gz", ".GZ")
    options = [path.with_name(f"{base}.{kind}{ending}") for ending in endings for kind in kinds]
    return next((option for option in options if option.exists()), options[0])
