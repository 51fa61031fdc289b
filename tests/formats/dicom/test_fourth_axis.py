"""What tells frames at one place apart: times, b-values, phases of the heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.stacks import Dimension, make_stacks
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.make import real_volume, rotation, write_series
from tests.formats.dicom.reading import affine_of, one, read, volumes
from tests.formats.dicom.test_stacks import SMALL, expected, sops, times
from tests.formats.dicom.volumes import Array


@pytest.fixture(scope="module")
def over_time() -> tuple[Array, Array]:
    """(12, 10, 5, 3), every time point another."""
    voxels, affine = real_volume(SMALL)
    return np.stack([voxels // n for n in (1, 2, 3)], axis=3), rotation((20, -10, 5)) @ affine


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
