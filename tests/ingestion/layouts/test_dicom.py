"""Trees of DICOM files as a layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from radioloader.ingestion.layouts.ingest import plan_layout
from radioloader.ingestion.layouts.recognise import recognise
from tests.formats.dicom.structures import on_slice
from tests.ingestion.dicom_files import grid_of, series, write_rtstruct
from tests.ingestion.store_text import found, searchable

BOX = [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "dicom"
    series(root / "a" / "ct", 0, modality="CT")
    series(root / "a" / "mr", 1, modality="MR")
    grid = grid_of(root / "a" / "ct")
    write_rtstruct(root / "a" / "rs", grid, {"GTV": [on_slice(grid, z, BOX) for z in (2, 3)]})
    return root


def test_modalities_and_the_only_structure_become_collections(root: Path, tmp_path: Path) -> None:
    plan = recognise(root)
    assert (plan.layout, list(plan.images), list(plan.labels)) == ("dicom", ["CT", "MR"], ["RTSTRUCT"])
    assert plan.notes == [
        "1 volume of modality CT",
        "1 volume of modality MR",
        "1 RTSTRUCT files outline one structure, 'GTV': class 1 of 'RTSTRUCT'",
    ]
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok, report
    store = rl.open(tmp_path / "store")
    assert store.collection_names == ["CT", "MR", "RTSTRUCT"]
    assert store["RTSTRUCT"].classes == {}
    assert np.count_nonzero(store["RTSTRUCT"].iloc[0].to_numpy()) == 2 * 8 * 7
    assert store.problems() == []


def test_several_structures_are_for_the_user_to_choose(root: Path, tmp_path: Path) -> None:
    grid = grid_of(root / "a" / "ct")
    write_rtstruct(root / "a" / "rs2", grid, {"PTV": [on_slice(grid, 2, BOX)], "Lung": [on_slice(grid, 3, BOX)]})
    plan = recognise(root)
    assert plan.labels == {}
    assert (
        "2 RTSTRUCT files outline 3 structures: 'GTV' (1), 'Lung' (1), 'PTV' (1). Which of them are which class you must say: "
        f"add --label NAME={root} --structure 'PATTERN=CLASS' to the command below"
    ) in plan.notes
    assert rl.ingest_layout(tmp_path / "store", root, workers=1).ok
    assert [(p.status, p.source, p.reason) for p in rl.open(tmp_path / "store").problems()] == [
        ("left out", "RTSTRUCT files", "2 files with several structures, whose classes were not told")
    ]


def test_collections_are_chosen_by_name(root: Path, tmp_path: Path) -> None:
    assert list(plan_layout(root, images=["MR"]).images) == ["MR"]
    rl.ingest_layout(tmp_path / "store", root, images=["MR"], workers=1)
    assert rl.open(tmp_path / "store").collection_names == ["MR"]


def test_a_store_keeps_no_path_of_a_dicom_file_that_failed(root: Path, tmp_path: Path) -> None:
    victim = sorted((root / "a" / "mr").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-300])
    report = rl.ingest(tmp_path / "store", {"MR": rl.DicomSource(root / "a" / "mr")}, workers=1)
    assert not report.ok
    problems = rl.open(tmp_path / "store").problems()
    assert [problem.reason for problem in problems] == [
        "DICOM files of this subject could not be used; the ingest's report said which and why (a store keeps no paths of them)"
    ]
    assert str(root) not in repr(problems)


def test_the_name_of_a_structure_is_not_kept(tmp_path: Path) -> None:
    root = tmp_path / "dicom"
    series(root / "ct", 0, modality="CT")
    grid = grid_of(root / "ct")
    write_rtstruct(root / "rs", grid, {"Tumour of Jane Roe": [on_slice(grid, 2, BOX)]})
    report = rl.ingest_layout(tmp_path / "store", root, workers=1)
    assert report.ok
    assert any("Tumour of Jane Roe" in note for note in report.notes)
    assert rl.open(tmp_path / "store").collection_names == ["CT", "RTSTRUCT"]
    words = {"structure": "jane roe", "folder": str(root), "file": "/rs"}
    assert found(searchable(tmp_path / "store"), words) == {}
