"""Writing DICOM segmentations: highdicom and the own reader give back the same masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from radioloader.errors import ConfigError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.seg import Code, read_seg_info, read_segments
from radioloader.formats.dicom.segwrite import TISSUE, SegmentSpec, write_seg
from tests.formats.dicom.grids import grid_of_files
from tests.formats.dicom.segmentations import LPS, SERIES, STUDY, Shape, blobs, make_grid, write_series

GRID = make_grid(Shape(size=(23, 19, 8)))
LABELS = blobs(GRID.shape, 3)
NAMES = {1: "one", 2: "two", 3: "three"}
TYPES = ["BINARY", "LABELMAP", "FRACTIONAL"]
KINDS = ["axial", "oblique", "sagittal", "tilted", "irregular", "single"]


def back(path: Path, grid: ImageGrid = GRID, **options: Any) -> dict[int, np.ndarray]:
    return {segment.number: array for segment, array in read_segments(path, grid, **options)}


def by_highdicom(path: Path, grid: ImageGrid) -> np.ndarray:
    """What highdicom finds for each slice of the image, by its SOPInstanceUID: (X, Y, Z, segments)."""
    seg = hd.seg.segread(path)
    uids = [frames[0][0] for frames in grid.slices]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return np.asarray(pixels).transpose(2, 1, 0, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segmentation_type", TYPES)
@pytest.mark.parametrize("with_source", [False, True])
def test_round_trip(tmp_path: Path, kind: str, segmentation_type: Any, with_source: bool) -> None:
    grid = make_grid(Shape(kind, (23, 19, 8)))
    labels = blobs(grid.shape, 3)
    source = write_series(tmp_path / "image", grid) if with_source else None
    path = tmp_path / "seg.dcm"
    numbers = write_seg(path, labels, grid, NAMES, source=source, segmentation_type=segmentation_type)
    assert numbers == {1: 1, 2: 2, 3: 3}
    masks, pixels = back(path, grid), by_highdicom(path, grid)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(masks[number], labels == number)
        np.testing.assert_array_equal(pixels[..., number - 1], labels == number)
    # Places are the image's own ones, to what 16 characters can say
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) * LPS
        assert np.linalg.norm(grid.origins - place, axis=1).min() < 1e-9
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["seg.dcm"]


def test_highdicom_makes_the_same_volume(tmp_path: Path) -> None:
    """Its volumes are (slices, rows, columns) in LPS; ours are taken to where it says."""
    grid = make_grid(Shape("axial", (23, 19, 8)))
    labels = blobs(grid.shape, 3)
    write_seg(tmp_path / "seg.dcm", labels, grid, NAMES, segmentation_type="LABELMAP")
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    found = np.zeros_like(labels)
    inverse = np.linalg.inv(grid.affine)
    for index in np.argwhere(volume.array):
        place = (volume.affine @ [*index, 1])[:3] * LPS
        voxel = np.rint((inverse @ [*place, 1])[:3]).astype(int)
        found[tuple(voxel)] = volume.array[tuple(index)]
    np.testing.assert_array_equal(found, labels)


def test_nearly_axial(tmp_path: Path) -> None:
    """A turn that highdicom takes for none is kept."""
    grid = make_grid(Shape("axial", (23, 19, 8)))
    c, s = np.cos(5e-6), np.sin(5e-6)
    affine = grid.affine.copy()
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    grid = replace(grid, affine=affine)
    write_seg(tmp_path / "seg.dcm", LABELS, grid, NAMES)
    shared = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    np.testing.assert_allclose(cosines, (affine[:3, :2] / [0.8, 0.9]).T * LPS, atol=1e-12)


@pytest.mark.parametrize("kind", ["tilted", "irregular"])
def test_what_is_no_box_is_none_to_others(tmp_path: Path, kind: str) -> None:
    grid = make_grid(Shape(kind, (23, 19, 8)))
    write_seg(tmp_path / "seg.dcm", LABELS, grid, NAMES)
    assert hd.seg.segread(tmp_path / "seg.dcm").get_volume_geometry() is None


@pytest.mark.parametrize("size", [(24, 20, 8), (3, 1, 8), (7, 5, 3), (1, 1, 2)])
@pytest.mark.parametrize("segmentation_type", TYPES)
def test_any_size(tmp_path: Path, size: Any, segmentation_type: Any) -> None:
    grid = make_grid(Shape(size=size))
    mask = np.random.default_rng(5).random(grid.shape) < 0.5
    mask[0, 0, 0] = True
    write_seg(tmp_path / "seg.dcm", mask, grid, {1: "one"}, segmentation_type=segmentation_type)
    np.testing.assert_array_equal(back(tmp_path / "seg.dcm", grid)[1], mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integer(tmp_path: Path, dtype: Any, order: Any) -> None:
    labels = np.asarray(LABELS.astype(dtype), order=order)
    write_seg(tmp_path / "seg.dcm", labels, GRID, NAMES)
    for number, mask in back(tmp_path / "seg.dcm").items():
        np.testing.assert_array_equal(mask, labels == number)


@pytest.mark.parametrize(
    ("segmentation_type", "numbers"),
    [("BINARY", {2: 1, 5: 2, 700: 3}), ("FRACTIONAL", {2: 1, 5: 2, 700: 3}), ("LABELMAP", {2: 2, 5: 5, 700: 700})],
)
def test_numbers_of_segments(tmp_path: Path, segmentation_type: Any, numbers: dict[int, int]) -> None:
    labels = np.array([0, 5, 2, 700])[LABELS]
    names = {700: "c", 2: "a", 5: "b", 0: "background"}
    assert write_seg(tmp_path / "seg.dcm", labels, GRID, names, segmentation_type=segmentation_type) == numbers
    info, masks = read_seg_info(tmp_path / "seg.dcm"), back(tmp_path / "seg.dcm")
    assert {s.number: s.label for s in info.segments} == {numbers[key]: names[key] for key in numbers}
    for key, number in numbers.items():
        np.testing.assert_array_equal(masks[number], labels == key)


def test_classes_that_do_not_occur(tmp_path: Path) -> None:
    write_seg(tmp_path / "seg.dcm", LABELS == 2, GRID, {1: "here", 2: "nowhere"})
    masks = back(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(masks[1], LABELS == 2)
    assert not masks[2].any()


@pytest.mark.parametrize("segmentation_type", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_channels(tmp_path: Path, segmentation_type: Any, first: int) -> None:
    channels = np.stack([LABELS > 0, LABELS > 1, LABELS == 1], axis=-1)
    names = {first: "all", first + 1: "upper", first + 2: "lower"}
    numbers = write_seg(tmp_path / "seg.dcm", channels, GRID, names, segmentation_type=segmentation_type)
    assert numbers == {first: 1, first + 1: 2, first + 2: 3}
    masks, pixels = back(tmp_path / "seg.dcm"), by_highdicom(tmp_path / "seg.dcm", GRID)
    for channel in range(3):
        np.testing.assert_array_equal(masks[channel + 1], channels[..., channel])
        np.testing.assert_array_equal(pixels[..., channel], channels[..., channel])
    assert hd.seg.segread(tmp_path / "seg.dcm").SegmentsOverlap == "YES"


def test_channels_of_a_label_map(tmp_path: Path) -> None:
    channels = np.stack([LABELS == 1, LABELS == 2], axis=-1).astype(np.int64)
    write_seg(tmp_path / "seg.dcm", channels, GRID, {1: "a", 2: "b"}, segmentation_type="LABELMAP")
    for number, mask in back(tmp_path / "seg.dcm").items():
        np.testing.assert_array_equal(mask, number == LABELS)
    with pytest.raises(ConfigError, match=r"channels overlap, which a LABELMAP cannot hold"):
        channels[..., 1] = LABELS > 0
        write_seg(tmp_path / "seg.dcm", channels, GRID, {1: "a", 2: "b"}, segmentation_type="LABELMAP")


@pytest.mark.parametrize("fractional_type", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [0, 2])
def test_fractions(tmp_path: Path, fractional_type: Any, dtype: Any, channels: int) -> None:
    size = (*GRID.shape, channels) if channels else GRID.shape
    values = np.random.default_rng(6).random(size).astype(dtype)
    values[3:9] = 0
    values[0, 0, 0] = 1
    names = {1: "a", 2: "b"} if channels else {1: "a"}
    path = tmp_path / "seg.dcm"
    write_seg(path, values, GRID, names, segmentation_type="FRACTIONAL", fractional_type=fractional_type)
    assert read_seg_info(path).fractional_type == fractional_type
    found = back(path, values=True)
    stacked = np.stack([found[number] for number in found], axis=-1)
    np.testing.assert_allclose(stacked, values.reshape(stacked.shape), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(by_highdicom(path, GRID), stacked, atol=1e-6)


@pytest.mark.parametrize("segmentation_type", ["LABELMAP", "FRACTIONAL"])
def test_compressed(tmp_path: Path, segmentation_type: Any) -> None:
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES, segmentation_type=segmentation_type, compress=True)
    assert pydicom.dcmread(tmp_path / "seg.dcm").file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    pixels = by_highdicom(tmp_path / "seg.dcm", GRID)
    for number, mask in back(tmp_path / "seg.dcm").items():
        np.testing.assert_array_equal(mask, number == LABELS)
        np.testing.assert_array_equal(pixels[..., number - 1], number == LABELS)


# What else is in the file


def test_references(tmp_path: Path) -> None:
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    info = read_seg_info(tmp_path / "seg.dcm")
    uids = [frames[0][0] for frames in GRID.slices]
    assert info.referenced_series == (SERIES,)
    assert list(info.referenced_instances) == uids
    assert (info.study, info.frame_of_reference) == (STUDY, GRID.frame_of_reference)
    assert info.series not in ("", SERIES)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        [source] = group.DerivationImageSequence[0].SourceImageSequence
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) * LPS
        k = int(np.linalg.norm(GRID.origins - place, axis=1).argmin())
        assert source.ReferencedSOPInstanceUID == uids[k]
        assert source.ReferencedSOPClassUID == GRID.sop_class
        assert source.SpatialLocationsPreserved == "YES"
        assert "ReferencedFrameNumber" not in source
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    np.testing.assert_allclose(measures.PixelSpacing, [0.9, 0.8])
    assert measures.SliceThickness == pytest.approx(2.5)
    assert measures.SpacingBetweenSlices == pytest.approx(2.5)


@pytest.mark.parametrize("multiframe", [False, True])
def test_several_time_points(tmp_path: Path, multiframe: bool) -> None:
    """A mask belongs to all frames of its slice; those of a multi-frame image are told by their numbers, from 1."""
    grid = make_grid(Shape(size=(23, 19, 8)), times=2, multiframe=multiframe)
    source = write_series(tmp_path / "image", grid)
    assert len(source) == (1 if multiframe else 16)
    write_seg(tmp_path / "seg.dcm", LABELS, grid, NAMES, source=source)
    for number, mask in back(tmp_path / "seg.dcm", grid).items():
        np.testing.assert_array_equal(mask, number == LABELS)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    for group in dataset.PerFrameFunctionalGroupsSequence:
        sources = group.DerivationImageSequence[0].SourceImageSequence
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) * LPS
        k = int(np.linalg.norm(grid.origins - place, axis=1).argmin())
        assert [(s.ReferencedSOPInstanceUID, s.get("ReferencedFrameNumber")) for s in sources] == [
            (uid, number + 1 if multiframe else None) for uid, number in grid.slices[k]
        ]
    assert len(dataset.SourceImageSequence) == len(source)
    if multiframe:
        seg = hd.seg.segread(tmp_path / "seg.dcm")
        numbers = [frames[0][1] + 1 for frames in grid.slices]
        pixels = seg.get_pixels_by_source_frame(
            grid.slices[0][0][0], numbers, assert_missing_frames_are_empty=True, combine_segments=True
        )
        np.testing.assert_array_equal(np.asarray(pixels).transpose(2, 1, 0), LABELS)


def test_patient_and_study(tmp_path: Path) -> None:
    source = write_series(tmp_path / "image", GRID, PatientWeight=70, LossyImageCompression="01")
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES, source=source)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (str(dataset.PatientName), dataset.PatientID, dataset.PatientSex) == ("Mustermann^Eva", "p-17", "F")
    assert (dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime) == ("19600102", "20240506", "101112")
    assert (dataset.AccessionNumber, dataset.StudyID, dataset.PatientWeight) == ("a1", "s1", 70)
    assert dataset.LossyImageCompression == "01"  # once lossy, always lossy: PS3.3 C.7.6.1.1.5
    assert (dataset.StudyInstanceUID, dataset.Modality) == (STUDY, "SEG")


def test_without_source(tmp_path: Path) -> None:
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    for name in (
        "PatientName",
        "PatientID",
        "PatientSex",
        "PatientBirthDate",
        "AccessionNumber",
        "StudyDate",
        "StudyID",
    ):
        assert name in dataset
        assert not dataset[name].value
    assert dataset.StudyInstanceUID == STUDY


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_letters(tmp_path: Path, charset: str) -> None:
    source = write_series(tmp_path / "image", GRID, SpecificCharacterSet=charset, PatientName="Müller^Zoë")
    names = {1: "Läsion", 2: "肿瘤", 3: "опухоль"}
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, names, source=source)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == "Müller^Zoë"
    assert [s.label for s in read_seg_info(tmp_path / "seg.dcm").segments] == list(names.values())


def test_odd_headers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What anonymisers leave behind does not stop us, and is not logged."""
    paths = write_series(tmp_path / "image", GRID, PatientName="Eva Mustermann", PatientSex="M")
    for path in paths:
        content = path.read_bytes()
        content = content.replace(b"\x10\0\x40\0CS\x02\0M ", b"\x10\0\x40\0CS\x02\0XX")  # PatientSex
        path.write_bytes(content.replace(b"19600102", b"00000000").replace(b"20240506", b"2024-May"))
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES, source=paths)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.PatientName == "Eva Mustermann"
    assert not dataset.PatientSex
    assert not dataset.PatientBirthDate
    assert not dataset.StudyDate
    assert "Mustermann" not in caplog.text
    bare = write_series(tmp_path / "bare", GRID, ExposureTime=12345)
    for path in bare:
        image = pydicom.dcmread(path)
        for name in ("PatientName", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "SliceThickness"):
            del image[name]
        image.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"12345 ", b"12,3.4"))  # an integer that is none
    write_seg(tmp_path / "seg.dcm", LABELS, GRID, NAMES, source=bare)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientID == "p-17"


