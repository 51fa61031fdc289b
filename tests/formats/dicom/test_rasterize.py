"""Masks of structures: against each voxel on its own, against known shapes, and on grids that are turned, sheared and irregular."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader.errors import ConfigError, FormatError, GridMismatchError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.rasterize import rasterize
from radioloader.formats.dicom.rtstruct import Contour, Structure, check_reference, read_rtstruct
from tests.formats.dicom.structures import brute_force, make_grid, on_slice, write_rtstruct


def turn(a: float, b: float, c: float) -> npt.NDArray[np.float64]:
    """A rotation by three angles."""
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(x @ y @ z)


def affine_of(matrix: npt.ArrayLike, origin: Sequence[float] = (10.0, -20.0, 30.0)) -> npt.NDArray[np.float64]:
    return np.asarray(nib.affines.from_matvec(np.asarray(matrix), origin))


AXIAL = make_grid()
SPACING = np.diag([0.8, 1.2, 2.5])
SHEAR = np.array([[1.0, 0, 0], [0, 1, 0.31], [0, 0, 1]])  # a gantry that is tilted: slices move along y
GRIDS = {
    "axial": AXIAL,
    "oblique": make_grid(affine=affine_of(turn(0.3, -0.5, 1.1) @ SPACING)),
    "sheared": make_grid(affine=affine_of(SHEAR @ SPACING)),
    "oblique and sheared": make_grid(affine=affine_of(turn(-0.7, 0.2, 0.4) @ SHEAR @ SPACING)),
    "sagittal": make_grid(affine=affine_of(np.array([[0, 0, 2.5], [-0.8, 0, 0], [0, -1.2, 0]]))),
    "irregular": make_grid(
        affine=affine_of(SPACING),
        origins=np.array([10.0, -20.0, 30.0]) + np.outer([0, 2, 5, 7, 9, 15, 17, 19, 22, 24], [0.0, 0.0, 1.0]),
    ),
    "irregular and sheared": make_grid(
        affine=affine_of(SPACING), origins=np.outer([0, 2, 5, 7, 9, 15, 17, 19, 22, 24], [0.05, 0.2, 1.0])
    ),
    "one slice": make_grid((24, 20, 1)),
    "downwards": make_grid(affine=affine_of(np.diag([-1.0, -1.5, -3.0]))),
}

SQUARE = [(4, 3), (14, 3), (14, 12), (4, 12)]
HOLE = [(7, 5), (11, 5), (11, 9), (7, 9)]
ISLAND = [(8, 6), (10, 6), (10, 8), (8, 8)]
KEYHOLE = [(4, 3), (14, 3), (14, 12), (4, 12), (4, 5), (7, 5), (7, 9), (11, 9), (11, 5), (4, 5)]


def box(*edges: int) -> npt.NDArray[np.bool_]:
    """The mask (24, 20) of x0, x1, y0, y1."""
    mask = np.zeros((24, 20), np.bool_)
    mask[edges[0] : edges[1], edges[2] : edges[3]] = True
    return mask


def structure_of(contours: Sequence[npt.ArrayLike], kind: str = "CLOSED_PLANAR", name: str = "GTV") -> Structure:
    return Structure(1, name, "1.2.3.3", tuple(Contour(np.asarray(c, np.float64), kind) for c in contours))


def draw(grid: ImageGrid, *contours: npt.ArrayLike, kind: str = "CLOSED_PLANAR", **options: Any) -> Any:
    return rasterize(structure_of(contours, kind), grid, where="rs.dcm", **options)


# Any places, as they are in files: neighbours of ties are tested in test_polygons.py.
places = st.tuples(st.floats(-4, 27), st.floats(-4, 23))


@pytest.mark.parametrize("name", GRIDS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_equals_each_voxel_on_its_own(name: str, data: st.DataObject) -> None:
    grid = GRIDS[name]
    polygons = st.lists(st.lists(places, min_size=3, max_size=8), min_size=1, max_size=3)
    drawn = {z: data.draw(polygons) for z in {0, min(4, grid.shape[2] - 1), min(5, grid.shape[2] - 1)}}
    drawn[0].append([(5.3, 5.3), (9.7, 5.3), (9.7, 9.7)])  # never wholly outside
    contours = [on_slice(grid, z, polygon) for z, polygons in drawn.items() for polygon in polygons]
    mask, _ = draw(grid, *contours, kind="CLOSEDPLANAR_XOR")
    assert mask.dtype == np.bool_
    assert mask.shape == grid.shape
    for z in range(grid.shape[2]):
        expected = brute_force(drawn.get(z, []), grid.shape[:2])
        # A place that is closer to an edge than the snapping is decided by it.
        assert (mask[:, :, z] != expected).sum() <= near_edges(drawn.get(z, []), grid.shape[:2])


def near_edges(polygons: Sequence[Any], shape: tuple[int, int]) -> int:
    centres = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"), -1).astype(float)
    near = np.zeros(shape, np.bool_)
    for polygon in polygons:
        for a, b in zip(np.asarray(polygon), np.roll(np.asarray(polygon), -1, axis=0), strict=True):
            # Along x, as the rule has it; flat edges by their rows
            if abs(b[1] - a[1]) < 1e-5:
                near |= np.abs(centres[..., 1] - a[1]) < 2e-5
                continue
            crossing = a[0] + (centres[..., 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
            slope = 1 + abs((b[0] - a[0]) / (b[1] - a[1]))
            near |= np.abs(crossing - centres[..., 0]) < 1e-5 * slope
            near |= (np.abs(centres[..., 1] - a[1]) < 1e-5) | (np.abs(centres[..., 1] - b[1]) < 1e-5)
    return int(near.sum())


@pytest.mark.parametrize("name", GRIDS)
def test_areas_that_are_known(name: str, tmp_path: Path) -> None:
    """Through a file, with 16 characters for each number. Every edge runs through centres."""
    grid = GRIDS[name]
    top = grid.shape[2] - 1
    contours = {
        "square": ([SQUARE], box(4, 14, 3, 12)),
        "hole": ([SQUARE, HOLE], box(4, 14, 3, 12) & ~box(7, 11, 5, 9)),
        "hole first": ([HOLE, SQUARE], box(4, 14, 3, 12) & ~box(7, 11, 5, 9)),
        "island": ([SQUARE, HOLE, ISLAND], box(4, 14, 3, 12) & ~box(7, 11, 5, 9) | box(8, 10, 6, 8)),
        "keyhole": ([KEYHOLE], box(4, 14, 3, 12) & ~box(7, 11, 5, 9)),
        "apart": ([HOLE, [(15, 1), (20, 1), (20, 4), (15, 4)]], box(7, 11, 5, 9) | box(15, 20, 1, 4)),
        "crossing": ([SQUARE, [(10, 8), (20, 8), (20, 18), (10, 18)]], box(4, 14, 3, 12) ^ box(10, 20, 8, 18)),
    }
    for kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
        drawn = {key: [on_slice(grid, top, p) for p in polygons] for key, (polygons, _) in contours.items()}
        found = read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", grid, drawn, kinds=kind))
        assert check_reference(found, grid, where="rs.dcm") == ()
        for structure in found.structures:
            mask, notes = rasterize(structure, grid, where="rs.dcm")
            assert np.array_equal(mask[:, :, top], contours[structure.name][1]), structure.name
            assert not mask[:, :, :top].any()
            assert len(notes) == (structure.name == "crossing" and kind == "CLOSED_PLANAR")


def test_neighbours_share_no_voxel_and_leave_none_out() -> None:
    for grid in GRIDS.values():
        cuts = [(6, 0), (9.3, 7), (5.5, 12), (8, 19)]
        left = on_slice(grid, 0, [(-1, -1), (6, -1), *cuts, (8, 20), (-1, 20)])
        right = on_slice(grid, 0, [(8, 20), *cuts[::-1], (6, -1), (24, -1), (24, 20)])
        assert (draw(grid, left)[0][:, :, 0].astype(int) + draw(grid, right)[0][:, :, 0] == 1).all()


def test_rounding_to_three_digits_keeps_contours_flat(tmp_path: Path) -> None:
    grid = GRIDS["oblique and sheared"]
    drawn = {"a": [on_slice(grid, z, np.array(SQUARE) + 0.4) for z in range(10)]}
    found = read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", grid, drawn, decimals=2))
    mask, notes = rasterize(found.structures[0], grid, where="rs.dcm")
    assert notes == ()
    assert np.array_equal(mask, np.repeat(box(5, 15, 4, 13)[:, :, None], 10, axis=2))


def test_slices_without_contours_between_others_get_a_note() -> None:
    mask, notes = draw(AXIAL, *(on_slice(AXIAL, z, SQUARE) for z in (1, 2, 6, 8)))
    assert notes == (
        "structure 'GTV': slices 3-5, 7 have no contours, but slices on both sides do; they were left empty",
    )
    assert mask.any(axis=(0, 1)).nonzero()[0].tolist() == [1, 2, 6, 8]


def test_the_same_contour_twice_counts_once() -> None:
    square = on_slice(AXIAL, 3, SQUARE)
    mask, notes = draw(AXIAL, square, np.roll(square, 2, axis=0)[::-1])
    assert np.array_equal(mask[:, :, 3], box(4, 14, 3, 12))
    assert "twice on slices 3" in notes[0]
    mask, notes = draw(AXIAL, square, square, kind="CLOSEDPLANAR_XOR")
    assert not mask.any()  # as the standard says
    assert "the mask is empty" in notes[0]
    # The same points in another order are another polygon.
    bow = square[[0, 2, 1, 3]]
    mask, _ = draw(AXIAL, square, bow)
    assert 0 < mask.sum() < box(4, 14, 3, 12).sum()


def test_contours_that_enclose_no_area_are_left_out() -> None:
    square = on_slice(AXIAL, 3, SQUARE)
    contours = tuple(
        Contour(points, kind)
        for points, kind in [
            (square, "CLOSED_PLANAR"),
            (square[:1], "POINT"),
            (square, "OPEN_PLANAR"),
            (square, "OPEN_NONPLANAR"),
            (square[:2], "CLOSED_PLANAR"),
        ]
    )
    mask, notes = rasterize(Structure(1, "a", "", contours), AXIAL, where="rs.dcm")
    assert np.array_equal(mask[:, :, 3], box(4, 14, 3, 12))
    assert notes == (
        "structure 'a': contours that enclose no area were left out: 1 POINT, 1 OPEN_PLANAR, 1 OPEN_NONPLANAR, "
        "1 CLOSED_PLANAR of fewer than three points",
    )
    with pytest.raises(FormatError, match=r"rs\.dcm: structure 'a': none of its contours encloses an area: 1 POINT"):
        rasterize(Structure(1, "a", "", contours[1:]), AXIAL, where="rs.dcm")
    with pytest.raises(FormatError, match=r"rs\.dcm: structure 'a': has no contours"):
        rasterize(Structure(1, "a", "", ()), AXIAL, where="rs.dcm")


def test_what_is_smaller_than_a_voxel_gets_a_note() -> None:
    mask, notes = draw(AXIAL, on_slice(AXIAL, 3, [(4.1, 4.1), (4.9, 4.1), (4.9, 4.9)]))
    assert not mask.any()
    assert "enclose no voxel centre" in notes[0]


@pytest.mark.parametrize("name", GRIDS)
def test_contours_across_the_slices_are_refused(name: str) -> None:
    grid = GRIDS[name]
    a, b, c = grid.affine[:3, :3].T
    middle = grid.origins[0] + 10 * a + 10 * b
    across = [middle, middle + 5 * a, middle + 5 * a + 2 * c, middle + 2 * c]
    tilted = [middle, middle + 5 * a, middle + 5 * a + 5 * b + 0.3 * c, middle + 5 * b + 0.3 * c]
    for contour in (across, tilted):
        with pytest.raises(FormatError, match=r"rs\.dcm: structure 'GTV': .*not parallel to the slices"):
            draw(grid, on_slice(grid, 0, SQUARE), contour)


class TestOffSlices:
    def test_within_a_tenth_of_the_spacing_planes_are_on_slices(self) -> None:
        mask, notes = draw(AXIAL, *(on_slice(AXIAL, z, SQUARE, off=o) for z, o in ((0, -0.29), (3, 0.29), (9, 0.29))))
        assert mask.any(axis=(0, 1)).nonzero()[0].tolist() == [0, 3, 9]
        assert len(notes) == 1

    def test_further_off_is_refused(self) -> None:
        with pytest.raises(
            FormatError, match=r"1 of its 2 planes lie between slices: one is 0\.31 mm off .*slice \(3\).*nearest"
        ):
            draw(AXIAL, on_slice(AXIAL, 2, SQUARE), on_slice(AXIAL, 3, SQUARE, off=0.31))
        mask, _ = draw(AXIAL, on_slice(AXIAL, 2, SQUARE), on_slice(AXIAL, 3, SQUARE, off=0.31), tolerance=0.32)
        assert mask[:, :, 2:4].sum() == 2 * box(4, 14, 3, 12).sum()

    def test_two_planes_on_one_slice_are_refused_and_never_cancel(self) -> None:
        contours = on_slice(AXIAL, 3, SQUARE, off=-0.15), on_slice(AXIAL, 3, SQUARE, off=0.15)
        with pytest.raises(FormatError, match=r"two planes that are 0\.3 mm apart lie on slice 3"):
            draw(AXIAL, *contours)
        mask, notes = draw(AXIAL, *contours, planes="nearest")
        assert np.array_equal(mask[:, :, 3], box(4, 14, 3, 12))
        assert "1 of 2 planes were not used" in notes[0]

    def test_a_missing_slice_is_said(self) -> None:
        grid = make_grid(origins=np.outer([0, 3, 6, 12, 15, 18, 21, 24, 27, 30], [0.0, 0, 1]))
        with pytest.raises(FormatError, match=r"1 of its 3 planes lie between slices: one is 3 mm off"):
            draw(grid, *([*map(list, np.column_stack([-np.array(SQUARE), [z] * 4]))] for z in (6.0, 9.0, 12.0)))

    @pytest.mark.parametrize("finer", [0.5, 0.75, 1.0])
    def test_nearest_from_a_finer_spacing(self, finer: float) -> None:
        # A cone: each plane is another square, so that it is seen which one a slice took. Planes at 0, finer, 2 finer ... mm.
        def size(height: float) -> float:
            return 3.25 + height / 4

        heights = np.arange(0, 24, finer)
        contours = [on_slice(AXIAL, 0, [(1, 1), (size(h), 1), (size(h), 8), (1, 8)], off=h) for h in heights]
        if finer != 1.0:
            with pytest.raises(FormatError, match="lie between slices"):
                draw(AXIAL, *contours)
        mask, notes = draw(AXIAL, *contours, planes="nearest")
        assert mask[:, :, :8].any(axis=(0, 1)).all()
        assert not mask[:, :, 9:].any()
        for z in range(8):
            assert mask[:, 3, z].sum() == np.ceil(size(3.0 * z)) - 1
        assert "planes were not used" in " ".join(notes)

    def test_nearest_from_a_coarser_spacing(self) -> None:
        # Planes of 9 mm on slices of 3 mm, half-way between them: at 4.5 and 13.5 mm. Slabs of 9 mm: slices 0 to 2 and 3 to 5.
        mask, notes = draw(
            AXIAL,
            on_slice(AXIAL, 0, SQUARE, off=4.5),
            on_slice(AXIAL, 0, HOLE, off=13.5),
            planes="nearest",
        )
        assert [int(mask[:, :, z].sum()) for z in range(10)] == [90] * 3 + [16] * 3 + [0] * 4
        assert "6 of 6 slices took a plane more than 0.3 mm off" in notes[0]

    def test_half_way_the_upper_plane_is_taken(self) -> None:
        mask, _ = draw(
            AXIAL, on_slice(AXIAL, 2, SQUARE), on_slice(AXIAL, 4, HOLE), on_slice(AXIAL, 6, SQUARE), planes="nearest"
        )
        # Slabs of 6 mm, half-open: slices 1-2, 3-4, 5-6
        assert [int(mask[:, :, z].sum()) for z in range(10)] == [0, 90, 90, 16, 16, 90, 90, 0, 0, 0]

    def test_nearest_keeps_what_lies_on_slices(self) -> None:
        for grid in GRIDS.values():
            contours = [on_slice(grid, z, np.array(SQUARE) + 0.2) for z in range(grid.shape[2])]
            assert np.array_equal(draw(grid, *contours)[0], draw(grid, *contours, planes="nearest")[0])

    def test_planes_that_cannot_be_told_apart(self) -> None:
        with pytest.raises(FormatError, match="planes cannot be told apart"):
            draw(AXIAL, *(on_slice(AXIAL, 3, SQUARE, off=o) for o in np.arange(0, 3, 0.05)), planes="nearest")


class TestOutside:
    def test_what_lies_in_part_outside_is_cut_off_and_counted(self) -> None:
        mask, notes = draw(
            AXIAL,
            on_slice(AXIAL, 9, np.array(SQUARE) - 6),
            on_slice(AXIAL, 9, np.array(HOLE) + 40),
            on_slice(AXIAL, 9, SQUARE, off=3),
            on_slice(AXIAL, 0, SQUARE),
            on_slice(AXIAL, 0, HOLE, off=-6),
        )
        assert np.array_equal(mask[:, :, 9], box(0, 8, 0, 6))
        assert np.array_equal(mask[:, :, 0], box(4, 14, 3, 12))
        assert "3 of 5 contours lie outside of the images, 1 in part" in notes[0]

    @pytest.mark.parametrize("planes", ["on_slices", "nearest"])
    @pytest.mark.parametrize("move", [(0, 0, 300), (0, 0, -300), (100, 0, 0), (0, -100, 0)])
    @pytest.mark.parametrize("name", ["axial", "oblique", "irregular and sheared"])
    def test_what_lies_wholly_outside_is_refused(self, planes: Any, move: tuple[int, int, int], name: str) -> None:
        grid = GRIDS[name]
        contour = on_slice(grid, 5, SQUARE) + grid.affine[:3, :3] @ move
        with pytest.raises(
            GridMismatchError, match=r"rs\.dcm: structure 'GTV': lies outside of the images of series 1\.2\.3\.2"
        ):
            draw(grid, contour, planes=planes)


def test_an_image_named_by_a_contour_that_lies_elsewhere_gets_a_note() -> None:
    drawn = Contour(on_slice(AXIAL, 3, SQUARE), "CLOSED_PLANAR", ("1.2.3.4.9",))
    right = Contour(on_slice(AXIAL, 4, SQUARE), "CLOSED_PLANAR", ("1.2.3.4.5",))
    unknown = Contour(on_slice(AXIAL, 5, SQUARE), "CLOSED_PLANAR", ("1.9",))
    mask, notes = rasterize(Structure(1, "a", "", (drawn, right, unknown)), AXIAL, where="rs.dcm")
    assert mask.any(axis=(0, 1)).nonzero()[0].tolist() == [3, 4, 5]
    assert len(notes) == 1
    assert "1 contours name the image of another slice" in notes[0]


@pytest.mark.parametrize(
    "options", [{"planes": "any"}, {"tolerance": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}]
)
def test_options_that_are_not_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        draw(AXIAL, on_slice(AXIAL, 3, SQUARE), **options)


def grid_of(folder: Path) -> ImageGrid:
    """The grid of an axial series of DICOM files, as their headers say."""
    from pydicom import dcmread

    headers = [dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    first = headers[0]
    assert np.allclose(first.ImageOrientationPatient, (1, 0, 0, 0, 1, 0))
    origins = np.array([header.ImagePositionPatient for header in headers], np.float64) * (-1, -1, 1)
    step = (origins[-1] - origins[0])[2] / (len(headers) - 1)
    affine = affine_of(np.diag([-first.PixelSpacing[1], -first.PixelSpacing[0], step]), origins[0])
    return make_grid(
        (first.Columns, first.Rows, len(headers)),
        affine,
        origins,
        frame_of_reference=first.FrameOfReferenceUID,
        study=first.StudyInstanceUID,
        series=first.SeriesInstanceUID,
        sop_class=first.SOPClassUID,
        slices=tuple(((str(header.SOPInstanceUID), 0),) for header in headers),
    )


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
@pytest.mark.parametrize("subject", ["STS_001", "STS_002"])
def test_tumours_that_others_made_masks_of(shared_data: Path, subject: str, modality: str) -> None:
    """Clinical contours of soft-tissue sarcomas, and the reference masks that IBSI made of them: equal in every voxel."""
    root = shared_data / "ibsi_sts"
    folder = root / "dicom" / subject / modality
    grid = grid_of(folder / "image")
    found = read_rtstruct(folder / "mask" / "RS.dcm")
    # The images were cropped, and got new SOPInstanceUIDs.
    (note,) = check_reference(found, grid, where="RS.dcm")
    assert "SOPInstanceUID that the series does not have" in note
    (structure,) = found.structures
    assert structure.name == f"GTV_Mass_{modality}"
    mask, notes = rasterize(structure, grid, where="RS.dcm")
    assert notes == ()
    reference = nib.load(root / "nifti" / subject / f"{modality}_mask.nii.gz")
    assert np.allclose(reference.affine, grid.affine, atol=1e-3)
    expected = np.asarray(reference.dataobj) > 0
    assert expected.sum() > 500
    assert np.array_equal(mask, expected)
