"""Segmentations that are broken, cut short, or asked for what they do not hold."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radioloader.errors import ConfigError, FormatError, GridMismatchError, MissingDependencyError
from radioloader.formats.dicom.seg import read_seg_info, read_segments
from tests.formats.dicom.segmentations import (
    Shape,
    blobs,
    frames_of,
    item,
    make_grid,
    save,
    save_deflated,
    save_deflated_frames,
    seg_dataset,
    set_pixels,
)
from tests.formats.dicom.test_seg import GRID, LABELS, MASK, all_of, one


def without(name: str) -> Any:
    def change(dataset: Any) -> None:
        delattr(dataset, name)

    return change


def setting(**values: Any) -> Any:
    def change(dataset: Any) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


def in_frame(name: str, value: Any) -> Any:
    def change(dataset: Any) -> None:
        setattr(dataset.PerFrameFunctionalGroupsSequence[1], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"), r"not a segmentation \(SEG\).*modality CT"),
        (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.5"), "Surface Segmentation holds meshes"),
        (setting(SegmentationType="TERNARY"), "SegmentationType is 'TERNARY', expected one of BINARY"),
        (setting(BitsAllocated=16), "1 x 16 bits per pixel; BINARY has one sample of 1 or 8 bits"),
        (setting(SamplesPerPixel=3), "3 x 1 bits per pixel"),
        (setting(NumberOfFrames=50), r"50 frames, but places \(PerFrameFunctionalGroupsSequence\) for"),
        (setting(NumberOfFrames=-2), "-2 frames of 19 x 23 pixels"),
        (setting(Rows=0), "frames of 0 x 23 pixels"),
        (setting(Rows=400), r"truncated: \d+ bytes of pixels, expected \d+"),
        (setting(PixelData=b"\0\0"), r"truncated: 2 bytes of pixels, expected"),
        (without("PixelData"), "no pixel data"),
        (without("PerFrameFunctionalGroupsSequence"), "places .* for 0; tiled slide images"),
        (without("BitsAllocated"), "broken DICOM file"),
        (without("SegmentSequence"), "broken DICOM file"),
        (
            lambda dataset: setattr(dataset.SegmentSequence[0], "SegmentNumber", 5),
            r"frames of segment 1, which SegmentSequence does not describe",
        ),
        (
            lambda dataset: dataset.SegmentSequence.append(dataset.SegmentSequence[0]),
            "describes segment 1 twice",
        ),
        (in_frame("SegmentIdentificationSequence", []), "frame 2 does not say which segment it shows"),
        (in_frame("PlanePositionSlideSequence", [item(XOffsetInSlideCoordinateSystem=1)]), "microscope slide"),
        (
            in_frame("PlaneOrientationSequence", [item(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])]),
            "rows and columns of frame 2 do not span a plane",
        ),
        (
            in_frame("PixelMeasuresSequence", [item(PixelSpacing=["1e300", "1"])]),
            "frame 2 holds values that are too large",
        ),
        (in_frame("PixelMeasuresSequence", [item(PixelSpacing=["1", "0"])]), "frame 2 do not span a plane"),
        (in_frame("PlanePositionSequence", [item(ImagePositionPatient=["1", "2"])]), "broken DICOM file"),
    ],
)
def test_broken_files(tmp_path: Path, change: Any, message: str) -> None:
    dataset = seg_dataset(GRID, frames_of(GRID, MASK))
    change(dataset)
    path = save(dataset, tmp_path / "seg.dcm")
    with pytest.raises(FormatError, match=message) as error:
        all_of(path)
    assert str(path) in str(error.value)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    dataset = seg_dataset(GRID, frames_of(GRID, LABELS), kind="LABELMAP", segments=(1, 2, 300))
    with pytest.raises(FormatError, match=r"segment numbers 0 to 300 do not fit into 8 bits"):
        read_segments(save(dataset, tmp_path / "seg.dcm"), GRID)
    dataset = seg_dataset(GRID, frames_of(GRID, LABELS), kind="FRACTIONAL", whole=0)
    with pytest.raises(FormatError, match=r"MaximumFractionalValue is 0"):
        read_segments(save(dataset, tmp_path / "seg.dcm"), GRID)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"gone.dcm: could not be read: No such file"):
        read_seg_info(tmp_path / "gone.dcm")
    (tmp_path / "text").write_text("a segmentation? no" * 100)
    with pytest.raises(FormatError, match=r"text: not a DICOM file"):
        read_seg_info(tmp_path / "text")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match=r"empty: not a DICOM file"):
        read_seg_info(tmp_path / "empty")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small files of all kinds."""
    folder = tmp_path_factory.mktemp("samples")
    grid = make_grid(Shape(size=(5, 3, 4)))
    frames = frames_of(grid, blobs(grid.shape, 1) > 0)
    paths = [save(seg_dataset(grid, frames, kind=k), folder / k) for k in ("BINARY", "FRACTIONAL", "LABELMAP")]
    dataset = seg_dataset(grid, frames)
    paths.append(save_deflated_frames(dataset, frames, folder / "deflated_frames", fragments=2))
    paths.append(save_deflated(seg_dataset(grid, frames), folder / "deflated"))
    return [path.read_bytes() for path in paths]


