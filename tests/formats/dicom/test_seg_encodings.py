"""Segmentations in every way that their frames are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from radioloader.errors import FormatError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.seg import read_seg_info
from tests.formats.dicom.segmentations import (
    Frame,
    Shape,
    blobs,
    frames_of,
    make_grid,
    save,
    save_big_endian,
    save_deflated,
    save_deflated_frames,
    seg_dataset,
    write_series,
)
from tests.formats.dicom.test_seg import GRID, LABELS, MASK, all_of, one


def test_fractions(tmp_path: Path) -> None:
    stored = np.where(MASK, np.arange(MASK.size).reshape(MASK.shape) % 201, 0)
    path = save(seg_dataset(GRID, frames_of(GRID, stored), kind="FRACTIONAL", whole=200), tmp_path / "seg.dcm")
    info = read_seg_info(path)
    assert (info.segmentation_type, info.fractional_type) == ("FRACTIONAL", "OCCUPANCY")
    np.testing.assert_array_equal(one(path), stored >= 100)  # half is in
    np.testing.assert_array_equal(one(path, fraction=0.505), stored >= 101)
    np.testing.assert_array_equal(one(path, fraction=1), stored == 200)
    values = one(path, values=True)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, stored / 200, rtol=1e-6)
    wrong = save(seg_dataset(GRID, frames_of(GRID, stored), kind="FRACTIONAL", whole=150), tmp_path / "seg.dcm")
    with pytest.raises(
        FormatError, match=r"frame 1 holds the value 200, the largest that FRACTIONAL allows here is 150"
    ):
        one(wrong)


def test_values_of_masks(tmp_path: Path) -> None:
    binary = save(seg_dataset(GRID, frames_of(GRID, MASK)), tmp_path / "binary.dcm")
    labels = save(seg_dataset(GRID, frames_of(GRID, MASK), kind="LABELMAP"), tmp_path / "labels.dcm")
    for path in (binary, labels):
        values = one(path, values=True)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, MASK)


@pytest.mark.parametrize("bits", [8, 16])
def test_label_map(tmp_path: Path, bits: int) -> None:
    number = 3 if bits == 8 else 700
    labels = np.where(LABELS == 3, number, LABELS.astype(int))
    path = save(
        seg_dataset(GRID, frames_of(GRID, labels), kind="LABELMAP", bits=bits, segments=(0, 1, 2, number, 9)),
        tmp_path / "seg.dcm",
    )
    info = read_seg_info(path)
    assert info.segmentation_type == "LABELMAP"
    assert [segment.number for segment in info.segments] == [1, 2, number, 9]  # 0 is the background
    masks = all_of(path)
    for key, value in ((1, 1), (2, 2), (number, 3)):
        np.testing.assert_array_equal(masks[key], value == LABELS)
    assert not masks[9].any()


def test_background_of_a_label_map(tmp_path: Path) -> None:
    """PixelPaddingValue says which label it is; 0 can be a segment then."""
    labels = np.where(LABELS == 0, 7, LABELS - 1)
    frames = [Frame(0, labels[:, :, k].T, GRID.origins[k]) for k in range(2, 5)]
    dataset = seg_dataset(GRID, frames, kind="LABELMAP", segments=(0, 1, 2))
    dataset.PixelPaddingValue = 7
    masks = all_of(save(dataset, tmp_path / "seg.dcm"))
    assert list(masks) == [0, 1, 2]
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask[:, :, 2:5], (number + 1 == LABELS)[:, :, 2:5])
        assert not mask[:, :, [0, 1, 5, 6, 7]].any()
    del dataset.PixelPaddingValue
    dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue = "125040"
    dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator = "DCM"
    assert [s.number for s in read_seg_info(save(dataset, tmp_path / "seg.dcm")).segments] == [0, 2]


def test_labels_without_description(tmp_path: Path) -> None:
    path = save(seg_dataset(GRID, frames_of(GRID, LABELS), kind="LABELMAP", segments=(1, 2)), tmp_path / "seg.dcm")
    with pytest.raises(FormatError, match=r"holds the label 3, which SegmentSequence does not describe"):
        all_of(path)


@pytest.mark.parametrize("size", [(23, 19, 8), (24, 20, 8), (3, 1, 8), (1, 1, 8), (5, 3, 8)])
@pytest.mark.parametrize(("kind", "bits"), [("BINARY", 1), ("BINARY", 8), ("FRACTIONAL", 8), ("LABELMAP", 16)])
@pytest.mark.parametrize("writer", [save, save_deflated, save_big_endian])
def test_uncompressed(tmp_path: Path, size: Any, kind: str, bits: int, writer: Any) -> None:
    grid = make_grid(Shape(size=size))
    mask = np.random.default_rng(1).random(grid.shape) < 0.5
    mask[0, 0, 1:7] = True
    dataset = seg_dataset(grid, frames_of(grid, mask * (255 if kind == "FRACTIONAL" else 1)), kind=kind, bits=bits)
    np.testing.assert_array_equal(one(writer(dataset, tmp_path / "seg.dcm"), grid), mask)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("fragments", [1, 2])
def test_deflated_frames(tmp_path: Path, kind: str, fragments: int) -> None:
    frames = frames_of(GRID, MASK * (255 if kind == "FRACTIONAL" else 1))
    path = save_deflated_frames(seg_dataset(GRID, frames, kind=kind), frames, tmp_path / "seg.dcm", fragments)
    np.testing.assert_array_equal(one(path), MASK)


def by_highdicom(
    folder: Path, kind: str, syntax: str, pixels: np.ndarray, grid: ImageGrid = GRID, **options: Any
) -> hd.seg.Segmentation:
    images = [pydicom.dcmread(p) for p in write_series(folder / "image", grid)]
    algorithm = hd.AlgorithmIdentificationSequence("net", codes.cid7162.ArtificialIntelligence, "1")
    count = 3 if kind == "LABELMAP" else 1
    return hd.seg.Segmentation(
        images,
        pixels,
        segmentation_type=kind,
        segment_descriptions=[
            hd.seg.SegmentDescription(n, f"organ {n}", codes.SCT.Organ, codes.SCT.Liver, "AUTOMATIC", algorithm)
            for n in range(1, count + 1)
        ],
        series_instance_uid="1.2.5",
        series_number=1,
        sop_instance_uid="1.2.5.1",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="n",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
        **options,
    )


LARGE = make_grid(Shape(size=(37, 33, 8)))  # OpenJPEG takes no image smaller than 32 x 32


LARGE_MASK = blobs(LARGE.shape, 1) > 0


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_fractions(tmp_path: Path, syntax: str) -> None:
    values = np.where(LARGE_MASK, np.random.default_rng(2).integers(1, 256, LARGE.shape), 0) / 255
    seg = by_highdicom(tmp_path, "FRACTIONAL", syntax, values.transpose(2, 1, 0), LARGE)
    seg.save_as(tmp_path / "seg.dcm")
    np.testing.assert_allclose(one(tmp_path / "seg.dcm", LARGE, values=True), values, atol=1e-6)


def test_compressed_masks(tmp_path: Path) -> None:
    seg = by_highdicom(tmp_path, "BINARY", JPEG2000Lossless, np.ascontiguousarray(LARGE_MASK.transpose(2, 1, 0)), LARGE)
    seg.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(one(tmp_path / "seg.dcm", LARGE), LARGE_MASK)


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_compressed_labels(tmp_path: Path, palette: bool, extended: bool) -> None:
    options: dict[str, Any] = {"use_extended_offset_table": extended}
    if palette:
        options["palette_color_lut_transformation"] = hd.PaletteColorLUTTransformation.from_colors(
            ["black", "red", "lime", "blue"], palette_color_lut_uid="1.2.6"
        )
    seg = by_highdicom(tmp_path, "LABELMAP", RLELossless, LABELS.transpose(2, 1, 0), **options)
    assert seg.PhotometricInterpretation == ("PALETTE COLOR" if palette else "MONOCHROME2")
    seg.save_as(tmp_path / "seg.dcm")
    masks = all_of(tmp_path / "seg.dcm")
    assert list(masks) == [1, 2, 3]
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, number == LABELS)
