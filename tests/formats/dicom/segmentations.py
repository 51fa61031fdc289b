"""Small image series with known grids, and SEG files made by hand, with the quirks that libraries do not write."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    SegmentationStorage,
)

from radioloader.formats.dicom.grid import ImageGrid

LPS = np.array([-1.0, -1.0, 1.0])
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
STUDY, SERIES, FRAME_OF_REFERENCE = "1.2.3.1", "1.2.3.2", "1.2.3.3"


def turn(a: float, b: float) -> np.ndarray:
    """Rotation (3, 3) about z, then about x, in radians."""
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_x @ about_z


@dataclass(frozen=True)
class Shape:
    """Recipe of a grid: ``kind`` is axial, oblique, sagittal, tilted (sheared), irregular or single."""

    kind: str = "oblique"
    size: tuple[int, int, int] = (24, 20, 8)
    spacing: tuple[float, float, float] = (0.8, 0.9, 2.5)


def make_grid(shape: Shape = Shape(), times: int = 1, multiframe: bool = False) -> ImageGrid:
    """A grid of that kind: columns x rows x slices, with ``times`` frames per slice."""
    directions = {
        "axial": np.diag([-1.0, -1.0, 1.0]),
        "sagittal": np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    }.get(shape.kind, np.diag([-1.0, -1.0, 1.0]) @ turn(0.3, -0.2))
    affine = np.eye(4)
    affine[:3, :3] = directions * shape.spacing
    affine[:3, 3] = [31.5, -12.25, 7.125]
    if shape.kind == "tilted":
        affine[:3, 2] += 0.7 * directions[:, 1]
    columns, rows, slices = shape.size if shape.kind != "single" else (*shape.size[:2], 1)
    steps = np.arange(slices, dtype=float)
    if shape.kind == "irregular":
        steps = np.cumsum(1 + 0.5 * (np.arange(slices) % 3)) - 1
    origins = affine[:3, 3] + steps[:, None] * affine[:3, 2]
    numbers = np.arange(slices * times).reshape(slices, times)
    frames = tuple(
        tuple((f"{SERIES}.1", int(n)) if multiframe else (f"{SERIES}.{n + 1}", 0) for n in row) for row in numbers
    )
    return ImageGrid(
        shape=(columns, rows, slices),
        affine=affine,
        origins=origins,
        frame_of_reference=FRAME_OF_REFERENCE,
        study=STUDY,
        series=SERIES,
        sop_class=str(EnhancedCTImageStorage if multiframe else CTImageStorage),
        slices=frames,
    )


def geometry(grid: ImageGrid) -> tuple[list[float], list[float]]:
    """ImageOrientationPatient and PixelSpacing."""
    axes = grid.affine[:3, :2]
    size = np.linalg.norm(axes, axis=0)
    cosines = (axes / size * LPS[:, None]).T.ravel()
    return [round(float(c), 12) for c in cosines], [float(size[1]), float(size[0])]


def write_series(folder: Path, grid: ImageGrid, **attributes: Any) -> list[Path]:
    """The image's files: one per frame, or one for all when it is multi-frame. ``attributes`` overwrite those of the header."""
    folder.mkdir(parents=True, exist_ok=True)
    cosines, spacing = geometry(grid)
    multiframe = grid.sop_class == EnhancedCTImageStorage
    paths = []
    for k, frames in enumerate(grid.slices):
        for uid, number in frames:
            if multiframe and number:
                continue
            dataset = base(grid, uid, grid.sop_class)
            dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Mustermann^Eva", "p-17", "F"
            dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19600102", "20240506", "101112"
            dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "a1", "s1", ""
            dataset.Manufacturer, dataset.SeriesNumber, dataset.InstanceNumber = "Maker", 3, k + 1
            dataset.Rows, dataset.Columns = grid.shape[1], grid.shape[0]
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 1, 1
            dataset.PhotometricInterpretation = "MONOCHROME2"
            count = sum(map(len, grid.slices)) if multiframe else 1
            if multiframe:
                dataset.NumberOfFrames = count
            else:
                dataset.ImagePositionPatient = list(grid.origins[k] * LPS)
                dataset.ImageOrientationPatient, dataset.PixelSpacing = cosines, spacing
                dataset.SliceThickness = 2.5
            for name, value in attributes.items():
                setattr(dataset, name, value)
            dataset.PixelData = bytes(2 * grid.shape[0] * grid.shape[1] * count)
            path = folder / f"I{len(paths):03d}"
            dataset.save_as(path, enforce_file_format=True)
            paths.append(path)
    return paths


