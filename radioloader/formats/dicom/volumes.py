"""From the files of one series to the volumes that they make, under the user's policies for tilted and irregular stacks."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from radioloader.errors import ConfigError, FormatError
from radioloader.formats.dicom.frames import Frame, Instance, SeriesFacts
from radioloader.formats.dicom.geometry import Layout, Verdict, lay_out, rescale_of, runs_of
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.stacks import Dimension, Stack, make_stacks, without_copies

__all__ = ["DicomVolume", "Policy", "volumes_of"]

_TILT = ("keep", "resample", "error")
_IRREGULAR = ("error", "resample", "split", "keep")
_FREE_BYTES = 256 * 2**20
_RATIO = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with stacks that are no upright, evenly spaced boxes.

    Attributes:
        on_tilt: ``"keep"`` the true sheared affine, ``"resample"`` to a rectangular grid, or ``"error"``.
        on_irregular: ``"error"``; ``"resample"`` linearly to even spacing; ``"split"`` into regular parts; or ``"keep"`` the slices as they
            are, evenly spaced in the affine and irregular in the verdict.
        tolerance_mm: How far a slice may lie off a regular grid; a tenth of the slice distance where that is less.
        suv: ``""``, or ``"bw"``: PET in standardized uptake values by body weight.
    """

    on_tilt: str = "keep"
    on_irregular: str = "error"
    tolerance_mm: float = 0.1
    suv: str = ""

    def check(self) -> Policy:
        """This, when its values are allowed.

        Raises:
            ConfigError: One is not.
        """
        for name, value, allowed in (
            ("on_tilt", self.on_tilt, _TILT),
            ("on_irregular", self.on_irregular, _IRREGULAR),
            ("suv", self.suv, ("", "bw")),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"{name}={value!r} is not one of {', '.join(repr(option) for option in allowed if option)}"
                )
        if not 0 <= self.tolerance_mm < float("inf"):
            raise ConfigError(f"slice_tolerance_mm={self.tolerance_mm} is not a distance in mm")
        return self


@dataclass(frozen=True, slots=True)
class DicomVolume:
    """One volume of a series: what has to be read, and where it lies.

    Attributes:
        facts: Of the series.
        sop_class: SOPClassUID of its instances.
        kind: What it shows, other than the other volumes of its series (``"echo2"``, ``"phase"``); empty when they are alike.
        part: Which part of an irregular stack it is; 0 when it was not split.
        folder: Where its first file lies, for messages.
        files: Number of files.
        slices: Its frames, slice by slice, in the order of the fourth axis.
        grid: Where it lies as it is stored; of what is resampled, the grid that it is resampled to.
        verdict: About its geometry.
        dimension: What the fourth axis is.
        copies: Frames and copies of them in other files, which must hold the same pixels.
        resample: ``""``, ``"tilt"`` or ``"spacing"``.
        problem: Why it cannot be ingested; empty when it can.
        notes: What a user should know.
        stamps: Size in bytes and time of the last change in ns of its files, as they were when their headers were read.
    """

    facts: SeriesFacts
    sop_class: str
    kind: str
    folder: str
    files: int
    part: int = 0
    slices: tuple[tuple[Frame, ...], ...] = ()
    grid: ImageGrid | None = None
    verdict: Verdict | None = None
    dimension: Dimension | None = None
    copies: tuple[tuple[Frame, Frame], ...] = ()
    resample: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells it from the other volumes of its series; empty when it is the only one."""
        return "_".join(filter(None, (self.kind, f"part{self.part}" if self.part else "")))

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T); () where there is no grid."""
        if self.grid is None:
            return ()
        return self.grid.shape if self.dimension is None else (*self.grid.shape, len(self.slices[0]))

    @property
    def laid_out(self) -> tuple[ImageGrid, Verdict]:
        """Grid and verdict.

        Raises:
            FormatError: It cannot be ingested.
        """
        if self.grid is None or self.verdict is None or self.problem:
            raise FormatError(self.problem or f"{self.describe()}: no grid")
        return self.grid, self.verdict

    def describe(self) -> str:
        """For messages: where its files lie, and how many there are."""
        what = f"{self.folder} ({self.files} file{'' if self.files == 1 else 's'}"
        return f"{what}, {self.name})" if self.name else f"{what})"


