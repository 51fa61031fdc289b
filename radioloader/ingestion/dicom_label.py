"""A segmentation or structure set on its way into a store, on the grid of the image that it refers to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError, GridMismatchError, RadioloaderError
from radioloader.formats.dicom.frames import Instance
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.labels import Classes, class_titles, combine, match_classes, matches
from radioloader.formats.dicom.pixels import check_unchanged, source_grid
from radioloader.formats.dicom.rasterize import PlaneRule, rasterize
from radioloader.formats.dicom.resample import resample_stack
from radioloader.formats.dicom.rtstruct import check_reference, read_rtstruct
from radioloader.formats.dicom.seg import read_seg_info, read_segments
from radioloader.formats.dicom.volumes import DicomVolume, Policy
from radioloader.ingestion.array import from_array
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.dicom_volume import origin_of
from radioloader.ingestion.identity import Pseudonyms
from radioloader.ingestion.intake import Loaded, Place

_Masks = Callable[[set[str]], Iterator[tuple[str, npt.NDArray[np.bool_]]]]

__all__ = ["DicomLabel", "find_image", "matches_any", "separate_classes"]


def separate_classes(source: DicomSource) -> list[tuple[str, int | None]]:
    """The collections that a label source makes: a suffix and the class that goes there; None is all classes."""
    if source.on_overlap != "separate" or not source.structures:
        return [("", None)]
    return [(title, value) for value, title in sorted(class_titles(source.structures).items())]


def matches_any(names: Iterable[tuple[int, str]], structures: Mapping[str, int]) -> bool:
    """Whether one of a label's structures has a class."""
    return any(matches(name, pattern) for _, name in names for pattern in structures)


def find_image(label: Instance, volumes: Sequence[DicomVolume]) -> tuple[DicomVolume | None, str]:
    """The volume that a label refers to, or None and why there is none. Reasons name files, no UIDs: those may be pseudonymised."""
    found = [volume for volume in volumes if volume.facts.series in label.images]
    if found:
        own = [volume for volume in found if not _other_patient(label, volume)]
        if not own:
            return None, (
                "it says that it is of another patient (PatientID or its issuer) than the images of the series that it refers to, "
                f"{found[0].describe()}; find out whose it is, and correct the PatientID or the reference"
            )
        found = own
    elif label.images:
        return None, (
            f"it refers to {'a series' if len(label.images) == 1 else f'{len(label.images)} series'} of which there is no usable volume "
            "among the files; give the folder that holds it"
        )
    else:
        found, reason = _of_frame(label, volumes)
        if not found:
            return None, reason
    shared = [
        sum(sop in label.pictures for slices in volume.grid.slices for sop, _ in slices)
        if volume.grid is not None
        else 0
        for volume in found
    ]
    best = [volume for volume, count in zip(found, shared, strict=True) if count == max(shared)]
    if len({(volume.facts.patient, volume.facts.study, *_grid_key(volume)) for volume in best}) > 1:
        names = ", ".join(volume.describe() for volume in best)
        return None, f"it fits several volumes ({names}), and does not say which"
    return best[0], ""


def _of_frame(label: Instance, volumes: Sequence[DicomVolume]) -> tuple[list[DicomVolume], str]:
    """The volumes in the frame of reference of a label that names no series; or none, and why.

    An anonymiser may give one frame of reference to everybody, so only volumes of the label's own patient or study count: of its study
    where there are such.
    """
    frame = label.frame_of_reference
    there = [volume for volume in volumes if frame and volume.grid and volume.grid.frame_of_reference == frame]
    if not there:
        return [], "it does not say which images it is about (no referenced series, no frame of reference that fits)"
    study, patient = label.facts.study, label.facts.patient
    own = [volume for volume in there if not _other_patient(label, volume)]
    of_study = [volume for volume in own if study and volume.facts.study == study]
    found = of_study or [volume for volume in own if patient[0] and volume.facts.patient[0] == patient[0]]
    if found:
        return found, ""
    return [], (
        f"it names no series, and what has its frame of reference ({there[0].describe()}) is neither of its patient (PatientID) nor of its "
        "study; give the folder of the images that it was drawn on"
    )


