"""Reading DICOM segmentations: every mask is known, voxel by voxel."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from radioloader.errors import ConfigError, FormatError, GridMismatchError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.seg import Code, read_seg_info, read_segments
from tests.formats.dicom.segmentations import (
    FRAME_OF_REFERENCE,
    LPS,
    SERIES,
    Frame,
    Shape,
    blobs,
    frames_of,
    geometry,
    item,
    make_grid,
    save,
    seg_dataset,
)

GRID = make_grid(Shape(size=(23, 19, 8)))  # 437 pixels per frame: no frame but the first begins at a byte
LABELS = blobs(GRID.shape, 3)
MASK = LABELS > 0


def one(path: Path, grid: ImageGrid = GRID, **options: Any) -> np.ndarray:
    """The mask of a SEG with one segment."""
    [(segment, mask)] = read_segments(path, grid, **options)
    assert segment.number == 1
    return mask


def all_of(path: Path, grid: ImageGrid = GRID, **options: Any) -> dict[int, np.ndarray]:
    return {segment.number: array for segment, array in read_segments(path, grid, **options)}


# What a file says of itself


def test_info(tmp_path: Path) -> None:
    frames = frames_of(GRID, LABELS == 1) + frames_of(GRID, LABELS == 2, 2)
    info = read_seg_info(save(seg_dataset(GRID, frames, segments=(1, 2, 3)), tmp_path / "seg.dcm"))
    assert (info.segmentation_type, info.fractional_type, info.frames) == ("BINARY", "", len(frames))
    assert [(s.number, s.label, s.algorithm) for s in info.segments] == [
        (1, "organ 1", "MANUAL"),
        (2, "organ 2", "MANUAL"),
        (3, "organ 3", "MANUAL"),
    ]
    assert info.segments[0].category == Code("123037004", "SCT", "Anatomical Structure")
    assert info.segments[0].kind == Code("10200004", "SCT", "Liver")
    assert info.frame_of_reference == FRAME_OF_REFERENCE
    assert (info.study, info.series, info.sop_instance) == ("1.2.3.1", "1.2.3.9", "1.2.3.9.1")
    assert info.sop_class == "1.2.840.10008.5.1.4.1.1.66.4"
    assert info.referenced_series == (SERIES,)
    assert set(info.referenced_instances) == {frame.source[0] for frame in frames if frame.source}
    assert info.notes == ()
    assert "Mustermann" not in repr(info)
    assert "p-17" not in repr(info)


def test_info_of_bare_segments(tmp_path: Path) -> None:
    dataset = seg_dataset(GRID, frames_of(GRID, MASK))
    segment = dataset.SegmentSequence[0]
    del segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence, segment.SegmentAlgorithmType
    segment.SegmentedPropertyCategoryCodeSequence = [item(LongCodeValue="a" * 20, CodingSchemeDesignator="99X")]
    info = read_seg_info(save(dataset, tmp_path / "seg.dcm"))
    assert info.segments[0].label == "segment 1"
    assert info.segments[0].kind is None
    assert info.segments[0].category == Code("a" * 20, "99X", "")


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "liver_expb_1frame.dcm"])
def test_a_real_segmentation(tmp_path: Path, name: str) -> None:
    """pydicom's: little and big endian, made by dcmqi; its header describes 3 frames, of which one was kept."""
    whole = Path(str(get_testdata_file(name)))
    with pytest.raises(
        FormatError, match="NumberOfFrames is 1, but PerFrameFunctionalGroupsSequence describes 3 frames"
    ):
        read_seg_info(whole)
    dataset = pydicom.dcmread(whole)
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:1]
    path = tmp_path / "seg.dcm"
    dataset.save_as(path)
    info = read_seg_info(path)
    assert info.segments[0].label == "Liver"
    assert info.segments[0].kind is not None
    assert info.segments[0].kind.meaning == "Liver"
    assert info.frames == 1
    step = 0.8105470
    affine = np.diag([-step, -step, 1.0, 1.0])
    affine[:3, 3] = [235.2, 226.8, -128.69 - 2]  # the frame lies on slice 2
    grid = ImageGrid(
        shape=(512, 512, 4),
        affine=affine,
        origins=affine[:3, 3] + np.arange(4)[:, None] * [0, 0, 1],
        frame_of_reference=info.frame_of_reference,
        study=info.study,
        series=info.referenced_series[0],
        sop_class="1.2.840.10008.5.1.4.1.1.2",
        slices=tuple(((uid, 0),) for uid in (*info.referenced_instances, "1.9")),
    )
    mask = one(path, grid)
    assert mask.sum() == 36233
    np.testing.assert_array_equal(mask[:, :, 2], dataset.pixel_array.T)
    assert not mask[:, :, [0, 1, 3]].any()


