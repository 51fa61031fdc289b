"""Classes without a mapping: the numbers of segments, as long as they mean the same everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import radioloader as rl
from tests.ingestion.dicom_files import grid_of, same, series, stored, write_rtstruct
from tests.ingestion.test_dicom_labels import BOX, FAR, A, B, contours, ingest, mask_of, write_seg


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for number, who in enumerate(("P1", "P2")):
        series(tmp_path / "dicom" / who, number, who=who)
    return tmp_path


X, Y = mask_of((BOX, range(2, 5), 1)), mask_of((FAR, range(2, 5), 1))


def write_both(root: Path, first: list[str], second: list[str], kind: str = "seg") -> None:
    for number, (who, names) in enumerate((("P1", first), ("P2", second))):
        grid = grid_of(root / "dicom" / who)
        masks = {"liver": X, "tumour": Y, "Tumour ": Y, "other": X}
        if kind == "seg":
            drawn = {name: masks[name] for name in names}
            write_seg(root / "dicom" / f"s{number}", grid, drawn, f"1.2.3.9.{number}", who=who)
        else:
            outlines = {name: contours(grid, FAR, range(2, 5)) for name in names} | {"never drawn": []}
            write_rtstruct(root / "dicom" / f"s{number}", grid, outlines, who=who)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["liver", "tumour"], ["tumour", "liver"]),
        (["liver", "tumour"], ["tumour"]),
        (["liver"], ["tumour"]),
        (["liver", "other", "tumour"], ["liver", "tumour"]),
    ],
)
def test_a_class_is_never_two_things(first: list[str], second: list[str], two: Path) -> None:
    write_both(two, first, second)
    report = ingest(two)
    assert rl.open(two / "store").collection_names == ["CT"]
    assert sorted(item.subject for item in report.failed) == sorted([A, B])
    for item, (who, names) in zip(
        sorted(report.failed, key=lambda item: item.subject != A), (("s0", first), ("s1", second)), strict=True
    ):
        assert item.reason.startswith(f"{two}/dicom/{who}: the files of this collection do not number their structures")
        words = ", ".join(f"{number} is {name!r}" for number, name in enumerate(names, 1))
        assert f"{words} in {two}/dicom/{who}" in item.reason
        assert "structures={'liver': 1, " in item.reason
    report = ingest(two, {"liver": 1, "tumour": 2})
    assert report.ok, str(report)
    wanted = {
        f"{subject}_roi": (X * ("liver" in names) + 2 * Y * ("tumour" in names)).astype(np.uint8)
        for subject, names in ((A, first), (B, second))
        if {"liver", "tumour"} & set(names)
    }
    assert same(stored(two / "store", "roi"), wanted)


@pytest.mark.parametrize(
    ("first", "second"), [(["liver", "tumour"], ["liver", "Tumour "]), (["liver", "tumour"], ["liver"])]
)
def test_numbers_that_agree_are_classes(first: list[str], second: list[str], two: Path) -> None:
    write_both(two, first, second)
    assert ingest(two).ok
    wanted = {f"{A}_roi": X + 2 * Y, f"{B}_roi": X + (2 * Y if len(second) == 2 else 0)}
    assert same(stored(two / "store", "roi"), {key: array.astype(np.uint8) for key, array in wanted.items()})


def test_single_structures_of_structure_sets_must_be_the_same_one(two: Path) -> None:
    write_both(two, ["liver"], ["tumour"], "rtstruct")
    report = ingest(two)
    assert len(report.failed) == 2
    assert f"1 is 'tumour' in {two}/dicom/s1" in report.failed[0].reason
    write_both(two, ["tumour"], ["Tumour "], "rtstruct")
    report = ingest(two)
    assert report.ok, str(report)
    assert same(stored(two / "store", "roi"), {f"{A}_roi": Y, f"{B}_roi": Y})


def test_what_the_reader_says_of_a_segmentation_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radioloader.ingestion import dicom_label

    read = dicom_label.read_seg_info
    monkeypatch.setattr(dicom_label, "read_seg_info", lambda path: replace(read(path), notes=("it is odd",)))
    series(tmp_path / "dicom" / "ct", 0)
    write_seg(tmp_path / "dicom" / "s", grid_of(tmp_path / "dicom" / "ct"), {"x": X})
    (item,) = ingest(tmp_path).items
    assert item.notes == (f"{tmp_path}/dicom/s: it is odd",)
