"""Tables of literal records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.grid import grid
from benchmarks.model import Job, Record, outcome
from benchmarks.report import entries_of, write
from benchmarks.scaling import scaling

FACTS: dict[str, Any] = {
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux", "python": "3.12"},
    "cohort": {"subjects": 4, "shape": [5, 6, 7], "source": "a.nii.gz"},
    "commit": "abc",
    "date": "2026-01-01",
    "load_before": 0.1,
}


def rates(peer: str, values: list[float], dtype: str, workers: int = 0, **more: Any) -> list[Record]:
    job = Job(peer, "patches", size=64, workers=workers, dtype="float32" if dtype == "float32" else "stored")
    fields = {"unit": "patches/s", "image_dtype": dtype, "label_dtype": "uint8", "cpu_ms": 2.0, "peak_pss_mib": 100}
    return [outcome(job, n, value=value, **fields, **more) for n, value in enumerate(values)]


def test_a_table_beside_radioloader(tmp_path: Path) -> None:
    records = rates("radioloader-uniform", [100, 300, 200], "int16") + rates("radioloader-uniform", [90], "float32")
    records += rates("zarr", [50, 40], "int16") + rates("nnunet", [45], "float32")
    records += [outcome(Job("monai", "patches", size=64), error="ImportError: no")]
    write(tmp_path, FACTS, records)
    table = (tmp_path / "patches.md").read_text()
    assert "| zarr, no workers | 45.0 | 40.0-50.0 | 4.44 | 2 ms a sample | 100 | int16, uint8 |" in table
    assert (
        "| nnunet, float32, no workers | 45.0 | once | 2 | 2 ms a sample | 100 | float32, uint8 |" in table
    )  # beside our float32
    assert "| radioloader-uniform, no workers | 200 | 100-300 | 1 | 2 ms a sample | 100 | int16, uint8 |" in table
    assert "- monai, no workers (64^3): failed: ImportError: no" in table
    assert "a CPU, 2 cores" in table
    assert (tmp_path / "memory.png").exists()
    assert not (tmp_path / "volumes.md").exists()
    assert not (tmp_path / "scaling.md").exists()
    content = json.loads((tmp_path / "patches.json").read_text())
    assert content["run"] == FACTS
    assert [entry["values"] for entry in content["entries"][:2]] == [[100, 300, 200], [90]]


def test_studies_keep_their_order(tmp_path: Path) -> None:
    job = Job("radioloader-uniform", "study", detail="threads")
    common: dict[str, Any] = {"unit": "regions/s", "what": "region"}
    records = [
        outcome(job, name="1 threads", value=10.0, lowest=9.0, highest=12.0, **common),
        outcome(job, name="2 threads", value=20.0, lowest=18.0, highest=22.0, **common),
        outcome(Job("radioloader-uniform", "study", detail="s3"), error="OSError: no server"),
    ]
    write(tmp_path, FACTS, records)
    lines = (tmp_path / "threads.md").read_text().splitlines()
    assert [line for line in lines if "threads |" in line] == [
        "| 1 threads | 10.0 | 9-12.0 | 1 |",
        "| 2 threads | 20.0 | 18.0-22.0 | 0.5 |",
    ]
    assert "failed: OSError: no server" in (tmp_path / "s3.md").read_text()
    [failed] = entries_of("s3", records)
    assert failed.values == ()


def test_scaling(tmp_path: Path) -> None:
    records = [r for n, value in ((0, 10.0), (1, 15.0), (2, 30.0)) for r in rates("zarr", [value], "int16", workers=n)]
    records += rates("ram", [5], "int16")
    assert scaling(records) == {"64^3, workers": {"zarr": {0: 10.0, 1: 15.0, 2: 30.0}}}
    write(tmp_path, FACTS, records)
    assert "| zarr | 10.0 | 15.0 | 30.0 | 3.00 |" in (tmp_path / "scaling.md").read_text()
    assert (tmp_path / "scaling.png").exists()


def test_grid(tmp_path: Path) -> None:
    job = Job("radioloader-uniform", "study", detail="tiles")
    records = [
        outcome(job, name=name, what=f"CT int16: {what}", value=value, unit="ms")
        for what, values in (("64^3", (1.5, 2.25)), ("on disk", (54.7, 112.0)))
        for name, value in zip(("balanced (preset)", "shuffle, zstd 3"), values, strict=True)
    ]
    assert grid(records)["CT int16"]["shuffle, zstd 3"] == {"64^3": 2.25, "on disk": 112.0}
    write(tmp_path, FACTS, records)
    assert (tmp_path / "tiles.md").read_text().splitlines()[-3:] == [
        "|---|---:|---:|",
        "| balanced (preset) | 1.50 | 54.7 |",
        "| shuffle, zstd 3 | 2.25 | 112 |",
    ]
    assert json.loads((tmp_path / "tiles.json").read_text())["run"] == FACTS
    assert (tmp_path / "tiles.png").exists()
