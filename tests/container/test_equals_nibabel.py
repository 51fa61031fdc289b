"""Every region that is read equals what nibabel reads from the source file, voxel for voxel.

Over all 48 storage orientations, every dtype in both byte orders, every container (.nii, .nii.gz, pairs; NIfTI-1 and -2), 3D and 4D,
scaled and not, in every kind of tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import radioloader as rl
from radioloader import Box

Array = np.ndarray[Any, Any]
ORIENTATION = {"RAS": "RAS", "axial in PIR": "PIR"}
NAMES = ["isotropic", "default", "axial", "sagittal", "coronal", "custom", "RAS", "axial in PIR"]


@pytest.fixture(scope="module")
def opened(zoo: Any) -> dict[str, rl.VolumeCollection]:
    return {name: rl.open(uri)["image"] for name, uri in zoo.stores.items()}


@pytest.fixture(scope="module")
def truths(zoo: Any) -> dict[tuple[str, str | None], tuple[Array, Array]]:
    return {
        (subject, orientation): zoo.truth(subject, orientation)
        for subject in zoo.files
        for orientation in (None, "RAS", "PIR")
    }


def padded(values: Array, box: Box, pad_value: float) -> Array:
    """``box`` of ``values`` (X, Y, Z[, T]), channels first, by numpy's own padding."""
    values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
    before = [max(0, -a) for a in box.start]
    after = [max(0, b - n) for b, n in zip(box.stop, values.shape[1:], strict=True)]
    wide = np.pad(values, [(0, 0), *zip(before, after, strict=True)], constant_values=pad_value)
    cut = wide[(slice(None), *[slice(a + p, b + p) for a, b, p in zip(box.start, box.stop, before, strict=True)])]
    return np.asarray(cut)


def native(values: Array) -> Array:
    return values.astype(values.dtype.newbyteorder("="))


def test_the_zoo_has_everything(zoo: Any) -> None:
    images = [nib.load(path) for path in zoo.files.values()]
    assert {"".join(nib.aff2axcodes(image.affine)) for image in images} == {subject[4:] for subject in zoo.files}
    assert len(images) == 48
    assert {image.get_data_dtype().name for image in images} == {
        *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
    }
    assert {image.header.endianness for image in images} == {"<", ">"}
    assert {type(image).__name__ for image in images} == {"Nifti1Image", "Nifti1Pair", "Nifti2Image", "Nifti2Pair"}
    assert {image.ndim for image in images} == {3, 4}
    assert {"".join(path.suffixes) for path in zoo.files.values()} == {".nii", ".nii.gz", ".img", ".hdr"}
    assert len({(round(image.dataobj.slope, 3), round(image.dataobj.inter, 3)) for image in images}) == 5


@pytest.mark.parametrize("name", NAMES)
def test_whole_volumes(
    name: str, opened: dict[str, rl.VolumeCollection], truths: dict[tuple[str, str | None], tuple[Array, Array]]
) -> None:
    assert len(opened[name]) == 48
    for volume in opened[name]:
        values, affine = truths[volume.obs_subject_id, ORIENTATION.get(name)]
        np.testing.assert_array_equal(volume.to_numpy(), native(values), strict=True)
        np.testing.assert_array_equal(volume.affine, affine)
        assert volume.axcodes == ORIENTATION.get(name, volume.obs_subject_id[4:])
        assert volume.axcodes == "".join(nib.aff2axcodes(affine))
        assert volume.dtype == native(values).dtype
        np.testing.assert_allclose(volume.spacing, nib.affines.voxel_sizes(affine), rtol=1e-12)


