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
from radioloader.formats.dicom.stacks import Dimension, Stack, make_stacks, without_copies
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.make import real_volume, rotation, write_localizer, write_series
from tests.formats.dicom.reading import affine_of, frames_of, one, read, values, volumes
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


def test_two_reconstructions_whose_pictures_were_made_in_turns_are_no_time_series() -> None:
    (stack,) = make_stacks(times(6, 2, lambda k, t: {"content time": 10.0 * k + 5 * (t ^ (k % 2))}))
    assert stack.dimension is None
    assert len(stack.slices) == 12  # doubled slices
    (stack,) = make_stacks(times(6, 2, lambda k, t: {"content time": 100.0 * t + k}))
    assert stack.dimension is not None
    assert sops(stack) == expected(6, [0, 1])


def test_a_series_across_midnight_without_dates_keeps_its_volumes() -> None:
    (stack,) = make_stacks(times(6, 4, lambda k, t: {"time": (86400 - 40 + 24 * t + 3 * k) % 86400}))
    assert stack.dimension is not None
    assert sops(stack) == expected(6, [0, 1, 2, 3])
    assert stack.dimension.values == ("0", "24", "48", "72")


def test_times_that_say_other_things_at_other_places_are_none() -> None:
    (stack,) = make_stacks(times(6, 3, lambda k, t: {"time": float((t * 7 + k * 5) % 18)}))
    assert stack.dimension is None


@pytest.mark.parametrize("known", ["", "instance by volume", "instance by place", "time", "acquisition"])
def test_directions_that_are_not_told(known: str) -> None:
    """b = 0 and three of 1000 without directions: what belongs together must be told by something else."""

    def index(k: int, t: int) -> dict[str, Any]:
        more = {"time": 100.0 * t + k} if known == "time" else {"acquisition": t + 1} if known == "acquisition" else {}
        return {"b-value": 1000.0 * (t > 0), "direction": "", **more}

    frames = []
    for frame in times(6, 4, index):
        t, k = (int(part) for part in frame.sop.split(".")[1:])
        number = {"instance by volume": t * 6 + k, "instance by place": k * 4 + t}.get(known)
        frames.append(replace(frame, instance=number))
    (stack,) = make_stacks(frames)
    if known:
        assert stack.dimension is not None
        assert (stack.dimension.name, stack.problem) == ("b-value", "")
        assert sops(stack) == expected(6, [0, 1, 2, 3])
    else:
        assert "nothing tells which of them belong together" in stack.problem


def test_numbers_that_jitter_are_one_kind() -> None:
    frames = [
        replace(frame, kind=(("echo", f"{4.602 + 0.004 * (place % 2):.4g}"),))
        for place, frame in enumerate(frames_of(AFFINE, 6))
    ]
    assert [len(stack.slices) for stack in make_stacks(frames)] == [6]
    frames = [replace(frame, kind=(("echo", "4.6" if place % 2 else "6.9"),)) for place, frame in enumerate(frames)]
    assert [(stack.name, len(stack.slices)) for stack in make_stacks(frames)] == [("echo1", 3), ("echo2", 3)]


@pytest.mark.parametrize(
    ("index", "name", "steps"),
    [
        (lambda k, t: {"temporal position": float(3 - t), "time": 50.0 + t}, "time", ("1", "2", "3")),
        (lambda k, t: {"trigger": [200.0, 100.0, 0.0][t]}, "cardiac phase", ("0", "100", "200")),
        (lambda k, t: {"trigger": (2 - t) * (100.0 + 3 * k) + k}, "cardiac phase", ("0", "100", "200")),
        (lambda k, t: {"frame reference": 3000.0 - 1000 * t, "time": 1.0}, "time", ("1000", "2000", "3000")),
        (lambda k, t: {"acquisition": float(9 - t)}, "acquisition", ("7", "8", "9")),
        (lambda k, t: {"acquisition": 1.0, "time": 36000.0 + 2 * (2 - t) + 0.1 * k}, "time", ("0", "2", "4")),
        (lambda k, t: {"time": 5.0, "content time": 36000.0 + 3 * (2 - t) - 0.1 * k}, "time", ("0", "3", "6")),
        (lambda k, t: {"dimensions": f"{12 - t:05d}"}, "dimension", ("00010", "00011", "00012")),
    ],
    ids=["temporal", "phase", "phase by heart rate", "reference", "acquisition", "clock", "content", "dimensions"],
)
def test_what_the_fourth_axis_is(index: Any, name: str, steps: tuple[str, ...]) -> None:
    """All of them run backwards here."""
    (stack,) = make_stacks(times(4, 3, index))
    assert stack.dimension == Dimension(name, steps)
    assert sops(stack) == expected(4, [2, 1, 0])


