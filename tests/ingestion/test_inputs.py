"""Bad inputs: each costs its own subject, with a message that names the file and says what is wrong; the rest is ingested."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import radioloader as rl

Write = Callable[..., Path]
VOXELS = np.random.default_rng(0).integers(-500, 500, (9, 8, 7), dtype=np.int16)


def truncate(path: Path, write: Write) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def wrong_checksum(path: Path, write: Write) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the stored CRC: every voxel can be read, and only who reads to the end notices
    path.write_bytes(data)


def empty(path: Path, write: Write) -> None:
    path.write_bytes(b"")


def text(path: Path, write: Write) -> None:
    path.write_text("<html>404 not found</html>\n" * 50)


def zipped_text(path: Path, write: Write) -> None:
    path.write_bytes(gzip.compress(b"not an image " * 100))


def short(path: Path, write: Write) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:100]))


def header_only(path: Path, write: Write) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:352]))


def plain_truncated(path: Path, write: Write) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes())[:-100])  # not compressed at all, whatever its name says


def flat(path: Path, write: Write) -> None:
    write(path, VOXELS[:, :, 0])


def five(path: Path, write: Write) -> None:
    write(path, VOXELS.reshape(9, 8, 7, 1, 1).repeat(2, 4))


def colour(path: Path, write: Write) -> None:
    write(path, np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def complex_(path: Path, write: Write) -> None:
    write(path, np.zeros((3, 4, 5), np.complex64))


def patched(offset: int, *values: float) -> Callable[[Path, Write], None]:
    """Puts float32 values into the header."""

    def patch(path: Path, write: Write) -> None:
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[offset : offset + 4 * len(values)] = struct.pack(f"<{len(values)}f", *values)
        path.write_bytes(gzip.compress(data))

    return patch


def short_dims(*values: int) -> Callable[[Path, Write], None]:
    def patch(path: Path, write: Write) -> None:
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[40 : 40 + 2 * len(values)] = struct.pack(f"<{len(values)}h", *values)
        path.write_bytes(gzip.compress(data))

    return patch


def folder(path: Path, write: Write) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path, write: Write) -> None:
    path.unlink()
    path.symlink_to("../.git/annex/objects/xyz")


def circular(path: Path, write: Write) -> None:
    path.unlink()
    path.symlink_to(path.name)


def gone(path: Path, write: Write) -> None:
    path.unlink()


SROW_X = 280
# What is done to bad_CT.nii.gz -> what the report says after its path.
BROKEN: dict[str, tuple[Callable[[Path, Write], None], str]] = {
    "truncated gzip": (
        truncate,
        ": truncated: the compressed data end before their end marker; copy or download the file again",
    ),
    "wrong checksum": (wrong_checksum, ": corrupt gzip data (CRC check failed"),
    "zero bytes": (empty, ": the file is empty (0 bytes)"),
    "text": (text, ": not a NIfTI file (no NIfTI header at its beginning)"),
    "gzipped text": (zipped_text, ": not a NIfTI file (no NIfTI header at its beginning)"),
    "too short for a header": (short, ": not a NIfTI file (no NIfTI header at its beginning)"),
    "no voxels": (header_only, ": truncated, it holds 0 bytes of voxels, expected 1008 for shape (9, 8, 7)"),
    "uncompressed and truncated": (plain_truncated, ": truncated, "),
    "2D": (flat, ": 2D data of shape (9, 8); radioloader stores 3D volumes and 4D series (X, Y, Z, T)"),
    "5D": (five, ": 5D data of shape (9, 8, 7, 1, 2); radioloader stores 3D volumes and 4D series (X, Y, Z, T)"),
    "colour": (colour, ": RGB (colour) voxels are not supported; convert the file to one grey value per voxel"),
    "complex": (complex_, ": complex64 (complex) voxels are not supported; split the file into magnitude and phase"),
    "singular affine": (
        patched(SROW_X, 0, 0, 0, 0),
        ": the affine is singular (its axes do not span space): [[0.0, 0.0, 0.0], ",
    ),
    "dependent axes": (
        patched(SROW_X, 0, 1, 0, 0),
        ": the affine is singular (its axes do not span space): [[0.0, 1.0, 0.0], ",
    ),
    "NaN in the affine": (
        patched(SROW_X, float("nan"), 0, 0, 0),
        ": the affine holds values that are not finite: [[nan, 0.0, 0.0, 0.0], ",
    ),
    "inf in the affine": (
        patched(SROW_X + 12, float("inf")),
        ": the affine holds values that are not finite: [[1.0, 0.0, 0.0, inf], ",
    ),
    "a header that promises terabytes": (
        short_dims(4, 30000, 30000, 3000, 100),
        f" bytes cannot hold the {30000 * 30000 * 3000 * 100 * 2} bytes of voxels that the header promises",
    ),
    "an empty axis": (short_dims(3, 9, 0, 7), ": the shape (9, 0, 7) has an empty axis"),
    "negative axis": (short_dims(3, 9, -8, 7), ": "),
    "a folder": (folder, ": could not be read: Is a directory"),
    "a dangling link": (dangling, ": a link to ../.git/annex/objects/xyz, which does not exist; fetch or restore it"),
    "a link to itself": (circular, ": a link to bad_CT.nii.gz, which does not exist; fetch or restore it"),
    "gone": (gone, ": the file bad_CT.nii.gz does not exist"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_listed_by_name_and_the_rest_is_ingested(
    write_image: Write, tmp_path: Path, kind: str
) -> None:
    files = {name: write_image(tmp_path / f"{name}_CT.nii.gz", VOXELS) for name in ("a", "bad", "z")}
    harm, says = BROKEN[kind]
    harm(files["bad"], write_image)
    report = rl.ingest(tmp_path / "store", {"CT": files}, workers=1)
    assert {item.subject: item.status for item in report.items} == {"a": "ingested", "bad": "failed", "z": "ingested"}
    reason = report.failed[0].reason
    assert reason.startswith(f"{files['bad']}: "), reason
    assert says in reason
    assert "unexpected" not in reason
    assert "\n" not in reason
    assert not report.ok
    assert f"  failed 'bad': {reason}" in str(report).splitlines()
    store = rl.open(tmp_path / "store")
    assert store.obs_subject_ids == ["a", "z"]
    for volume in store.CT:
        np.testing.assert_array_equal(volume.to_numpy(), VOXELS)
    # Repaired, the same call completes it.
    shutil.rmtree(files["bad"]) if files["bad"].is_dir() else files["bad"].unlink(missing_ok=True)
    write_image(files["bad"], VOXELS)
    report = rl.ingest(tmp_path / "store", {"CT": files}, workers=1)
    assert {item.subject: item.status for item in report.items} == {"a": "skipped", "bad": "ingested", "z": "skipped"}


def test_any_flipped_bit_of_a_gzip_file_is_noticed_or_harmless(
    write_image: Write, tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    good = write_image(tmp_path / "good.nii.gz", VOXELS).read_bytes()
    generator = np.random.default_rng(0)
    places = generator.integers(10, len(good), counts(40, 400)).tolist()  # not its name, time and flags
    files = {}
    for number, place in enumerate(places):
        data = bytearray(good)
        data[place] ^= 1 << int(generator.integers(8))
        files[f"{number:03d}"] = tmp_path / "broken" / f"{number:03d}.nii.gz"
        files[f"{number:03d}"].parent.mkdir(exist_ok=True)
        files[f"{number:03d}"].write_bytes(data)
    report = rl.ingest(tmp_path / "store", {"CT": files}, workers=1)
    assert len(report.failed) >= 0.9 * len(places)
    for item in report.failed:
        assert item.reason.startswith(f"{files[item.subject]}: ")
        assert "unexpected" not in item.reason
    store = rl.open(tmp_path / "store")
    for item in report.ingested:
        np.testing.assert_array_equal(store.CT.loc[item.subject].to_numpy(), VOXELS)


@pytest.mark.usefixtures("obeys_permissions")
def test_a_file_without_permission_is_listed(write_image: Write, tmp_path: Path) -> None:
    files = {name: write_image(tmp_path / f"{name}.nii.gz", VOXELS) for name in ("a", "bad")}
    files["bad"].chmod(0)
    report = rl.ingest(tmp_path / "store", {"CT": files}, workers=1)
    assert [(item.subject, item.reason) for item in report.failed] == [
        ("bad", f"{files['bad']}: could not be read: Permission denied")
    ]


def test_files_with_other_names_are_listed(write_image: Write, tmp_path: Path) -> None:
    good = write_image(tmp_path / "a.nii", VOXELS)
    (tmp_path / "scan.dcm").write_bytes(b"x" * 200)
    pair = tmp_path / "half.hdr"
    pair.write_bytes(good.read_bytes()[:348])
    report = rl.ingest(tmp_path / "store", {"CT": {"a": good, "dicom": tmp_path / "scan.dcm", "half": pair}}, workers=1)
    assert {item.subject: item.reason for item in report.failed} == {
        "dicom": f"{tmp_path}/scan.dcm: not a NIfTI file name; expected one of .nii.gz, .nii, .hdr.gz, .hdr, .img.gz, .img",
        "half": f"{tmp_path}/half.hdr: the file half.img does not exist (a .hdr/.img pair needs both)",
    }


def test_a_real_analyze_header_is_refused_in_words(nibabel_data: Path, tmp_path: Path) -> None:
    shutil.copy(nibabel_data / "analyze.hdr", tmp_path / "a.hdr")
    (tmp_path / "a.img").write_bytes(b"\0" * 10_000)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path}, workers=1)
    assert report.failed[0].reason.startswith(f"{tmp_path}/a.hdr: ")
    assert "Analyze" in report.failed[0].reason


def test_nan_and_inf_voxels_are_kept_and_counted(write_image: Write, tmp_path: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    path = write_image(tmp_path / "i" / "a.nii.gz", voxels)
    report = rl.ingest(tmp_path / "store", {"CT": tmp_path / "i"}, workers=1)
    assert report.ok
    assert report.items[0].notes == (f"{path}: 3 voxels are NaN or infinite; kept as they are",)
    assert f"  note 'a': {path}: 3 voxels are NaN or infinite; kept as they are" in str(report).splitlines()
    volume = rl.open(tmp_path / "store").CT.iloc[0]
    np.testing.assert_array_equal(volume.to_numpy(), voxels)
    row = rl.open(tmp_path / "store").CT.obs.read().iloc[0]
    finite = voxels[np.isfinite(voxels)]
    assert (row.nonfinite, row.stat_min, row.stat_max) == (3, finite.min(), finite.max())


def test_a_header_without_orientation_is_noted(write_image: Write, tmp_path: Path) -> None:
    path = tmp_path / "i" / "a.nii"
    path.parent.mkdir()
    image = nib.Nifti1Image(VOXELS, None)
    nib.save(image, path)
    report = rl.ingest(tmp_path / "store", {"CT": path.parent}, workers=1)
    assert report.items[0].notes == (
        f"{path}: the header has no orientation (qform_code = sform_code = 0); nibabel's default was taken",
    )
    np.testing.assert_array_equal(rl.open(tmp_path / "store").CT.iloc[0].affine, nib.load(path).affine)


def test_labels_that_are_no_labels_are_refused(write_image: Write, tmp_path: Path) -> None:
    path = write_image(tmp_path / "i" / "a.nii", VOXELS.astype(np.float32) + 0.5)
    report = rl.ingest(tmp_path / "store", {"seg": tmp_path / "i"}, workers=1)
    assert not report.ok
    assert report.items[0].reason == (
        f"{path} (seg): labels are whole numbers, and {VOXELS.size} of its {VOXELS.size} voxels are not, such as "
        f"{', '.join(f'{v:.9g}' for v in np.unique(VOXELS)[:5] + 0.5)}; round them, threshold a probability map, or ingest it as an image "
        "(--image)"
    )
