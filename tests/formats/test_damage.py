"""Damaged and odd NIfTI files: each is refused by name, or read as nibabel reads it; nothing else ever happens."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radioloader.errors import FormatError
from radioloader.formats.nifti import read_header, read_voxels, write_nifti
from radioloader.formats.nifti_names import source_files

AFFINE = np.array([[0.0, -1.5, 0.1, 4.0], [1.1, 0.0, 0.0, -5.0], [0.2, 0.0, 2.0, 6.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def peak_memory() -> Iterator[Callable[[], int]]:
    """Bytes that Python and numpy held at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.fixture(params=[1, 2], ids=["NIfTI-1", "NIfTI-2"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """The bytes of a good .nii file."""
    kind = nib.Nifti1Image if request.param == 1 else nib.Nifti2Image
    nib.save(kind(np.random.default_rng(0).integers(-99, 99, (6, 5, 4), dtype=np.int16), AFFINE), tmp_path / "good.nii")
    return (tmp_path / "good.nii").read_bytes()


def nibabel_reads(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """What nibabel makes of a file, stored voxels and affine; None where it refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # not nibabel.load: an intent code may make it look for something else than an image
            kind = nib.Nifti1Image if nib.Nifti1Header.may_contain_header(path.read_bytes()) else nib.Nifti2Image
            image = kind.from_filename(path)
            return np.asanyarray(image.dataobj.get_unscaled()), image.affine
    except Exception:
        return None


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_every_truncation_is_noticed(content: bytes, tmp_path: Path, name: str) -> None:
    whole = gzip.compress(content) if name.endswith(".gz") else content
    path = tmp_path / name
    path.write_bytes(whole)
    assert read_voxels(path)[1].shape == (6, 5, 4)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=f"{path}: ") as caught:
            read_voxels(path)
        assert "unexpected" not in str(caught.value)


def test_every_flipped_bit_of_a_gzip_file_is_noticed(
    content: bytes, tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    """Or changes nothing: a field of the gzip header that means nothing, padding, another place to copy the same bytes from."""
    path = tmp_path / "a.nii.gz"
    whole = gzip.compress(content, mtime=0)
    path.write_bytes(whole)
    truth = read_voxels(path)
    positions = list(range(len(whole) * 8))
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.permutation(positions)[: counts(500, len(positions))].tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            header, voxels, _ = read_voxels(path)
        except FormatError as error:
            reason = str(error)
        else:
            assert header.block == truth[0].block
            np.testing.assert_array_equal(voxels, truth[1])
            continue
        assert reason.startswith(f"{path}: ")
        refused += 1
    assert refused > 400


def test_any_header_is_refused_by_name_or_read_as_nibabel_reads_it(
    content: bytes, tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    path = tmp_path / "a.nii"
    generator = np.random.default_rng(1)
    header_size = 348 if content[0] == 92 else 540
    reasons, read = [], 0
    for _ in range(counts(700, 15_000)):
        damaged = bytearray(content)
        for _ in range(int(generator.integers(1, 4))):
            at = int(generator.integers(header_size))
            damaged[at] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF, int(generator.integers(256))]))
        path.write_bytes(damaged)
        try:
            header, voxels, _ = read_voxels(path)
        except FormatError as error:
            reasons.append(str(error))
            continue
        read += 1
        assert voxels.dtype == header.dtype
        found = nibabel_reads(path)
        assert found is not None, "we read what nibabel does not"
        np.testing.assert_array_equal(voxels, found[0])
        np.testing.assert_array_equal(header.affine, found[1])
    assert all(reason.startswith(f"{path}: ") for reason in reasons)
    assert len(reasons) > 50
    assert read > 50


def test_headers_that_promise_too_much_allocate_nothing(tmp_path: Path, peak_memory: Callable[[], int]) -> None:
    """NIfTI-2 sizes are 64 bits: their product overflows too."""
    nib.save(nib.Nifti2Image(np.zeros((4, 4, 4, 2), np.float64), AFFINE), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    for size in (2**20, 2**31, 2**32, 2**62, 2**63 - 1):
        content[24:48] = np.array([size] * 3, "<i8").tobytes()
        for name, data in (("b.nii", bytes(content)), ("b.nii.gz", gzip.compress(content))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(FormatError, match=rf"{name}: truncated, \d+ bytes cannot hold the \d+ bytes of voxels"):
                read_voxels(tmp_path / name)
    assert peak_memory() < 20e6


def test_what_follows_the_voxels_is_read_but_not_kept(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is read for the checksum; a file that unpacks to a hundred times its size does no harm."""
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), AFFINE), tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes() + bytes(50_000_000)))
    peak_memory = request.getfixturevalue("peak_memory")
    assert read_voxels(tmp_path / "a.nii.gz")[1].sum() == 64
    assert peak_memory() < 20e6


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "RGB", "RGBA"])
def test_voxels_that_cannot_be_stored_are_refused_by_the_name_of_their_type(dtype: str, tmp_path: Path) -> None:
    kind = np.dtype([(letter, "u1") for letter in dtype]) if dtype.startswith("RGB") else np.dtype(dtype)
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), kind), AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(FormatError, match=rf"a\.nii\.gz: {dtype}.* voxels are not supported; (convert|split)"):
        read_header(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("code", "name", "bits"), [(1536, "float128", 128), (1792, "complex128", 128), (2048, "complex256", 256)]
)
def test_wide_types_are_refused_though_this_machine_may_lack_them(
    content: bytes, tmp_path: Path, code: int, name: str, bits: int
) -> None:
    damaged = bytearray(content)
    at = 70 if content[0] == 92 else 12
    damaged[at : at + 4] = np.array([code, bits], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(damaged)
    with pytest.raises(
        FormatError, match=rf"a\.nii: ({name}.* voxels are|broken NIfTI header: data code {code}) not supported"
    ):
        read_header(tmp_path / "a.nii")


@pytest.mark.parametrize("code", [0, 1, 3, 255, 9999])
def test_unknown_datatypes(content: bytes, tmp_path: Path, code: int) -> None:
    damaged = bytearray(content)
    at = 70 if content[0] == 92 else 12
    damaged[at : at + 2] = np.array(code, "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(damaged)
    with pytest.raises(FormatError, match=r"a\.nii: broken NIfTI header"):
        read_header(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sform", np.zeros((4, 4)), "the affine is singular"),
        ("sform", np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "the affine is singular"),
        ("sform", np.diag([1, np.nan, 1, 1]), "the affine holds values that are not finite"),
        (
            "sform",
            np.array([[1, 0, 0, np.inf], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
            "the affine holds values that are not finite",
        ),
    ],
)
def test_affines_that_map_nothing(field: str, value: np.ndarray, message: str, tmp_path: Path, content: bytes) -> None:
    image = nib.load(tmp_path / "good.nii")
    header = image.header.copy()
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = value[row]
    header["sform_code"] = 1
    body = content[int(image.dataobj.offset) :]
    (tmp_path / "a.nii").write_bytes(header.binaryblock.ljust(int(image.dataobj.offset), b"\0") + body)
    with pytest.raises(FormatError, match=rf"a\.nii: {message}.*; repair the header's sform or qform"):
        read_header(tmp_path / "a.nii")


def test_a_missing_half_of_a_pair_and_other_names(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), AFFINE), tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(FormatError, match=r"a\.img: the file a\.hdr does not exist \(a \.hdr/\.img pair needs both\)"):
        read_voxels(tmp_path / "a.img")
    with pytest.raises(FormatError, match=r"a\.mgz: not a NIfTI file name; expected one of \.nii\.gz, \.nii"):
        read_voxels(tmp_path / "a.mgz")
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(FormatError, match=r"folder\.nii\.gz: could not be read: Is a directory"):
        read_voxels(tmp_path / "folder.nii.gz")


@pytest.mark.parametrize("suffixes", [("hdr", "img"), ("HDR", "IMG"), ("hdr.gz", "img.gz"), ("hdr", "img.gz")])
def test_pairs_compressed_or_not(suffixes: tuple[str, str], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (3, 4, 5), dtype=np.int16)
    nib.save(nib.Nifti1Pair(array, AFFINE), tmp_path / "plain.img")
    for suffix in suffixes:
        kind = suffix[:3].lower()
        data = (tmp_path / f"plain.{kind}").read_bytes()
        (tmp_path / f"a.{suffix}").write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    hashes = set()
    for suffix in suffixes:
        header, voxels, source_hash = read_voxels(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(voxels, array, strict=True)
        np.testing.assert_allclose(header.affine, AFFINE, atol=1e-6)
        hashes.add(source_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("given", ["q.img.gz", "q.hdr.gz", "q.img", "q.hdr"])
def test_a_file_of_a_pair_is_read_itself_with_the_sibling_of_its_compression(given: str, tmp_path: Path) -> None:
    plain, packed = (np.full((3, 4, 5), value, np.int16) for value in (1, 2))
    nib.save(nib.Nifti1Pair(packed, 2 * AFFINE), tmp_path / "q.img.gz")
    nib.save(nib.Nifti1Pair(plain, AFFINE), tmp_path / "q.img")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.hdr", "q.hdr.gz", "q.img", "q.img.gz"]
    zipped = ".gz" if given.endswith(".gz") else ""
    assert source_files(tmp_path / given) == (tmp_path / f"q.hdr{zipped}", tmp_path / f"q.img{zipped}")
    header, voxels, _ = read_voxels(tmp_path / given)
    np.testing.assert_array_equal(voxels, packed if zipped else plain)
    np.testing.assert_allclose(header.affine[:3], (2 * AFFINE if zipped else AFFINE)[:3], atol=1e-5)


GARBAGE = {"text": b"some more text\n" * 50, "one byte": b"x", "zeros and text": bytes(100) + b"text"}


@pytest.mark.parametrize("tail", [b"", bytes(700), *GARBAGE.values()], ids=["nothing", "zeros", *GARBAGE])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.img.gz"])
def test_what_follows_the_compressed_data_is_left_out_as_by_nibabel(tmp_path: Path, name: str, tail: bytes) -> None:
    import hashlib

    array = np.random.default_rng(0).integers(-9, 9, (13, 14, 15), dtype=np.int16)
    nib.save((nib.Nifti1Image if ".nii" in name else nib.Nifti1Pair)(array, AFFINE), tmp_path / name)
    data = (tmp_path / name).read_bytes() + tail
    (tmp_path / name).write_bytes(data)
    head = (tmp_path / "a.hdr.gz").read_bytes() if name == "a.img.gz" else b""
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / name).dataobj), array)
    header, voxels, source_hash = read_voxels(tmp_path / name)
    np.testing.assert_array_equal(voxels, array)
    assert source_hash == hashlib.sha256(head + data).hexdigest()
    expected = ("what follows the compressed data is not gzip; it was left out",) if tail in GARBAGE.values() else ()
    assert header.notes == expected


@pytest.mark.parametrize("kind", ["flipped", "cut", "further stream cut", "further stream flipped"])
def test_what_follows_does_not_hide_damage(tmp_path: Path, kind: str) -> None:
    array = np.random.default_rng(0).integers(-9999, 9999, (9, 9, 9), dtype=np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii.gz")
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    if kind == "flipped":
        data[-6] ^= 1
    elif kind == "cut":
        data = data[:-300]
    else:
        more = bytearray(gzip.compress(b"more" * 99))
        more[-6] ^= 1
        data += more if kind.endswith("flipped") else more[:-9]
    (tmp_path / "a.nii.gz").write_bytes(data + (b"" if kind == "further stream cut" else b"some more text" * 50))
    with pytest.raises(FormatError, match=r"a\.nii\.gz: (truncated|corrupt gzip data)"):
        read_voxels(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("size", [0, 1, 349, 540, -1])
def test_a_wrong_size_of_the_header_is_set_right_as_by_nibabel(tmp_path: Path, size: int, endian: str) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (3, 4, 5), dtype=np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE, nib.Nifti1Header(endianness=endian)), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[:4] = struct.pack(f"{endian}i", size)
    (tmp_path / "a.nii").write_bytes(data)
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "a.nii").dataobj), array)
    header, voxels, _ = read_voxels(tmp_path / "a.nii")
    np.testing.assert_array_equal(voxels, array)
    np.testing.assert_array_equal(header.affine, nib.load(tmp_path / "a.nii").affine)
    assert header.block[:4] == struct.pack(f"{endian}i", 348)
    write_nifti(tmp_path / "b.nii", voxels, block=header.block)
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "b.nii").dataobj), array)


