"""The values of volumes: every encoding, every kind of pixel, rescaling, copies, the hash of the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    ParametricMapStorage,
    RLELossless,
)

from radioloader.errors import FormatError
from radioloader.formats.dicom.pixels import read_volume
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.make import (
    CONVERTED,
    SYNTAX,
    SYNTAXES,
    fit,
    real_volume,
    rescaled,
    rotation,
    write_enhanced,
    write_series,
)
from tests.formats.dicom.reading import affine_of, one, read, values, volumes
from tests.formats.dicom.volumes import Array

KINDS = [
    (8, 8, False, False),
    (8, 8, True, False),
    (12, 16, False, True),
    (12, 16, True, False),
    (12, 16, True, True),
    (10, 16, False, False),
    (16, 16, False, False),
    (16, 16, True, False),
]
SHAPE = (36, 32, 3)


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SHAPE)
    return voxels, rotation((20, -10, 5)) @ affine


@SYNTAX
@pytest.mark.parametrize(("bits", "allocated", "signed", "junk"), KINDS)
def test_every_kind_of_pixel_in_every_syntax(
    tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, bits: int, allocated: int, signed: bool, junk: bool
) -> None:
    voxels = fit(oblique[0], bits, signed)
    options = {"bits_stored": bits, "bits_allocated": allocated, "signed": signed, "high_bits_junk": junk}
    write_series(tmp_path, voxels, oblique[1], modality="MR", syntax=syntax, **options)
    volume = one(tmp_path)
    got = read_volume(volume)
    assert got.voxels.dtype == np.dtype(f"{'int' if signed else 'uint'}{allocated}")
    assert np.array_equal(got.voxels, voxels)
    assert (got.slope, got.intercept) == (1.0, 0.0)
    assert np.allclose(affine_of(volume), oblique[1], atol=1e-6)


@pytest.mark.parametrize("syntax", [uid for name, uid in SYNTAXES if name != "rle"])
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (8, 16), (12, 16), (16, 16)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_header_says_whether_values_are_signed(
    tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, bits: int, allocated: int, signed: bool
) -> None:
    """PixelRepresentation counts (PS3.5 8.1.1), whatever the compressed picture says of itself: here they differ."""
    voxels = fit(oblique[0], bits, signed).astype(f"{'i' if signed else 'u'}{allocated // 8}")

    def turn(ds: Dataset, k: int) -> None:
        ds.PixelRepresentation = int(not signed)

    write_series(
        tmp_path,
        voxels,
        oblique[1],
        modality="MR",
        syntax=syntax,
        bits_stored=bits,
        bits_allocated=allocated,
        signed=signed,
        extra=turn,
    )
    pattern = voxels.astype(int) & ((1 << bits) - 1)
    answer = pattern if signed else np.where(pattern >> (bits - 1), pattern - (1 << bits), pattern)
    assert np.array_equal(read(tmp_path)[0], answer)


@CONVERTED
def test_series_as_dcm2niix_reads_them(tmp_path: Path, oblique: tuple[Array, Array], syntax: Any) -> None:
    fragments = 1 if syntax in (JPEGLSLossless, RLELossless) else 2
    write_series(tmp_path / "in", *oblique, syntax=syntax, fragments=fragments, slope=2, intercept=-1024)
    got = read(tmp_path / "in")
    assert np.array_equal(got[0], rescaled(oblique[0], 2, -1024))
    assert same_as_converter(*got, *dcm2niix(tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("fragments", [2, 5])
def test_fragmented_frames(tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, fragments: int) -> None:
    write_series(tmp_path / "s", *oblique, syntax=syntax, fragments=fragments)
    write_enhanced(tmp_path / "e" / "a.dcm", *oblique, syntax=syntax, fragments=fragments)
    for name in ("s", "e"):
        assert np.array_equal(read(tmp_path / name)[0], oblique[0])


@SYNTAX
def test_enhanced_frames_in_any_order(tmp_path: Path, syntax: Any) -> None:
    """More frames than are decoded at once."""
    voxels, affine = real_volume((32, 32, 24))
    write_enhanced(tmp_path / "a.dcm", voxels, affine, syntax=syntax)
    got = read(tmp_path)
    assert np.array_equal(got[0], voxels)
    assert np.allclose(got[1], affine, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_shifted(tmp_path: Path, oblique: tuple[Array, Array], signed: bool) -> None:
    """12 bits in the upper part of 16, as old scanners wrote them (PS3.5 8.1.1), with junk below."""
    voxels = fit(oblique[0], 12, signed)

    def shift(ds: Dataset, k: int) -> None:
        stored = (voxels[..., k].T.astype(np.uint16) << 4) | np.uint16(k + 1)
        ds.PixelData = stored.astype("<u2").tobytes()
        ds.HighBit = 15

    write_series(tmp_path, voxels, oblique[1], bits_stored=12, signed=signed, extra=shift)
    assert np.array_equal(read(tmp_path)[0], voxels)


def test_32_bits(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels = oblique[0].astype(np.int32) * 70001
    write_series(tmp_path, voxels, oblique[1], modality="MR", bits_stored=32)
    got = read_volume(one(tmp_path))
    assert got.voxels.dtype == np.int32
    assert np.array_equal(got.voxels, voxels)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, dict(SYNTAXES)["implicit"]])
def test_floating_point_maps(tmp_path: Path, oblique: tuple[Array, Array], kind: str, syntax: Any) -> None:
    """Parametric maps (PS3.3 A.75) hold Float Pixel Data (C.7.6.24)."""
    voxels = (oblique[0] / 7).astype(kind)

    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ParametricMapStorage
        size = voxels.dtype.itemsize
        keyword = "FloatPixelData" if size == 4 else "DoubleFloatPixelData"
        setattr(ds, keyword, voxels.transpose(2, 1, 0).astype(f"<f{size}").tobytes())
        for gone in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(ds, gone)
        ds.BitsAllocated = 8 * size

    write_enhanced(
        tmp_path / "a.dcm", oblique[0], oblique[1], modality="MR", frames="plain", syntax=syntax, extra=change
    )
    got = read_volume(one(tmp_path))
    assert got.voxels.dtype == kind
    assert np.array_equal(got.voxels, voxels)


def test_inverted_grey_values_stay_as_they_are(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """MONOCHROME1 is about showing them (PS3.3 C.7.6.3.1.2): CT stays in HU."""
    write_series(
        tmp_path,
        *oblique,
        intercept=-1024,
        extra=lambda ds, k: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"),
    )
    assert np.array_equal(read(tmp_path)[0], oblique[0] - 1024.0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (1, 0), (1, 100), (2, -1024)])
def test_hounsfield_units_are_int16(
    tmp_path: Path, oblique: tuple[Array, Array], signed: bool, slope: int, intercept: int
) -> None:
    voxels = fit(oblique[0], 12, signed)
    write_series(tmp_path, voxels, oblique[1], bits_stored=12, signed=signed, slope=slope, intercept=intercept)
    got = read_volume(one(tmp_path))
    assert (got.voxels.dtype, got.slope, got.intercept) == (np.int16, 1.0, 0.0)
    assert np.array_equal(got.voxels, voxels.astype(int) * slope + intercept)


@pytest.mark.parametrize(
    ("bits", "signed", "slope", "intercept"),
    [(16, False, 1, -1024), (16, True, 1, -1024), (16, True, 2, 0), (12, True, 0.5, -1000), (12, True, 1, 0.25)],
    ids=["too large", "too small", "slope", "half units", "quarter"],
)
def test_hounsfield_units_that_int16_cannot_hold(
    tmp_path: Path, oblique: tuple[Array, Array], bits: int, signed: bool, slope: float, intercept: float
) -> None:
    """Stored integers and the rescale beside them: nothing is lost."""
    voxels = fit(oblique[0], bits, signed)
    write_series(tmp_path, voxels, oblique[1], bits_stored=bits, signed=signed, slope=slope, intercept=intercept)
    got = read_volume(one(tmp_path))
    assert (got.voxels.dtype, got.slope, got.intercept) == (voxels.dtype, slope, intercept)
    assert np.array_equal(got.voxels, voxels)
    assert np.array_equal(values(got), rescaled(voxels, slope, intercept))


def test_8_bits_with_an_intercept(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels = fit(oblique[0], 8, False)
    write_series(tmp_path, voxels, oblique[1], bits_stored=8, signed=False, intercept=-100)
    got = read_volume(one(tmp_path))
    assert got.voxels.dtype == np.int16
    assert np.array_equal(got.voxels, voxels.astype(int) - 100)


@pytest.mark.parametrize(("signed", "padding"), [(True, -2000), (False, 63536)])
def test_padding_is_a_value_like_any_other(
    tmp_path: Path, oblique: tuple[Array, Array], signed: bool, padding: int
) -> None:
    """GE's circle of -2000 around the picture is not rescaled away (PS3.3 C.7.5.1.1.2): all readers give it back."""
    voxels = oblique[0].astype(np.int16 if signed else np.uint16)
    voxels[:4] = padding
    write_series(tmp_path, voxels, oblique[1], signed=signed, pixel_padding=padding, intercept=-24)
    assert np.array_equal(read(tmp_path)[0], voxels.astype(int) - 24)


