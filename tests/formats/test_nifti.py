"""NIfTI in and out, against nibabel."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radioloader.errors import FormatError
from radioloader.formats.nifti import read_header, read_voxels, write_nifti
from radioloader.formats.nifti_names import source_files, stem

REAL = [
    "anatomical.nii",
    "example4d.nii.gz",
    "example_nifti2.nii.gz",
    "functional.nii",
    "reoriented_anat_moved.nii",
    "standard.nii.gz",
]
AFFINE = np.array([[0.0, -1.5, 0.1, 4.0], [1.1, 0.0, 0.0, -5.0], [0.2, 0.0, 2.0, 6.0], [0.0, 0.0, 0.0, 1.0]])
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def volume(dtype: str = "i2", shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(1).integers(0, 100, shape)
    return values.astype(dtype)


def same_as_nibabel(path: Path) -> None:
    header, voxels, _ = read_voxels(path)
    image = nib.load(path)
    raw = image.dataobj.get_unscaled()
    assert header.shape == image.shape
    assert voxels.dtype == header.dtype == raw.dtype.newbyteorder("=")
    np.testing.assert_array_equal(voxels, raw)
    np.testing.assert_array_equal(header.affine, image.affine)
    assert (header.slope, header.intercept) == (image.dataobj.slope, image.dataobj.inter)


@pytest.mark.parametrize("name", REAL)
def test_real_files_read_as_nibabel_reads_them(nibabel_data: Path, name: str) -> None:
    same_as_nibabel(nibabel_data / name)


@pytest.mark.parametrize("name", REAL)
def test_real_files_come_back_exactly(nibabel_data: Path, tmp_path: Path, name: str) -> None:
    header, voxels, _ = read_voxels(nibabel_data / name)
    write_nifti(tmp_path / "out.nii.gz", voxels, block=header.block)
    source, out = nib.load(nibabel_data / name), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), np.asanyarray(source.dataobj))
    assert out.get_data_dtype() == source.get_data_dtype()
    np.testing.assert_array_equal(out.affine, source.affine)
    for field in (
        "pixdim",
        "qform_code",
        "sform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "qoffset_x",
        "xyzt_units",
    ):
        np.testing.assert_array_equal(out.header[field], source.header[field], err_msg=field)
    for field in (
        "intent_code",
        "intent_name",
        "dim_info",
        "slice_code",
        "toffset",
        "cal_max",
        "scl_slope",
        "scl_inter",
    ):
        np.testing.assert_array_equal(out.header[field], source.header[field], err_msg=field)


@pytest.mark.parametrize(
    ("kind", "ending"),
    [(kind, ending) for kind in (nib.Nifti1Image, nib.Nifti2Image) for ending in (".nii", ".nii.gz")]
    + [(nib.Nifti1Pair, ending) for ending in (".img", ".hdr")],
)
def test_every_container(tmp_path: Path, ending: str, kind: Any) -> None:
    path = tmp_path / f"a{ending}"
    nib.save(kind(volume(), AFFINE), path)
    same_as_nibabel(path)


@pytest.mark.parametrize("dtype", [f"{order}{kind}" for kind in DTYPES for order in "<>"])
def test_every_dtype_in_both_byte_orders(tmp_path: Path, dtype: str) -> None:
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    nib.save(nib.Nifti1Image(volume(dtype), AFFINE, header), tmp_path / "a.nii.gz")
    same_as_nibabel(tmp_path / "a.nii.gz")
    found, voxels, _ = read_voxels(tmp_path / "a.nii.gz")
    write_nifti(tmp_path / "b.nii", voxels, block=found.block)
    out = nib.load(tmp_path / "b.nii")
    assert out.get_data_dtype() == np.dtype(dtype), "the file's byte order as well"
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), volume(dtype))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.25, 0.0), (2.0, -1024.0), (-0.5, 3.0), (1.0, 7.0)])
def test_scaling_is_kept(tmp_path: Path, write_image: Callable[..., Path], slope: float, intercept: float) -> None:
    path = write_image(tmp_path / "a.nii.gz", volume(), AFFINE, slope, intercept)
    same_as_nibabel(path)
    header, voxels, _ = read_voxels(path)
    write_nifti(tmp_path / "b.nii.gz", voxels, block=header.block)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").get_fdata(), nib.load(path).get_fdata())


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_means_nothing_is_none(tmp_path: Path, slope: float) -> None:
    nib.save(nib.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[112:116] = np.float32(slope).tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    same_as_nibabel(tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").slope == 1.0


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (1, 0), (0, 1), (2, 1), (1, 4)])
def test_sform_comes_before_qform(tmp_path: Path, sform: int, qform: int) -> None:
    image = nib.Nifti1Image(volume(), None)
    image.header.set_qform(np.diag([1.0, 2.0, 3.0, 1.0]), code=qform)
    image.header.set_sform(AFFINE, code=sform)
    nib.save(nib.Nifti1Image(volume(), None, image.header), tmp_path / "a.nii")
    same_as_nibabel(tmp_path / "a.nii")
    notes = read_header(tmp_path / "a.nii").notes
    assert bool(notes) == (sform == qform == 0)


def test_names_are_blanked_geometry_is_not(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(), AFFINE)
    image.header["descrip"] = b"Doe^Jane"
    image.header["db_name"] = b"Jane"
    image.header["aux_file"] = b"jane.txt"
    image.header["intent_name"] = b"labels"
    nib.save(image, tmp_path / "a.nii.gz")
    block = read_header(tmp_path / "a.nii.gz").block
    assert b"ane" not in block
    assert b"labels" in block


def test_same_content_same_bytes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii")
    header, voxels, _ = read_voxels(tmp_path / "a.nii")
    for name in ("x.nii.gz", "y.nii.gz"):
        write_nifti(tmp_path / name, voxels, block=header.block)
    assert (tmp_path / "x.nii.gz").read_bytes() == (tmp_path / "y.nii.gz").read_bytes()


def test_another_dtype_drops_what_the_source_says_of_its_values(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    path = write_image(tmp_path / "a.nii.gz", volume(), AFFINE, 0.5, 10.0)
    header, voxels, _ = read_voxels(path)
    mask = (voxels > 50).astype(np.uint8)
    write_nifti(tmp_path / "mask.nii.gz", mask, block=header.block, dtype=np.dtype(np.uint8))
    out = nib.load(tmp_path / "mask.nii.gz")
    assert out.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), mask)
    assert float(out.header["cal_max"]) == 0.0


def test_writing_somewhere_impossible_names_the_path(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii")
    header, voxels, _ = read_voxels(tmp_path / "a.nii")
    with pytest.raises(FormatError, match=r"nowhere.out\.nii.*does not exist"):
        write_nifti(tmp_path / "nowhere" / "out.nii", voxels, block=header.block)
    with pytest.raises(FormatError, match=r"out\.mha"):
        write_nifti(tmp_path / "out.mha", voxels, block=header.block)
    (tmp_path / "b.nii").mkdir()
    with pytest.raises(FormatError, match=r"b\.nii: cannot be written, it is a folder; give the name of a file"):
        write_nifti(tmp_path / "b.nii", voxels, block=header.block)
    (tmp_path / "b.nii").rmdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii"]


def test_stems() -> None:
    names = ["a.nii.gz", "/x/b.c.nii", "D.HDR", "e.img.gz", "f.txt"]
    assert [stem(name) for name in names] == ["a", "b.c", "D", "e", "f.txt"]


def good(tmp_path: Path, ending: str = ".nii.gz") -> Path:
    path = tmp_path / f"case{ending}"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32), AFFINE), path)
    return path


def broken(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "case.nii.gz"
    if case == "zero":
        path.write_bytes(b"")
    elif case == "text":
        path.write_text("dear colleague, here is the scan\n" * 50)
    elif case == "truncated gz":
        data = good(tmp_path).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif case == "gz without its end":
        path.write_bytes(good(tmp_path).read_bytes()[:-6])
    elif case == "flipped bit":
        data = bytearray(gzip.compress(gzip.decompress(good(tmp_path).read_bytes()), compresslevel=0))
        data[-3000] ^= 1  # stored uncompressed: only the checksum can tell
        path.write_bytes(data)
    elif case == "corrupt gz":
        data = bytearray(good(tmp_path).read_bytes())
        data[200:400] = b"\xff" * 200
        path.write_bytes(data)
    elif case == "truncated nii":
        path = good(tmp_path, ".nii")
        path.write_bytes(path.read_bytes()[:-100])
    elif case == "terabytes":
        path = good(tmp_path, ".nii")
        data = bytearray(path.read_bytes())
        data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
        path.write_bytes(data)
    elif case in ("2D", "5D"):
        nib.save(nib.Nifti1Image(np.zeros((4, 5) if case == "2D" else (4, 5, 6, 1, 3), np.float32), AFFINE), path)
    elif case == "complex":
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.complex64), AFFINE), path)
    elif case == "RGB":
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE), path)
    elif case == "singular":
        image = nib.Nifti1Image(volume(), None)
        image.header.set_sform(np.diag([1.0, 0.0, 1.0, 1.0]), code=1)
        nib.save(image, path)
    elif case == "not finite":
        image = nib.Nifti1Image(volume(), AFFINE)
        nib.save(image, path)
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[280:284] = np.float32(np.nan).tobytes()
        path.write_bytes(gzip.compress(data))
    elif case == "Analyze":
        path = tmp_path / "case.hdr"
        nib.save(nib.AnalyzeImage(volume(), AFFINE), path)
    elif case == "half a pair":
        nib.save(nib.Nifti1Pair(volume(), AFFINE), tmp_path / "case.img")
        (tmp_path / "case.img").unlink()
        path = tmp_path / "case.hdr"
    elif case == "absent":
        pass
    return path


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("zero", "the file is empty"),
        ("text", "not a NIfTI file"),
        ("truncated gz", "truncated"),
        ("gz without its end", "truncated"),
        ("flipped bit", "corrupt gzip data .*CRC"),
        ("corrupt gz", "corrupt gzip data|truncated"),
        ("truncated nii", "truncated"),
        ("terabytes", "truncated.*promises"),
        ("2D", "2D data of shape \\(4, 5\\)"),
        ("5D", "5D data of shape \\(4, 5, 6, 1, 3\\)"),
        ("complex", "complex64 \\(complex\\)"),
        ("RGB", "RGB \\(colour\\)"),
        ("singular", "the affine is singular"),
        ("not finite", "not finite"),
        ("Analyze", "Analyze 7.5"),
        ("half a pair", "case.img does not exist"),
        ("absent", "does not exist"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path, case: str, reason: str) -> None:
    path = broken(tmp_path, case)
    with pytest.raises(FormatError, match=reason) as caught:
        read_voxels(path)
    assert path.name in str(caught.value)


def test_a_compressed_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    packed = good(tmp_path)
    renamed = tmp_path / "renamed.nii"
    renamed.write_bytes(packed.read_bytes())
    np.testing.assert_array_equal(read_voxels(renamed)[1], read_voxels(packed)[1])


def test_pairs_are_found_from_either_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(volume(), AFFINE), tmp_path / "a.img")
    assert (
        source_files(tmp_path / "a.hdr") == source_files(tmp_path / "a.img") == (tmp_path / "a.hdr", tmp_path / "a.img")
    )
