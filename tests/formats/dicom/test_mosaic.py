"""Siemens mosaics: tiles become slices, or the word mosaic says why they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from radioloader.formats.dicom.mosaic import csa_values
from radioloader.formats.dicom.pixels import hash_files, read_volume
from radioloader.formats.dicom.stacks import Dimension
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.make import csa_header, fit, real_volume, rotation, write_mosaic
from tests.formats.dicom.reading import affine_of, instances, one, read, volumes
from tests.formats.dicom.volumes import TURNS, Array


@pytest.fixture(scope="module")
def brain() -> tuple[Array, Array]:
    """11 slices: 4 x 4 tiles, 5 of them empty."""
    voxels, affine = real_volume((12, 10, 11))
    return fit(voxels, 12, False), rotation(TURNS["oblique"]) @ affine


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("against_normal", [False, True])
def test_as_dcm2niix_reads_them(tmp_path: Path, turn: tuple[int, int, int], against_normal: bool) -> None:
    voxels, affine = real_volume((12, 10, 11))
    voxels, affine = fit(voxels, 12, False), rotation(turn) @ affine
    for number in (1, 2):
        write_mosaic(
            tmp_path / "in" / f"{3 - number}", voxels + number, affine, against_normal=against_normal, number=number
        )
    volume = one(tmp_path / "in")
    assert volume.dimension == Dimension("acquisition", ("1", "2"))
    got = read(tmp_path / "in")
    assert np.array_equal(got[0], np.stack([voxels + 1, voxels + 2], axis=3))
    assert np.allclose(got[1], affine, atol=1e-5)
    assert same_as_converter(*got, *dcm2niix(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("depth", [1, 2, 4, 5, 9, 10, 16, 17])
def test_any_number_of_tiles(tmp_path: Path, depth: int) -> None:
    voxels, affine = real_volume((8, 6, depth))
    voxels = fit(voxels, 12, False)
    write_mosaic(tmp_path / "a", voxels, affine)
    volume = one(tmp_path)
    assert np.array_equal(read_volume(volume).voxels, voxels)
    assert np.allclose(affine_of(volume), affine, atol=1e-5)
    assert volume.laid_out[1].status == ("regular" if depth > 1 else "single")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEG2000Lossless])
def test_compressed(tmp_path: Path, brain: tuple[Array, Array], syntax: Any) -> None:
    write_mosaic(tmp_path / "a", *brain, syntax=syntax)
    volume = one(tmp_path)
    got = read_volume(volume)
    assert np.array_equal(got.voxels, brain[0])
    assert hash_files(volume) == got.source_hash


def test_count_from_the_csa_header_alone(tmp_path: Path, brain: tuple[Array, Array]) -> None:
    write_mosaic(tmp_path / "a", *brain, count=False)
    assert np.array_equal(read(tmp_path)[0], brain[0])


def test_frames_name_their_mosaic(tmp_path: Path, brain: tuple[Array, Array]) -> None:
    write_mosaic(tmp_path / "a", *brain)
    volume = one(tmp_path)
    assert set(volume.laid_out[0].slices) == {((instances(tmp_path)[0].sop, 0),)}
    tiles = [places[0].tile for places in volume.slices]
    assert [(tile.row, tile.column, tile.rows, tile.columns) for tile in tiles if tile is not None][3:6] == [
        (0, 36, 10, 12),
        (10, 0, 10, 12),
        (10, 12, 10, 12),
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"count": False, "csa": False},
            "a Siemens mosaic whose header does not say how many slices it has (NumberOfImagesInMosaic)",
        ),
        (
            {"csa": False},
            "a Siemens mosaic without the CSA header's SliceNormalVector (anonymised?): the order of its slices is unknown",
        ),
    ],
)
def test_anonymised_ones_are_refused(
    tmp_path: Path, brain: tuple[Array, Array], options: dict[str, Any], reason: str
) -> None:
    write_mosaic(tmp_path / "a", *brain, **options)
    (volume,) = volumes(tmp_path)
    assert volume.problem == f"{tmp_path / 'a'}: {reason}"


@pytest.mark.parametrize(
    ("depth", "normal", "spacing", "reason"),
    [
        (17, None, None, "of 40 x 48 pixels, which 17 slices (5 x 5 tiles) do not divide"),
        (11, ["1", "0", "0"], None, "whose SliceNormalVector is not normal to its slices"),
        (11, ["0", "0", "nan"], None, "whose SliceNormalVector is not normal to its slices"),
        (11, ["0", "0"], None, "without the CSA header's SliceNormalVector"),
        (11, None, "0", "without SpacingBetweenSlices: the distance of its slices is unknown"),
        (0, None, None, "whose header does not say how many slices it has"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, depth: int, normal: list[str] | None, spacing: str | None, reason: str
) -> None:
    voxels, affine = real_volume((12, 10, 11))

    def change(ds: Dataset) -> None:
        ds.private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value = depth
        if normal is not None:
            header = csa_header({"SliceNormalVector": ("FD", normal)})
            ds.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value = header
        if spacing is not None:
            ds.SpacingBetweenSlices = ds.SliceThickness = spacing

    write_mosaic(tmp_path / "a", fit(voxels, 12, False), affine, extra=change)
    (volume,) = volumes(tmp_path)
    assert "a Siemens mosaic " + reason in volume.problem


def test_times_of_a_series(tmp_path: Path, brain: tuple[Array, Array]) -> None:
    """Nothing but AcquisitionTime: in the order of time, whatever the numbers of the instances are."""

    def change(ds: Dataset) -> None:
        ds.InstanceNumber = 9 - int(ds.InstanceNumber)
        del ds.AcquisitionNumber

    for number in (3, 1, 2):
        write_mosaic(tmp_path / f"{number}", brain[0] + number, brain[1], number=number, extra=change)
    volume = one(tmp_path)
    assert volume.dimension == Dimension("time", ("0", "2", "4"))
    assert np.array_equal(read_volume(volume).voxels, np.stack([brain[0] + n for n in (1, 2, 3)], axis=3))


def test_damaged_csa_headers_never_raise() -> None:
    header = csa_header({"NumberOfImagesInMosaic": ("US", ["11"]), "SliceNormalVector": ("FD", ["0", "0", "1"])})
    assert csa_values(header) == {"NumberOfImagesInMosaic": ["11"], "SliceNormalVector": ["0", "0", "1"]}
    for cut in range(len(header)):
        csa_values(header[:cut])
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(header)
        for place in generator.integers(4, len(header), 5):
            damaged[place] = generator.integers(256)
        csa_values(bytes(damaged))
    assert csa_values(b"") == csa_values(b"SV10") == csa_values(b"IMAGE NUM 4" * 20) == {}
