"""dcm2niix, which reads DICOM independently of radioloader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from tests.formats.dicom.volumes import Array

__all__ = ["Converted", "dcm2niix", "difference", "same_as_converter"]

Converted = tuple[Array, Array, dict[str, Any]]


def dcm2niix(folder: Path, out: Path, *options: str) -> list[Converted]:
    """(array (X, Y, Z[, T]), affine, sidecar) of every volume that dcm2niix makes of a folder, by name of its file.

    Its arrays have their rows turned: see :func:`same_as_converter`. The sidecar has the name of the file as "_name" and what dcm2niix
    printed as "_said". A gantry tilt makes two volumes: as it was scanned, and resampled ("_Tilt" in the name).
    """
    binary = pytest.importorskip("dcm2niix", reason="needs dcm2niix: pip install 'radioloader[dev]'").bin
    out.mkdir(parents=True, exist_ok=True)
    # -m 2 joins what belongs together; -p n takes DICOM's own rescaling, not Philips' private one.
    command = [binary, "-p", "n", "-b", "y", "-ba", "n", "-z", "n", "-f", "%s_%j", *options, "-o", str(out)]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=120, check=False)
    made = []
    for path in sorted(out.glob("*.nii")):
        image = nib.load(path)
        sidecar_path = path.with_suffix(".json")
        sidecar = json.loads(sidecar_path.read_text()) if sidecar_path.is_file() else {}
        sidecar |= {"_name": path.name, "_said": done.stdout + done.stderr}
        # nibabel forgets the slope in image.header once it has loaded it.
        trivial = (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)
        # Stored integers as integers; with a slope they are float64.
        voxels = np.asarray(image.dataobj.get_unscaled() if trivial else image.get_fdata())
        made.append((voxels, np.asarray(image.affine, np.float64), sidecar))
    return made


def difference(voxels: Array, affine: Array, theirs: Converted) -> str:
    """In what ours differs from theirs after both are turned to one orientation; empty if in nothing."""
    other, other_affine = theirs[:2]
    if voxels.shape[3:] != other.shape[3:]:
        return f"time points: {voxels.shape} and {other.shape}"
    try:
        turn = io_orientation(np.linalg.inv(affine) @ other_affine)
    except np.linalg.LinAlgError:
        return "singular affine"
    turned = apply_orientation(other, turn)
    # Both map the same index now, up to a shift of origin that the affine tells.
    turned_affine = other_affine @ inv_ornt_aff(turn, other.shape[:3])
    if turned.shape != voxels.shape:
        return f"shape: {voxels.shape} and {turned.shape}"
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array(voxels.shape[:3]) - 1
    apart = np.abs(corners @ (affine - turned_affine)[:3].T).max()
    # Their affine is float32, and its columns have been multiplied by spacing in float32.
    if apart > 1e-5 * max(1.0, np.abs(corners @ affine[:3].T).max()) + 1e-4:
        return f"affines: corners are {apart:.6g} mm apart\n{affine}\n{turned_affine}"
    if not np.allclose(voxels, turned, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(voxels).max()))):
        return f"voxels: {np.mean(~np.isclose(voxels, turned)):.2%} differ"
    return ""


def same_as_converter(voxels: Array, affine: Array, theirs: Converted) -> bool:
    """Whether dcm2niix has the same voxels at the same places. It turns axis 1 over, and may order slices the other way."""
    said = difference(voxels, affine, theirs)
    assert not said, said
    return True