def test_random_boxes(
    zoo: Any,
    opened: dict[str, rl.VolumeCollection],
    truths: dict[tuple[str, str | None], tuple[Array, Array]],
    counts: Callable[[int, int], int],
) -> None:
    """Inside, over the border and wholly outside; into memory of its own, numpy's and torch's."""
    reader = rl.VolumeReader(rl.StorageConfig(read=rl.ReadConfig(max_open_arrays=16)))
    kinds = set()

    @settings(max_examples=counts(250, 10_000), deadline=None, derandomize=True)
    @given(
        name=st.sampled_from(NAMES),
        place=st.integers(0, 47),
        start=st.tuples(*[st.integers(-9, 14)] * 3),
        size=st.tuples(*[st.integers(1, 22)] * 3),
        pad_value=st.sampled_from([0, 3, 100]),
        into=st.sampled_from(["new", "numpy", "torch", "float32", "crop"]),
    )
    def check(
        name: str, place: int, start: tuple[int, int, int], size: tuple[int, int, int], pad_value: int, into: str
    ) -> None:
        volume = opened[name].iloc[place]
        box = Box.at(start, size)
        inner = box.clip(volume.shape)
        kinds.add("outside" if inner is None else "inside" if inner == box else "border")
        values, _ = truths[volume.obs_subject_id, ORIENTATION.get(name)]
        expected = padded(native(values), box, pad_value)
        shape = expected.shape if volume.ndim == 4 else expected.shape[1:]
        expected = expected.reshape(shape)
        if into == "new":
            found = reader.read(volume.ref, box, pad_value=pad_value)
            np.testing.assert_array_equal(found, expected, strict=True)
        elif into == "torch":
            kind = torch.float64 if expected.dtype.kind == "f" else torch.int64
            out = torch.full((2, *shape), 55, dtype=kind)
            reader.read(volume.ref, box, out=out[1], pad_value=pad_value)
            np.testing.assert_array_equal(out[1].numpy(), expected.astype(out.numpy().dtype))
            assert (out[0] == 55).all()
        else:
            dtype = np.float32 if into == "float32" else expected.dtype
            canvas = np.full((*shape[:-1], shape[-1] + 2), 55, dtype)
            out_array = canvas[..., 1:-1] if into == "crop" else np.empty(shape, dtype)
            reader.read(volume.ref, box, out=out_array, pad_value=pad_value)
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(out_array, expected.astype(dtype), strict=True)
            assert (canvas[..., 0] == 55).all()
            assert (canvas[..., -1] == 55).all()

    check()
    assert kinds == {"inside", "border", "outside"}


def test_random_indices(
    opened: dict[str, rl.VolumeCollection],
    truths: dict[tuple[str, str | None], tuple[Array, Array]],
    counts: Callable[[int, int], int],
) -> None:
    """``volume[...]`` is numpy's indexing, on 3D and 4D volumes: integers, slices with any step, ellipsis, and their errors."""
    part = st.one_of(st.integers(-14, 14), st.slices(14), st.just(Ellipsis))
    index = st.one_of(part, st.lists(part, max_size=5).map(tuple))

    @settings(max_examples=counts(250, 10_000), deadline=None, derandomize=True)
    @given(name=st.sampled_from(NAMES), place=st.integers(0, 47), key=index)
    def check(name: str, place: int, key: Any) -> None:
        volume = opened[name].iloc[place]
        values = native(truths[volume.obs_subject_id, ORIENTATION.get(name)][0])
        try:
            expected = values[key]
        except IndexError:
            with pytest.raises(IndexError):
                volume[key]
            return
        np.testing.assert_array_equal(volume[key], expected, strict=True)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_anatomical_slices(
    name: str, opened: dict[str, rl.VolumeCollection], truths: dict[tuple[str, str | None], tuple[Array, Array]]
) -> None:
    for volume in opened[name]:
        values, affine = truths[volume.obs_subject_id, ORIENTATION.get(name)]
        codes = nib.aff2axcodes(affine)
        for plane, letters in (("axial", "IS"), ("sagittal", "LR"), ("coronal", "PA")):
            axis = next(axis for axis in range(3) if codes[axis] in letters)
            for index in (0, 3, -1, np.int64(2)):
                found = getattr(volume, plane)(index)
                np.testing.assert_array_equal(found, native(np.take(values, index, axis)), strict=True)
            for index in (values.shape[axis], -values.shape[axis] - 1):
                with pytest.raises(
                    IndexError, match=f"{plane} slice {index} is outside the {values.shape[axis]} slices of subject"
                ):
                    getattr(volume, plane)(index)


def header_of(path: Path) -> Any:
    """The header as it lies in the file (``nibabel.load`` takes the scaling out of it)."""
    image = nib.load(path)
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as file:
        return type(image).header_class.from_fileobj(file)


FREE_TEXT = {"data_type", "db_name", "descrip", "aux_file"}
CONTAINER = {"magic", "vox_offset"}
"""A pair is written as a single file, and extensions are not kept."""