def test_the_hash_is_of_the_whole_file(tmp_path: Path, content: bytes) -> None:
    import hashlib

    for name, data in (("a.nii", content + b"tail"), ("a.nii.gz", gzip.compress(content) + gzip.compress(b"tail"))):
        (tmp_path / name).write_bytes(data)
        assert read_voxels(tmp_path / name)[2] == hashlib.sha256(data).hexdigest()


def test_an_offset_beyond_the_header_is_followed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (3, 4, 5), dtype=np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    header = nib.load(tmp_path / "a.nii").header.copy()
    header["vox_offset"] = 1008
    (tmp_path / "b.nii").write_bytes(header.binaryblock.ljust(1008, b"x") + data[352:])
    np.testing.assert_array_equal(read_voxels(tmp_path / "b.nii")[1], array, strict=True)
    (tmp_path / "c.nii").write_bytes(header.binaryblock.ljust(1008, b"x")[:900])
    with pytest.raises(FormatError, match=r"c\.nii: truncated"):
        read_voxels(tmp_path / "c.nii")


@pytest.mark.parametrize("sform", range(5))
@pytest.mark.parametrize("qform", range(5))
def test_which_of_sform_and_qform_counts(sform: int, qform: int, tmp_path: Path, content: bytes) -> None:
    image = nib.load(tmp_path / "good.nii")
    header = image.header.copy()
    header.set_sform(AFFINE, code=sform)
    header.set_qform(np.diag([-2.0, 3.0, 4.0, 1.0]), code=qform)
    offset = int(image.dataobj.offset)
    (tmp_path / "a.nii").write_bytes(header.binaryblock.ljust(offset, b"\0") + content[offset:])
    found = read_header(tmp_path / "a.nii")
    np.testing.assert_array_equal(found.affine, nib.load(tmp_path / "a.nii").affine)
    if sform:
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    elif qform:
        np.testing.assert_allclose(found.affine, np.diag([-2.0, 3.0, 4.0, 1.0]), atol=1e-6)
    assert bool(found.notes) == (sform == qform == 0)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros((3, 4, 5), np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
    block, before = read_header(tmp_path / "a.nii").block, (tmp_path / "a.nii").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_nifti(tmp_path / "a.nii", array + 1, block=block)
    assert (tmp_path / "a.nii").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]
