"""Turning voxel arrays between storage orientations: flips and permutations of axes, which lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError

__all__ = ["check_orientation", "reorient", "turn", "turn_grid"]

_AXES = ("LR", "PA", "IS")


def check_orientation(codes: str) -> str:
    """``codes`` in upper case, when they name each anatomical axis once, such as ``"RAS"`` or ``"PIR"``.

    Raises:
        ConfigError: They do not.
    """
    upper = codes.upper() if isinstance(codes, str) else ""
    if len(upper) != 3 or {next((i for i, axis in enumerate(_AXES) if c in axis), -1) for c in upper} != {0, 1, 2}:
        raise ConfigError(f"orientation={codes!r} is not three axis codes, one each of L/R, P/A and I/S, such as 'RAS'")
    return upper


def turn(voxels: npt.NDArray[Any], source: str, target: str) -> npt.NDArray[Any]:
    """A view of ``voxels`` (X, Y, Z[, T]) stored along ``source`` axis codes, turned to ``target`` ones."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

    if source == target:
        return voxels
    turned: npt.NDArray[Any] = apply_orientation(voxels, ornt_transform(axcodes2ornt(source), axcodes2ornt(target)))
    return turned


def turn_grid(
    shape: tuple[int, ...], affine: npt.NDArray[np.float64], source: str, target: str
) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Shape (X, Y, Z[, T]) and affine (4, 4) of a grid stored along ``source`` axis codes after its turn to ``target`` ones."""
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

    if source == target:
        return shape, affine
    transform = ornt_transform(axcodes2ornt(source), axcodes2ornt(target))
    turned = list(shape)
    for axis, (place, _) in enumerate(transform):
        turned[int(place)] = shape[axis]
    return tuple(turned), affine @ inv_ornt_aff(transform, shape[:3])


def reorient(
    voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], source: str, target: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """``voxels`` turned from ``source`` to ``target`` axis codes, and the affine (4, 4) that keeps every voxel in its place in mm."""
    return turn(voxels, source, target), turn_grid(voxels.shape, affine, source, target)[1]