def volumes_of(instances: Sequence[Instance], policy: Policy) -> list[DicomVolume]:
    """The volumes of the image files of one series, usable or not.

    Args:
        instances: All files with that SeriesInstanceUID.
        policy: For tilted and irregular stacks.
    """
    instances = sorted(instances, key=lambda instance: instance.path)
    first = instances[0]
    whole = DicomVolume(first.facts, first.sop_class, "", os.path.dirname(first.path), len(instances))
    good = {instance.sop for instance in instances if not instance.problem}
    broken = [instance for instance in instances if instance.problem]
    # A broken file of which there is a good copy costs nothing.
    missing = [instance for instance in broken if instance.sop not in good or not instance.sop]
    notes = tuple(f"{one.path}: {one.problem}; a good copy was used" for one in broken if one not in missing)
    if missing:
        more = f" (and {len(missing) - 1} more of this series)" if len(missing) > 1 else ""
        return [replace(whole, problem=f"{missing[0].path}: {missing[0].problem}{more}")]
    stamps = {instance.path: (instance.size, instance.modified) for instance in instances}
    try:
        frames, copies = without_copies([frame for instance in instances for frame in instance.frames])
        if copies:
            many = "1 frame is" if len(copies) == 1 else f"{len(copies)} frames are"
            notes += (f"{many} there in several files with the same SOPInstanceUID; one of each was used",)
        patients = {instance.facts.patient for instance in instances}
        if len(patients) > 1:
            raise FormatError("its files belong to different patients (PatientID)")
        if len({instance.facts.study for instance in instances}) > 1:
            raise FormatError(
                "its files belong to different studies (StudyInstanceUID), though a series is part of one (PS3.3 A.1.2)"
            )
        stacks = make_stacks(frames, first.facts.modality)
    except FormatError as error:
        return [replace(whole, problem=f"{whole.describe()}: {error}")]
    return [
        replace(volume, notes=(*notes, *volume.notes))
        for stack in stacks
        for volume in _apply(stack, replace(whole, kind=stack.name), policy, stamps, copies)
    ]


def _apply(
    stack: Stack,
    base: DicomVolume,
    policy: Policy,
    stamps: Mapping[str, tuple[int, int]],
    copies: Sequence[tuple[Frame, Frame]],
) -> list[DicomVolume]:
    paths = sorted({frame.path for frame in stack.frames})
    mine = set(stack.frames)
    base = replace(
        base,
        folder=os.path.dirname(paths[0]) if len(paths) > 1 else paths[0],
        files=len(paths),
        copies=tuple(pair for pair in copies if pair[0] in mine),
        notes=stack.notes,
        stamps={path: stamps[path] for path in paths},
    )
    if stack.problem:
        return [replace(base, problem=f"{base.describe()}: {stack.problem}")]
    try:
        base = replace(base, notes=(*base.notes, *_rescale_notes(stack, base.facts)))
        _check_size(stack, sum(stamps[path][0] for path in paths))
        layout = lay_out([place[0] for place in stack.slices], policy.tolerance_mm)
    except FormatError as error:
        return [replace(base, problem=f"{base.describe()}: {error}")]
    whole = _volume(stack, base, layout)
    status = whole.laid_out[1].status
    if status == "irregular":
        return _irregular(stack, base, whole, policy)
    if status == "tilted":
        return [_tilted(whole, policy)]
    return [whole]


