"""Little files that promise much: memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from radioloader.formats.dicom.headers import read_instance
from radioloader.formats.dicom.pixels import read_volume
from tests.formats.dicom.make import (
    real_volume,
    tilt,
    write_bomb,
    write_enhanced,
    write_series,
)
from tests.formats.dicom.reading import ignored, instances, volumes
from tests.formats.dicom.test_hostile import COMPRESSED, MIB, NATIVE, ROOT, outcome


def test_resampling_far_apart_slices_is_refused(tmp_path: Path) -> None:
    """Two slices 0.01 mm apart, and one a kilometre on."""
    voxels, affine = real_volume((32, 32, 4))
    thin = affine @ np.diag([1, 1, 0.1, 1])
    write_series(tmp_path, voxels, thin, shift={3: 1e6})
    (volume,) = volumes(tmp_path, on_irregular="resample")
    assert "voxels would be needed to resample 32 x 32 x 4: its slices are not neighbours" in volume.problem
    steep = tilt(affine, 89.9)
    write_series(tmp_path / "b", voxels, steep @ np.diag([1, 1, 1e5, 1]))
    (volume,) = volumes(tmp_path / "b", on_tilt="resample")
    assert "its slices are not neighbours" in volume.problem


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED])
@pytest.mark.parametrize("frames", [1, 10000])
def test_bombs_are_refused_from_their_header(tmp_path: Path, syntax: Any, frames: int) -> None:
    path = write_bomb(tmp_path / "b.dcm", syntax, frames=frames)
    read_instance(str(path))  # what is imported is not counted
    tracemalloc.start()
    found = instances(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MIB
    assert found[0].frames == ()
    reasons = ["cannot hold", "functional groups of 1", "pixels take", "compressed picture has"]
    assert any(reason in found[0].problem for reason in reasons)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_bombs_within_the_picture(tmp_path: Path, syntax: Any) -> None:
    """The header says 32 x 32, the picture 65535 x 65535: a decoder would allocate 8 GB."""
    voxels, affine = real_volume((32, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=syntax)
    content = path.read_bytes()
    if syntax == JPEG2000Lossless:
        place = content.index(b"\xff\x4f\xff\x51") + 8
        changed = content[:place] + (65535).to_bytes(4, "big") * 2 + content[place + 8 :]
    else:
        place = content.index(b"\xff\xf7" if syntax == JPEGLSLossless else b"\xff\xc3") + 5
        changed = content[:place] + b"\xff" * 4 + content[place + 4 :]
    path.write_bytes(changed)
    said = "its compressed picture has 65535 x 65535 pixels of 1 samples, expected 32 x 32 of 1, as its header says"
    assert outcome(path) == f"{path}: {said}"


def test_many_files_that_hold_too_little(tmp_path: Path) -> None:
    """Each is small enough to be let through by itself: 50 MB of 1 kB. Together they are not."""

    def change(ds: Dataset, k: int) -> None:
        ds.Rows = ds.Columns = 5000

    voxels, affine = real_volume((32, 32, 20))
    write_series(tmp_path, voxels, affine, syntax=RLELossless, extra=change)
    (volume,) = volumes(tmp_path)
    assert "bytes) cannot hold 1000000000 bytes of pixels" in volume.problem


@pytest.mark.parametrize("over_time", [False, True])
def test_a_volume_takes_memory_once(tmp_path: Path, over_time: bool) -> None:
    """Besides the voxels there are some slices at a time."""
    voxels, affine = real_volume((40, 36, 24))
    wide = np.tile(voxels, (4, 4, 2))
    wide = np.stack([wide, wide], axis=3) if over_time else wide
    write_enhanced(tmp_path / "a.dcm", wide, affine, frames="plain", syntax=RLELossless)
    (volume,) = volumes(tmp_path)
    tracemalloc.start()
    got = read_volume(volume).voxels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(got, wide)
    stored = (tmp_path / "a.dcm").stat().st_size
    assert peak < got.nbytes + stored + 40 * 160 * 144 * 2


def test_inflating_bombs(tmp_path: Path) -> None:
    """400 kB of deflated zeros, which are 400 MB: pydicom would hold all of it before it can say what it is."""
    voxels, affine = real_volume((32, 32, 1))
    (path,) = write_series(tmp_path, voxels, affine, syntax=DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    inside = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(inside)
    for _ in range(25):
        packed += packer.compress(bytes(16 * MIB))
    path.write_bytes(content[:start] + packed + packer.flush())
    assert path.stat().st_size < MIB
    tracemalloc.start()
    (found,) = ignored(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "MiB when inflated; store it uncompressed" in found.reason
    assert found.broken
    assert peak < 64 * MIB


def test_headers_stay_small(tmp_path: Path) -> None:
    """Pixels are not read with them."""
    _, affine = real_volume((32, 32, 1))
    big = np.zeros((2048, 2048, 1), np.int16)
    (path,) = write_series(tmp_path, big, affine)
    assert path.stat().st_size > 8 * MIB
    read_instance(str(path))
    tracemalloc.start()
    (found,) = instances(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.problem
    assert peak < MIB


@pytest.mark.parametrize("kind", ["OB", "UT", "SQ"])
def test_values_longer_than_the_file(tmp_path: Path, kind: str) -> None:
    """An element that says it has 4 GB, under a limit of memory."""
    voxels, affine = real_volume((8, 8, 1))
    (path,) = write_series(tmp_path, voxels, affine)
    content = path.read_bytes()
    place = content.index(b"\x08\x00\x60\x00CS")  # Modality
    element = b"\x08\x00\x59\x00" + kind.encode() + b"\0\0\xfe\xff\xff\xff"
    path.write_bytes(content[:place] + element + content[place:])
    script = """
import resource, sys
from radioloader.formats.dicom.headers import read_instances
import pydicom, numpy
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
(found,) = read_instances(sys.argv[1:])
print(type(found).__name__, getattr(found, "broken", None))
# Not ru_maxrss: that is the parent's before exec, where it was larger.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    said, peak = done.stdout.split("\n")[:2]
    assert said == "Ignored True"
    assert int(peak) < 2**20  # kB
