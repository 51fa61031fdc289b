"""``radioloader info``: what it says of a store."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.storage.reader import VolumeReader
from tests.formats.dicom.make import tilt
from tests.ingestion.dicom_files import AFFINE, series, subject_of, voxels

Cli = Callable[..., Any]


def cells(out: str) -> list[list[str]]:
    """The rows of the table: from its headings on, cells are two spaces apart."""
    lines = out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("collection"))
    rows = [re.split(" {2,}", line.strip()) for line in lines[start:]]
    return [row for row in rows if len(row) == 8]


def test_a_store_of_nifti(cli: Cli, store_uri: str) -> None:
    done = cli("info", store_uri)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"{store_uri}: 4 subjects, version 1"
    assert cells(done.out) == [
        ["collection", "kind", "volumes", "dtype", "shape", "spacing (mm)", "axes", "geometry"],
        ["T1w", "image", "4", "int16", "20x24x18 to 23x24x18", "1x1.2x2", "RAS", "-"],
        ["seg", "label", "4", "uint8", "20x24x18 to 23x24x18", "1x1.2x2", "RAS", "-"],
    ]
    assert done.out.splitlines()[-1] == "subject columns: age, sex, score"


def test_verdicts_of_dicom(cli: Cli, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "0", 0)
    series(tmp_path / "dicom" / "1", 1, who="P2", affine=tilt(AFFINE, 8.0))
    series(tmp_path / "dicom" / "2", 2, who="P3", drop=(3,))
    series(tmp_path / "dicom" / "3", 3, who="P4")
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, on_irregular="keep", workers=1).ok
    done = cli("info", tmp_path / "store")
    assert done.status == 0
    *_, statuses = cells(done.out)[1]
    assert statuses.startswith("2 regular")
    assert sorted(statuses.split(", ")) == ["1 irregular", "1 tilted", "2 regular"]
    assert f"CT '{subject_of('study of P2')}_CT': tilted: 8.00 degrees" in done.out.splitlines()
    gap = "irregular: 1 gap (5 mm after slice 3, expected 2.5 mm); kept"
    assert f"CT '{subject_of('study of P3')}_CT': {gap}" in done.out.splitlines()
    assert "subject columns: none" in done.out


def test_collections_of_both_formats(cli: Cli, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "nifti" / "a.nii.gz", voxels(1), AFFINE)
    series(tmp_path / "dicom", 0)
    for folder in ("nifti", "dicom"):
        assert rl.ingest(tmp_path / "store", {"CT": tmp_path / folder}, workers=1).ok
    done = cli("info", tmp_path / "store")
    assert done.status == 0
    assert "1 regular" in done.out


def test_many_that_are_odd_are_counted(cli: Cli, tmp_path: Path) -> None:
    for number in range(23):
        series(
            tmp_path / "dicom" / str(number),
            number,
            who=f"P{number}",
            voxels=voxels(number, (4, 4, 3)),
            affine=tilt(AFFINE, 9.0),
        )
    assert rl.ingest(tmp_path / "store", {"CT": tmp_path / "dicom"}, workers=1).ok
    out = cli("info", tmp_path / "store").out.splitlines()
    assert sum("tilted: 9.00 degrees" in line for line in out) == 20
    assert out[-1] == "and 3 more whose geometry is not regular"


def test_an_empty_store_and_none(cli: Cli, tmp_path: Path) -> None:
    from radioloader.storage.store import Store

    Store.open_or_create(tmp_path / "empty")
    done = cli("info", tmp_path / "empty")
    assert done.status == 0
    assert done.out.splitlines()[0] == f"{tmp_path}/empty: 0 subjects, version 0"
    done = cli("info", tmp_path / "none")
    assert done.status == 2
    assert done.err.startswith(f"error: there is no radioloader store at {tmp_path}/none")


def test_values_classes_and_what_is_odd_at_a_glance(
    cli: Cli, tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        image = np.full((4, 5, 6), 10 * number, np.int16)
        image[0, 0, 0] = 100
        label = np.zeros((4, 5, 6), np.uint8)
        label[1:3, 1:3, 1:3] = 1
        if number == 5:
            label[3, :3, 0] = 2
        affine = np.diag([1, 1, 5 if number == 5 else 1, 1])
        write_image(tmp_path / "images" / f"s{number}.nii.gz", image, affine)
        if number != 4:
            write_image(tmp_path / "labels" / f"s{number}.nii.gz", label, affine)
    (tmp_path / "images" / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "meta.csv").write_text("subject_id,age\ns0,1\ns1,\ns2,3\ns3,4\ns4,5\ns5,6\n")
    rl.ingest(
        tmp_path / "store",
        {"T1w": tmp_path / "images", "seg": tmp_path / "labels"},
        labels=["seg"],
        classes={"seg": {"liver": 1, "tumour": 2, "spleen": 3, "all": [1, 2]}},
        obs_meta=tmp_path / "meta.csv",
        allow_missing=True,
        workers=1,
    )
    for name in ("read", "read_many"):
        monkeypatch.setattr(VolumeReader, name, None)  # no voxel is read
    out = cli("info", tmp_path / "store").out.splitlines()
    assert "T1w: values 0 to 100, median of the means 25.62" in out
    assert (
        "seg: class 1 (liver) in 5 of 5 volumes, median 0.008 ml; class 2 (tumour) in 1 of 5 volumes, median 0.015 ml; "
        "class 3 (spleen) in 0 of 5 volumes; region 1+2 (all) in 5 of 5 volumes, median 0.008 ml"
    ) in out
    assert "missing: seg 1 subject, age 1 value" in out
    assert "outliers: 1 of T1w; radioloader report says why" in out
    assert "duplicates: 4 volumes in 1 group" in out
    assert "not in the store: 1 failed, 0 left out; radioloader report says which and why" in out
