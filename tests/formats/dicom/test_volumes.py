"""Volumes of a series under the policies for tilted and irregular stacks, and what is said where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from radioloader.formats.dicom.pixels import read_volume
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.make import SYNTAXES, real_volume, rotation, write_series
from tests.formats.dicom.reading import affine_of, one, read, values, volumes
from tests.formats.dicom.volumes import TURNS, Array

SHAPE = (12, 10, 9)


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SHAPE)
    return voxels, rotation(TURNS["oblique"]) @ affine


def moved(affine: Array, slices: float) -> Array:
    """The affine of the part that begins ``slices`` further on."""
    result = affine.copy()
    result[:, 3] = affine @ [0, 0, slices, 1]
    return result


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("names", ["shuffled", "reversed"])
def test_regular_series_as_dcm2niix_reads_them(
    tmp_path: Path, turn: tuple[int, int, int], modality: str, names: Any
) -> None:
    voxels, affine = real_volume(SHAPE)
    affine = rotation(turn) @ affine
    slope, intercept = (1.0, 0.0) if modality == "MR" else (0.5, -100.0)
    write_series(tmp_path / "in", voxels, affine, modality=modality, slope=slope, intercept=intercept, names=names)
    got = read(tmp_path / "in")
    assert np.array_equal(got[0], voxels * slope + intercept)
    assert np.allclose(got[1], affine, atol=1e-6)
    assert same_as_converter(*got, *dcm2niix(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("numbers", ["wrong", "right", "same", "none"])
def test_instance_numbers_do_not_matter(tmp_path: Path, oblique: tuple[Array, Array], numbers: Any) -> None:
    write_series(tmp_path, *oblique, instance_numbers=numbers, extension="")
    volume = one(tmp_path)
    assert np.array_equal(read_volume(volume).voxels, oblique[0])
    assert np.allclose(affine_of(volume), oblique[1], atol=1e-6)
    assert volume.verdict is not None
    assert volume.verdict.order == {"wrong": "other", "right": "ascending", "same": "other", "none": "unknown"}[numbers]


def test_what_a_volume_knows(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *oblique, description="THORAX", intercept=-24)
    volume = one(tmp_path)
    first = pydicom.dcmread(files[0])
    grid, verdict = volume.laid_out
    assert (volume.files, volume.folder, volume.name, volume.part) == (9, str(tmp_path), "", 0)
    assert volume.describe() == f"{tmp_path} (9 files)"
    assert (volume.facts.modality, volume.facts.description) == ("CT", "THORAX")
    assert grid.shape == volume.shape == SHAPE
    assert grid.frame_of_reference == first.FrameOfReferenceUID
    assert (grid.study, grid.series) == (first.StudyInstanceUID, first.SeriesInstanceUID)
    assert grid.sop_class == volume.sop_class == first.SOPClassUID
    assert grid.slices == tuple(((pydicom.dcmread(path).SOPInstanceUID, 0),) for path in files)
    assert np.allclose(grid.origins, (oblique[1] @ np.array([[0, 0, k, 1] for k in range(9)]).T).T[:, :3], atol=1e-6)
    assert (verdict.status, verdict.rescale, verdict.gaps, verdict.changed) == ("regular", "uniform", (), "")


def test_files_that_are_there_twice(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_series(tmp_path, *oblique, duplicate=[2, 5])
    volume = one(tmp_path)
    assert volume.notes == ("2 frames are there in several files with the same SOPInstanceUID; one of each was used",)
    assert len(volume.copies) == 2
    assert np.array_equal(read_volume(volume).voxels, oblique[0])


def test_mixed_encodings_in_one_series(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """An archive that compressed some of the files."""
    voxels, affine = real_volume((36, 32, len(SYNTAXES)))
    for k, (_, syntax) in enumerate(SYNTAXES):
        others = [place for place in range(len(SYNTAXES)) if place != k]
        write_series(tmp_path, voxels, affine, syntax=syntax, drop=others)
    assert np.array_equal(read(tmp_path)[0], voxels)


def test_a_broken_file_stops_its_series(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *oblique)
    for path in files[2:4]:
        path.write_bytes(path.read_bytes()[:-100])
    (volume,) = volumes(tmp_path)
    assert volume.problem == (
        f"{min(files[2:4])}: truncated: 140 bytes of pixels are there, expected 240 for 1 x 10 x 12 pixels of 16 bits (and 1 more of this "
        "series)"
    )
    assert "irregular: 1 gap" in volumes([path for path in files if path not in files[2:4]])[0].problem


def test_a_good_copy_of_a_broken_file(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *oblique, names="plain")
    copy = tmp_path / "z.dcm"
    shutil.copy(files[2], copy)
    files[2].write_bytes(files[2].read_bytes()[:-10])
    volume = one(tmp_path)
    assert np.array_equal(read_volume(volume).voxels, oblique[0])
    (note,) = volume.notes
    assert note.startswith(f"{files[2]}: truncated")
    assert note.endswith("; a good copy was used")


def test_frames_of_reference_and_patients_are_not_mixed(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_series(tmp_path / "a", *oblique, drop=range(4))
    write_series(tmp_path / "a", *oblique, drop=range(4, 9), frame_of_reference="another")
    (volume,) = volumes(tmp_path / "a")
    assert volume.problem == (
        f"{tmp_path / 'a'} (9 files): its frames lie in 2 frames of reference: where they lie relative to each other is unknown"
    )
    write_series(tmp_path / "b", *oblique, drop=range(4))
    write_series(tmp_path / "b", *oblique, drop=range(4, 9), patient={"PatientID": "another"})
    (volume,) = volumes(tmp_path / "b")
    assert volume.problem == f"{tmp_path / 'b'} (9 files): its files belong to different patients (PatientID)"


def test_no_frame_of_reference_is_one(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_series(tmp_path, *oblique, frame_of_reference=None)
    volume = one(tmp_path)
    assert volume.laid_out[0].frame_of_reference == ""
    assert np.array_equal(read_volume(volume).voxels, oblique[0])


def test_one_stack_of_several_may_be_wrong(tmp_path: Path) -> None:
    """The other can be ingested."""
    voxels, affine = real_volume(SHAPE)
    write_series(tmp_path, voxels, affine, modality="MR", echo=1)
    write_series(tmp_path, voxels + 1, affine, modality="MR", echo=2, drop=[3])
    first, second = volumes(tmp_path)
    assert (first.name, first.problem, first.files) == ("echo1", "", 9)
    assert second.problem.startswith(f"{tmp_path} (8 files, echo2): irregular: 1 gap")
    assert np.array_equal(values(read_volume(first)), voxels)


def test_slices_of_no_extent(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 1))

    def change(ds: Dataset, k: int) -> None:
        ds.SliceThickness = "0"

    write_series(tmp_path, voxels, affine, extra=change)
    (volume,) = volumes(tmp_path)
    assert "it is a single slice without SliceThickness or SpacingBetweenSlices" in volume.problem


def test_order_of_the_files_does_not_matter(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    files = write_series(tmp_path, *oblique)
    first, second = one(files), one(files[::-1])
    assert np.array_equal(affine_of(first), affine_of(second))
    assert first.laid_out[0].slices == second.laid_out[0].slices


def test_one_series_of_two_studies_is_refused(tmp_path: Path) -> None:
    """As anonymisers make them that give every series one UID."""
    voxels, affine = real_volume((12, 10, 6))
    write_series(tmp_path, voxels, affine, study="a")
    write_series(tmp_path, voxels, moved(affine, 6 * 4.2), study="b")
    (volume,) = volumes(tmp_path)
    assert "belong to different studies (StudyInstanceUID)" in volume.problem


@pytest.mark.parametrize("missing", ["one", "all", "none"])
def test_ct_without_a_rescale(tmp_path: Path, missing: str) -> None:
    voxels, affine = real_volume((12, 10, 6))

    def extra(ds: Dataset, k: int) -> None:
        if missing == "all" or (missing == "one" and k == 3):
            del ds.RescaleSlope, ds.RescaleIntercept

    write_series(tmp_path, voxels, affine, intercept=-1024.0, extra=extra)
    (volume,) = volumes(tmp_path)
    assert ("has no RescaleSlope and RescaleIntercept (1 of 6 frames have none)" in volume.problem) is (
        missing == "one"
    )
    said = [note for note in volume.notes if "may not be Hounsfield units" in note]
    assert len(said) == (missing == "all")
    if missing != "one":
        wanted = voxels if missing == "all" else voxels - 1024
        assert np.array_equal(read_volume(volume).voxels, wanted)


def test_a_fourth_axis_is_told_of(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 6))
    write_series(tmp_path, np.stack([voxels, voxels + 1, voxels + 2], axis=3), affine, modality="MR")
    (volume,) = volumes(tmp_path)
    assert volume.notes == ("the fourth axis is time, of 3 steps",)


def test_slices_a_few_micrometres_apart_are_slices(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 6))
    small = affine.copy()
    small[:3, :3] /= 1000
    write_series(tmp_path, voxels, small)
    volume = one(tmp_path)
    assert volume.shape == (12, 10, 6)
    assert np.array_equal(read_volume(volume).voxels, voxels)


def test_slices_of_other_thickness_are_another_volume(tmp_path: Path) -> None:
    """Two reconstructions under one series, of which only this tells."""
    voxels, affine = real_volume((12, 10, 6))
    for thickness in (1, 2):
        write_series(
            tmp_path,
            voxels + thickness,
            affine,
            extra=lambda ds, k, thickness=thickness: setattr(ds, "SliceThickness", thickness),
        )
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"thickness1", "thickness2"}
    for thickness in (1, 2):
        assert np.array_equal(found[f"thickness{thickness}"], voxels + thickness)


@pytest.mark.parametrize(("columns", "bits"), [(20, 16), (40, 8)])
def test_pixels_that_take_more_than_the_header_says_are_refused(tmp_path: Path, columns: int, bits: int) -> None:
    voxels, affine = real_volume((40, 36, 3))

    def extra(ds: Dataset, k: int) -> None:
        ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = columns, bits, bits, bits - 1

    write_series(tmp_path, voxels, affine, extra=extra)
    (volume,) = volumes(tmp_path)
    assert "its pixels take 2880 bytes, more than the 1440 for" in volume.problem
