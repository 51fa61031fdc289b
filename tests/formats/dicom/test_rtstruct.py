"""Structure sets: what is read of them, what is refused, and whose they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radioloader.errors import FormatError, GridMismatchError, MissingDependencyError
from radioloader.formats.dicom.rtstruct import Contour, Structure, check_reference, read_rtstruct
from tests.formats.dicom.structures import FRAME, SERIES, STUDY, make_grid, on_slice, write_rtstruct

SQUARE = [(2, 2), (6, 2), (6, 7), (2, 7)]
GRID = make_grid()
SQUARES = [on_slice(GRID, z, SQUARE) for z in (3, 4)]


@pytest.mark.parametrize("implicit", [False, True])
def test_what_was_written_is_read(tmp_path: Path, implicit: bool) -> None:
    path = write_rtstruct(
        tmp_path / "rs.dcm",
        GRID,
        {" GTV ": SQUARES, "iso": [SQUARES[0][:1]]},
        kinds={" GTV ": ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"], "iso": ["POINT"]},
        implicit=implicit,
    )
    found = read_rtstruct(path)
    assert (found.instance, found.series) == ("1.2.3.5", "1.2.3.6")
    assert found.frames_of_reference == (FRAME,)
    (series,) = found.references
    assert (series.frame_of_reference, series.study, series.series) == (FRAME, STUDY, SERIES)
    assert series.images == tuple(f"1.2.3.4.{z}" for z in range(1, 11))
    gtv, iso = found.structures
    assert (gtv.number, gtv.name, gtv.frame_of_reference) == (1, "GTV", FRAME)
    assert [contour.kind for contour in gtv.contours] == ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"]
    assert [contour.images for contour in gtv.contours] == [("1.2.3.4.4",), ("1.2.3.4.5",)]
    for contour, points in zip(gtv.contours, SQUARES, strict=True):
        assert contour.points.dtype == np.float64
        assert np.allclose(contour.points, points, rtol=0, atol=1e-9)
    assert [len(contour.points) for contour in iso.contours] == [1]


def test_points_are_turned_from_lps_to_ras(tmp_path: Path) -> None:
    def place(dataset: Any) -> None:
        dataset.ROIContourSequence[0].ContourSequence[0].ContourData = [
            "1.5",
            "-2",
            " 3 ",
            "4",
            "5",
            "6",
            "7",
            "8",
            "1e1",
        ]
        dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 3

    path = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES}, edit=place)
    assert read_rtstruct(path).structures[0].contours[0].points.tolist() == [[-1.5, 2, 3], [-4, -5, 6], [-7, -8, 10]]


def test_nothing_of_the_patient_is_kept(tmp_path: Path) -> None:
    found = read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES}))
    assert "ecret" not in repr(found)
    assert {field.name for field in fields(found)} == {
        "instance",
        "series",
        "structures",
        "frames_of_reference",
        "references",
    }


@pytest.mark.filterwarnings("ignore:The value for the data element:UserWarning")
@pytest.mark.filterwarnings("ignore:With tag:UserWarning")
def test_a_contour_that_is_too_long_for_its_vr(tmp_path: Path) -> None:
    # More than 65534 bytes: pydicom, like others, writes it under the VR UN where the VR is explicit.
    turns = np.linspace(0, 6.28, 4000)
    points = np.column_stack([np.cos(turns) * 7, np.sin(turns) * 7, np.full(4000, 9.0)])
    path = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": [points]})
    assert np.allclose(read_rtstruct(path).structures[0].contours[0].points, points, rtol=0, atol=1e-9)


def test_a_structure_that_was_never_drawn_is_empty(tmp_path: Path) -> None:
    def change(dataset: Any) -> None:
        del dataset.ROIContourSequence[1].ContourSequence
        del dataset.ROIContourSequence[2]
        dataset.StructureSetROISequence[1].ROIName = ""

    path = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES, "b": [], "c": []}, edit=change)
    assert [(s.name, len(s.contours)) for s in read_rtstruct(path).structures] == [("a", 2), ("ROI 2", 0), ("c", 0)]


def test_names_in_other_alphabets(tmp_path: Path) -> None:
    path = write_rtstruct(
        tmp_path / "rs.dcm",
        GRID,
        {"Prostata groß": SQUARES},
        edit=lambda d: setattr(d, "SpecificCharacterSet", "ISO_IR 192"),
    )
    assert read_rtstruct(path).structures[0].name == "Prostata groß"


def undefined_lengths(dataset: Any) -> None:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                undefined_lengths(item)


def test_values_that_are_too_long_are_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Undefined lengths of what is around the name, so that its own length alone changes.
    path = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES}, edit=undefined_lengths)
    short, long = b"\x06\x30\x26\x00LO\x02\x00a ", b"\x06\x30\x26\x00LO\x50\x00" + b"a" * 80
    assert path.read_bytes().count(short) == 1
    path.write_bytes(path.read_bytes().replace(short, long))
    assert read_rtstruct(path).structures[0].name == "a" * 80
    assert not caplog.records


def contour_of(dataset: Any) -> Any:
    return dataset.ROIContourSequence[1].ContourSequence[1]


def raw(text: bytes) -> Callable[[Any], None]:
    """Puts bytes in as they are; pydicom would check them."""

    def change(dataset: Any) -> None:
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag

        tag, even = Tag(0x30060050), text + b" " * (len(text) % 2)
        implicit = dataset.file_meta.TransferSyntaxUID.is_implicit_VR
        contour_of(dataset)[tag] = RawDataElement(tag, "DS", len(even), even, 0, implicit, True)

    return change


def without(keyword: str, of: Callable[[Any], Any] = lambda dataset: dataset) -> Callable[[Any], None]:
    return lambda dataset: delattr(of(dataset), keyword)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("ROIContourSequence"), "no ROIContourSequence"),
        (lambda d: setattr(d, "ROIContourSequence", []), "no ROIContourSequence"),
        (without("StructureSetROISequence"), "no StructureSetROISequence"),
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), r"not an RT Structure Set.*4\.1\.1\.2"),
        (raw(b"1\\2\\3\\4"), r"structure 'b', contour 2: ContourData holds 4 numbers"),
        (raw(b"1\\2\\3"), r"structure 'b', contour 2: ContourData holds 1 points, but NumberOfContourPoints is 4"),
        (raw(b"1\\2\\nan\\4\\5\\6\\7\\8\\9\\1\\2\\3"), r"structure 'b', contour 2: ContourData holds nan"),
        (raw(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\1\\2\\-inf"), r"structure 'b', contour 2: ContourData holds -?inf"),
        (raw(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\1\\2\\1e300"), r"structure 'b', contour 2: ContourData holds 1e\+300"),
        (raw(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\1\\2\\"), r"structure 'b', contour 2: ContourData holds something else"),
        (
            raw(b"1,5\\2\\3\\4\\5\\6\\7\\8\\9\\1\\2\\3"),
            r"contour 2: ContourData holds something else than numbers.*1,5",
        ),
        (without("ContourData", contour_of), r"structure 'b', contour 2: has no ContourData"),
        (lambda d: setattr(contour_of(d), "ContourData", None), r"structure 'b', contour 2: has no ContourData"),
        (without("ContourGeometricType", contour_of), r"structure 'b', contour 2: has no ContourGeometricType"),
        (
            lambda d: setattr(contour_of(d), "ContourOffsetVector", [0, 0, 2]),
            r"contour 2: moved by a ContourOffsetVector",
        ),
        (lambda d: setattr(d.ROIContourSequence[1], "ReferencedROINumber", 7), r"ROI number 7.*numbers 1, 2"),
        (lambda d: setattr(d.ROIContourSequence[1], "ReferencedROINumber", 1), r"structure 'a': has two items"),
        (
            without("ReferencedROINumber", lambda d: d.ROIContourSequence[0]),
            r"ROIContourSequence: has no ReferencedROI",
        ),
        (lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1), r"'a' and 'b' have the same ROINumber 1"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_broken_sets_are_refused_by_name(
    tmp_path: Path, edit: Callable[[Any], None], message: str, implicit: bool
) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES, "b": SQUARES}, edit=edit, implicit=implicit)
    with pytest.raises(FormatError, match=message) as caught:
        read_rtstruct(path)
    assert str(path) in str(caught.value)


def test_an_offset_of_zero_moves_nothing(tmp_path: Path) -> None:
    path = write_rtstruct(
        tmp_path / "rs.dcm",
        GRID,
        {"a": SQUARES, "b": SQUARES},
        edit=lambda d: setattr(contour_of(d), "ContourOffsetVector", [0, 0, 0]),
    )
    assert len(read_rtstruct(path).structures[1].contours) == 2


def test_files_that_are_no_structure_sets(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.dcm: the file does not exist"):
        read_rtstruct(tmp_path / "none.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM, but long enough for a preamble" * 9)
    with pytest.raises(FormatError, match=r"text\.dcm"):
        read_rtstruct(tmp_path / "text.dcm")
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(FormatError, match=r"empty\.dcm"):
        read_rtstruct(tmp_path / "empty.dcm")
    with pytest.raises(FormatError):
        read_rtstruct(tmp_path)


@pytest.mark.parametrize("edit", [None, undefined_lengths])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_truncated_file_is_refused_or_whole(
    tmp_path: Path, counts: Callable[[int, int], int], implicit: bool, edit: Callable[[Any], None] | None
) -> None:
    structures = {"a": SQUARES, "b": SQUARES, "c": SQUARES}
    path = write_rtstruct(tmp_path / "rs.dcm", GRID, structures, implicit=implicit, edit=edit)
    assert len(read_rtstruct(path).structures) == 3
    whole = path.read_bytes()
    refused = 0
    # Items are where a reader could take what is there for all there is.
    items = [index for index in range(len(whole)) if whole.startswith(b"\xfe\xff\x00\xe0", index)]
    for length in {*items, *np.linspace(0, len(whole) - 1, counts(100, len(whole))).astype(int).tolist()}:
        path.write_bytes(whole[:length])
        try:
            found = read_rtstruct(path)
        except FormatError:
            refused += 1
        else:
            assert [len(s.contours) for s in found.structures] == [2, 2, 2]
            assert all(len(c.points) == 4 for s in found.structures for c in s.contours)
    assert refused > 100


def test_a_data_set_without_the_header_of_a_file(tmp_path: Path) -> None:
    whole = write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES}, implicit=True).read_bytes()
    (tmp_path / "bare.dcm").write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])
    assert len(read_rtstruct(tmp_path / "bare.dcm").structures[0].contours) == 2


def test_a_structure_set_of_others() -> None:
    """The one in pydicom's wheel: a bare data set with a patient outline and two isocentres."""
    from pydicom.data import get_testdata_file

    found = read_rtstruct(str(get_testdata_file("rtstruct.dcm")))
    assert [(s.name, [contour.kind for contour in s.contours]) for s in found.structures] == [
        ("patient", ["CLOSED_PLANAR"] * 3),
        ("Isocenter 1", ["POINT"]),
        ("Isocenter 2", ["POINT"]),
    ]
    assert {structure.frame_of_reference for structure in found.structures} == set(found.frames_of_reference)


