"""Which frames of a series make one volume, and what the fourth axis is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame
from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.stacks import Stack, make_stacks, without_copies
from tests.formats.dicom.make import real_volume, rotation, write_localizer, write_series
from tests.formats.dicom.reading import affine_of, frames_of, one, values, volumes
from tests.formats.dicom.volumes import Array

AFFINE = np.array([[-0.5, 0, 0, 90], [0, -0.8, 0, 120], [0, 0, 3, -40], [0, 0, 0, 1]])
SMALL = (12, 10, 5)


@pytest.fixture(scope="module")
def over_time() -> tuple[Array, Array]:
    """(12, 10, 5, 3), every time point another."""
    voxels, affine = real_volume(SMALL)
    return np.stack([voxels // n for n in (1, 2, 3)], axis=3), rotation((20, -10, 5)) @ affine


def times(depth: int, count: int, index: Callable[[int, int], dict[str, Any]], **values: Any) -> list[Frame]:
    """Frames of several time points, in no order; ``index`` gives what tells slice k and time t apart."""
    frames = [
        replace(frame, sop=f"1.{t}.{k}", path=f"{k}.{t}", index=tuple(index(k, t).items()))
        for t in range(count)
        for k, frame in enumerate(frames_of(AFFINE, depth, **values))
    ]
    return [frames[place] for place in np.random.default_rng(1).permutation(len(frames))]


def sops(stack: Stack) -> list[list[str]]:
    return [[frame.sop for frame in places] for places in stack.slices]


def expected(depth: int, order: Sequence[int]) -> list[list[str]]:
    return [[f"1.{t}.{k}" for t in order] for k in range(depth)]


def test_slices_of_one_time() -> None:
    frames = times(6, 1, lambda k, t: {"acquisition": k % 2, "time": 100.0 - k})
    (stack,) = make_stacks(frames, "MR")
    assert (stack.name, stack.dimension, stack.problem) == ("", None, "")
    assert stack.notes == ("slices of 2 acquisitions (AcquisitionNumber) alternate",)
    assert sops(stack) == expected(6, [0])


def test_scans_that_alternate_from_slice_to_slice_are_two() -> None:
    """But not those that follow one another, or count the slices."""
    stacks = make_stacks(times(6, 1, lambda k, t: {"acquisition": k % 2}), "CT")
    assert [stack.name for stack in stacks] == ["acquisition1", "acquisition2"]
    assert [sops(stack) for stack in stacks] == [[[f"1.0.{k}"] for k in places] for places in ((0, 2, 4), (1, 3, 5))]
    for number in (lambda k: k // 3, lambda k: k, lambda k: 7):
        (whole,) = make_stacks(times(6, 1, lambda k, t, number=number: {"acquisition": number(k)}), "CT")
        assert (whole.name, whole.notes) == ("", ())


def test_numbers_that_jitter_are_one_kind() -> None:
    frames = [
        replace(frame, kind=(("echo", f"{4.602 + 0.004 * (place % 2):.4g}"),))
        for place, frame in enumerate(frames_of(AFFINE, 6))
    ]
    assert [len(stack.slices) for stack in make_stacks(frames)] == [6]
    frames = [replace(frame, kind=(("echo", "4.6" if place % 2 else "6.9"),)) for place, frame in enumerate(frames)]
    assert [(stack.name, len(stack.slices)) for stack in make_stacks(frames)] == [("echo1", 3), ("echo2", 3)]


def test_scans_that_overlap_are_volumes_of_their_own() -> None:
    """Acquisitions 1 and 2 share two of their slices."""
    frames = [
        replace(frame, sop=f"1.{number}.{k}", index=(("acquisition", float(number)),))
        for number, part in ((1, range(5)), (2, range(3, 9)))
        for k, frame in enumerate(frames_of(AFFINE, 9))
        if k in part
    ]
    first, second = make_stacks(frames[::-1])
    assert (first.name, second.name) == ("acquisition1", "acquisition2")
    assert sops(first) == [[f"1.1.{k}"] for k in range(5)]
    assert sops(second) == [[f"1.2.{k}"] for k in range(3, 9)]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\P\\ND"),)}, {"magnitude", "phase"}),
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\M\\ND"), ("component", "PHASE"))}, {"stack1", "phase"}),
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\M\\ND"), ("echo", "10"), ("echo number", "2"))}, {"stack1", "echo1"}),
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\M\\ND"), ("inversion", "2500"))}, {"stack1", "inversion2500"}),
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\M\\ND"), ("flip", "7.5"))}, {"stack1", "flip7p5"}),
        ({"kind": (("type", "ORIGINAL\\PRIMARY\\M\\ND"), ("kernel", "B30f/2"))}, {"stack1", "kernelB30f2"}),
        ({"spacing": (0.8, 0.7)}, {"stack1", "stack2"}),
        ({"orientation": (0, 1, 0, 0, 0, -1)}, {"axial", "sagittal"}),
    ],
)
def test_what_never_shares_a_volume(change: dict[str, Any], names: set[str]) -> None:
    frames = frames_of(AFFINE, 4, kind=(("type", "ORIGINAL\\PRIMARY\\M\\ND"),))
    others = [replace(frame, sop=f"2.{k}", **change) for k, frame in enumerate(frames)]
    if "orientation" in change:
        others = others[:1]  # they stand in a line along one plane
    stacks = make_stacks([*others, *frames])
    assert {stack.name for stack in stacks} == names
    for stack in stacks:
        assert len({frame.sop[0] for frame in stack.frames}) == 1
        assert not stack.problem


def test_names_do_not_depend_on_files() -> None:
    frames = frames_of(AFFINE, 2, kind=(("type", "A"),)) + frames_of(AFFINE, 2, kind=(("type", "B"),))
    frames = [replace(frame, sop=f"1.{n}", instance=n, spacing=(0.8, 0.5 + n // 2)) for n, frame in enumerate(frames)]
    first = [(stack.name, sops(stack)) for stack in make_stacks(frames)]
    renamed = [replace(frame, path=f"{9 - n}") for n, frame in enumerate(frames)][::-1]
    assert [(stack.name, sops(stack)) for stack in make_stacks(renamed)] == first


def test_names_are_never_given_twice() -> None:
    kinds = [("A",), ("A1",), ("A2",)]
    frames = [
        replace(frame, sop=f"1.{n}.{k}", kind=(("type", kind[0]),), spacing=(0.8, 0.5 + 0.1 * (n % 2)))
        for n, kind in enumerate([*kinds, *kinds, ("A",)])
        for k, frame in enumerate(frames_of(AFFINE, 2))
    ]
    names = [stack.name for stack in make_stacks(frames)]
    assert len(names) == len(set(names))


def test_rounded_pixel_spacing_is_the_same() -> None:
    """0.48825 lies between two values of four digits."""
    frames = frames_of(AFFINE, 6)
    frames = [replace(frame, spacing=(0.48825 + 1e-6 * (-1) ** k,) * 2) for k, frame in enumerate(frames)]
    (stack,) = make_stacks(frames)
    assert len(stack.slices) == 6


def test_cosines_that_differ_a_little_are_one_stack() -> None:
    frames = [
        replace(frame, orientation=(1.0, 1e-4 * (k % 2), 0.0, -1e-4 * (k % 2), 1.0, 1e-5))
        for k, frame in enumerate(frames_of(AFFINE, 6))
    ]
    assert len(make_stacks(frames)) == 1


def test_mixed_frames_of_reference_are_refused() -> None:
    frames = frames_of(AFFINE, 4)
    frames[2] = replace(frames[2], frame_of_reference="1.8")
    with pytest.raises(FormatError, match="its frames lie in 2 frames of reference"):
        make_stacks(frames)


def test_stations_beside_each_other() -> None:
    """Coronal pictures of a whole body: three stations of the same planes, 400 mm apart within them."""
    coronal = np.array([[-1.0, 0, 0, 20], [0, 0, -5.0, -30], [0, -1.0, 0, 500], [0, 0, 0, 1]])
    frames = []
    for station in (2, 0, 1):
        moved = coronal.copy()
        moved[2, 3] -= 25.0 * station
        frames += [replace(f, sop=f"1.{station}.{k}") for k, f in enumerate(frames_of(moved, 6))]
    stacks = make_stacks(frames)
    assert [stack.name for stack in stacks] == ["slab1", "slab2", "slab3"]
    assert [sops(stack) for stack in stacks] == [[[f"1.{n}.{k}"] for k in range(6)] for n in range(3)]


def test_frames_a_little_beside_each_other_are_refused() -> None:
    """A patient who was followed from time to time: not one grid."""
    frames = times(4, 2, lambda k, t: {"temporal position": float(t)})
    frames = [replace(f, position=(f.position[0] + 1.5 * float(f.sop[2]), *f.position[1:])) for f in frames]
    (stack,) = make_stacks(frames)
    assert stack.problem == ("2 frames lie in one plane, but 1.5 mm apart within it: they are not pictures of one grid")


def test_copies_count_once() -> None:
    frames = frames_of(AFFINE, 3)
    copy = replace(frames[1], path="z")
    kept, copies = without_copies([copy, *frames])
    assert (len(kept), copies) == (3, [(frames[1], copy)])
    with pytest.raises(FormatError, match="z have the same SOPInstanceUID and say different things of their frame"):
        without_copies([*frames, replace(copy, slope=2.0)])


# From files


def test_echoes_are_volumes(tmp_path: Path, over_time: tuple[Array, Array]) -> None:
    write_series(tmp_path, *over_time, modality="MR", echo=[1, 2, 3])
    found = {volume.name: volume for volume in volumes(tmp_path)}
    assert list(found) == ["echo1", "echo2", "echo3"]
    for t, volume in enumerate(found.values()):
        assert np.array_equal(read_volume(volume).voxels, over_time[0][..., t])


def test_magnitude_and_phase_are_volumes(tmp_path: Path) -> None:
    """Siemens, in one series; phase has a rescale of its own."""
    voxels, affine = real_volume(SMALL)
    for letter, slope, intercept in (("M", 1.0, 0.0), ("P", 2.0, -4096.0)):
        kind = ("ORIGINAL", "PRIMARY", letter, "ND")
        write_series(
            tmp_path, voxels + ord(letter), affine, modality="MR", image_type=kind, slope=slope, intercept=intercept
        )
    found = {volume.name: values(read_volume(volume)) for volume in volumes(tmp_path)}
    assert set(found) == {"magnitude", "phase"}
    assert np.array_equal(found["magnitude"], voxels + 77.0)
    assert np.array_equal(found["phase"], (voxels + 80) * 2.0 - 4096)


def test_ge_real_and_imaginary(tmp_path: Path) -> None:
    """GE tells them by a private attribute alone."""
    voxels, affine = real_volume(SMALL)
    for number in (2, 3):

        def change(ds: Dataset, k: int, component: int = number) -> None:
            ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", component)

        write_series(tmp_path, voxels + number, affine, modality="MR", extra=change)
    found = {volume.name: values(read_volume(volume)) for volume in volumes(tmp_path)}
    assert set(found) == {"real", "imaginary"}
    assert np.array_equal(found["real"], voxels + 2.0)


def test_planes_of_a_localizer(tmp_path: Path) -> None:
    write_localizer(tmp_path)
    found = {volume.name: volume for volume in volumes(tmp_path)}
    assert set(found) == {"axial", "sagittal", "coronal"}
    voxels, affine = real_volume((40, 36, 1))
    for name, turn in (("axial", (0, 0, 0)), ("sagittal", (0, 90, 0)), ("coronal", (90, 0, 0))):
        assert found[name].shape == (40, 36, 1)
        assert np.array_equal(read_volume(found[name]).voxels, voxels)
        assert np.allclose(affine_of(found[name]), rotation(turn) @ affine, atol=1e-6)


def test_acquisition_numbers_and_times_that_change_within_a_stack(tmp_path: Path) -> None:
    """Helical CT: they count up as the table moves, and it is one volume."""
    voxels, affine = real_volume(SMALL)

    def change(ds: Dataset, k: int) -> None:
        ds.AcquisitionNumber, ds.AcquisitionTime = 1 + k // 2, f"1010{k:02d}.5"
        ds.ContentTime = f"1011{k:02d}"

    write_series(tmp_path, voxels, affine, extra=change)
    volume = one(tmp_path)
    assert (volume.dimension, volume.name) == (None, "")
    assert np.array_equal(read_volume(volume).voxels, voxels)


def test_two_kernels_in_one_series(tmp_path: Path) -> None:
    voxels, affine = real_volume(SMALL)
    for n, kernel in enumerate((["B30f"], ["Br59f", "3"])):
        write_series(
            tmp_path, voxels + n, affine, extra=lambda ds, k, kernel=kernel: setattr(ds, "ConvolutionKernel", kernel)
        )
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"kernelB30f", "kernelBr59f3"}
    assert np.array_equal(found["kernelBr59f3"], voxels + 1)
