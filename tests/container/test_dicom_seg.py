"""Classes that were computed on DICOM images, back to DICOM: read again by highdicom, and on the right slices of the right images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError, GridMismatchError, ShapeError
from radioloader.formats.dicom.seg import read_segments
from tests.formats.dicom.make import real_volume, rotation, tilt, write_series

pytest.importorskip("highdicom")

SHAPE = (40, 36, 9)


def stored(tmp_path: Path, affine: Any = None, **options: Any) -> tuple[rl.RadiObject, Path, Any, Any]:
    """A store with one CT, the folder that it came from, and the voxels and affine of the files."""
    voxels, plain = real_volume(SHAPE)
    affine = plain if affine is None else affine(plain)
    folder = tmp_path / "dicom"
    write_series(folder, voxels, affine)
    report = rl.ingest(tmp_path / "store", {"CT": folder}, workers=1, **options)
    assert report.ok, report
    return rl.open(tmp_path / "store"), folder, voxels, affine


def classes(shape: tuple[int, ...], seed: int = 0) -> Any:
    labels = np.zeros(shape, np.uint8)
    labels[3:9, 4:20, 2:5] = 1
    labels[10:30, 5:9, 4:8] = 2
    labels[np.random.default_rng(seed).integers(0, shape[0], 5), 3, 6] = 3
    return labels


def read_back(path: Path, files: Path) -> Any:
    """The classes (X, Y, Z) on the grid of the files, as highdicom reads them."""
    import highdicom as hd
    import pydicom

    seg = hd.seg.segread(path)
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(files.iterdir())]
    images.sort(
        key=lambda image: image.ImagePositionPatient @ np.cross(*np.reshape(image.ImageOrientationPatient, (2, 3)))
    )
    found = seg.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=True,
    )
    return np.asarray(found).transpose(2, 1, 0), seg


@pytest.mark.parametrize("segmentation_type", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("orientation", [None, "RAS", "PIL"])
def test_an_array_on_a_volume(tmp_path: Path, orientation: str | None, segmentation_type: str) -> None:
    store, folder, voxels, affine = stored(tmp_path, orientation=orientation)
    volume = store.CT.iloc[0]
    labels = classes(SHAPE)
    from radioloader.formats.orientation import turn
    from radioloader.geometry import axcodes

    on_volume = turn(labels, axcodes(affine), volume.axcodes)
    names = {1: "liver", 2: "tumour", 3: "vessel"}
    assert volume.save_dicom_seg(on_volume, tmp_path / "seg.dcm", names, segmentation_type=segmentation_type) == {
        1: 1,
        2: 2,
        3: 3,
    }
    found, seg = read_back(tmp_path / "seg.dcm", folder)
    np.testing.assert_array_equal(found, labels)
    assert [seg.get_segment_description(number).segment_label for number in (1, 2, 3)] == list(names.values())
    assert seg.PatientID in ("", None)
    assert voxels.shape == labels.shape


@pytest.mark.parametrize(
    "change", [lambda a: rotation((20, -15, 40)) @ a, lambda a: tilt(a, 14)], ids=["oblique", "tilted"]
)
def test_oblique_and_tilted_stacks(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    store, _, _, affine = stored(tmp_path, change)
    volume = store.CT.iloc[0]
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    labels = classes(SHAPE)
    volume.save_dicom_seg(labels, tmp_path / "seg.dcm", ["a", "b", "c"])
    found = dict(read_segments(tmp_path / "seg.dcm", volume.dicom.grid))
    assert {segment.label: mask.sum() for segment, mask in found.items()} == {
        name: (labels == value).sum() for value, name in enumerate("abc", 1)
    }
    for segment, mask in found.items():
        np.testing.assert_array_equal(mask, labels == segment.number)


def test_patient_and_study_come_from_the_files(tmp_path: Path) -> None:
    store, folder, _, _ = stored(tmp_path)
    labels = classes(SHAPE)
    store.CT.iloc[0].save_dicom_seg(labels, tmp_path / "seg.dcm", ["a", "b", "c"], source=folder)
    found, seg = read_back(tmp_path / "seg.dcm", folder)
    np.testing.assert_array_equal(found, labels)
    import pydicom

    image = pydicom.dcmread(next(folder.iterdir()))
    assert (seg.PatientID, seg.StudyInstanceUID) == (image.PatientID, image.StudyInstanceUID)
    assert seg.PatientID


def test_a_pseudonymised_store_needs_the_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    store, folder, _, _ = stored(tmp_path, pseudonymize=key)
    volume = store.CT.iloc[0]
    import pydicom

    uids = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in folder.iterdir()}
    kept = {sop for frames in volume.dicom.slices for sop, _ in frames}
    assert len(kept) == SHAPE[2]
    assert not kept & uids
    assert volume.dicom.pseudonymized
    with pytest.raises(ConfigError, match="give their files: source="):
        volume.save_dicom_seg(classes(SHAPE), tmp_path / "seg.dcm")
    another = tmp_path / "another"
    write_series(another, *real_volume(SHAPE), series="another", patient={"PatientID": "somebody else"})
    with pytest.raises(GridMismatchError, match="does not hold the files"):
        volume.save_dicom_seg(classes(SHAPE), tmp_path / "seg.dcm", source=another)
    volume.save_dicom_seg(classes(SHAPE), tmp_path / "seg.dcm", source=sorted(folder.iterdir()))
    found, _ = read_back(tmp_path / "seg.dcm", folder)
    np.testing.assert_array_equal(found, classes(SHAPE))


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("policy", [{"on_tilt": "resample"}, {"on_irregular": "split"}, {"on_irregular": "resample"}])
def test_resampled_and_split_stacks(tmp_path: Path, policy: dict[str, str], key: bool) -> None:
    voxels, affine = real_volume((32, 28, 9))
    tilted = "on_tilt" in policy
    folder = tmp_path / "dicom"
    write_series(folder, voxels, tilt(affine, 14) if tilted else affine, drop=() if tilted else (3,))
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    options = {"pseudonymize": tmp_path / "key"} if key else {}
    report = rl.ingest(tmp_path / "store", {"CT": folder}, workers=1, **policy, **options)
    assert report.ok, report
    for volume in rl.open(tmp_path / "store").CT:
        labels = classes((40, 40, 9))[: volume.shape[0], : volume.shape[1], : volume.shape[2]]
        labels[0, 0, 0] = 1
        path = tmp_path / f"{volume.obs_id}.dcm"
        volume.save_dicom_seg(labels, path, {1: "a", 2: "b", 3: "c"}, source=folder)
        grid = volume.dicom.grid
        if key:  # the file has the true UIDs, and lies in the true frame of reference
            import pydicom

            grid = dataclasses.replace(grid, frame_of_reference=pydicom.dcmread(path).FrameOfReferenceUID)
        found = {segment.label: mask for segment, mask in read_segments(path, grid)}
        for value, name in enumerate("abc", 1):
            np.testing.assert_array_equal(found.get(name, np.zeros(labels.shape)), labels == value)


def test_a_prediction_finds_its_image(tmp_path: Path) -> None:
    import torch

    store, folder, voxels, _ = stored(tmp_path)

    def above(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([batch * 0 + float(voxels.mean()), batch], dim=1)

    rl.predict(
        tmp_path / "store", above, image="CT", out="above", patch_size=(16, 16, 8), model_id="above", progress=False
    )
    prediction = rl.open(tmp_path / "store").above.iloc[0]
    assert prediction.to_dicom_seg(tmp_path / "seg.dcm", {1: "bright"}) == {1: 1}
    found, seg = read_back(tmp_path / "seg.dcm", folder)
    np.testing.assert_array_equal(found, voxels > voxels.mean())
    assert seg.get_segment_description(1).segment_label == "bright"
    store.close()


def test_a_prediction_refers_to_its_own_input_and_not_to_another_scan_on_the_same_grid(tmp_path: Path) -> None:
    import pydicom
    import torch

    voxels, affine = real_volume((24, 20, 9))
    for name in ("base", "follow"):
        write_series(tmp_path / name, voxels, affine, series=name, frame_of_reference=name)
        assert rl.ingest(tmp_path / "store", {name: tmp_path / name}, workers=1).ok

    def above(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([batch * 0 + float(voxels.mean()), batch], dim=1)

    options: dict[str, Any] = {"patch_size": (16, 16, 8), "model_id": "above", "progress": False}
    for name in ("base", "follow"):
        rl.predict(tmp_path / "store", above, image=name, out=f"of_{name}", **options)
        prediction = rl.open(tmp_path / "store")[f"of_{name}"].iloc[0]
        prediction.to_dicom_seg(tmp_path / f"{name}.dcm", source=tmp_path / name)
        image = pydicom.dcmread(next((tmp_path / name).iterdir()))
        seg = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert seg.FrameOfReferenceUID == image.FrameOfReferenceUID
        assert [one.SeriesInstanceUID for one in seg.ReferencedSeriesSequence] == [image.SeriesInstanceUID]


def test_a_label_of_unknown_origin_on_the_grid_of_two_scans_is_refused(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    voxels, affine = real_volume((24, 20, 9))
    for name in ("base", "follow"):
        write_series(tmp_path / name, voxels, affine, series=name, frame_of_reference=name)
    write_image(tmp_path / "labels" / "s.nii.gz", classes((24, 20, 9)), affine)
    sources = {name: {"s": tmp_path / name} for name in ("base", "follow")} | {
        "seg": {"s": tmp_path / "labels" / "s.nii.gz"}
    }
    assert rl.ingest(tmp_path / "store", sources, workers=1).ok
    store = rl.open(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"several images from DICOM \('s_base', 's_follow'\)"):
        store.seg.iloc[0].to_dicom_seg(tmp_path / "seg.dcm")
    store.follow.iloc[0].save_dicom_seg(store.seg.iloc[0].to_numpy(), tmp_path / "seg.dcm")
    found, _ = read_back(tmp_path / "seg.dcm", tmp_path / "follow")
    np.testing.assert_array_equal(found, classes((24, 20, 9)))


def test_probabilities_are_fractional(tmp_path: Path) -> None:
    store, folder, voxels, _ = stored(tmp_path)
    share = (voxels - voxels.min()) / np.ptp(voxels).astype(np.float32)
    store.CT.iloc[0].save_dicom_seg(share, tmp_path / "seg.dcm", ["bright"], segmentation_type="FRACTIONAL")
    grid = store.CT.iloc[0].dicom.grid
    ((_, values),) = read_segments(tmp_path / "seg.dcm", grid, values=True)
    np.testing.assert_allclose(values, share, atol=0.5 / 255 + 1e-6)
    assert folder.is_dir()


def test_what_cannot_be_written_says_why(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    store, folder, voxels, _ = stored(tmp_path)
    volume = store.CT.iloc[0]
    with pytest.raises(ShapeError, match=r"shape \(9, 36, 40\), but .* has the grid \(40, 36, 9\)"):
        volume.save_dicom_seg(classes(SHAPE).T, tmp_path / "seg.dcm")
    other = tmp_path / "other"
    write_series(other, voxels, real_volume(SHAPE)[1], series="another")  # on the same grid
    with pytest.raises(GridMismatchError, match=r"does not hold the files that .* was ingested from"):
        volume.save_dicom_seg(classes(SHAPE), tmp_path / "seg.dcm", source=other)
    write_image(tmp_path / "images" / "a.nii.gz", voxels)
    rl.ingest(tmp_path / "plain", {"CT": tmp_path / "images"}, workers=1)
    with pytest.raises(ConfigError, match="does not come from DICOM"):
        rl.open(tmp_path / "plain").CT.iloc[0].save_dicom_seg(classes(SHAPE), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
    assert folder.is_dir()
