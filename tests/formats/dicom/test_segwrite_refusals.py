"""What cannot be written as a segmentation says why, and leaves nothing behind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from radioloader.errors import ConfigError, FormatError, MissingDependencyError, ShapeError
from radioloader.formats.dicom import segwrite
from radioloader.formats.dicom.seg import read_seg_info
from radioloader.formats.dicom.segwrite import SegmentSpec, write_seg
from tests.formats.dicom.segmentations import write_series
from tests.formats.dicom.test_segwrite import GRID, LABELS, NAMES, back


def values(**changes: Any) -> dict[str, Any]:
    return {"labels": LABELS, "segments": NAMES, **changes}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"labels": LABELS[:-1]}, ShapeError, r"labels of shape \(22, 19, 8\) do not fit .* \(23, 19, 8\)"),
        ({"labels": LABELS[:, :, 0]}, ShapeError, r"labels of shape \(23, 19\)"),
        ({"labels": LABELS * 0}, ConfigError, "nothing is in the mask"),
        ({"labels": LABELS.astype(int) - 1}, ConfigError, "labels go down to -1"),
        (
            {"labels": LABELS * 2},
            ConfigError,
            r"labels hold the classes 4, 6, for which segments has no name; it has 1, 2",
        ),
        ({"labels": LABELS.astype(int) * 40000}, ConfigError, "class 120000 does not fit into the 16 bits"),
        ({"labels": LABELS / 3}, ConfigError, "dtype float64 cannot be written as BINARY"),
        ({"labels": LABELS.astype(complex)}, ConfigError, "dtype complex128 cannot be written"),
        ({"labels": LABELS[..., None] > 0}, ConfigError, "3 segments for 1 channels"),
        ({"labels": np.stack([LABELS] * 3, -1)}, ConfigError, "channels hold values up to 3"),
        ({"segments": {}}, ConfigError, "segments is empty"),
        ({"segments": {0: "background"}}, ConfigError, "segments is empty"),
        ({"segments": {**NAMES, 2: ""}}, ConfigError, r"segments\[2\]: the label '' must have 1 to 64"),
        ({"segments": {**NAMES, 2: "x" * 65}}, ConfigError, "1 to 64 printable"),
        ({"segments": {**NAMES, 2: "a\\b"}}, ConfigError, "no backslash"),
        ({"segments": {**NAMES, 2: None}}, ConfigError, r"segments\[2\]=None"),
        ({"segments": {**NAMES, "4": "x"}}, ConfigError, r"segments\['4'\]"),
        ({"segments": {**NAMES, -4: "x"}}, ConfigError, r"segments\[-4\]"),
        ({"segments": {**NAMES, 4: SegmentSpec("x", algorithm="GUESS")}}, ConfigError, "algorithm='GUESS'"),  # type: ignore[arg-type]
        ({"segmentation_type": "SURFACE"}, ConfigError, "segmentation_type='SURFACE' is not one of"),
        ({"fractional_type": "MAYBE"}, ConfigError, "fractional_type='MAYBE'"),
        ({"compress": True}, ConfigError, "compress=True is not possible for BINARY"),
        ({"series_description": "x" * 65}, ConfigError, "series_description"),
        ({"series_number": 0}, ConfigError, "series_number=0"),
        ({"source": []}, ConfigError, r"source=\[\] must be a sequence"),
        ({"source": "image.dcm"}, ConfigError, "source='image.dcm' must be a sequence"),
    ],
)
def test_refused(tmp_path: Path, changes: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        write_seg(tmp_path / "seg.dcm", grid=GRID, **values(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (LABELS / 2, {1: "a"}, r"FRACTIONAL values reach from 0.0 to 1.5; expected 0 to 1"),
        (LABELS / 3 - 0.5, {1: "a"}, "FRACTIONAL values reach from -0.5"),
        (np.where(LABELS, np.nan, 0), {1: "a"}, "FRACTIONAL values reach from nan"),
        (LABELS * 0.0, {1: "a"}, "nothing is in the mask"),
        (LABELS / 3 * 0.001, {1: "a"}, "are all rounded to 0, in steps of 1/255"),
        (LABELS / 3, {1: "a", 2: "b"}, r"2 segments for values of shape \(X, Y, Z\)"),
    ],
)
def test_refused_fractions(tmp_path: Path, labels: Any, names: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_seg(tmp_path / "seg.dcm", labels, GRID, names, segmentation_type="FRACTIONAL")


def test_source_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    source = write_series(tmp_path / "image", GRID)
    elsewhere = replace(GRID, series="1.5", slices=tuple(((f"1.5.{k}", 0),) for k in range(8)))
    strange = write_series(tmp_path / "other", elsewhere)
    with pytest.raises(
        ConfigError, match=r"I000: a file of series 1.5, but the mask lies on an image of series 1.2.3.2"
    ):
        write_seg(path, LABELS, GRID, NAMES, source=[*source, strange[0]])
    two = write_series(tmp_path / "two", GRID, PatientID="p-18")
    with pytest.raises(ConfigError, match="I001: its PatientID is not that of"):
        write_seg(path, LABELS, GRID, NAMES, source=[source[0], two[1]])
    (tmp_path / "text").write_text("no image" * 100)
    with pytest.raises(FormatError, match="text: not a DICOM file"):
        write_seg(path, LABELS, GRID, NAMES, source=[tmp_path / "text"])
    with pytest.raises(FormatError, match="gone: could not be read"):
        write_seg(path, LABELS, GRID, NAMES, source=[tmp_path / "gone"])
    assert not path.exists()
    write_seg(path, LABELS, GRID, NAMES, source=source[3:4])  # some of the files are enough
    assert list(read_seg_info(path).referenced_instances) == [frames[0][0] for frames in GRID.slices]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"the folder .*gone does not exist"):
        write_seg(tmp_path / "gone" / "seg.dcm", LABELS, GRID, NAMES)
    with pytest.raises(FormatError, match="it is a folder"):
        write_seg(tmp_path, LABELS, GRID, NAMES)


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seg.dcm"
    write_seg(path, LABELS, GRID, NAMES)
    before = path.read_bytes()

    def fail(dataset: Any, target: Any, **options: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hd.seg.Segmentation, "save_as", fail)
    with pytest.raises(FormatError, match=r"seg.dcm: could not be written: No space left on device"):
        write_seg(path, LABELS > 1, GRID, {1: "x"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["seg.dcm"]
    monkeypatch.undo()
    write_seg(path, LABELS > 1, GRID, {1: "x"})
    np.testing.assert_array_equal(back(path)[1], LABELS > 1)


def test_labels_are_left_alone(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels.flags.writeable = False
    write_seg(tmp_path / "seg.dcm", labels, GRID, NAMES, segmentation_type="FRACTIONAL")
    np.testing.assert_array_equal(labels, LABELS)


def test_highdicom_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingDependencyError, match=r"radioloader\[dicom\]"):
        write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES)


def test_version_of_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata as metadata

    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert segwrite._version() == "unknown"