def test_diffusion() -> None:
    """b-values, then directions; averages in the order of time, even with instance numbers that say otherwise."""
    known = [(1000.0, "1,0,0"), (0.0, ""), (1000.0, "0,1,0"), (0.0, ""), (500.0, "0,0,1")]

    def index(k: int, t: int) -> dict[str, Any]:
        return {"b-value": known[t][0], "direction": known[t][1], "time": 100.0 - t}

    frames = times(4, 5, index)
    frames = [replace(frame, instance=place) for place, frame in enumerate(frames)]
    (stack,) = make_stacks(frames)
    assert stack.dimension == Dimension("b-value", ("0", "0", "500 0,0,1", "1000 0,1,0", "1000 1,0,0"))
    assert sops(stack) == expected(4, [3, 1, 4, 2, 0])


def test_two_things_at_once() -> None:
    """Phases of several breaths: neither alone tells the frames of a place apart."""
    (stack,) = make_stacks(times(4, 4, lambda k, t: {"temporal position": t // 2 + 1.0, "trigger": 100.0 * (t % 2)}))
    assert stack.dimension == Dimension("time", ("1 0", "1 100", "2 0", "2 100"))
    assert sops(stack) == expected(4, [0, 1, 2, 3])


def test_frames_that_nothing_tells_apart_are_doubled_slices() -> None:
    """Instance numbers are not believed."""
    frames = [replace(frame, instance=place) for place, frame in enumerate(times(4, 2, lambda k, t: {}))]
    (stack,) = make_stacks(frames)
    assert (stack.dimension, len(stack.slices)) == (None, 8)


def test_a_scan_broken_off_names_the_time() -> None:
    frames = times(5, 3, lambda k, t: {"temporal position": t + 1.0})
    (stack,) = make_stacks([frame for frame in frames if frame.sop not in ("1.2.3", "1.2.4")])
    assert stack.problem == "time 3 of 3 has 3 slices, expected 5: the scan was broken off, or files are missing"


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


@pytest.mark.parametrize(
    ("options", "name", "steps"),
    [
        ({}, "time", ("1", "2", "3")),
        (
            {"b_value": [0, 500, 1000], "direction": [(0, 0, 0), (1, 0, 0), (0, 1, 0)]},
            "b-value",
            ("0 0.0000,0.0000,0.0000", "500 1.0000,0.0000,0.0000", "1000 0.0000,1.0000,0.0000"),
        ),
        ({"acquisition": [1, 2, 3], "acquisition_time": ["101010.0", "101012.0", "101014.0"]}, "acquisition", "123"),
        ({"acquisition_time": ["235959.0", "000012.5", "000014.0"]}, "time", ("0", "13.5", "15")),
        ({"phase": [0, 100, 200]}, "cardiac phase", ("0", "100", "200")),
    ],
    ids=["temporal", "b-value", "acquisition", "time", "phase"],
)
def test_series_over_time(
    tmp_path: Path, over_time: tuple[Array, Array], options: dict[str, Any], name: str, steps: Sequence[str]
) -> None:
    """With instance numbers that say nothing."""
    write_series(tmp_path, *over_time, modality="MR", **options)
    volume = one(tmp_path)
    assert volume.dimension == Dimension(name, tuple(steps))
    assert volume.shape == (12, 10, 5, 3)
    if name == "acquisition":
        assert volume.dimension.values == ("1", "2", "3")
    assert np.array_equal(read_volume(volume).voxels, over_time[0])
    assert np.allclose(affine_of(volume), over_time[1], atol=1e-6)


def test_series_over_time_as_dcm2niix_reads_it(tmp_path: Path, over_time: tuple[Array, Array]) -> None:
    write_series(tmp_path / "in", *over_time, modality="MR", instance_numbers="right")
    assert same_as_converter(*read(tmp_path / "in"), *dcm2niix(tmp_path / "in", tmp_path / "out"))


def siemens(ds: Dataset, b_value: int, direction: Sequence[float] | None) -> None:
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", b_value)
    if direction is not None:
        block.add_new(0x0E, "FD", list(direction))


def ge(ds: Dataset, b_value: int, direction: Sequence[float] | None) -> None:
    ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [10**9 + b_value, 8, 0, 0])
    block = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for place, value in enumerate(direction or (0, 0, 0)):
        block.add_new(0xBB + place, "DS", f"{value}")


def philips(ds: Dataset, b_value: int, direction: Sequence[float] | None) -> None:
    ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", float(b_value))
    block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for place, value in enumerate(direction or (0, 0, 0)):
        block.add_new(0xB0 + place, "FL", float(value))


@pytest.mark.parametrize("vendor", [siemens, ge, philips])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_diffusion_in_the_vendors_own_attributes(
    tmp_path: Path, over_time: tuple[Array, Array], vendor: Any, syntax: str
) -> None:
    from pydicom.uid import UID

    known = [(1000, (1.0, 0.0, 0.0)), (0, None), (1000, (0.0, 0.6, 0.8))]
    for t, (b_value, direction) in enumerate(known):

        def change(ds: Dataset, k: int, b: int = b_value, d: Any = direction) -> None:
            vendor(ds, b, d)

        write_series(
            tmp_path, over_time[0][..., t], over_time[1], modality="MR", syntax=UID(syntax), extra=change, seed=t
        )
    volume = one(tmp_path)
    assert volume.dimension is not None
    none = "0" if vendor is siemens else "0 0.0000,0.0000,0.0000"
    assert volume.dimension.name == "b-value"
    assert volume.dimension.values == (none, "1000 0.0000,0.6000,0.8000", "1000 1.0000,0.0000,0.0000")
    assert np.array_equal(read_volume(volume).voxels, over_time[0][..., [1, 2, 0]])


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


def test_cine_by_heart_rate(tmp_path: Path, over_time: tuple[Array, Array]) -> None:
    """A breath-hold for each slice: the delays of its phases are its own, and are all the header has."""

    for t in range(3):

        def change(ds: Dataset, k: int, t: int = t) -> None:
            ds.TriggerTime = f"{t * (250 + 7 * k) + 3 * k}"
            ds.AcquisitionTime, ds.ContentTime = f"1010{10 + k}", f"1011{10 + k}"

        write_series(tmp_path, over_time[0][..., t], over_time[1], modality="MR", extra=change, seed=t)
    volume = one(tmp_path)
    assert volume.dimension == Dimension("cardiac phase", ("0", "250", "500"))
    assert np.array_equal(read_volume(volume).voxels, over_time[0])


def test_a_scan_broken_off_from_files(tmp_path: Path, over_time: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *over_time, modality="MR")
    files[-1].unlink()
    (volume,) = volumes(tmp_path, on_irregular="split")
    assert volume.problem == (
        f"{tmp_path} (14 files): time 3 of 3 has 4 slices, expected 5: the scan was broken off, or files are missing"
    )


def test_two_kernels_in_one_series(tmp_path: Path) -> None:
    voxels, affine = real_volume(SMALL)
    for n, kernel in enumerate((["B30f"], ["Br59f", "3"])):
        write_series(
            tmp_path, voxels + n, affine, extra=lambda ds, k, kernel=kernel: setattr(ds, "ConvolutionKernel", kernel)
        )
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"kernelB30f", "kernelBr59f3"}
    assert np.array_equal(found["kernelBr59f3"], voxels + 1)