def _other_patient(label: Instance, volume: DicomVolume) -> bool:
    """Whether both say whose they are, and differ."""
    pairs = zip(label.facts.patient, volume.facts.patient, strict=True)
    return any(one and other and one != other for one, other in pairs)


def _grid_key(volume: DicomVolume) -> tuple[object, ...]:
    grid, _ = volume.laid_out
    return grid.shape, np.round(grid.affine, 3).tobytes()


@dataclass(frozen=True, slots=True)
class DicomLabel:
    """A label as a :class:`~radioloader.ingestion.intake.VolumeSource`.

    Attributes:
        label: The segmentation or structure set.
        image: The volume whose grid it is put on.
        policy: How that was laid out.
        pseudonyms: For its UIDs.
        structures: Class by pattern of the structure's name; None: see :class:`~radioloader.DicomSource`.
        only: The class that is taken (as 1); None takes all.
        planes: What to do with contours between slices; see :class:`~radioloader.DicomSource`.
    """

    label: Instance
    image: DicomVolume
    policy: Policy
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)
    structures: Mapping[str, int] | None = None
    only: int | None = None
    planes: PlaneRule = "on_slices"

    @property
    def name(self) -> str:
        return f"dicom:{self.pseudonyms.uid(self.label.sop)}" + ("" if self.only is None else f"#{self.only}")

    @property
    def where(self) -> str:
        return self.label.path

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {
            "on_tilt": self.policy.on_tilt,
            "on_irregular": self.policy.on_irregular,
            "slice_tolerance_mm": self.policy.tolerance_mm,
            "pseudonymized": self.pseudonyms.fingerprint,
            "planes": self.planes,
            "structures": None if self.structures is None else dict(self.structures),
            "only": self.only,
        }

    def place(self) -> Place:
        grid, _ = self.image.laid_out
        return Place(grid.shape, grid.affine)

    def hash(self) -> str:
        digest = hashlib.sha256()
        try:
            with open(self.label.path, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise FormatError(f"{self.label.path}: could not be read: {error.strerror or error}") from error
        grid, _ = self.image.laid_out
        digest.update(repr(grid.shape).encode())
        digest.update(np.ascontiguousarray(grid.affine, "<f8").tobytes())
        # Where each slice lies, and which picture it is: these can change under the same affine.
        digest.update(np.ascontiguousarray(grid.origins, "<f8").tobytes())
        digest.update(repr(source_grid(self.image).slices).encode())
        return digest.hexdigest()

    def load(self, orientation: str | None) -> Loaded:
        image = self.image
        grid, verdict = image.laid_out
        self._check()
        notes: list[str] = []
        try:
            voxels, names = self._voxels(notes)
        except RadioloaderError as error:
            raise type(error)(self._hidden(str(error))) from error
        notes = [self._hidden(note) for note in notes]
        columns = {
            "geometry": verdict.to_json(),
            "dicom": origin_of(image, self.pseudonyms, label=self.label.sop, classes=names),
            "Modality": self.label.facts.modality,
        }
        return from_array(
            voxels, grid.affine, orientation, source_hash=self.hash(), notes=tuple(notes), columns=columns
        )

    def _hidden(self, message: str) -> str:
        """A message without the UIDs that are pseudonymised; the path stays: it is where to look."""
        grid, _ = self.image.laid_out
        known = {self.label.sop, self.label.facts.series, self.label.facts.study, self.label.frame_of_reference}
        known |= {grid.series, grid.study, grid.frame_of_reference, *self.label.images}
        parts = message.split(self.label.path) if self.pseudonyms else []
        for uid in sorted(known - {""}, key=len, reverse=True):
            parts = [part.replace(uid, self.pseudonyms.uid(uid)) for part in parts]
        return self.label.path.join(parts) if parts else message

    def _check(self) -> None:
        try:
            with open(self.label.path, "rb") as file:
                check_unchanged(self.label.path, file, (self.label.size, self.label.modified))
        except OSError as error:
            raise FormatError(f"{self.label.path}: could not be read: {error.strerror or error}") from error

    def _voxels(self, notes: list[str]) -> tuple[npt.NDArray[Any], list[int]]:
        """Classes (X, Y, Z) on the image's stored grid, and which ones there can be."""
        grid = source_grid(self.image)
        classes, masks = (self._segments if self.label.what == "seg" else self._structures)(grid, notes)
        if self.only is not None:
            wanted = {name: 1 for name, value in classes.values.items() if value == self.only}
            classes = Classes(wanted, {1: "class_1"})
        if classes.values:
            voxels = combine(masks(set(classes.values)), classes, where=self.label.path)[""]
        else:
            # Of a class of its own: nobody outlined it here, as it may happen beside others in one volume.
            notes.append(f"holds no structure of class {self.only}: its label is empty")
            voxels = np.zeros(grid.shape, classes.dtype)
        if self.image.resample:
            voxels = _resampled(voxels, grid, self.image.laid_out[0])
        return voxels, sorted(set(classes.titles))

    def _structures(self, grid: ImageGrid, notes: list[str]) -> tuple[Classes, _Masks]:
        structure_set = read_rtstruct(self.label.path)
        drawn = [structure for structure in structure_set.structures if structure.contours]
        classes = match_classes([structure.name for structure in drawn], self.structures, where=self.label.path)
        notes += classes.notes

        def masks(wanted: set[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
            chosen = [structure for structure in drawn if structure.name in wanted]
            said = list(check_reference(structure_set, grid, where=self.label.path, structures=chosen))
            for structure in chosen:
                mask, more = rasterize(structure, grid, where=self.label.path, planes=self.planes)
                said += more
                yield structure.name, mask
            # Names are the clinic's free text, and notes stay in reports.
            for structure in chosen:
                hidden = f"of class {classes.values[structure.name]}"
                said = [note.replace(f"structure {structure.name!r}", f"a structure {hidden}") for note in said]
            notes.extend(said)

        return classes, masks

    def _segments(self, grid: ImageGrid, notes: list[str]) -> tuple[Classes, _Masks]:
        info = read_seg_info(self.label.path)
        segments = info.segments
        notes += info.notes
        # The number too: labels of segments may be alike.
        keys = {segment.number: f"{segment.label}\0{segment.number}" for segment in segments}
        if self.structures is None:
            one = len(segments) == 1
            values = {keys[s.number]: 1 if one else s.number for s in segments}
            classes = Classes(values, {value: f"class_{value}" for value in values.values()})
        else:
            matched = match_classes([segment.label for segment in segments], self.structures, where=self.label.path)
            notes += matched.notes
            values = {keys[s.number]: matched.values[s.label] for s in segments if s.label in matched.values}
            classes = Classes(values, matched.titles)

        def masks(wanted: set[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
            numbers = [number for number, key in keys.items() if key in wanted]
            if self.image.part:
                for number in numbers:
                    yield keys[number], self._part_of(number, grid, notes)
                return
            for segment, mask in read_segments(self.label.path, grid, segments=numbers):
                yield keys[segment.number], mask

        return classes, masks

    def _part_of(self, number: int, grid: ImageGrid, notes: list[str]) -> npt.NDArray[np.bool_]:
        """A segment on a part of the series that it was made on: what lies in the other parts is cut off."""
        try:
            ((_, mask),) = read_segments(self.label.path, grid, segments=[number])
        except GridMismatchError:
            # Other reasons than that it reaches beyond are raised again.
            ((_, mask),) = read_segments(self.label.path, grid, segments=[number], outside="drop")
            notes.append(
                f"segment {number} reaches beyond {self.image.name}, the part of the split series that it was put on: what lies outside "
                f"of it was cut off, and {np.count_nonzero(mask)} voxels were kept"
            )
        return mask


def _resampled(labels: npt.NDArray[Any], source: ImageGrid, target: ImageGrid) -> npt.NDArray[Any]:
    """Labels on the grid that their image was resampled to: a voxel has the class that makes up most of it, by linear interpolation."""
    result = np.zeros(target.shape, labels.dtype)
    most = np.full(target.shape, 0.5, np.float32)
    for value in np.unique(labels[labels > 0]).tolist():
        share = resample_stack((labels == value).astype(np.float32), source, target, 0.0)
        more = share >= most
        result[more], most[more] = value, share[more]
    return result
