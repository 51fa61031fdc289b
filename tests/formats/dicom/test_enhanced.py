"""Enhanced multi-frame CT, MR and PET: the functional groups of frames, shared or their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.stacks import Dimension
from tests.formats.dicom.converter import dcm2niix, same_as_converter
from tests.formats.dicom.enhanced import item
from tests.formats.dicom.make import real_volume, rescaled, rotation, tilt, write_enhanced, write_series
from tests.formats.dicom.reading import affine_of, instances, one, read, values, volumes
from tests.formats.dicom.volumes import Array

TURNS = {"axial": (0, 0, 0), "oblique": (20, -10, 5), "sagittal": (0, 90, 0), "coronal": (90, 0, 0)}
SHAPE = (12, 10, 6)


@pytest.fixture(scope="module")
def oblique() -> tuple[Array, Array]:
    voxels, affine = real_volume(SHAPE)
    return voxels, rotation(TURNS["oblique"]) @ affine


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frames": "plain", "per_frame": ("orientation", "measures", "type", "values")},
        {"stack_positions": "none", "frames": "reversed", "slope": 0.5, "intercept": -3.0},
    ],
    ids=["shared", "per frame", "no stack"],
)
def test_as_dcm2niix_reads_them(
    tmp_path: Path, turn: tuple[int, int, int], modality: str, options: dict[str, Any]
) -> None:
    voxels, affine = real_volume(SHAPE)
    affine = rotation(turn) @ affine
    write_enhanced(tmp_path / "in" / "a.dcm", voxels, affine, modality=modality, **options)
    got = read(tmp_path / "in")
    assert np.array_equal(got[0], rescaled(voxels, options.get("slope", 1.0), options.get("intercept", 0.0)))
    assert np.allclose(got[1], affine, atol=1e-6)
    assert same_as_converter(*got, *dcm2niix(tmp_path / "in", tmp_path / "out"))


def test_positions_count_and_not_what_the_stack_says(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    write_enhanced(tmp_path / "a.dcm", *oblique, stack_positions="wrong")
    volume = one(tmp_path)
    assert np.array_equal(read_volume(volume).voxels, oblique[0])
    assert volume.laid_out[1].order == "other"
    write_enhanced(tmp_path / "a.dcm", *oblique)
    assert one(tmp_path).laid_out[1].order == "ascending"


def test_frames_of_the_grid(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Numbers of frames, from 0, of the slices along the normal."""
    path = write_enhanced(tmp_path / "a.dcm", *oblique)
    volume = one(tmp_path)
    ds = pydicom.dcmread(path)
    places = [group.FrameContentSequence[0].InStackPositionNumber for group in ds.PerFrameFunctionalGroupsSequence]
    assert volume.laid_out[0].slices == tuple(((ds.SOPInstanceUID, places.index(k + 1)),) for k in range(6))
    assert (volume.folder, volume.files) == (str(path), 1)


