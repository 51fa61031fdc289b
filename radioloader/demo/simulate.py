"""Simulate one subject from the brain template: deform, shade, add noise, write on a grid of its own."""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radioloader._optional import require
from radioloader.demo.folder import replace_file

__all__ = ["subject_id", "write_subject"]

Floats = NDArray[np.float32]

_ORIENTATIONS = ("RAS", "LAS", "LPS", "PIR", "RSA", "LIP", "ASL", "RPI")
_SPACINGS = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.2), (0.95, 1.1, 1.1), (1.2, 1.0, 1.0), (1.05, 1.05, 1.05), (1.1, 0.95, 1.15))
_BRAIN_CENTRE_MM = np.array([0.0, -18.0, 6.0])  # of the template's brain, in RAS+ mm


def subject_id(number: int) -> str:
    """Name of subject `number`, counted from 1."""
    return f"sub-{number:02d}"


def write_subject(folder: Path, *, number: int, resolution: float, seed: int) -> dict[str, Any]:
    """Simulate one subject and write its two files.

    Returns:
        ``files`` (path relative to `folder` -> SHA-256) and ``participant`` (its row of the table).
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
    spacing = np.array(_SPACINGS[(number - 1) % len(_SPACINGS)]) * resolution
    axcodes = _ORIENTATIONS[(number - 1) % len(_ORIENTATIONS)]
    extent_mm = np.array([rng.uniform(172, 188), rng.uniform(208, 228), rng.uniform(180, 194)])
    shape = tuple(int(n) for n in np.round(extent_mm / spacing))
    affine = _grid_affine(rng, shape=shape, spacing=spacing)
    image, label = _simulate(rng, shape=shape, affine=affine)
    files = {
        f"images/{subject_id(number)}_T1w.nii.gz": _nifti(image, affine=affine, axcodes=axcodes),
        f"labels/{subject_id(number)}_seg.nii.gz": _nifti(label, affine=affine, axcodes=axcodes),
    }
    for name, data in files.items():
        replace_file(folder / name, data)
    participant = {
        "participant_id": subject_id(number),
        "age": int(rng.integers(20, 80)),
        "sex": "FM"[int(rng.integers(2))],
        "stored_as": axcodes,
        "grey_matter_ml": round(float((label == 1).sum() * spacing.prod() / 1000), 1),
        "white_matter_ml": round(float((label == 2).sum() * spacing.prod() / 1000), 1),
        "origin": "simulated_from_MNI152_template",
    }
    return {"files": {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}, "participant": participant}


@lru_cache(maxsize=1)
def _template() -> tuple[list[Floats], NDArray[np.float64]]:
    """T1w, grey and white matter maps in [0, 1], shape (197, 233, 189), axes RAS; and their voxel -> mm affine."""
    datasets = require("nilearn.datasets", extra="demo")
    maps = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    ]
    return [np.asarray(m.dataobj, dtype=np.float32) for m in maps], np.asarray(maps[0].affine, dtype=np.float64)


def _grid_affine(
    rng: np.random.Generator, *, shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Voxel -> RAS+ mm of a slightly tilted grid that has the brain near its centre, axes RAS."""
    affine = np.eye(4)
    affine[:3, :3] = _rotation(rng.uniform(-6, 6, 3)) * spacing
    centre = _BRAIN_CENTRE_MM + rng.uniform(-3, 3, 3)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _simulate(
    rng: np.random.Generator, *, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image and label on the grid (`shape`, `affine`), axes RAS: the deformed, shaded and noisy template."""
    from scipy.ndimage import map_coordinates

    maps, template_affine = _template()
    # Where in the template's mm space does a point of the subject come from: a head pose and size ...
    pose = _rotation(rng.uniform(-5, 5, 3)) @ np.diag(rng.uniform(0.93, 1.06, 3))
    to_template = np.eye(4)
    to_template[:3, :3] = pose
    to_template[:3, 3] = _BRAIN_CENTRE_MM - pose @ (_BRAIN_CENTRE_MM + rng.uniform(-3, 3, 3))
    to_voxel = np.linalg.inv(template_affine) @ to_template @ affine
    axes = [
        np.arange(n, dtype=np.float64).reshape([-1 if a == d else 1 for d in range(3)]) for a, n in enumerate(shape)
    ]
    points = np.empty((3, *shape), dtype=np.float32)
    for a in range(3):
        points[a] = sum(to_voxel[a, d] * axes[d] for d in range(3)) + to_voxel[a, 3]
        # ... and a smooth deformation of a few mm (template voxels are 1 mm) with control points about 45 mm apart.
        points[a] += _smooth(rng, shape=shape, control=(7, 8, 7), sigma=4.0)
    t1, grey, white = (map_coordinates(m, points, order=1, output=np.float32) for m in maps)
    label = np.where(grey > 0.5, 1, np.where(white > 0.5, 2, 0)).astype(np.uint8)
    t1 *= np.exp(_smooth(rng, shape=shape, control=(5, 5, 5), sigma=0.12))
    # Noise of a magnitude image (Rician), in the air as well: that is what a scanner gives, and what makes the files of
    # real scans large. The template has no skull, and neither have the subjects.
    noise = rng.standard_normal((2, *shape), dtype=np.float32) * np.float32(rng.uniform(0.02, 0.04))
    image = np.hypot(t1 + noise[0], noise[1]) * np.float32(rng.uniform(500, 1500))
    return np.rint(image).astype(np.int16), label


def _rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """3x3 rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [d for d in range(3) if d != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _smooth(rng: np.random.Generator, *, shape: tuple[int, ...], control: tuple[int, ...], sigma: float) -> Floats:
    """A smooth random field: cubic B-spline over `control` normally distributed points, evaluated on `shape`."""
    field = rng.normal(scale=sigma, size=control).astype(np.float32)
    for axis, (n, c) in enumerate(zip(shape, control, strict=True)):
        t = np.linspace(0, c - 3, n, endpoint=False)
        cell = t.astype(int)
        u = t - cell
        weights = np.zeros((n, c), dtype=np.float32)
        for k, w in enumerate(((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)):
            weights[np.arange(n), cell + k] = w / 6
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def _nifti(voxels: NDArray[Any], *, affine: NDArray[np.float64], axcodes: str) -> bytes:
    """A ``.nii.gz`` of `voxels` (axes RAS), stored along `axcodes` with sform and qform alike."""
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes))
    stored = nib.Nifti1Image(voxels, affine).as_reoriented(turn)
    out = nib.Nifti1Image(np.asarray(stored.dataobj), None)
    out.set_qform(stored.affine, code=1)
    out.set_sform(stored.affine, code=1)
    out.header.set_xyzt_units("mm")
    out.header["descrip"] = b"simulated from the MNI152 template"
    # Neither time nor file name in the gzip header: the same voxels are the same bytes.
    return gzip.compress(out.to_bytes(), compresslevel=6, mtime=0)