def test_cut_short(samples: list[bytes], tmp_path: Path) -> None:
    """Wherever the end is missing, it is noticed, as long as it is more than what ends a sequence or pads."""
    grid = make_grid(Shape(size=(5, 3, 4)))
    for number, content in enumerate(samples):
        for length in [*range(0, len(content) - 10, 23), len(content) - 10]:
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(content[:length])
            with pytest.raises(FormatError, match=f"{number}.dcm"):
                all_of(path, grid)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged(samples: list[bytes], tmp_path: Path, data: st.DataObject) -> None:
    """Any bytes may be wrong: the file reads, or it is said to be broken or to be elsewhere."""
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "seg.dcm"
    path.write_bytes(content)
    grid = make_grid(Shape(size=(5, 3, 4)))
    with suppress(FormatError, GridMismatchError):
        assert all(mask.shape == grid.shape for mask in all_of(path, grid).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0}, "fraction=0 must be above 0"),
        ({"fraction": 1.5}, "fraction=1.5"),
        ({"fraction": float("nan")}, "fraction=nan"),
        ({"outside": "cut"}, "outside='cut' is not one of"),
        ({"tolerance_mm": -1}, "tolerance_mm=-1"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm=nan"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: Any, message: str) -> None:
    path = save(seg_dataset(GRID, frames_of(GRID, MASK)), tmp_path / "seg.dcm")
    with pytest.raises(ConfigError, match=message):
        read_segments(path, GRID, **options)


def test_pydicom_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDependencyError, match=r"radioloader\[dicom\]"):
        read_seg_info(tmp_path / "seg.dcm")


def test_masks_are_the_callers_own(tmp_path: Path) -> None:
    frames = frames_of(GRID, MASK) + frames_of(GRID, MASK, 2)
    path = save(seg_dataset(GRID, frames, segments=(1, 2)), tmp_path / "seg.dcm")
    masks = read_segments(path, GRID)
    first = next(masks)[1]
    assert first.flags.f_contiguous
    first[:] = False
    np.testing.assert_array_equal(next(masks)[1], MASK)
    assert next(masks, None) is None


def test_what_pads_the_pixels_is_not_looked_at(tmp_path: Path) -> None:
    frames = frames_of(GRID, MASK)
    dataset = seg_dataset(GRID, frames)
    set_pixels(dataset, np.stack([frame.pixels for frame in frames]))
    dataset.PixelData += b"\xff" * 6
    np.testing.assert_array_equal(one(save(dataset, tmp_path / "seg.dcm")), MASK)


def test_a_concatenation_is_refused(tmp_path: Path) -> None:
    grid = make_grid(Shape("axial", (23, 19, 8)))
    dataset = seg_dataset(grid, frames_of(grid, blobs(grid.shape, 1)))
    dataset.ConcatenationUID = "1.2.3"
    with pytest.raises(FormatError, match=r"split over several files [(]a concatenation, ConcatenationUID"):
        read_seg_info(save(dataset, tmp_path / "seg.dcm"))
