"""DICOM segmentations (SEG, PS3.3 C.8.20) as masks on the voxel grid of an image.

Headers and compressed pixels are read through pydicom and highdicom; frames are placed here, one by one (see :mod:`._segplace` for why).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from radioloader._optional import require
from radioloader.errors import ConfigError, FormatError, GridMismatchError
from radioloader.formats.dicom._segheader import Code, SegFrame, SegHeader, SegInfo, Segment, explained, parse_header
from radioloader.formats.dicom._segpixels import SegPixels, read_dataset
from radioloader.formats.dicom._segplace import Lattice, Placement
from radioloader.formats.dicom.grid import ImageGrid

__all__ = ["Code", "SegInfo", "Segment", "read_seg_info", "read_segments"]

_Placed = list[tuple[SegFrame, Placement]]


def read_seg_info(path: str | os.PathLike[str]) -> SegInfo:
    """What a SEG is and what it refers to, from its header alone.

    Raises:
        FormatError: The file is broken, or not a SEG; the message names it and says why.
        MissingDependencyError: pydicom is not installed.
    """
    path = Path(path)
    require("pydicom", extra="dicom")
    with explained(path), open(path, "rb") as stream:
        dataset = read_dataset(stream)
        header = parse_header(dataset, path)
        SegPixels(dataset, stream, header, path)  # a file that ends before its pixels has lost some of its header, too
    return header.info


def read_segments(
    path: str | os.PathLike[str],
    grid: ImageGrid,
    *,
    segments: Sequence[int] | None = None,
    fraction: float = 0.5,
    values: bool = False,
    outside: Literal["raise", "drop"] = "raise",
    tolerance_mm: float = 0.05,
) -> Iterator[tuple[Segment, npt.NDArray[Any]]]:
    """The segments of a SEG as masks on the grid of an image, one at a time: one mask is in memory, and for a LABELMAP its labels.

    Pixels lie where position, orientation and spacing of their frame say, whatever the order of the frames and however they are turned,
    as long as that is on the image's voxels. What no frame covers is background. A segment without any frame is an empty mask.

    Args:
        path: The file.
        grid: The image's grid.
        segments: Segment numbers to read; None takes all. They come in the file's order.
        fraction: Of a FRACTIONAL SEG, the least value (0 to 1) that is part of the mask.
        values: Give values, float32 from 0 to 1, instead of masks; only a FRACTIONAL SEG has others than 0 and 1.
        outside: What to do when a segment has pixels outside of the image: raise an error, or leave them out.
        tolerance_mm: How far, in mm, pixel centres may lie from voxel centres; never more than 0.4 of the smallest voxel spacing.

    Returns:
        An iterator of segment and array (X, Y, Z) on ``grid``, bool or float32, in Fortran order. Each array is a new one.

    Raises:
        ConfigError: An argument has a value that is not allowed, or there is no such segment.
        FormatError: The file is broken, or of a kind that is not supported.
        GridMismatchError: The SEG is of another frame of reference than the image, its pixels do not lie on the image's voxels, or
            (while iterating, ``outside="raise"``) a segment reaches beyond the image.
        MissingDependencyError: pydicom is not installed, or highdicom, which compressed files need.
    """
    path = Path(path)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction!r} must be above 0 and at most 1")
    if outside not in ("raise", "drop"):
        raise ConfigError(f"outside={outside!r} is not one of 'drop', 'raise'")
    if not tolerance_mm >= 0:
        raise ConfigError(f"tolerance_mm={tolerance_mm!r} must be a number of mm, at least 0")
    require("pydicom", extra="dicom")
    with explained(path), open(path, "rb") as stream:
        dataset = read_dataset(stream)
        header = parse_header(dataset, path)
        pixels = SegPixels(dataset, stream, header, path)
        pixels.attach(stream)
    known = {segment.number: segment for segment in header.info.segments}
    missing = [number for number in segments or () if number not in known]
    if missing:
        raise ConfigError(f"{path}: no segment {missing}; there are {sorted(known)}")
    _check_reference(header.info, grid, path)
    lattice = Lattice(grid, tolerance_mm, path)
    placed = [(frame, lattice.place(frame, header.rows, header.columns)) for frame in header.frames]
    _check_unique(placed, grid, path)
    wanted = [segment for segment in header.info.segments if segments is None or segment.number in segments]
    dtype = np.dtype(np.float32 if values else np.bool_)
    if header.info.segmentation_type == "LABELMAP":
        return _labelled(_Task(path, header, pixels, grid, placed, wanted, dtype, outside == "drop"))
    return _stacked(_Task(path, header, pixels, grid, placed, wanted, dtype, outside == "drop"), fraction)


@dataclass(frozen=True, slots=True)
class _Task:
    """Segments of a file to put on a grid."""

    path: Path
    header: SegHeader
    pixels: SegPixels
    grid: ImageGrid
    placed: _Placed
    wanted: list[Segment]
    dtype: np.dtype[Any]
    drop: bool

    def check(self, what: str, missed: int) -> None:
        """Refuse what lies beyond the image, unless it may be dropped."""
        if missed and not self.drop:
            raise GridMismatchError(
                f"{self.path}: {missed} pixels of {what} lie outside of the image of {' x '.join(map(str, self.grid.shape))} voxels; give "
                'the whole image, or leave them out with outside="drop"'
            )


def _check_reference(info: SegInfo, grid: ImageGrid, path: Path) -> None:
    """Positions can be compared only within one frame of reference (PS3.3 C.7.4.1)."""
    if info.frame_of_reference and grid.frame_of_reference:
        if info.frame_of_reference != grid.frame_of_reference:
            raise GridMismatchError(
                f"{path}: the segmentation's frame of reference is {info.frame_of_reference}, the image's {grid.frame_of_reference}; "
                f"give the image that it was made on (series {', '.join(info.referenced_series) or 'unknown'})"
            )
        return
    own = {uid for frames in grid.slices for uid, _ in frames}
    if grid.series not in info.referenced_series and own.isdisjoint(info.referenced_instances):
        nameless = "image" if info.frame_of_reference else "segmentation"
        raise GridMismatchError(
            f"{path}: the {nameless} has no FrameOfReferenceUID, and the segmentation does not refer to the image (series {grid.series}) "
            f"but to series {', '.join(info.referenced_series) or 'unknown'}; nothing says that they belong together"
        )


def _check_unique(placed: _Placed, grid: ImageGrid, path: Path) -> None:
    """Frames of one segment that lie upon each other are different things, such as time points: no mask holds both."""
    seen: dict[Any, int] = {}
    for frame, placement in placed:
        if not placement.inside(grid.shape):
            continue
        other = seen.setdefault((frame.segment, placement), frame.index)
        if other != frame.index:
            raise FormatError(
                f"{path}: frames {other + 1} and {frame.index + 1} show the same segment at the same place; a segmentation of several "
                "time points is not supported, split it into one file per time point"
            )


def _stacked(task: _Task, fraction: float) -> Iterator[tuple[Segment, npt.NDArray[Any]]]:
    """BINARY and FRACTIONAL: a frame shows one segment."""
    path, header, dtype = task.path, task.header, task.dtype
    frames: dict[int | None, _Placed] = {}
    for frame, placement in task.placed:
        frames.setdefault(frame.segment, []).append((frame, placement))
    with explained(path):
        file = open(path, "rb")  # noqa: SIM115 - closed below
    with file:
        task.pixels.attach(file)
        for segment in task.wanted:
            out = np.zeros(task.grid.shape, dtype, order="F")
            missed = 0
            with explained(path):
                for frame, placement in frames.get(segment.number, ()):
                    stored = task.pixels[frame.index]
                    if stored.size and int(stored.max()) > header.whole:
                        raise FormatError(
                            f"{path}: frame {frame.index + 1} holds the value {int(stored.max())}, the largest that "
                            f"{header.info.segmentation_type} allows here is {header.whole}"
                        )
                    part = stored / header.whole
                    missed += placement.put(part.astype(dtype) if dtype.kind == "f" else part >= fraction, out)
            task.check(f"segment {segment.number} ({segment.label})", missed)
            yield segment, out


def _labelled(task: _Task) -> Iterator[tuple[Segment, npt.NDArray[Any]]]:
    """LABELMAP: a frame shows all segments, so that all frames are read once, before the first mask."""
    path, header = task.path, task.header
    described = np.zeros(2**header.bits, np.bool_)
    described[[header.background, *(segment.number for segment in header.info.segments)]] = True
    labels = np.full(task.grid.shape, header.background, np.uint8 if header.bits == 8 else np.uint16, order="F")
    missed = 0
    with explained(path), open(path, "rb") as stream:
        task.pixels.attach(stream)
        for frame, placement in task.placed:
            stored = task.pixels[frame.index]
            if not described[stored].all():
                value = int(stored[~described[stored]][0])
                raise FormatError(
                    f"{path}: frame {frame.index + 1} holds the label {value}, which SegmentSequence does not describe (PS3.3 C.8.20.2.3)"
                )
            missed += placement.put(stored, labels, header.background)
    task.check("the segmentation", missed)
    for segment in task.wanted:
        yield segment, (labels == segment.number).astype(task.dtype, copy=False)