def assert_same_file(source: Path, out: Path) -> None:
    a, b = header_of(source), header_of(out)
    assert a.endianness == b.endianness
    assert a.sizeof_hdr == b.sizeof_hdr
    for field in a.keys():  # noqa: SIM118 - a nibabel header is not a mapping
        if field in FREE_TEXT:
            assert b[field].item() == b"", field
        elif field not in CONTAINER:
            assert a[field].tobytes() == b[field].tobytes(), field
    before, after = nib.load(source), nib.load(out)
    assert before.dataobj.get_unscaled().dtype == after.dataobj.get_unscaled().dtype
    assert before.dataobj.get_unscaled().tobytes("F") == after.dataobj.get_unscaled().tobytes("F")
    assert (before.dataobj.slope, before.dataobj.inter) == (after.dataobj.slope, after.dataobj.inter)
    np.testing.assert_array_equal(before.affine, after.affine)
    np.testing.assert_array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj), strict=True)
    assert before.header.get_xyzt_units() == after.header.get_xyzt_units()


@pytest.mark.parametrize("name", ["custom", "RAS", "axial in PIR"])
def test_exports_give_every_file_back(
    name: str, zoo: Any, opened: dict[str, rl.VolumeCollection], tmp_path: Path
) -> None:
    """Voxels, dtype, byte order, scaling, shape, affine and every header field, bit for bit."""
    for number, volume in enumerate(opened[name]):
        out = tmp_path / f"out{('.nii', '.nii.gz')[number % 2]}"
        volume.to_nifti(out)
        assert_same_file(zoo.files[volume.obs_subject_id], out)


def rich_header(path: Path) -> Path:
    """A file whose header says all that a header can say, patient's name included."""
    image = nib.Nifti1Image(np.random.default_rng(0).integers(0, 99, (5, 6, 7, 4), dtype=np.int16), None)
    header = image.header
    affine = np.array([[0.0, -1.5, 0.1, 4.0], [1.1, 0.0, 0.0, -5.0], [0.2, 0.0, 2.0, 6.0], [0.0, 0.0, 0.0, 1.0]])
    header.set_sform(affine, code="mni")
    header.set_qform(np.diag([-2.0, 3.0, 4.0, 1.0]), code="scanner")
    header.set_xyzt_units("mm", "msec")
    header.set_intent("t test", (7.0,), name="contrast")
    header.set_dim_info(0, 1, 2)
    header["pixdim"][4] = 2.5
    header["cal_min"], header["cal_max"] = -3.0, 77.0
    header["slice_start"], header["slice_end"], header["slice_duration"], header["slice_code"] = 1, 5, 0.1, 3
    header["toffset"] = 0.25
    header["descrip"], header["db_name"], header["aux_file"] = b"Doe^Jane", b"Jane", b"jane.txt"
    image = nib.Nifti1Image(np.asanyarray(image.dataobj), None, header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane was here"))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("orientation", [None, "RAS", "IPL"])
def test_exports_keep_everything_but_names(orientation: str | None, tmp_path: Path) -> None:
    path = rich_header(tmp_path / "a.nii.gz")
    rl.ingest(tmp_path / "store", {"image": {"a": path}}, orientation=orientation, workers=1)
    volume = rl.open(tmp_path / "store")["image"].iloc[0]
    volume.to_nifti(tmp_path / "out.nii")
    assert_same_file(path, tmp_path / "out.nii")
    out = nib.load(tmp_path / "out.nii")
    assert out.header.get_intent() == ("t test", (7.0,), "contrast")
    assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (4, 1)
    np.testing.assert_allclose(out.header.get_qform()[:3, :3], np.diag([-2.0, 3.0, 4.0]), atol=1e-6)
    assert out.header.get_zooms() == (2.0, 3.0, 4.0, 2.5)
    assert b"ane" not in (tmp_path / "out.nii").read_bytes()
    assert not [p for p in (tmp_path / "store").rglob("*") if p.is_file() and b"Jane" in p.read_bytes()]


REAL = ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "standard.nii.gz"]


@pytest.mark.parametrize("orientation", [None, "RAS", "AIL"])
def test_real_files(orientation: str | None, nibabel_data: Path, tmp_path: Path) -> None:
    files = {name.partition(".")[0]: nibabel_data / name for name in REAL}
    assert rl.ingest(tmp_path / "store", {"image": files}, orientation=orientation, workers=1).ok
    for volume in rl.open(tmp_path / "store")["image"]:
        source = files[volume.obs_subject_id]
        image = nib.load(source)
        if orientation is None:
            np.testing.assert_array_equal(volume.to_numpy(), native(np.asanyarray(image.dataobj)), strict=True)
            np.testing.assert_array_equal(volume.affine, image.affine)
        elif orientation == "RAS":
            closest = nib.as_closest_canonical(image)
            np.testing.assert_array_equal(volume.to_numpy(), native(np.asanyarray(closest.dataobj)), strict=True)
            np.testing.assert_array_equal(volume.affine, closest.affine)
        volume.to_nifti(tmp_path / "out.nii.gz")
        assert_same_file(source, tmp_path / "out.nii.gz")