def _check_size(stack: Stack, size: int) -> None:
    """A volume that takes far more memory than its files could explain is not allocated."""
    promised = sum(math.prod(frame.picture) * (frame.pixels.allocated // 8) for frame in stack.frames)
    if promised > max(_FREE_BYTES, _RATIO * size):
        raise FormatError(f"its files ({size} bytes) cannot hold {promised} bytes of pixels")


def _volume(stack: Stack, base: DicomVolume, layout: Layout) -> DicomVolume:
    slices = tuple(stack.slices[place] for place in layout.order)
    first = slices[0][0]
    rows, columns = first.picture
    grid = ImageGrid(
        shape=(columns, rows, len(slices)),
        affine=layout.affine,
        origins=layout.origins,
        frame_of_reference=first.frame_of_reference,
        study=base.facts.study,
        series=base.facts.series,
        sop_class=base.sop_class,
        slices=tuple(tuple((frame.sop, frame.number) for frame in places) for places in slices),
    )
    axis = stack.dimension
    notes = () if axis is None else (f"the fourth axis is {axis.name}, of {len(axis.values)} steps",)
    verdict = replace(layout.verdict, rescale=rescale_of([frame for places in slices for frame in places]))
    return replace(base, slices=slices, grid=grid, verdict=verdict, dimension=axis, notes=(*base.notes, *notes))


def _rescale_notes(stack: Stack, facts: SeriesFacts) -> tuple[str, ...]:
    """What is to say of frames without RescaleSlope and RescaleIntercept, which CT must have (PS3.3 C.8.2.1).

    Raises:
        FormatError: Some have them: what the others mean is unknown.
    """
    without = [frame for frame in stack.frames if not frame.rescaled]
    if without and any((frame.slope, frame.intercept) != (1.0, 0.0) for frame in stack.frames):
        raise FormatError(
            f"{without[0].path} has no RescaleSlope and RescaleIntercept ({len(without)} of {len(stack.frames)} frames have none): what "
            "its values mean is unknown"
        )
    if without and facts.modality == "CT":
        return ("its files have no RescaleSlope and RescaleIntercept: the values may not be Hounsfield units",)
    return ()


def _irregular(stack: Stack, base: DicomVolume, whole: DicomVolume, policy: Policy) -> list[DicomVolume]:
    verdict = whole.laid_out[1]
    drift = math.tan(math.radians(verdict.tilt)) * verdict.step * (verdict.slices - 1)
    if policy.on_tilt == "error" and policy.on_irregular in ("keep", "resample") and drift > policy.tolerance_mm:
        return [_tilted(whole, policy)]
    if policy.on_irregular == "keep":
        return [replace(whole, verdict=replace(verdict, changed="kept"))]
    if policy.on_irregular == "split":
        return _split(stack, base, whole, policy)
    resampling = "" if verdict.duplicates else "'resample', "
    advice = f"fetch what is missing, or choose on_irregular={resampling}'split' or 'keep' (--on-irregular)"
    if not verdict.gaps and not verdict.duplicates:
        advice += f", or a larger tolerance (slice_tolerance_mm={policy.tolerance_mm:g}, --slice-tolerance)"
    if policy.on_irregular == "resample":
        if not verdict.duplicates:
            return [_resampled(whole, "spacing")]
        advice = (
            "which of the slices at one place is right is unknown, so they are not resampled: remove one, or choose on_irregular='split' "
            "or 'keep' (--on-irregular)"
        )
    return [replace(whole, problem=f"{base.describe()}: {verdict.describe()}; {advice}")]


def _split(stack: Stack, base: DicomVolume, whole: DicomVolume, policy: Policy) -> list[DicomVolume]:
    """The regular parts of an irregular stack: doubled slices apart, then acquisitions or runs of even spacing."""
    duplicates = whole.laid_out[1].duplicates
    layers: list[list[tuple[Frame, ...]]] = []
    depth = 0
    for place, frames in enumerate(whole.slices):
        depth = depth + 1 if place in duplicates else 0
        if depth == len(layers):
            layers.append([])
        layers[depth].append(frames)
    parts = [part for layer in layers for part in _parts(layer, policy.tolerance_mm)]
    volumes = []
    for number, slices in enumerate(parts, 1):
        part = replace(base, part=number, files=len({frame.path for places in slices for frame in places}))
        try:
            layout = lay_out([frames[0] for frames in slices], policy.tolerance_mm)
        except FormatError as error:
            volumes.append(replace(part, problem=f"{part.describe()}: {error}"))
            continue
        volume = _volume(replace(stack, slices=slices), part, layout)
        verdict = replace(volume.laid_out[1], changed=f"split: part {number} of {len(parts)}")
        volume = replace(volume, verdict=verdict)
        volumes.append(_tilted(volume, policy) if verdict.status == "tilted" else volume)
    return volumes


def _parts(layer: list[tuple[Frame, ...]], tolerance_mm: float) -> list[tuple[tuple[Frame, ...], ...]]:
    """Runs of even spacing; of each acquisition for itself where that makes fewer (scans that overlap)."""

    def runs(slices: list[tuple[Frame, ...]]) -> list[tuple[tuple[Frame, ...], ...]]:
        positions = np.array([frames[0].position for frames in slices])
        return [tuple(slices[place] for place in run) for run in runs_of(positions, tolerance_mm)]

    acquisitions: dict[float | str | None, list[tuple[Frame, ...]]] = {}
    for frames in layer:
        acquisitions.setdefault(dict(frames[0].index).get("acquisition"), []).append(frames)
    whole, apart = runs(layer), [part for number in acquisitions for part in runs(acquisitions[number])]
    return apart if len(apart) < len(whole) else whole


def _tilted(whole: DicomVolume, policy: Policy) -> DicomVolume:
    if policy.on_tilt == "error":
        return replace(
            whole,
            problem=(
                f"{whole.describe()}: tilted: {whole.laid_out[1].tilt:.2f} degrees, which on_tilt='error' refuses; choose 'keep' or "
                "'resample' (--on-tilt)"
            ),
        )
    return _resampled(whole, "tilt") if policy.on_tilt == "resample" else whole


def _resampled(whole: DicomVolume, how: str) -> DicomVolume:
    from radioloader.formats.dicom.resample import target_grid

    grid, verdict = whole.laid_out
    try:
        target = target_grid(grid, verdict.step, whole.slices[0][0].orientation)
    except FormatError as error:
        return replace(whole, problem=f"{whole.describe()}: {verdict.describe()}; {error}")
    return replace(
        whole,
        grid=target,
        verdict=replace(verdict, changed="resampled"),
        resample=how,
    )