def test_descriptions(tmp_path: Path) -> None:
    lesion = SegmentSpec(
        "lesion",
        category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        kind=Code("108369006", "SCT", "Neoplasm"),
        algorithm="SEMIAUTOMATIC",
        algorithm_name="nnU-Net",
    )
    drawn = SegmentSpec("drawn", algorithm="MANUAL")
    path = tmp_path / "seg.dcm"
    write_seg(path, LABELS, GRID, {1: lesion, 2: drawn, 3: "plain"}, series_description="My masks", series_number=7)
    one, two, three = read_seg_info(path).segments
    assert (one.label, one.category, one.kind, one.algorithm) == (
        "lesion",
        lesion.category,
        lesion.kind,
        "SEMIAUTOMATIC",
    )
    assert (two.label, two.category, two.kind, two.algorithm) == ("drawn", TISSUE, TISSUE, "MANUAL")
    assert (three.label, three.algorithm) == ("plain", "AUTOMATIC")
    dataset = pydicom.dcmread(path)
    assert (dataset.SeriesDescription, dataset.SeriesNumber) == ("My masks", 7)
    assert dataset.SegmentSequence[0].SegmentAlgorithmName == "nnU-Net"
    assert "SegmentAlgorithmName" not in dataset.SegmentSequence[1]