@pytest.mark.parametrize(
    ("along", "points", "dimension"),
    [
        ("time", [4.0, 2.0, 9.0], Dimension("time", ("1", "2", "3"))),
        ("phase", [200.0, 0.0, 100.0], Dimension("cardiac phase", ("0", "100", "200"))),
        ("b_value", [1000.0, 0.0, 500.0], None),
    ],
)
@pytest.mark.parametrize("volume_first", [False, True])
def test_over_time(
    tmp_path: Path, oblique: tuple[Array, Array], along: Any, points: list[float], dimension: Any, volume_first: bool
) -> None:
    voxels = np.stack([oblique[0] // n for n in (1, 2, 3)], axis=3)
    write_enhanced(
        tmp_path / "a.dcm",
        voxels,
        oblique[1],
        modality="MR",
        along=along,
        values=points,
        volume_first=volume_first,
        stack_positions="wrong",
    )
    volume = one(tmp_path)
    assert volume.shape == (*SHAPE, 3)
    order = [0, 1, 2] if along == "time" else np.argsort(points)  # the index is the order in time
    assert np.array_equal(read_volume(volume).voxels, voxels[..., order])
    assert np.allclose(affine_of(volume), oblique[1], atol=1e-6)
    if dimension is not None:
        assert volume.dimension == dimension
    else:
        assert volume.dimension is not None
        assert volume.dimension.name == "b-value"
        assert [value.split(" ")[0] for value in volume.dimension.values] == ["0", "500", "1000"]
        assert volume.dimension.values[0] == "0 NONE"


def test_echoes_are_volumes(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels = np.stack([oblique[0] // n for n in (1, 2, 3)], axis=3)
    write_enhanced(tmp_path / "a.dcm", voxels, oblique[1], modality="MR", along="echo", values=[5.0, 20.0, 10.0])
    found = volumes(tmp_path)
    assert [volume.name for volume in found] == ["echo1", "echo2", "echo3"]
    for volume, t in zip(found, (0, 2, 1), strict=True):
        assert np.array_equal(read_volume(volume).voxels, voxels[..., t])


def test_dimensions_that_we_have_no_name_for(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Labelled and control images of perfusion, say: only the DimensionIndexValues tell them apart."""
    voxels = np.stack([oblique[0], oblique[0] // 2], axis=3)

    def change(ds: Dataset) -> None:
        ds.DimensionIndexSequence[-1].DimensionIndexPointer = 0x00189257  # ASL Context
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.TemporalPositionSequence
            del group.FrameContentSequence[0].TemporalPositionIndex
            del group.FrameContentSequence[0].FrameReferenceDateTime

    write_enhanced(tmp_path / "a.dcm", voxels, oblique[1], modality="MR", extra=change)
    volume = one(tmp_path)
    assert volume.dimension == Dimension("dimension", ("00001", "00002"))
    assert np.array_equal(read_volume(volume).voxels, voxels)


def test_magnitude_and_phase_in_one_instance(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    voxels = np.stack([oblique[0], oblique[0] // 2], axis=3)

    def change(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            phase = group.FrameContentSequence[0].TemporalPositionIndex == 2
            kind = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
            group.MRImageFrameTypeSequence = item(
                FrameType=kind, ComplexImageComponent="PHASE" if phase else "MAGNITUDE"
            )

    write_enhanced(tmp_path / "a.dcm", voxels, oblique[1], modality="MR", extra=change)
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"magnitude", "phase"}
    assert np.array_equal(found["magnitude"], voxels[..., 0])
    assert np.array_equal(found["phase"], voxels[..., 1])


def test_stacks_are_volumes(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Two StackIDs, at the same places."""
    voxels = np.stack([oblique[0], oblique[0] // 2], axis=3)

    def change(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            content = group.FrameContentSequence[0]
            content.StackID = str(content.TemporalPositionIndex)

    write_enhanced(tmp_path / "a.dcm", voxels, oblique[1], modality="MR", extra=change)
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"stack1", "stack2"}
    assert np.array_equal(found["stack2"], voxels[..., 1])


def test_planes_of_a_localizer_in_one_instance(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 12, 3))

    def change(ds: Dataset) -> None:
        turned = [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]]
        for group, cosines in zip(ds.PerFrameFunctionalGroupsSequence, turned, strict=True):
            group.PlaneOrientationSequence = item(ImageOrientationPatient=cosines)

    write_enhanced(
        tmp_path / "a.dcm", voxels, affine, modality="MR", frames="plain", per_frame=["orientation"], extra=change
    )
    found = {volume.name: read_volume(volume).voxels for volume in volumes(tmp_path)}
    assert set(found) == {"axial", "sagittal", "coronal"}
    assert np.array_equal(found["sagittal"], voxels[..., 1:2])


def test_one_frame_with_all_it_has_in_the_shared_groups(tmp_path: Path) -> None:
    voxels, affine = real_volume((12, 10, 1))

    def change(ds: Dataset) -> None:
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.PlanePositionSequence = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
        del ds.PerFrameFunctionalGroupsSequence

    write_enhanced(tmp_path / "a.dcm", voxels, affine, extra=change)
    got = read(tmp_path)
    assert np.array_equal(got[0], voxels)
    assert np.allclose(got[1], affine, atol=1e-6)


def test_instances_of_one_concatenation(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """A volume over three files (PS3.3 C.7.6.16.2.2.4)."""
    for number, part in enumerate([(0, 3), (1, 4), (2, 5)]):
        others = [k for k in range(6) if k not in part]

        def change(ds: Dataset, n: int = number) -> None:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
            ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.9", n + 1, 3

        write_enhanced(tmp_path / f"{number}.dcm", *oblique, drop=others, extra=change)
    volume = one(tmp_path)
    assert volume.files == 3
    assert np.array_equal(read_volume(volume).voxels, oblique[0])
    assert np.allclose(affine_of(volume), oblique[1], atol=1e-6)


def test_tilted_frames(tmp_path: Path) -> None:
    voxels, affine = real_volume(SHAPE)
    write_enhanced(tmp_path / "a.dcm", voxels, tilt(affine, 10.0))
    volume = one(tmp_path)
    assert np.allclose(affine_of(volume), tilt(affine, 10.0), atol=1e-5)
    assert volume.laid_out[1].status == "tilted"


def test_integer_maps_show_real_world_values(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    """Parametric maps of integers have no other rescale (PS3.3 A.75); of CT these values are beside HU, and not applied."""

    for as_map, answer in ((True, oblique[0] * 0.001 - 1.5), (False, oblique[0])):

        def change(ds: Dataset, as_map: bool = as_map) -> None:
            shared = ds.SharedFunctionalGroupsSequence[0]
            del shared.PixelValueTransformationSequence
            shared.RealWorldValueMappingSequence = item(RealWorldValueSlope=0.001, RealWorldValueIntercept=-1.5)
            if as_map:
                ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.30"
                shared.ParametricMapFrameTypeSequence = item(FrameType=["DERIVED", "PRIMARY", "VOLUME", "ADC"])

        write_enhanced(tmp_path / "a.dcm", *oblique, modality="MR", extra=change)
        assert np.allclose(values(read_volume(one(tmp_path))), answer, atol=1e-9)


@pytest.mark.parametrize(
    ("keyword", "where", "reason"),
    [
        ("PlanePositionSequence", "frame", "frame 4 of 6: it has no PlanePositionSequence"),
        ("PlaneOrientationSequence", "shared", "frame 1 of 6: it has no PlaneOrientationSequence"),
        ("PixelMeasuresSequence", "shared", "frame 1 of 6: it has no PixelMeasuresSequence"),
        ("SharedFunctionalGroupsSequence", "file", "frame 1 of 6: it has no PixelMeasuresSequence"),
        ("PerFrameFunctionalGroupsSequence", "file", "it has 6 frames and functional groups of 0"),
        ("NumberOfFrames", "file", "it has 1 frames and functional groups of 6"),
        ("SOPInstanceUID", "file", "it has no SOPInstanceUID"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, oblique: tuple[Array, Array], keyword: str, where: str, reason: str
) -> None:
    path = write_enhanced(tmp_path / "a.dcm", *oblique)
    ds = pydicom.dcmread(path)
    if where == "frame":
        delattr(ds.PerFrameFunctionalGroupsSequence[3], keyword)
    elif where == "shared":
        delattr(ds.SharedFunctionalGroupsSequence[0], keyword)
    else:
        delattr(ds, keyword)
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    (found,) = instances(path)
    assert found.problem == reason
    assert found.frames == ()
    (volume,) = volumes(path)
    assert volume.problem == f"{path}: {reason}"


@pytest.mark.parametrize("value", [[], [Dataset()], None])
def test_empty_groups(tmp_path: Path, oblique: tuple[Array, Array], value: Any) -> None:
    path = write_enhanced(tmp_path / "a.dcm", *oblique)
    ds = pydicom.dcmread(path)
    ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence = None if value is None else Items(value)
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    assert instances(path)[0].problem in (
        "frame 3 of 6: it has no PlanePositionSequence",
        "frame 3 of 6: it has no ImagePositionPatient",
    )


def test_legacy_multiframe_without_places_is_refused(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        del ds.PerFrameFunctionalGroupsSequence
        del ds.SharedFunctionalGroupsSequence

    path = write_enhanced(tmp_path / "a.dcm", *oblique, extra=change)
    reason = "it has 6 frames, but does not say where each of them lies (no PerFrameFunctionalGroupsSequence)"
    assert instances(path)[0].problem == reason


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_converted_series(tmp_path: Path, oblique: tuple[Array, Array], modality: str) -> None:
    """Legacy Converted Enhanced objects, which archives make of old series; here by highdicom."""
    from highdicom import legacy

    kinds = {
        "CT": legacy.LegacyConvertedEnhancedCTImage,
        "MR": legacy.LegacyConvertedEnhancedMRImage,
        "PT": legacy.LegacyConvertedEnhancedPETImage,
    }
    slope = [1.0 + k / 4 for k in range(6)] if modality == "PT" else 1.0
    intercept = -24.0 if modality == "CT" else 0.0
    files = write_series(
        tmp_path / "s",
        *oblique,
        modality=modality,
        slope=slope,
        intercept=intercept,
        extra=lambda ds, k: setattr(ds, "Laterality", ""),
    )
    made = kinds[modality]([pydicom.dcmread(file) for file in files], "1.2.3.4", 2, "1.2.3.5", 1)
    made.save_as(tmp_path / "e.dcm")
    got = read(tmp_path / "e.dcm")
    assert np.array_equal(got[0], rescaled(oblique[0], slope, intercept))
    assert np.allclose(got[1], oblique[1], atol=1e-6)


@pytest.mark.parametrize(("kind", "slope"), [("uint16", 0.5), ("float32", 1.0)])
def test_parametric_maps_of_highdicom(tmp_path: Path, oblique: tuple[Array, Array], kind: str, slope: float) -> None:
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.coding import Code

    files = write_series(tmp_path / "s", *oblique, modality="MR")
    sources = [pydicom.dcmread(file) for file in files]
    stored = np.abs(oblique[0]).astype(kind)
    limits = (0.0, 4000.0) if kind == "float32" else (0, 4000)
    mapping = RealWorldValueMapping("1", "ADC", Code("mm2/s", "UCUM", "mm2/s"), limits, slope=slope, intercept=0.0)
    made = ParametricMap(
        sources,
        stored.transpose(2, 1, 0),
        "1.2.3.4",
        3,
        "1.2.3.5",
        1,
        "nobody",
        "none",
        "1",
        "1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=100.0, window_width=200.0)],
    )
    made.save_as(tmp_path / "pm.dcm")
    got = read(tmp_path / "pm.dcm")
    assert np.array_equal(got[0], stored.astype(float) * slope)
    assert np.allclose(got[1], oblique[1], atol=1e-6)


def test_maps_by_a_table_are_refused(tmp_path: Path, oblique: tuple[Array, Array]) -> None:
    def change(ds: Dataset) -> None:
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.RealWorldValueMappingSequence = item(RealWorldValueLUTData=[1.0, 2.0])
        shared.ParametricMapFrameTypeSequence = item(FrameType=["DERIVED", "PRIMARY", "VOLUME", "ADC"])

    path = write_enhanced(tmp_path / "a.dcm", *oblique, modality="MR", extra=change)
    said = "frame 1 of 6: its values are given by a table (RealWorldValueLUTData), which is not supported"
    assert instances(path)[0].problem == said


def test_reconstructions_of_other_thickness_and_kernel_are_volumes_of_their_own(tmp_path: Path) -> None:
    voxels, affine = real_volume(SHAPE)
    kinds = {"thickness1": (1.0, "B"), "thickness2": (2.0, "B"), "thickness2_kernelH": (2.0, "H")}

    def made(thickness: float, kernel: str) -> Any:
        def extra(ds: Dataset) -> None:
            shared = ds.SharedFunctionalGroupsSequence[0]
            shared.PixelMeasuresSequence[0].SliceThickness = thickness
            shared.CTReconstructionSequence = [Dataset()]
            shared.CTReconstructionSequence[0].ConvolutionKernel = kernel

        return extra

    for number, (thickness, kernel) in enumerate(kinds.values()):
        write_enhanced(tmp_path / f"{number}.dcm", voxels + number, affine, extra=made(thickness, kernel))
    found = {
        (dict(v.slices[0][0].kind)["thickness"], dict(v.slices[0][0].kind)["kernel"]): v for v in volumes(tmp_path)
    }
    assert set(found) == {("1", "B"), ("2", "B"), ("2", "H")}
    for number, (thickness, kernel) in enumerate(kinds.values()):
        assert np.array_equal(read_volume(found[f"{thickness:g}", kernel]).voxels, voxels + number)