def test_real_medical_data(shared_data: Path, tmp_path: Path, counts: Callable[[int, int], int]) -> None:
    """Hippocampus MRI of the Medical Segmentation Decathlon: images and labels."""
    root = shared_data / "hippocampus"
    images = sorted((root / "imagesTr").glob("*.nii.gz"))[: counts(6, 1000)]
    labels = [root / "labelsTr" / path.name for path in images]
    assert rl.ingest(tmp_path / "store", {"MR": images, "label": labels}, workers=1).ok
    store = rl.open(tmp_path / "store")
    generator = np.random.default_rng(0)
    reader = rl.VolumeReader()
    for name, files in (("MR", images), ("label", labels)):
        for volume, path in zip(store[name], files, strict=True):
            image = nib.load(path)
            values = native(np.asanyarray(image.dataobj))
            if name == "label" and values.dtype.kind == "f":
                values = values.astype(np.uint8)  # saved as floats, stored as classes
            np.testing.assert_array_equal(volume.to_numpy(), values, strict=True)
            np.testing.assert_array_equal(volume.affine, image.affine)
            for _ in range(5):
                box = Box.at(generator.integers(-10, 40, 3).tolist(), generator.integers(1, 48, 3).tolist())
                np.testing.assert_array_equal(reader.read(volume.ref, box), padded(values, box, 0)[0], strict=True)
            volume.to_nifti(tmp_path / "out.nii.gz")
            assert_same_file(path, tmp_path / "out.nii.gz")


def test_a_large_real_volume(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "ct_phantom_512x512x140.nii.gz"
    assert rl.ingest(tmp_path / "store", {"CT": {"phantom": path}}, workers=1).ok
    volume = rl.open(tmp_path / "store").CT.iloc[0]
    image = nib.load(path)
    values = native(np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.to_numpy(), values, strict=True)
    np.testing.assert_array_equal(volume[100:200, :, ::-7], values[100:200, :, ::-7], strict=True)
    reader, generator = rl.VolumeReader(), np.random.default_rng(0)
    for _ in range(20):
        box = Box.at(generator.integers(-32, [500, 500, 130]).tolist(), (64, 64, 64))
        np.testing.assert_array_equal(reader.read(volume.ref, box), padded(values, box, 0)[0], strict=True)


@pytest.mark.parametrize("name", ["default", "RAS", "axial in PIR"])
def test_predictions_overlay_their_source(
    name: str, zoo: Any, opened: dict[str, rl.VolumeCollection], tmp_path: Path
) -> None:
    """An array that was computed on the stored grid lands on the source's own grid, whatever was turned in between."""
    generator = np.random.default_rng(0)
    for number, volume in enumerate(list(opened[name])[::5]):
        image = nib.load(zoo.files[volume.obs_subject_id])
        shape = volume.shape[:3]
        inverse = np.linalg.inv(image.affine) @ volume.affine
        for dtype, stored in (("bool", "uint8"), ("float16", "float32"), ("int16", "int16"), ("float64", "float64")):
            array = generator.integers(0, 2 if dtype == "bool" else 99, shape).astype(dtype)
            volume.save_on_source_grid(array, tmp_path / "out.nii.gz")
            out = nib.load(tmp_path / "out.nii.gz")
            assert out.shape == image.shape[:3]
            assert out.get_data_dtype().newbyteorder("=") == np.dtype(stored)
            np.testing.assert_array_equal(out.affine, image.affine)
            values = np.asanyarray(out.dataobj)
            for index in generator.integers(0, shape, (10, 3)):
                place = np.rint(inverse @ [*index, 1])[:3].astype(int)
                assert values[tuple(place)] == array[tuple(index)], (number, index)
        channels = generator.normal(size=(*shape, 2)).astype(np.float32)
        volume.save_on_source_grid(torch.from_numpy(channels), tmp_path / "channels.nii")
        assert nib.load(tmp_path / "channels.nii").shape == (*image.shape[:3], 2)
        assert sorted(np.asanyarray(nib.load(tmp_path / "channels.nii").dataobj).ravel()) == sorted(channels.ravel())
