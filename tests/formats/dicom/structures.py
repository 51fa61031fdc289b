"""Structure sets for tests: made with pydicom alone, by none of the code that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.dicom.grid import ImageGrid

STUDY, SERIES, FRAME, CT = "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.840.10008.5.1.4.1.1.2"


def make_grid(
    shape: tuple[int, int, int] = (24, 20, 10),
    affine: npt.ArrayLike | None = None,
    origins: npt.ArrayLike | None = None,
    **values: Any,
) -> ImageGrid:
    """A grid of one frame for each slice; the default is axial, 1 x 1.5 x 3 mm, x and y along L and P."""
    matrix = np.diag([-1.0, -1.5, 3.0, 1.0]) if affine is None else np.asarray(affine, np.float64)
    places = np.arange(shape[2])[:, None] * matrix[:3, 2] + matrix[:3, 3] if origins is None else np.asarray(origins)
    grid = ImageGrid(
        shape=shape,
        affine=matrix,
        origins=np.asarray(places, np.float64),
        frame_of_reference=FRAME,
        study=STUDY,
        series=SERIES,
        sop_class=CT,
        slices=tuple((((f"1.2.3.4.{z + 1}"), 0),) for z in range(shape[2])),
    )
    return replace(grid, **values)


def on_slice(grid: ImageGrid, z: int, polygon: npt.ArrayLike, *, off: float = 0.0) -> npt.NDArray[np.float64]:
    """Vertices (n, 2) in voxels of slice z as points (n, 3) in RAS mm, moved ``off`` mm along the normal."""
    along = grid.affine[:3, :2]
    normal = np.cross(along[:, 0], along[:, 1])
    points = grid.origins[z] + np.asarray(polygon, np.float64) @ along.T
    return np.asarray(points + off * normal / np.linalg.norm(normal))


def write_rtstruct(
    path: Path,
    grid: ImageGrid,
    structures: Mapping[str, Sequence[npt.ArrayLike]],
    *,
    kinds: str | Mapping[str, Sequence[str]] = "CLOSED_PLANAR",
    name_images: bool = True,
    decimals: int | None = None,
    implicit: bool = False,
    edit: Callable[[Any], None] | None = None,
) -> Path:
    """Write a structure set of the images of a grid.

    Args:
        path: The file; its folder must exist.
        grid: The images that it references.
        structures: Name to contours, each (n, 3) in RAS mm. ROI numbers count from 1.
        kinds: Contour Geometric Type of all contours, or of each contour of each structure.
        name_images: Whether contours and series name their images; a contour names that of the slice that is nearest to its first point.
        decimals: Digits behind the point; None writes the 16 characters that a DS has room for.
        implicit: Implicit instead of explicit VR, little endian.
        edit: Changes the dataset before it is written.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
    from pydicom.valuerep import format_number_as_ds

    def text(value: float) -> str:
        return format_number_as_ds(float(value)) if decimals is None else f"{value:.{decimals}f}"

    def images(instances: Sequence[str]) -> list[Any]:
        items = []
        for instance in instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = grid.sop_class, instance
            items.append(item)
        return items

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.5"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName, dataset.PatientID = "RTSTRUCT", "Secret^Name", "secret"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = grid.study, "1.2.3.6"
    dataset.StructureSetLabel = "label"

    series = Dataset()
    series.SeriesInstanceUID = grid.series
    if name_images:
        series.ContourImageSequence = images([instance for frames in grid.slices for instance, _ in frames])
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", grid.study
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = grid.frame_of_reference, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]

    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), 1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        roi.ReferencedFrameOfReferenceUID = grid.frame_of_reference
        dataset.StructureSetROISequence.append(roi)
        item = Dataset()
        item.ReferencedROINumber, item.ContourSequence = number, []
        for index, contour in enumerate(contours):
            points = np.asarray(contour, np.float64).reshape(-1, 3)
            drawn = Dataset()
            drawn.ContourGeometricType = kinds if isinstance(kinds, str) else kinds[name][index]
            drawn.NumberOfContourPoints = len(points)
            drawn.ContourData = [text(value) for value in (points * (-1, -1, 1)).ravel()]
            if name_images and len(points):
                z = int(np.abs((grid.origins - points[0]) @ normal).argmin())
                drawn.ContourImageSequence = images([instance for instance, _ in grid.slices[z]])
            item.ContourSequence.append(drawn)
        dataset.ROIContourSequence.append(item)
    if edit is not None:
        edit(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def brute_force(polygons: Sequence[npt.ArrayLike], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which pixel centres lie inside an odd number of polygons (n, 2): each centre on its own, edge by edge."""
    mask = np.zeros(shape, np.bool_)
    for x in range(shape[0]):
        for y in range(shape[1]):
            for polygon in polygons:
                points = [(float(a), float(b)) for a, b in np.asarray(polygon)]
                for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
                    if (ay > by) or (ay == by and ax > bx):
                        ax, ay, bx, by = bx, by, ax, ay
                    if ay <= y < by and ax + (y - ay) * (bx - ax) / (by - ay) <= x:
                        mask[x, y] ^= True
    return mask