# Where frames lie


@pytest.mark.parametrize("kind", ["axial", "oblique", "sagittal", "tilted", "irregular", "single"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_every_kind_of_image(tmp_path: Path, kind: str, per_frame: bool) -> None:
    grid = make_grid(Shape(kind, (23, 19, 8)))
    labels = blobs(grid.shape, 1)
    dataset = seg_dataset(grid, frames_of(grid, labels)[::-1], per_frame=per_frame)
    mask = one(save(dataset, tmp_path / "seg.dcm"), grid)
    assert mask.dtype == np.bool_
    assert mask.any()
    np.testing.assert_array_equal(mask, labels > 0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_turned_and_flipped(tmp_path: Path, order: tuple[int, int, int]) -> None:
    """The same lattice stored along other axes, in all 48 ways."""
    for signs in product([1, -1], repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = GRID.affine[:3, :3][:, order] * signs
        corner = np.zeros(3)
        for axis, sign in zip(order, signs, strict=True):
            corner[axis] = 0 if sign > 0 else GRID.shape[axis] - 1
        affine[:3, 3] = GRID.affine[:3, :3] @ corner + GRID.affine[:3, 3]
        turned = MASK.transpose(order)[tuple(slice(None, None, s) for s in signs)]
        own = replace(
            GRID,
            affine=affine,
            shape=turned.shape,
            origins=affine[:3, 3] + np.arange(turned.shape[2])[:, None] * affine[:3, 2],
            slices=((("1.9", 0),),) * turned.shape[2],
        )
        np.testing.assert_array_equal(
            one(save(seg_dataset(own, frames_of(own, turned)), tmp_path / "seg.dcm")), MASK, err_msg=f"{signs}"
        )


def test_coronal_frames_on_a_tilted_stack(tmp_path: Path) -> None:
    """The tilt moves slices down the columns, so that planes across rows and slices stay rectangular, as DICOM frames must be."""
    grid = make_grid(Shape("tilted", (23, 19, 8)))
    corner = grid.affine[:3, 3]
    across, through = grid.affine[:3, 0], grid.affine[:3, 2]
    labels = blobs(grid.shape, 1)
    size = float(np.linalg.norm(across)), float(np.linalg.norm(through))
    frames = [Frame(1, labels[:, y, :].T, corner + y * grid.affine[:3, 1]) for y in range(19)]
    cosines = [*(across / size[0] * LPS), *(through / size[1] * LPS)]
    dataset = seg_dataset(grid, frames, cosines=cosines, spacing=[size[1], size[0]])
    np.testing.assert_array_equal(one(save(dataset, tmp_path / "seg.dcm"), grid), labels > 0)


@pytest.mark.parametrize("flip", [1, -1])
def test_cropped(tmp_path: Path, flip: int) -> None:
    part = np.zeros_like(MASK)
    part[4:15, 3:12, 2:6] = MASK[4:15, 3:12, 2:6]
    box = part[4:15, 3:12]
    x = 4 if flip > 0 else 14
    corners = GRID.origins + GRID.affine[:3, :2] @ [x, 3]
    frames = [Frame(1, box[::flip, :, k].T, corners[k]) for k in range(2, 6)]
    cosines = np.array(geometry(GRID)[0]) * np.repeat([flip, 1], 3)
    np.testing.assert_array_equal(one(save(seg_dataset(GRID, frames, cosines=cosines), tmp_path / "seg.dcm")), part)


@pytest.mark.parametrize("kind", ["oblique", "irregular", "single"])
def test_reaching_beyond_the_image(tmp_path: Path, kind: str) -> None:
    grid = make_grid(Shape(kind, (23, 19, 8)))
    labels = blobs(grid.shape, 1)
    step = grid.affine[:3, :3]
    wide = np.pad(labels, ((2, 3), (1, 2), (0, 0)))
    corners = grid.origins - step @ [2, 1, 0]
    frames = [Frame(1, wide[:, :, k].T, corners[k]) for k in range(grid.shape[2])]
    frames.append(Frame(1, wide[:, :, 0].T * 0, corners[0] - step[:, 2]))
    frames.append(Frame(1, wide[:, :, 0].T * 0, corners[-1] + 3 * step[:, 2]))
    path = save(seg_dataset(grid, frames), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(one(path, grid), labels > 0)  # nothing but background is left out
    wide[0, :4] = 1
    frames = [replace(frame, pixels=wide[:, :, k].T) for k, frame in enumerate(frames[: grid.shape[2]])]
    frames.append(Frame(1, np.ones_like(wide[:, :, 0].T), corners[-1] + step[:, 2]))
    path = save(seg_dataset(grid, frames), tmp_path / "seg.dcm")
    missed = 4 * grid.shape[2] + wide[:, :, 0].size
    with pytest.raises(GridMismatchError, match=rf"{missed} pixels of segment 1 \(organ 1\) lie outside"):
        one(path, grid)
    np.testing.assert_array_equal(one(path, grid, outside="drop"), labels > 0)


def test_labels_reaching_beyond_the_image(tmp_path: Path) -> None:
    frames = [Frame(0, np.full((19, 23), 1), GRID.origins[-1] + GRID.affine[:3, 2])]
    path = save(seg_dataset(GRID, frames, kind="LABELMAP"), tmp_path / "seg.dcm")
    with pytest.raises(GridMismatchError, match=r"437 pixels of the segmentation lie outside"):
        one(path)
    assert not one(path, outside="drop").any()


@pytest.mark.parametrize(
    ("shift", "scale", "distance"),
    [
        ((0.5, 0, 0), 1.0, "0.4"),  # half a column of 0.8 mm
        ((0, 0, 0.5), 1.0, "1.25"),  # between two slices
        ((0, 0, 0), 1.1, "1.62"),  # 18 rows, each 0.09 mm too long
        ((0, 0, -0.5), 1.0, "1.25"),  # half a slice before the first
    ],
)
def test_not_on_the_lattice(tmp_path: Path, shift: Any, scale: float, distance: str) -> None:
    rows, columns = geometry(GRID)[1]
    frame = Frame(1, np.ones((19, 23)), GRID.origins[0] + GRID.affine[:3, :3] @ shift)
    path = save(seg_dataset(GRID, [frame], spacing=[rows * scale, columns]), tmp_path / "seg.dcm")
    with pytest.raises(
        GridMismatchError, match=rf"seg.dcm.*frame 1 are up to {distance} mm off \(allowed: 0.05 mm\)"
    ) as e:
        read_segments(path, GRID)
    assert "image's voxels 0.8 x 0.9 x 2.5 mm" in str(e.value)


def test_turned_by_a_degree(tmp_path: Path) -> None:
    angle = np.deg2rad(1)
    cosines = np.array(geometry(GRID)[0]).reshape(2, 3)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ cosines
    path = save(
        seg_dataset(GRID, [Frame(1, np.ones((19, 23)), GRID.origins[2])], cosines=turned.ravel()),
        tmp_path / "seg.dcm",
    )
    far = 2 * np.sin(angle / 2) * np.hypot(22 * 0.8, 18 * 0.9)
    with pytest.raises(GridMismatchError, match=f"up to {far:.3g} mm off"):
        read_segments(path, GRID)


def test_tolerance(tmp_path: Path) -> None:
    """Small offsets are those of rounded coordinates; how small is for the caller to say, but not half a voxel."""
    frames = [replace(f, position=np.add(f.position, [0.06, 0, 0])) for f in frames_of(GRID, MASK)]
    path = save(seg_dataset(GRID, frames), tmp_path / "seg.dcm")
    with pytest.raises(GridMismatchError, match=r"0.06 mm off"):
        read_segments(path, GRID)
    np.testing.assert_array_equal(one(path, tolerance_mm=0.1), MASK)
    far = [replace(f, position=f.position + 0.45 * GRID.affine[:3, 0]) for f in frames_of(GRID, MASK)]
    with pytest.raises(GridMismatchError, match=r"allowed: 0.32 mm"):
        read_segments(save(seg_dataset(GRID, far), tmp_path / "far.dcm"), GRID, tolerance_mm=5)


def test_irregular_slices(tmp_path: Path) -> None:
    grid = make_grid(Shape("irregular", (23, 19, 8)))
    ones = np.ones((19, 23))
    between = Frame(1, ones, (grid.origins[1] + grid.origins[2]) / 2)
    with pytest.raises(GridMismatchError, match=r"frame 1 are up to 2.5 mm off"):
        read_segments(save(seg_dataset(grid, [between]), tmp_path / "seg.dcm"), grid)
    cosines, spacing = geometry(replace(grid, affine=grid.affine[:, [1, 2, 0, 3]]))
    across = Frame(1, np.ones((8, 19)), grid.origins[0])
    path = save(seg_dataset(grid, [across], cosines=cosines, spacing=spacing), tmp_path / "seg.dcm")
    with pytest.raises(GridMismatchError, match=r"frame 1 cuts across the slices"):
        read_segments(path, grid)


# What belongs together


def test_another_frame_of_reference(tmp_path: Path) -> None:
    path = save(seg_dataset(GRID, frames_of(GRID, MASK)), tmp_path / "seg.dcm")
    with pytest.raises(GridMismatchError, match=rf"frame of reference is {FRAME_OF_REFERENCE}, the image's 1.2.77"):
        read_segments(path, replace(GRID, frame_of_reference="1.2.77"))


@pytest.mark.parametrize("nameless", ["image", "segmentation"])
def test_without_a_frame_of_reference(tmp_path: Path, nameless: str) -> None:
    dataset = seg_dataset(GRID, frames_of(GRID, MASK))
    grid = replace(GRID, frame_of_reference="") if nameless == "image" else GRID
    if nameless == "segmentation":
        del dataset.FrameOfReferenceUID
    path = save(dataset, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(one(path, grid), MASK)  # it refers to the image's series
    elsewhere = replace(grid, series="1.5", slices=((("1.5.1", 0),),) * 8)
    with pytest.raises(GridMismatchError, match=f"the {nameless} has no FrameOfReferenceUID"):
        read_segments(path, elsewhere)


@pytest.mark.parametrize("multiframe", [False, True])
def test_frames_without_positions(tmp_path: Path, multiframe: bool) -> None:
    grid = make_grid(Shape("irregular", (23, 19, 8)), times=2, multiframe=multiframe)
    frames = [replace(frame, position=None) for frame in frames_of(grid, MASK)]
    np.testing.assert_array_equal(one(save(seg_dataset(grid, frames), tmp_path / "seg.dcm"), grid), MASK)
    small = [replace(frame, pixels=frame.pixels[1:]) for frame in frames]
    with pytest.raises(GridMismatchError, match=r"frame 1 has no position.*18 x 23 pixels.*19 x 23"):
        read_segments(save(seg_dataset(grid, small), tmp_path / "seg.dcm"), grid)
    lost = [replace(frame, source=("1.77", 0)) for frame in frames]
    with pytest.raises(GridMismatchError, match=r"refer to 0 slices"):
        read_segments(save(seg_dataset(grid, lost), tmp_path / "seg.dcm"), grid)
    nowhere = [replace(frame, source=None) for frame in frames]
    with pytest.raises(FormatError, match=r"frame 1 has neither a position .* nor a source image"):
        read_segments(save(seg_dataset(grid, nowhere), tmp_path / "seg.dcm"), grid)


# Segments


def test_sparse_overlapping_and_absent(tmp_path: Path) -> None:
    random = np.random.default_rng(3).random((2, *GRID.shape)) < 0.5
    random[0, :, :, [0, 3]] = random[1, :, :, 5:] = False
    frames = frames_of(GRID, random[0]) + frames_of(GRID, random[1], 2)
    frames = [frames[n] for n in np.random.default_rng(4).permutation(len(frames))]
    assert len(frames) == 6 + 5
    frames.append(Frame(4, np.zeros((19, 23)), GRID.origins[0]))
    path = save(seg_dataset(GRID, frames, segments=(4, 2, 1, 3)), tmp_path / "seg.dcm")
    masks = all_of(path)
    assert list(masks) == [4, 2, 1, 3]
    np.testing.assert_array_equal(masks[1], random[0])
    np.testing.assert_array_equal(masks[2], random[1])
    assert not masks[3].any()
    assert not masks[4].any()
    assert list(all_of(path, segments=[1, 2])) == [2, 1]
    with pytest.raises(ConfigError, match=r"no segment \[7\]; there are \[1, 2, 3, 4\]"):
        read_segments(path, GRID, segments=[1, 7])


def test_tiles_of_a_slice(tmp_path: Path) -> None:
    """Frames may each hold a part of a slice."""
    full = MASK[:, :, 3]
    tiles = [
        Frame(1, full[x : x + 12, y : y + 10].T, GRID.origins[3] + GRID.affine[:3, :2] @ [x, y])
        for x, y in product((0, 11), (0, 9))
    ]
    mask = one(save(seg_dataset(GRID, tiles), tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(mask[:, :, 3], full)
    assert not mask[:, :, [0, 1, 2, 4, 5, 6, 7]].any()


def test_one_place_twice(tmp_path: Path) -> None:
    frames = frames_of(GRID, MASK)
    with pytest.raises(FormatError, match=rf"frames 1 and {len(frames) + 1} show the same segment at the same place"):
        read_segments(save(seg_dataset(GRID, [*frames, frames[0]]), tmp_path / "seg.dcm"), GRID)


# How pixels are stored


# Files and arguments that are wrong
