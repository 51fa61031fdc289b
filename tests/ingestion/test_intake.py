"""Reading and counting some planes at a time: the same as from the whole volume, in the memory of one."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radioloader.errors import FormatError
from radioloader.formats import nifti
from radioloader.formats.nifti import read_header, read_voxels
from radioloader.formats.orientation import reorient
from radioloader.geometry import axcodes
from radioloader.ingestion.intake import NiftiFile
from radioloader.ingestion.statistics import Statistics, statistics

Array = np.ndarray[Any, Any]


def content_hash(header: nifti.NiftiHeader, voxels: Array) -> str:
    """As stores have it: of the whole volume in the file's order."""
    digest = hashlib.sha256(f"{header.dtype.str} {voxels.shape} {header.slope!r} {header.intercept!r}".encode())
    digest.update(np.ascontiguousarray(header.affine, "<f8").tobytes())
    digest.update(np.ascontiguousarray(voxels.reshape(-1, order="F")).data)
    return digest.hexdigest()


def plain_statistics(voxels: Array, slope: float, intercept: float) -> dict[str, float]:
    """The sums of a whole volume in stretches of 2^20 voxels, as ingest made them before it read by planes."""
    low, high, count, nonzero, total, squares, shift = np.inf, -np.inf, 0, 0, 0.0, 0.0, 0.0
    flat = voxels.reshape(-1, order="F")
    for start in range(0, flat.size, 2**20):
        values = flat[start : start + 2**20].astype(np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        if not count:
            shift = float(values[0])
        nonzero += int(np.count_nonzero(values * slope + intercept))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        total, count = total + float((values - shift).sum()), count + values.size
        squares += float(((values - shift) ** 2).sum())
    mean = total / count
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return {
        "stat_min": ends[0],
        "stat_max": ends[1],
        "stat_mean": (mean + shift) * slope + intercept,
        "stat_std": abs(slope) * max(0.0, squares / count - mean * mean) ** 0.5,
        "nonfinite": flat.size - count,
        "nonzero": nonzero,
    }


def check(path: Path, orientation: str | None) -> None:
    header, voxels, source_hash = read_voxels(path)
    image: Any = nib.load(path)
    stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(header.shape)
    np.testing.assert_array_equal(voxels, stored)
    got = NiftiFile(str(path)).load(orientation)
    codes = axcodes(header.affine)
    turned, affine = reorient(voxels, header.affine, codes, orientation or codes)
    assert got.voxels.flags.c_contiguous
    assert got.voxels.dtype == header.dtype
    np.testing.assert_array_equal(got.voxels, turned)
    np.testing.assert_array_equal(got.affine, affine)
    assert (got.source_codes, got.codes) == (codes, orientation or codes)
    assert got.source_hash == source_hash
    assert got.content_hash == content_hash(header, voxels)
    assert got.statistics == plain_statistics(voxels, header.slope, header.intercept)


@pytest.mark.parametrize("orientation", [None, "RAS", "PIL"])
@pytest.mark.parametrize("planes", [1, 3, 16])
def test_real_files_of_nibabel(
    nibabel_data: Path, orientation: str | None, planes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_PLANES", planes)
    names = ("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz")
    for name in names:
        check(nibabel_data / name, orientation)


@pytest.mark.parametrize("orientation", [None, "PIR"])
def test_a_real_brain(orientation: str | None) -> None:
    nilearn = pytest.importorskip("nilearn.datasets")
    (path,) = Path(nilearn.__file__).parent.glob("data/*_t1_*.nii.gz")
    check(path, orientation)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("shape", [(9, 11, 37), (5, 4, 7, 3)])
def test_every_kind_of_file(
    write_image: Callable[..., Path], tmp_path: Path, dtype: str, big_endian: bool, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
    affine = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, 6], [0, 1, 0, 7], [0, 0, 0, 1]])
    path = write_image(tmp_path / "a.nii.gz", array, affine, slope=0.5, intercept=-20.0, big_endian=big_endian)
    for orientation in (None, "RAS"):
        check(path, orientation)


def test_a_truncated_file_says_how_much_there_is(write_image: Callable[..., Path], tmp_path: Path) -> None:
    whole = write_image(tmp_path / "whole.nii", np.ones((10, 10, 40), np.int16)).read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(whole[:-1001]))
    with pytest.raises(FormatError, match="holds 6999 bytes of voxels, expected 8000"):
        NiftiFile(str(path)).load(None)
    assert read_header(path).shape == (10, 10, 40)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "int64"])
def test_statistics_do_not_depend_on_the_runs(dtype: str) -> None:
    generator = np.random.default_rng(3)
    voxels = (generator.normal(60, 20, 2**21 + 12345)).astype(dtype)
    whole = statistics(voxels, 0.3, -7.0)
    for _ in range(3):
        cuts = np.sort(generator.integers(0, voxels.size, 9))
        counted = Statistics(voxels.dtype, 0.3, -7.0)
        for run in np.split(voxels, cuts):
            counted.add(run)
        assert counted.result() == whole


PEAK = """
import sys
import radioloader as rl

root, labels = sys.argv[1], sys.argv[2:]

def ingest(name):
    files = {"A": {"a": f"{root}/{name}.nii.gz"}}
    report = rl.ingest(f"{root}/{name}", files, labels=labels, orientation="PIR", workers=1)
    assert report.ok, report

def status(field):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024

ingest("small")  # what is imported on the way
open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
before = status("VmRSS")
ingest("large")
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="needs Linux, which can begin the peak of a process's memory anew",
)
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_ingest_takes_little_more_than_one_volume_of_memory(
    write_image: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    x, y, z = np.ogrid[:400, :400, :300]
    large = (x * 3 + y * 2 + z if dtype == "int16" else (x + y + z) // 100).astype(dtype)
    write_image(tmp_path / "large.nii.gz", large)
    write_image(tmp_path / "small.nii.gz", large[:4, :4, :4])
    script = tmp_path / "script.py"
    script.write_text(PEAK)
    labels = ["A"] if dtype == "uint8" else []
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), *labels], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0.9 < int(done.stdout.split()[-1]) / large.nbytes < 2.0