def test_rescale_of_each_slice_in_float32(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """PET: one rounding of the product and one of the sum, as ITK does it."""
    voxels, affine = oblique
    slope, intercept = [0.731, 1.234567, 3.1], [0.0, -0.3, 11.0]
    write_series(tmp_path / "s", voxels, affine, modality="PT", slope=slope, intercept=intercept)
    write_enhanced(tmp_path / "e" / "a.dcm", voxels, affine, modality="PT", slope=slope, intercept=intercept)
    for name in ("s", "e"):
        volume = one(tmp_path / name)
        got = read_volume(volume)
        assert volume.verdict is not None
        assert volume.verdict.rescale == "per slice"
        assert (got.voxels.dtype, got.slope, got.intercept) == (np.float32, 1.0, 0.0)
        answer = voxels.astype(np.float32) * np.array(slope, np.float32) + np.array(intercept, np.float32)
        assert np.array_equal(got.voxels, answer)
        assert np.allclose(got.voxels, rescaled(voxels, slope, intercept), rtol=1e-6, atol=1e-4)


def test_hounsfield_units_of_each_slice(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Intercepts that differ, all of them whole: still int16."""
    slope, intercept = [1.0, 2.0, 1.0], [-1024.0, 0.0, -24.0]
    write_series(tmp_path / "a", *oblique, slope=slope, intercept=intercept)
    got = read_volume(one(tmp_path / "a"))
    assert (got.voxels.dtype, got.slope, got.intercept) == (np.int16, 1.0, 0.0)
    assert np.array_equal(got.voxels, rescaled(oblique[0], slope, intercept))
    write_series(tmp_path / "b", *oblique, slope=slope, intercept=[-1024.0, 0.0, -40000.0])
    got = read_volume(one(tmp_path / "b"))
    assert got.voxels.dtype == np.float32
    assert np.array_equal(got.voxels, rescaled(oblique[0], slope, [-1024, 0, -40000]))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_signed_and_unsigned_slices(tmp_path: Path, oblique: tuple[Array, Array], modality: str) -> None:
    """One volume: what is in the files is the same."""
    voxels, affine = np.abs(oblique[0]), oblique[1]
    write_series(tmp_path, voxels, affine, modality=modality, drop=[1])
    write_series(tmp_path, voxels, affine, modality=modality, drop=[0, 2], signed=False)
    got = read_volume(one(tmp_path))
    assert got.voxels.dtype == (np.int16 if modality == "CT" else np.int32)
    assert np.array_equal(got.voxels, voxels)


@pytest.mark.parametrize("slope", [0.0, [1.0, 0.0, 2.0]])
def test_slope_of_zero_is_refused(tmp_path: Path, oblique: tuple[Array, Array], slope: Any) -> None:
    write_series(tmp_path, *oblique, slope=slope)
    (volume,) = volumes(tmp_path)
    with pytest.raises(FormatError, match="RescaleSlope is 0: the values are lost"):
        read_volume(volume)


def test_negative_slope(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_series(tmp_path, *oblique, modality="MR", slope=-2.0, intercept=5.0)
    assert np.array_equal(read(tmp_path)[0], oblique[0] * -2.0 + 5.0)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_damaged_pixels_name_their_file(
    tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_series(tmp_path, *oblique, syntax=syntax)
    content = files[1].read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00") + 40
    files[1].write_bytes(content[:start] + b"\x55" * (len(content) - start))
    (volume,) = volumes(tmp_path)
    with pytest.raises(FormatError, match=f"{files[1]}: "):
        read_volume(volume)
    capfd.readouterr()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("size", [{"Rows": 33}, {"Columns": 30}, {"Rows": 18, "Columns": 64}])
@pytest.mark.parametrize("fragments", [1, 40])
def test_pictures_of_another_size_than_the_header_says(
    tmp_path: Path, oblique: tuple[Array, Array], syntax: Any, size: dict[str, int], fragments: int
) -> None:
    """Decoders allocate what the picture says: that is looked at before."""

    def change(ds: Dataset, k: int) -> None:
        for keyword, value in size.items():
            setattr(ds, keyword, value)

    write_series(tmp_path, *oblique, syntax=syntax, extra=change, fragments=fragments)
    (volume,) = volumes(tmp_path)
    expected = f"{size.get('Rows', 32)} x {size.get('Columns', 36)}"
    said = f"its compressed picture has 32 x 36 pixels of 1 samples, expected {expected} of 1, as its header says"
    assert said in volume.problem


@pytest.mark.parametrize("size", [{"Rows": 33}, {"Columns": 30}, {"Columns": 38}])
def test_run_lengths_of_another_size(
    tmp_path: Path, oblique: tuple[Array, Array], size: dict[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """RLE does not say its size; its decoder panics, which Python does not count among its exceptions."""

    def change(ds: Dataset, k: int) -> None:
        for keyword, value in size.items():
            setattr(ds, keyword, value)

    write_series(tmp_path, *oblique, syntax=RLELossless, extra=change)
    (volume,) = volumes(tmp_path)
    with pytest.raises(FormatError, match=r"its pixels \(RLE Lossless\) could not be decoded"):
        read_volume(volume)
    capfd.readouterr()
