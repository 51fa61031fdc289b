"""From the places of slices to a grid, and what is said about it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame
from radioloader.formats.dicom.geometry import Verdict, lay_out, rescale_of, runs_of
from tests.formats.dicom.make import rotation, tilt
from tests.formats.dicom.reading import frames_of
from tests.formats.dicom.volumes import TURNS as ALL_TURNS
from tests.formats.dicom.volumes import Array

# Rows from right to left, columns from front to back, 0.5 x 0.8 mm, slices of 3 mm.
AXIAL = np.array([[-0.5, 0, 0, 90], [0, -0.8, 0, 120], [0, 0, 3, -40], [0, 0, 0, 1]])
TURNS = ALL_TURNS | {"flip": (180, 0, 0)}
TURN = pytest.mark.parametrize("affine", [rotation(turn) @ AXIAL for turn in TURNS.values()], ids=TURNS)


def moved(frame: Frame, *millimetres: float) -> Frame:
    """A frame elsewhere, along LPS."""
    return replace(frame, position=tuple(float(a + b) for a, b in zip(frame.position, millimetres, strict=True)))


@TURN
def test_slices_are_ordered_along_the_normal(affine: Array) -> None:
    """Whatever the order of the files and their InstanceNumbers are."""
    frames = frames_of(affine, 7)
    for seed in range(4):
        generator = np.random.default_rng(seed)
        shuffled = [replace(frames[k], instance=int(generator.integers(100))) for k in generator.permutation(7)]
        layout = lay_out(shuffled, 0.1)
        assert [shuffled[place].sop for place in layout.order] == [f"1.{k}" for k in range(7)]
        assert np.allclose(layout.affine, affine, atol=1e-9)
        assert np.allclose(layout.origins, (affine @ np.array([[0, 0, k, 1] for k in range(7)]).T).T[:, :3])
        assert (layout.verdict.status, layout.verdict.slices) == ("regular", 7)
        assert layout.verdict.step == pytest.approx(3)


@pytest.mark.parametrize(
    ("numbers", "order"),
    [
        (range(1, 6), "ascending"),
        (range(9, 4, -1), "descending"),
        ([1, 3, 2, 4, 5], "other"),
        ([1, 1, 1, 1, 1], "other"),
        ([None] * 5, "unknown"),
        ([1, 2, None, 4, 5], "unknown"),
    ],
)
def test_what_instance_numbers_say(numbers: Any, order: str) -> None:
    frames = [replace(frame, instance=number) for frame, number in zip(frames_of(AXIAL, 5), numbers, strict=True)]
    assert lay_out(frames[::-1], 0.1).verdict.order == order


@pytest.mark.parametrize("degrees", [-18.5, 3.0, 25.0])
@TURN
def test_tilt_keeps_the_true_shear(affine: Array, degrees: float) -> None:
    sheared = tilt(affine, degrees)
    layout = lay_out(frames_of(sheared, 9)[::-1], 0.1)
    assert np.allclose(layout.affine, sheared, atol=1e-9)
    verdict = layout.verdict
    assert (verdict.status, verdict.tilt) == ("tilted", pytest.approx(abs(degrees)))
    assert verdict.step == pytest.approx(3 * np.cos(np.deg2rad(degrees)))  # along the normal
    assert verdict.deviation < 1e-9
    assert verdict.describe() == f"tilted: {abs(degrees):.2f} degrees"


def test_a_drift_of_rounding_is_no_tilt() -> None:
    """0.09 mm over the whole stack."""
    affine = AXIAL.copy()
    affine[0, 2] = 0.01
    assert lay_out(frames_of(affine, 10), 0.1).verdict.status == "regular"
    affine[0, 2] = 0.012
    assert lay_out(frames_of(affine, 10), 0.1).verdict.status == "tilted"


@TURN
def test_a_gap(affine: Array) -> None:
    frames = frames_of(affine, 12)
    layout = lay_out(frames[:5] + frames[7:], 0.1)
    verdict = layout.verdict
    assert (verdict.status, verdict.slices, verdict.duplicates) == ("irregular", 10, ())
    ((place, width),) = verdict.gaps
    assert (place, width) == (4, pytest.approx(9.0))
    assert verdict.describe() == "irregular: 1 gap (9 mm after slice 5, expected 3 mm)"
    # Where the slices are, and not where an even division would have them.
    assert np.allclose(layout.origins[[4, 5]], (affine @ np.array([[0, 0, k, 1] for k in (4, 7)]).T).T[:, :3])


def test_gaps_are_counted() -> None:
    frames = frames_of(AXIAL, 14)
    verdict = lay_out([frame for k, frame in enumerate(frames) if k not in (3, 4, 9)], 0.1).verdict
    assert [place for place, _ in verdict.gaps] == [2, 6]
    assert verdict.describe() == "irregular: 2 gaps (9 mm after slice 3, expected 3 mm, and 1 more)"


@pytest.mark.parametrize("lost", [[1], [10], [1, 2, 3], [5], [2, 4, 6, 8]])
def test_no_missing_slice_passes(lost: list[int]) -> None:
    frames = frames_of(rotation((20, -10, 5)) @ AXIAL, 12)
    assert lay_out([frame for k, frame in enumerate(frames) if k not in lost], 0.1).verdict.status == "irregular"


def test_one_slice_missing_among_many_is_seen() -> None:
    """Divided over 1000 slices the step is off by 0.1 %."""
    frames = frames_of(AXIAL, 1000)
    verdict = lay_out(frames[:500] + frames[501:], 0.1).verdict
    assert (verdict.status, verdict.gaps) == ("irregular", ((499, pytest.approx(6.0)),))


def test_doubled_slices() -> None:
    frames = frames_of(AXIAL, 6)
    verdict = lay_out([*frames, replace(frames[2], sop="1.99")], 0.1).verdict
    assert (verdict.status, verdict.duplicates, verdict.gaps) == ("irregular", (3,), ())
    assert verdict.step == pytest.approx(3)
    assert verdict.describe() == "irregular: 1 slice at the place of another (slice 4)"


@pytest.mark.parametrize(("shift", "status"), [(0.09, "regular"), (0.11, "irregular"), (-0.5, "irregular")])
@pytest.mark.parametrize("across", [False, True])
def test_a_slice_out_of_place(shift: float, status: str, across: bool) -> None:
    frames = frames_of(AXIAL, 8)
    frames[3] = moved(frames[3], shift, 0, 0) if across else moved(frames[3], 0, 0, shift)
    verdict = lay_out(frames, 0.1).verdict
    assert (verdict.status, verdict.deviation) == (status, pytest.approx(abs(shift)))
    if status == "irregular":
        assert verdict.describe() == f"irregular: slices lie up to {abs(shift):.3g} mm off a regular grid"


def test_tolerance_is_a_tenth_of_thin_slices() -> None:
    affine = AXIAL @ np.diag([1, 1, 0.1, 1])  # 0.3 mm
    frames = frames_of(affine, 8)
    frames[3] = moved(frames[3], 0, 0, 0.035)
    assert lay_out(frames, 0.1).verdict.status == "irregular"
    assert lay_out(frames, 10.0).verdict.status == "irregular"
    frames[3] = moved(frames[3], 0, 0, -0.01)
    assert lay_out(frames, 0.1).verdict.status == "regular"


@pytest.mark.parametrize(("digits", "tolerance"), [(1, 0.2), (2, 0.1), (3, 0.1), (6, 0.1)])
def test_rounded_positions(digits: int, tolerance: float) -> None:
    """Positions of a few digits: the noise neither makes a gap nor a tilt (of one digit with a tolerance to match)."""
    affine = rotation((7, -3, 11)) @ AXIAL
    frames = [
        replace(frame, position=tuple(round(value, digits) for value in frame.position))
        for frame in frames_of(affine, 60)
    ]
    layout = lay_out(frames[::-1], tolerance)
    assert layout.verdict.status == "regular"
    assert layout.verdict.step == pytest.approx(3, abs=0.1)
    corner = np.array([39, 29, 59, 1])
    assert np.linalg.norm((layout.affine - affine) @ corner) < 2 * 10.0**-digits


def test_a_tolerance_of_nothing() -> None:
    """Rounding of decimal strings is no irregularity, and a hundredth of a millimetre is."""
    frames = frames_of(rotation((7, -3, 11)) @ AXIAL, 60)
    rounded = [replace(f, position=tuple(float(f"{value:.10g}") for value in f.position)) for f in frames]
    assert lay_out(rounded, 0.0).verdict.status == "regular"
    rounded[5] = moved(rounded[5], 0, 0, 0.01)
    assert lay_out(rounded, 0.0).verdict.status == "irregular"


def test_cosines_that_differ_a_little() -> None:
    """1e-4 apart from slice to slice: one stack, that of the first place whatever file comes first."""
    generator = np.random.default_rng(0)
    frames = [
        replace(frame, orientation=tuple(np.array(frame.orientation) + generator.uniform(-5e-5, 5e-5, 6)))
        for frame in frames_of(rotation((20, -10, 5)) @ AXIAL, 20)
    ]
    layouts = [lay_out([frames[k] for k in np.random.default_rng(seed).permutation(20)], 0.1) for seed in range(3)]
    for layout in layouts:
        assert layout.verdict.status == "regular"
        assert 2e-5 < layout.verdict.orientation <= 1e-4
        assert np.array_equal(layout.affine, layouts[0].affine)
        assert np.linalg.norm((layout.affine - rotation((20, -10, 5)) @ AXIAL) @ [39, 29, 19, 1]) < 0.01


def test_cosines_of_a_few_digits_do_not_change_spacing() -> None:
    """0.9995 instead of 1 would make 512 mm of 511.7."""
    frames = [replace(frame, orientation=(0.9995, 0, 0, 0, 1.0004, 0)) for frame in frames_of(AXIAL, 4)]
    assert np.allclose(lay_out(frames, 0.1).affine, AXIAL, atol=1e-9)


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0.01, 1, 0), (1.01, 0, 0, 0, 1, 0), (0, 0, 0, 0, 1, 0), (1, 0, 0, 1, 0, 0)]
)
def test_cosines_that_are_none(orientation: tuple[float, ...]) -> None:
    frames = [replace(frame, orientation=orientation) for frame in frames_of(AXIAL, 4)]
    with pytest.raises(FormatError, match="ImageOrientationPatient does not hold two unit vectors at a right angle"):
        lay_out(frames, 0.1)


@TURN
def test_a_single_slice_is_as_deep_as_it_says(affine: Array) -> None:
    (frame,) = frames_of(affine, 1)
    layout = lay_out([frame], 0.1)
    assert np.allclose(layout.affine, affine, atol=1e-9)
    assert (layout.verdict.status, layout.verdict.step) == ("single", pytest.approx(3))
    with pytest.raises(FormatError, match="single slice without SliceThickness or SpacingBetweenSlices"):
        lay_out([replace(frame, thickness=0.0)], 0.1)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0)])
def test_pixel_spacing_must_be_positive(spacing: tuple[float, float]) -> None:
    with pytest.raises(FormatError, match=r"PixelSpacing is .* mm; expected positive distances"):
        lay_out(frames_of(AXIAL, 3, spacing=spacing), 0.1)


def test_all_slices_at_one_place() -> None:
    frames = frames_of(AXIAL, 1) * 3
    layout = lay_out([replace(frame, sop=f"1.{k}") for k, frame in enumerate(frames)], 0.1)
    assert (layout.verdict.status, layout.verdict.duplicates) == ("irregular", (1, 2))
    assert np.allclose(layout.affine, AXIAL)


def test_rescale() -> None:
    frames = frames_of(AXIAL, 3)
    assert rescale_of(frames) == "none"
    assert rescale_of([replace(f, intercept=-1024.0) for f in frames]) == "uniform"
    assert rescale_of([replace(f, slope=1.0 + k) for k, f in enumerate(frames)]) == "per slice"


def test_two_slices_tell_their_own_distance() -> None:
    """Thickness is not distance: slices may overlap or leave gaps."""
    frames = frames_of(AXIAL, 2, thickness=5.0)
    layout = lay_out(frames, 0.1)
    assert np.allclose(layout.affine, AXIAL)
    assert (layout.verdict.status, layout.verdict.step) == ("regular", pytest.approx(3))


def along(*places: float) -> Array:
    return np.array([[0.0, 0.0, place] for place in places])


@pytest.mark.parametrize(
    ("places", "runs"),
    [
        ([0, 1, 2, 3], [(0, 4)]),
        ([0, 1, 2, 5, 6, 7], [(0, 3), (3, 6)]),
        ([0, 1, 2, 4, 6, 8], [(0, 3), (3, 6)]),
        ([0, 10, 11, 12], [(0, 1), (1, 4)]),
        ([0, 1, 2, 12], [(0, 3), (3, 4)]),
        ([0, 1, 2, 4, 5, 6, 8, 9, 10], [(0, 3), (3, 6), (6, 9)]),
        ([0, 1, 2, 3.5, 4.5, 5.5], [(0, 3), (3, 6)]),
        ([0, 1, 3, 4, 6, 7], [(0, 2), (2, 4), (4, 6)]),
        ([5], [(0, 1)]),
        ([0, 2], [(0, 2)]),
    ],
)
def test_runs_of_even_spacing(places: list[float], runs: list[tuple[int, int]]) -> None:
    found = runs_of(along(*places), 0.1)
    assert [(run.start, run.stop) for run in found] == runs


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_regular_and_hold_every_slice_once(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = np.cumsum(generator.choice([1.0, 1.0, 1.0, 2.0, 0.4, 7.3], 25))
    runs = runs_of(along(*places), 0.1)
    assert list(itertools.chain.from_iterable(runs)) == list(range(25))
    for run in runs:
        assert np.ptp(np.diff(places[run.start : run.stop])) < 0.1 if len(run) > 2 else True


def test_verdict_as_json() -> None:
    frames = frames_of(AXIAL, 9)
    verdict = replace(lay_out([*frames[:3], *frames[5:], frames[8]], 0.1).verdict, notes=("one",), changed="kept")
    assert verdict.gaps
    assert verdict.duplicates
    assert Verdict.from_json(verdict.to_json()) == verdict