def test_uids_are_new_unless_given(tmp_path: Path) -> None:
    infos = []
    for number in range(3):
        path = tmp_path / f"{number}.dcm"
        write_seg(path, LABELS, GRID, NAMES, series_uid="1.2.8" if number else None)
        infos.append(read_seg_info(path))
    assert len({info.sop_instance for info in infos}) == 3
    assert [info.series for info in infos[1:]] == ["1.2.8", "1.2.8"]
    assert infos[0].series != "1.2.8"


def test_an_image_without_frame_of_reference(tmp_path: Path) -> None:
    """A SEG has one (PS3.3 A.51): a new one, and the reader goes by the references."""
    grid = replace(GRID, frame_of_reference="")
    write_seg(tmp_path / "seg.dcm", LABELS, grid, NAMES)
    assert read_seg_info(tmp_path / "seg.dcm").frame_of_reference
    np.testing.assert_array_equal(back(tmp_path / "seg.dcm", grid)[1], LABELS == 1)


# What is refused


# Real images


@pytest.mark.parametrize(
    "folder", ["ct_philips", *(f"ibsi_sts/dicom/STS_001/{kind}/image" for kind in ("CT", "MR_T1", "PET"))]
)
@pytest.mark.parametrize("segmentation_type", TYPES)
def test_real_images(shared_data: Path, tmp_path: Path, folder: str, segmentation_type: Any) -> None:
    files = [p for p in (shared_data / folder).iterdir() if p.is_file() and p.name not in ("DIRFILE", "LICENSE")]
    grid, source = grid_of_files(files)
    labels = blobs(grid.shape, 2)
    write_seg(tmp_path / "seg.dcm", labels, grid, {1: "a", 2: "b"}, source=source, segmentation_type=segmentation_type)
    pixels = by_highdicom(tmp_path / "seg.dcm", grid)
    for number, mask in back(tmp_path / "seg.dcm", grid).items():
        np.testing.assert_array_equal(mask, labels == number)
        np.testing.assert_array_equal(pixels[..., number - 1], labels == number)
    first, seg = pydicom.dcmread(source[0]), pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.PatientID, seg.StudyInstanceUID) == (first.PatientID, first.StudyInstanceUID)