def base(grid: ImageGrid, uid: str, sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = grid.study, grid.series
    dataset.FrameOfReferenceUID = grid.frame_of_reference
    return dataset


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


@dataclass(frozen=True)
class Frame:
    """One frame of a SEG: ``pixels`` (rows, columns); without ``position`` (RAS mm) it has none."""

    segment: int
    pixels: np.ndarray
    position: Sequence[float] | None
    source: tuple[str, int] | None = None


def frames_of(grid: ImageGrid, mask: np.ndarray, segment: int = 1) -> list[Frame]:
    """Frames of a mask (X, Y, Z) on the grid's own slices, empty ones left out."""
    return [
        Frame(segment, mask[:, :, k].T, grid.origins[k], grid.slices[k][-1])
        for k in range(grid.shape[2])
        if mask[:, :, k].any()
    ]


def seg_dataset(
    grid: ImageGrid,
    frames: Sequence[Frame],
    *,
    kind: str = "BINARY",
    bits: int | None = None,
    segments: Sequence[int] = (1,),
    cosines: Sequence[float] | None = None,
    spacing: Sequence[float] | None = None,
    whole: int = 255,
    per_frame: bool = False,
) -> Dataset:
    """A SEG, in memory. ``cosines`` and ``spacing`` are ImageOrientationPatient and PixelSpacing, the grid's when not given; ``per_frame``
    puts them, and the plane position too, into each frame's own functional groups."""
    sop_class = str(SegmentationStorage) if kind != "LABELMAP" else "1.2.840.10008.5.1.4.1.1.66.7"
    dataset = base(grid, "1.2.3.9.1", sop_class)
    dataset.SeriesInstanceUID, dataset.Modality = "1.2.3.9", "SEG"
    dataset.PatientName, dataset.PatientID = "Mustermann^Eva", "p-17"
    dataset.SegmentationType = kind
    if kind == "FRACTIONAL":
        dataset.MaximumFractionalValue, dataset.SegmentationFractionalType = whole, "OCCUPANCY"
    dataset.SegmentSequence = [
        item(
            SegmentNumber=number,
            SegmentLabel=f"organ {number}",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=code("123037004", "SCT", "Anatomical Structure"),
            SegmentedPropertyTypeCodeSequence=code("10200004", "SCT", "Liver"),
        )
        for number in segments
    ]
    own, step = geometry(grid)
    orientation = item(ImageOrientationPatient=list(own if cosines is None else cosines))
    measures = item(PixelSpacing=list(step if spacing is None else spacing), SliceThickness=2.5)
    shared = Dataset()
    if not per_frame:
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in frames:
        group = Dataset()
        if kind != "LABELMAP":
            group.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=frame.segment)]
        if frame.position is not None:
            group.PlanePositionSequence = [item(ImagePositionPatient=list(np.asarray(frame.position) * LPS))]
        if per_frame:
            group.PlaneOrientationSequence, group.PixelMeasuresSequence = [orientation], [measures]
        if frame.source is not None:
            source = item(ReferencedSOPClassUID=grid.sop_class, ReferencedSOPInstanceUID=frame.source[0])
            if grid.sop_class == EnhancedCTImageStorage:
                source.ReferencedFrameNumber = frame.source[1] + 1
            group.DerivationImageSequence = [item(SourceImageSequence=[source])]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.ReferencedSeriesSequence = [item(SeriesInstanceUID=grid.series, ReferencedInstanceSequence=[])]
    bits = bits or (1 if kind == "BINARY" else 8)
    dataset.Rows, dataset.Columns = frames[0].pixels.shape
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = len(frames), 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    set_pixels(dataset, np.stack([frame.pixels for frame in frames]))
    return dataset


def set_pixels(dataset: Dataset, pixels: np.ndarray, vr: str = "OB") -> None:
    """Uncompressed pixel data (frames, rows, columns) in the dataset's own number of bits."""
    data = packed(pixels, dataset.BitsAllocated)
    dataset.add_new("PixelData", vr if dataset.BitsAllocated <= 8 else "OW", data + b"\0" * (len(data) % 2))


def packed(pixels: np.ndarray, bits: int) -> bytes:
    if bits == 1:
        return np.packbits(pixels.ravel().astype(np.uint8), bitorder="little").tobytes()
    return pixels.astype(f"<u{bits // 8}").tobytes()


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_big_endian(dataset: Dataset, path: Path) -> Path:
    """Explicit VR big endian, with OW pixels of 8 bits or less in the byte order that this asks for (PS3.5 8.1.1)."""
    data = np.frombuffer(dataset.PixelData, np.uint16).byteswap().tobytes()
    dataset.add_new("PixelData", "OW", data)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    return path


def save_deflated(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return save(dataset, path)


def save_deflated_frames(dataset: Dataset, frames: Sequence[Frame], path: Path, fragments: int = 1) -> Path:
    """Deflated Image Frame Compression: every frame by itself, in ``fragments`` pieces."""
    encoded = []
    for frame in frames:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(packed(frame.pixels, dataset.BitsAllocated)) + deflater.flush()
        encoded.append(data + b"\0" * (len(data) % 2))
    dataset.PixelData = encapsulate(encoded, fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    # pydicom does not know this syntax and would not write it; one of the same length is put there, and overwritten.
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    content = save(dataset, path).read_bytes()
    path.write_bytes(content.replace(JPEG2000Lossless.encode(), DEFLATED_FRAMES.encode() + b"\0", 1))
    return path


def blobs(shape: Sequence[int], classes: int = 1, seed: int = 0) -> np.ndarray:
    """Labels (X, Y, Z), uint8: a box off the centre with random labels 0 ... ``classes``, and nothing on the first and last slice."""
    labels = np.zeros(shape, np.uint8)
    box = tuple(slice(n // 6, n - n // 3) for n in shape[:2])
    labels[box] = np.random.default_rng(seed).integers(0, classes + 1, labels[box].shape)
    if shape[2] > 2:
        labels[:, :, [0, -1]] = 0
    assert set(np.unique(labels)) == set(range(classes + 1))
    return labels
