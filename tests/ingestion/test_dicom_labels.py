"""Segmentations and structure sets into label collections, on the grids of their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.formats.dicom.grid import ImageGrid
from tests.formats.dicom import segmentations as seg
from tests.formats.dicom.make import tilt, uid
from tests.formats.dicom.structures import on_slice
from tests.ingestion.dicom_files import AFFINE, grid_of, same, series, stored, subject_of, voxels, write_rtstruct

A, B = subject_of("study of P1"), subject_of("study of P2")
# A box of voxels 4 ... 11 by 3 ... 9, and one that shares columns 10 and 11 with it
BOX = [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)]
NEXT = [(9.5, 4.5), (15.5, 4.5), (15.5, 7.5), (9.5, 7.5)]
FAR = [(17.5, 12.5), (20.5, 12.5), (20.5, 16.5), (17.5, 16.5)]


def mask_of(*boxes: tuple[list[tuple[float, float]], range, int]) -> np.ndarray[Any, Any]:
    """uint8 (24, 20, 8) with a value in each box on some slices."""
    mask = np.zeros((24, 20, 8), np.uint8)
    for corners, slices, value in boxes:
        (x0, y0), (x1, y1) = corners[0], corners[2]
        mask[int(x0 + 0.5) : int(x1 + 0.5), int(y0 + 0.5) : int(y1 + 0.5), slices.start : slices.stop] = value
    return mask


def contours(grid: ImageGrid, corners: list[tuple[float, float]], slices: range) -> list[Any]:
    return [on_slice(grid, z, corners) for z in slices]


def write_seg(
    path: Path,
    grid: ImageGrid,
    masks: dict[str, np.ndarray[Any, Any]],
    sop: str = "1.2.3.9.1",
    *,
    who: str = "P1",
    **more: Any,
) -> Path:
    """A SEG with a segment for each name."""
    frames = [frame for n, mask in enumerate(masks.values(), 1) for frame in seg.frames_of(grid, mask, n)]
    dataset = seg.seg_dataset(grid, frames, segments=range(1, len(masks) + 1), **more)
    for segment, name in zip(dataset.SegmentSequence, masks, strict=True):
        segment.SegmentLabel = name
    dataset.SOPInstanceUID, dataset.SeriesNumber, dataset.PatientID = sop, 40, who
    path.parent.mkdir(parents=True, exist_ok=True)
    return seg.save(dataset, path)


def ingest(root: Path, structures: Any = None, **choice: Any) -> rl.IngestReport:
    source = rl.DicomSource(root / "dicom", structures=structures, **choice)
    return rl.ingest(
        root / "store", {"CT": root / "dicom", "roi": source}, labels=["roi"], allow_missing=True, workers=1
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    series(tmp_path / "dicom" / "ct", 0)
    return tmp_path


def test_a_structure_set_of_named_structures(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    drawn = {
        "GTV p": contours(grid, BOX, range(2, 5)),
        "lung_L": contours(grid, FAR, range(6)),
        "Body": contours(grid, [(-0.5, -0.5), (23.5, -0.5), (23.5, 19.5), (-0.5, 19.5)], range(8)),
    }
    write_rtstruct(image / "dicom" / "rs", grid, drawn)
    report = ingest(image, {"gtv*": 1, "Lung_?": 7, "Heart": 3})
    assert report.ok, str(report)
    wanted = mask_of((BOX, range(2, 5), 1), (FAR, range(6), 7))
    assert same(stored(image / "store", "roi"), {f"{A}_roi": wanted})
    volume = rl.open(image / "store").roi.iloc[0]
    assert volume.dtype == np.uint8
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
    assert (volume.dicom.label, volume.dicom.classes) == ("1.2.3.5", (1, 3, 7))
    assert volume.dicom.grid.slices == rl.open(image / "store").CT.iloc[0].dicom.grid.slices
    assert rl.open(image / "store").roi.obs.read().source.tolist() == ["dicom:1.2.3.5"]
    (item,) = report.items
    assert any("1 structures match no pattern and were left out" in note for note in item.notes)
    assert any("patterns that match no structure: 'Heart'" in note for note in item.notes)
    # The foreground index is there: patches can be drawn around it.
    patches = rl.PatchDataset(
        image / "store", image="CT", label="roi", patch_size=4, positions=rl.ForegroundPositions(1.0)
    )
    assert int(np.asarray(patches[0]["label"]).max()) in (1, 7)


def test_one_structure_needs_no_names(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_rtstruct(image / "dicom" / "rs", grid, {"whatever": contours(grid, BOX, range(2, 5))})
    assert ingest(image).ok
    assert same(stored(image / "store", "roi"), {f"{A}_roi": mask_of((BOX, range(2, 5), 1))})


def test_several_structures_need_names(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_rtstruct(
        image / "dicom" / "rs", grid, {"a": contours(grid, BOX, range(2, 5)), "b": contours(grid, FAR, range(2))}
    )
    report = ingest(image)
    assert [(item.subject, item.status) for item in report.items] == [(A, "failed")]
    assert "holds 2 structures: 'a', 'b'; say which ones become which class" in report.failed[0].reason


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_overlaps_are_an_error_or_collections_of_their_own(kind: str, image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    a, b = mask_of((BOX, range(2, 5), 1)), mask_of((NEXT, range(3, 6), 1))
    if kind == "seg":
        write_seg(image / "dicom" / "s", grid, {"GTV 1": a, "Heart": b})
    else:
        write_rtstruct(
            image / "dicom" / "s",
            grid,
            {"GTV 1": contours(grid, BOX, range(2, 5)), "Heart": contours(grid, NEXT, range(3, 6))},
        )
    shared = int((a & b).sum())
    assert shared == 2 * 3 * 2
    structures = {"GTV*": 1, "heart": 2, "Liver": 3}
    report = ingest(image, structures)
    assert not report.ingested
    assert f"(class 1) share {shared} voxels" in report.failed[0].reason
    assert "on_overlap='separate'" in report.failed[0].reason
    report = ingest(image, structures, on_overlap="separate")
    assert report.ok, str(report)
    assert rl.open(image / "store").collection_names == ["CT", "roi_GTV", "roi_Liver", "roi_heart"]
    assert same(stored(image / "store", "roi_GTV"), {f"{A}_roi_GTV": a})
    assert same(stored(image / "store", "roi_heart"), {f"{A}_roi_heart": b})
    # What nobody outlined is empty, as it is in one volume for all: every subject has every collection.
    assert same(stored(image / "store", "roi_Liver"), {f"{A}_roi_Liver": np.zeros_like(a)})
    assert all(rl.open(image / "store")[name].kind == "label" for name in ("roi_GTV", "roi_Liver", "roi_heart"))
    assert ingest(image, structures, on_overlap="separate").skipped
    # Of one class they are one thing.
    report = rl.ingest(
        image / "united",
        {"roi": rl.DicomSource(image / "dicom", structures={"GTV*": 2, "heart": 2})},
        labels=["roi"],
        workers=1,
    )
    assert report.ok
    assert same(stored(image / "united", "roi"), {f"{A}_roi": 2 * (a | b)})


@pytest.mark.parametrize("number", [1, 2])
def test_segments_without_names_keep_their_numbers(number: int, image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    masks = {"x": mask_of((BOX, range(2, 5), 1)), "y": mask_of((FAR, range(6), 1))}
    write_seg(image / "dicom" / "s", grid, dict(list(masks.items())[:number]))
    report = ingest(image)
    assert report.ok, str(report)
    wanted = masks["x"] + (2 * masks["y"] if number == 2 else 0)
    assert same(stored(image / "store", "roi"), {f"{A}_roi": wanted.astype(np.uint8)})
    assert rl.open(image / "store").roi.iloc[0].dicom.classes == ((1,) if number == 1 else (1, 2))


def test_labels_follow_the_policies_of_their_image(tmp_path: Path) -> None:
    sheared = tilt(AFFINE, 10.0)
    series(tmp_path / "dicom" / "ct", 0, affine=sheared)
    grid = replace(grid_of(tmp_path / "dicom" / "ct"))
    mask = mask_of((BOX, range(2, 6), 1))
    write_seg(tmp_path / "dicom" / "seg", grid, {"x": mask})
    sources = {"CT": tmp_path / "dicom", "roi": tmp_path / "dicom"}
    report = rl.ingest(tmp_path / "keep", sources, labels=["roi"], workers=1)
    assert report.ok, str(report)
    assert same(stored(tmp_path / "keep", "roi"), {f"{A}_roi": mask})
    report = rl.ingest(tmp_path / "up", sources, labels=["roi"], on_tilt="resample", workers=1)
    assert report.ok, str(report)
    ct, roi = rl.open(tmp_path / "up").CT.iloc[0], rl.open(tmp_path / "up").roi.iloc[0]
    assert ct.shape == roi.shape
    assert ct.shape[1] > 20
    np.testing.assert_array_equal(ct.affine, roi.affine)
    found = roi.to_numpy()
    assert np.unique(found).tolist() == [0, 1]
    # Its middle lies where it lay.
    here, there = (np.argwhere(array).mean(axis=0) for array in (mask, found))
    np.testing.assert_allclose((sheared @ [*here, 1])[:3], (roi.affine @ [*there, 1])[:3], atol=0.45)


def test_labels_of_images_that_are_not_chosen_are_left_out(tmp_path: Path) -> None:
    for seed, who in ((0, "P1"), (1, "P1"), (2, "P2")):
        folder = tmp_path / "dicom" / f"ct{seed}"
        series(folder, seed, who=who, description="thin" if seed == 1 else "thick")
        write_seg(
            tmp_path / "dicom" / f"seg{seed}",
            grid_of(folder),
            {"x": mask_of((BOX, range(2, 4 + seed), 1))},
            f"1.2.3.9.{seed}",
            who=who,
        )
    report = rl.ingest(
        tmp_path / "store",
        {"CT": rl.DicomSource(tmp_path / "dicom", description="thick"), "roi": tmp_path / "dicom"},
        labels=["roi"],
        workers=1,
    )
    assert report.ok, str(report)
    wanted = {f"{A}_roi": mask_of((BOX, range(2, 4), 1)), f"{B}_roi": mask_of((BOX, range(2, 6), 1))}
    assert same(stored(tmp_path / "store", "roi"), wanted)
    assert any(
        note.startswith("1 segmentations and structure sets were left out of collection 'roi'") for note in report.notes
    )


def test_several_labels_of_one_image_are_all_stored(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    masks = [mask_of((BOX, range(2, 5), 1)), mask_of((FAR, range(2, 5), 1))]
    for number, mask in enumerate(masks):
        write_seg(image / "dicom" / f"s{number}", grid, {"x": mask}, f"1.2.3.9.{number}")
    report = ingest(image)
    assert report.ok
    assert any("have several volumes in collection 'roi'" in note for note in report.notes)
    found = stored(image / "store", "roi")
    assert sorted(found) == [f"{A}_roi", f"{A}_roi_2"]
    assert {array.tobytes() for array in found.values()} == {mask.tobytes() for mask in masks}


@pytest.mark.parametrize("what", ["seg", "rtstruct"])
def test_a_kind_of_label_can_be_chosen(what: str, image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_seg(image / "dicom" / "s", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    write_rtstruct(image / "dicom" / "r", grid, {"x": contours(grid, FAR, range(3))})
    assert ingest(image, modality=what).ok
    wanted = mask_of((BOX, range(2, 5), 1)) if what == "seg" else mask_of((FAR, range(3), 1))
    assert same(stored(image / "store", "roi"), {f"{A}_roi": wanted})


def test_labels_alone_beside_their_images_files(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_seg(image / "labels" / "s", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    sources = {"mask": [image / "labels", image / "dicom"]}
    assert rl.ingest(image / "store", sources, workers=1).ok
    assert same(stored(image / "store", "mask"), {f"{A}_mask": mask_of((BOX, range(2, 5), 1))})


def test_a_label_without_its_image_is_told_of_by_name(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_seg(image / "dicom" / "s", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    lost = replace(grid, series=uid("gone"), frame_of_reference=uid("nowhere"))
    write_seg(image / "dicom" / "lost", lost, {"x": mask_of((BOX, range(2, 5), 1))}, "1.2.3.9.7")
    report = ingest(image)
    assert [(item.subject, item.status) for item in report.ingested] == [(A, "ingested")]
    (failed,) = report.failed
    assert failed.reason.startswith(f"{image}/dicom/lost: it refers to a series of which there is no usable volume")


def test_none_of_its_structures_has_a_class(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_rtstruct(image / "dicom" / "r", grid, {"couch": contours(grid, FAR, range(3))})
    report = ingest(image, {"GTV": 1})
    assert report.ok
    assert rl.open(image / "store").collection_names == ["CT"]
    assert any("none of their structures has a class" in note for note in report.notes)


def test_a_label_of_one_of_two_echoes_that_is_chosen(tmp_path: Path) -> None:
    for echo in (1, 2):
        series(tmp_path / "dicom" / "mr", 0, voxels=voxels(echo), modality="MR", echo=echo)
    grid = seg_grid(tmp_path / "dicom" / "mr")
    write_seg(tmp_path / "dicom" / "seg", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    report = rl.ingest(
        tmp_path / "store",
        {
            "MR": rl.DicomSource(tmp_path / "dicom", select=lambda item: item.name == "echo2"),
            "roi": tmp_path / "dicom",
        },
        labels=["roi"],
        workers=1,
    )
    assert report.ok, str(report)
    assert rl.open(tmp_path / "store").collection_names == ["MR_echo2", "roi"]
    assert same(stored(tmp_path / "store", "roi"), {f"{A}_roi": mask_of((BOX, range(2, 5), 1))})


def seg_grid(folder: Path) -> ImageGrid:
    """The grid of one of two echoes, without saying which."""
    headers = sorted(
        (pydicom.dcmread(path) for path in folder.iterdir()), key=lambda h: (h.EchoNumbers, h.ImagePositionPatient[2])
    )
    grid = seg.make_grid()
    return replace(
        grid,
        affine=AFFINE,
        origins=AFFINE[:3, 3] + np.arange(8)[:, None] * AFFINE[:3, 2],
        series=headers[0].SeriesInstanceUID,
        study=headers[0].StudyInstanceUID,
        frame_of_reference=headers[0].FrameOfReferenceUID,
        sop_class=headers[0].SOPClassUID,
        slices=tuple(((uid("nobody", k), 0),) for k in range(8)),
    )


def test_names_of_collections_tell_what_they_hold(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_seg(image / "dicom" / "s", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    report = rl.ingest(image / "store", {"CT": image / "dicom", "seg": image / "dicom"}, workers=1)
    assert report.ok
    assert "labels, going by their names: seg" in report.notes
    report = rl.ingest(image / "other", {"tumour": rl.DicomSource(image / "dicom", structures={"x": 4})}, workers=1)
    assert report.ok
    assert same(stored(image / "other", "tumour"), {f"{A}_tumour": 4 * mask_of((BOX, range(2, 5), 1))})


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_label_of_a_series_that_was_split_is_not_cut_silently(kind: str, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "ct", 0, drop=(3,))
    folder = tmp_path / "whole"
    series(folder, 0)
    grid = grid_of(folder)
    if kind == "seg":
        write_seg(tmp_path / "dicom" / "s", grid, {"x": mask_of((BOX, range(1, 7), 1))})
    else:
        write_rtstruct(tmp_path / "dicom" / "s", grid, {"x": contours(grid, BOX, range(1, 7))})
    report = rl.ingest(
        tmp_path / "store", dict.fromkeys(("CT", "seg"), tmp_path / "dicom"), on_irregular="split", workers=1
    )
    assert report.ok, str(report)
    said = {
        "seg": "segment 1 reaches beyond part2, the part of the split series that it was put on: what lies outside of it was cut off, "
        "and 168 voxels were kept",
        "rtstruct": "3 of 6 contours lie outside of the images",
    }
    assert any(said[kind] in note for note in report.items[0].notes)
    # Slices 4 ... 7 are the part, and the structure ends before the last one.
    assert same(stored(tmp_path / "store", "seg"), {f"{A}_seg": mask_of((BOX, range(1, 7), 1))[:, :, 4:]})


Maker = Callable[..., Path]


def test_dicom_labels_on_nifti_images(image: Path, write_image: Maker) -> None:
    grid = grid_of(image / "dicom" / "ct")
    write_seg(image / "dicom" / "s", grid, {"x": mask_of((BOX, range(2, 5), 1))})
    write_image(image / "nifti" / "a.nii.gz", voxels(0), AFFINE)
    report = rl.ingest(
        image / "store",
        {"T1w": {"a": image / "nifti" / "a.nii.gz"}, "seg": {"a": image / "dicom"}},
        workers=1,
    )
    assert report.ok, str(report)
    assert same(stored(image / "store", "seg"), {"a_seg": mask_of((BOX, range(2, 5), 1))})
    # One that lies elsewhere is no image of this label.
    moved = AFFINE.copy()
    moved[0, 3] += 3
    write_image(image / "nifti" / "b.nii.gz", voxels(0), moved)
    report = rl.ingest(
        image / "other", {"T1w": {"a": image / "nifti" / "b.nii.gz"}, "seg": {"a": image / "dicom"}}, workers=1
    )
    assert "the same voxel lies up to 3 mm apart" in report.failed[0].reason


def test_contours_between_slices_go_to_the_nearest_where_that_is_wanted(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    drawn = {"SECRET^NAME": [on_slice(grid, z, BOX, off=1.0) for z in range(2, 5)]}
    write_rtstruct(image / "dicom" / "rs", grid, drawn)
    report = ingest(image)
    assert not report.ok
    assert "planes='nearest' (--planes nearest)" in report.failed[0].reason
    report = ingest(image, planes="nearest")
    assert report.ok, str(report)
    assert same(stored(image / "store", "roi"), {f"{A}_roi": mask_of((BOX, range(2, 5), 1))})
    (item,) = report.items
    moved = [note for note in item.notes if "a structure of class 1: 3 of 3 slices took a plane" in note]
    assert len(moved) == 1, item.notes
    assert "SECRET" not in str(report)
    with pytest.raises(ConfigError, match="planes='all' is not 'on_slices' or 'nearest'"):
        ingest(image, planes="all")


def test_messages_hold_no_uid_where_there_is_a_key(image: Path) -> None:
    grid = grid_of(image / "dicom" / "ct")
    (image / "key").write_text("0123456789abcdef0123456789abcdef")
    other = replace(grid, frame_of_reference="1.2.840.99.7")
    write_rtstruct(image / "dicom" / "rs", other, {"a": contours(grid, BOX, range(2, 5))})
    for options, said in (({}, True), ({"pseudonymize": image / "key"}, False)):
        store = image / f"store {said}"
        report = rl.ingest(store, {"CT": image / "dicom", "roi": image / "dicom"}, labels=["roi"], workers=1, **options)
        text = str(report)
        assert f"{image}/dicom/rs" in text
        uids = [
            one for one in (grid.series, grid.frame_of_reference, grid.study, other.frame_of_reference) if one in text
        ]
        assert bool(uids) is said, text
