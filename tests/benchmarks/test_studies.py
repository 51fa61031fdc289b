"""Studies on a cohort that is small enough for a test."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.model import Cohort
from benchmarks.studies import run
from benchmarks.studies.scan import measure as measure_scan


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="needs Linux, which can begin the peak of a process's memory anew",
)
def test_ingest_beside_decompression(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, 2, (24, 20, 16))
    generator = np.random.default_rng(0)
    for files, dtype in ((cohort.images(), np.int16), (cohort.labels(), np.uint8)):
        files[0].parent.mkdir(parents=True)
        for file in files:
            voxels = generator.integers(0, 4, cohort.shape).astype(dtype)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), file)
    records = list(run("ingest", cohort, full=False))
    names = [
        "gunzip with zlib",
        "read with nibabel",
        "ingest",
        "ingest / gunzip with zlib",
        "ingest / read with nibabel",
    ]
    assert [record["name"] for record in records] == [*names, *names, "image", "label"]
    assert [record["unit"] for record in records] == [*["s"] * 3, *["times"] * 2] * 2 + ["volumes"] * 2
    assert all(record["lowest"] <= record["value"] <= record["highest"] for record in records[:10])
    assert len({record["what"] for record in records}) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.nii.gz"]


def test_scan_beside_headers(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    records = list(measure_scan(Cohort(tmp_path, 1, (8, 8, 8)), full=False, files=300))
    one, two = "scan, workers=1", "scan, workers=2"
    alone = "pydicom, 1 process"
    assert [record["name"] for record in records] == [alone, one, two, f"{one} / {alone}", f"{two} / {alone}"]
    assert [record["unit"] for record in records] == ["files/s"] * 3 + ["times"] * 2
    assert all(0 < record["lowest"] <= record["value"] <= record["highest"] for record in records)
    assert not list(tmp_path.iterdir())