def test_without_pydicom_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDependencyError, match=r"radioloader\[dicom\]"):
        read_rtstruct(tmp_path / "rs.dcm")


class TestReference:
    """Whose images a structure set outlines."""

    @pytest.fixture
    def found(self, tmp_path: Path) -> Any:
        return read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", GRID, {"a": SQUARES}))

    def test_its_own_images(self, found: Any) -> None:
        assert check_reference(found, GRID, where="rs.dcm") == ()

    def test_others_are_refused(self, found: Any) -> None:
        other = make_grid(series="1.9.1", frame_of_reference="1.9.2", slices=((("1.9.3", 0),),) * 10)
        with pytest.raises(GridMismatchError) as caught:
            check_reference(found, other, where="rs.dcm")
        for part in ("rs.dcm", "'a'", "1.9.1", "1.9.2", SERIES, FRAME):
            assert part in str(caught.value)
        # Two that have no frame of reference do not share one.
        nowhere = replace(found, structures=(replace(found.structures[0], frame_of_reference=""),), references=())
        with pytest.raises(GridMismatchError, match=r"\(none\)"):
            check_reference(nowhere, replace(other, frame_of_reference=""), where="rs.dcm")

    def test_another_series_of_the_same_frame_gets_a_note(self, found: Any) -> None:
        other = make_grid(series="1.9.1", slices=((("1.9.3", 0),),) * 10)
        (note,) = check_reference(found, other, where="rs.dcm")
        assert "another series" in note
        assert SERIES in note

    def test_its_series_with_another_frame_gets_a_note(self, found: Any) -> None:
        (note,) = check_reference(found, make_grid(frame_of_reference="1.9.2"), where="rs.dcm")
        assert FRAME in note
        assert "1.9.2" in note
        assert check_reference(found, make_grid(frame_of_reference=""), where="rs.dcm") == ()

    def test_images_that_the_series_does_not_have_get_a_note(self, found: Any) -> None:
        renamed = make_grid(slices=tuple(((f"1.9.{z}", 0),) for z in range(10)))
        (note,) = check_reference(found, renamed, where="rs.dcm")
        assert "2 of 2 images" in note

    def test_images_prove_it_where_the_set_references_no_series(self, found: Any) -> None:
        bare = replace(found, references=(), structures=(replace(found.structures[0], frame_of_reference=""),))
        assert check_reference(bare, GRID, where="rs.dcm") == ()

    def test_each_structure_has_its_own_frame(self, found: Any) -> None:
        # The set references the grid's series, but this structure was drawn in another frame of reference.
        stray = Structure(9, "stray", "1.9.2", (Contour(SQUARES[0], "CLOSED_PLANAR"),))
        both = replace(found, structures=(*found.structures, stray))
        with pytest.raises(GridMismatchError, match="'stray'"):
            check_reference(both, GRID, where="rs.dcm")
        assert check_reference(both, GRID, where="rs.dcm", structures=found.structures) == ()
