"""Factors to standardized uptake values, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ImplicitVRLittleEndian

from radioloader.errors import FormatError
from radioloader.formats.dicom.headers import quiet
from radioloader.formats.dicom.pixels import read_volume
from radioloader.formats.dicom.suv import suv_factor
from tests.formats.dicom.make import real_volume, write_series
from tests.formats.dicom.reading import one, values

# 370 MBq, injected 9:12:13, scanned 10:12:13: one hour of F-18 (half-life 6586.2 s).
DOSE, HALF_LIFE, WEIGHT = 370e6, 6586.2, 63.5
AFTER_AN_HOUR = 63500 / (DOSE * 2 ** (-3600 / HALF_LIFE))
DRUG = {
    "RadionuclideTotalDose": "370000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartTime": "091213",
}
PET = {
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
    "DecayCorrection": "START",
    "SeriesDate": "20190314",
    "SeriesTime": "101213.000",
    "AcquisitionDate": "20190314",
    "AcquisitionTime": "101213.000",
    "PatientWeight": "63.5",
}


def change_of(ds: Dataset, values: dict[str, Any]) -> None:
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)


def write_pet(
    folder: Path,
    drug: dict[str, Any] | None = None,
    beds: tuple[dict[str, Any], ...] = (),
    private: Any = None,
    syntax: Any = ImplicitVRLittleEndian,
    **changes: Any,
) -> Path:
    """Three slices of PET; ``beds`` is what each slice has of its own, None takes an attribute away."""
    voxels, affine = real_volume((8, 8, 3))

    def change(ds: Dataset, k: int) -> None:
        change_of(ds, {**PET, **changes, **(beds[k] if beds else {})})
        item = Dataset()
        change_of(item, {**DRUG, **(drug or {})})
        ds.RadiopharmaceuticalInformationSequence = Items([item])
        if private is not None:
            private(ds)

    with quiet():  # pydicom warns of some of the values
        write_series(folder, voxels, affine, modality="PT", syntax=syntax, extra=change)
    return folder


def factor(folder: Path, **options: Any) -> float:
    return suv_factor(one(write_pet(folder, **options)))


def test_an_hour_after_the_injection(tmp_path: Path) -> None:
    assert factor(tmp_path) == pytest.approx(AFTER_AN_HOUR, rel=1e-12)
    assert pytest.approx(2.5067e-4, rel=1e-4) == AFTER_AN_HOUR


def test_values(tmp_path: Path) -> None:
    """The factor comes on top of the rescale."""
    voxels, affine = real_volume((8, 8, 3))

    def change(ds: Dataset, k: int) -> None:
        change_of(ds, PET)
        item = Dataset()
        change_of(item, DRUG)
        ds.RadiopharmaceuticalInformationSequence = Items([item])

    slope = [1.5, 0.25, 3.0]
    write_series(tmp_path, voxels, affine, modality="PT", slope=slope, extra=change)
    volume = one(tmp_path)
    assert np.allclose(values(read_volume(volume, suv="bw")), voxels * slope * AFTER_AN_HOUR, rtol=1e-6)
    assert np.allclose(values(read_volume(volume)), voxels * np.array(slope), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"SeriesTime": "101213.5"}, 3600.0),  # half a second after the acquisition: the acquisition counts
        ({"SeriesTime": "101212.5"}, 3599.5),
        ({"AcquisitionTime": "1030"}, 3600.0),  # a later bed first
        ({"drug": {"RadiopharmaceuticalStartTime": "0912"}}, 3613.0),
        ({"drug": {"RadiopharmaceuticalStartTime": "09:12:13.00"}}, 3600.0),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20190314091213.000000+0100"}}, 3600.0),
        # The date and time count, where they are.
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20190314084213"}}, 5400.0),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20190314"}}, 3600.0),  # a date alone says nothing
        ({"drug": {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "201903140912"}}, 3613.0),
    ],
)
def test_times(tmp_path: Path, changes: dict[str, Any], seconds: float) -> None:
    expected = 63500 / (DOSE * 2 ** (-seconds / HALF_LIFE))
    assert factor(tmp_path, **changes) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "drug",
    [
        {"RadiopharmaceuticalStartTime": "234500"},
        {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20190313234500"},
    ],
)
def test_midnight_lies_between(tmp_path: Path, drug: dict[str, Any]) -> None:
    """Injected a quarter to twelve, scanned at half past."""
    found = factor(tmp_path, drug=drug, SeriesTime="003000", AcquisitionTime="003100")
    assert found == pytest.approx(63500 / (DOSE * 2 ** (-2700 / HALF_LIFE)), rel=1e-12)


def test_corrected_to_the_injection(tmp_path: Path) -> None:
    """Whatever the times are, they do not matter then."""
    found = factor(tmp_path, DecayCorrection="ADMIN", AcquisitionTime=None, drug={"RadiopharmaceuticalStartTime": None})
    assert found == pytest.approx(63500 / DOSE, rel=1e-12)


def test_several_beds_are_corrected_to_the_first(tmp_path: Path) -> None:
    """The series time stands in all of them."""
    beds = tuple({"AcquisitionTime": time} for time in ("101613", "101213", "101413"))
    assert factor(tmp_path, beds=beds) == pytest.approx(AFTER_AN_HOUR, rel=1e-12)


def test_a_series_made_later_goes_by_reference_times(tmp_path: Path) -> None:
    """SeriesTime is that of a reconstruction at noon. The first bed was scanned from 10:12:13 for 2 minutes; its reference time is when its
    activity was the mean, counted from the start."""
    decay = np.log(2) / HALF_LIFE
    average = np.log(decay * 120 / (1 - np.exp(-decay * 120))) / decay
    assert 59.8 < average < 60
    beds = tuple(
        {
            "AcquisitionTime": time,
            "ActualFrameDuration": "120000",
            "FrameReferenceTime": f"{1000 * (average + start):.6f}",
        }
        for time, start in (("101413", 120), ("101213", 0), ("101613", 240))
    )
    assert factor(tmp_path / "a", beds=beds, SeriesTime="120000") == pytest.approx(AFTER_AN_HOUR, rel=1e-9)
    # Even when the first bed is not among the files.
    later = (beds[0], beds[2], beds[2])
    assert factor(tmp_path / "b", beds=later, SeriesTime="120000") == pytest.approx(AFTER_AN_HOUR, rel=1e-9)
    # Without reference times the earliest acquisition is what there is.
    beds = tuple({"AcquisitionTime": bed["AcquisitionTime"]} for bed in beds)
    assert factor(tmp_path / "c", beds=beds, SeriesTime="120000") == pytest.approx(AFTER_AN_HOUR, rel=1e-12)


def test_series_made_on_another_day(tmp_path: Path) -> None:
    """The injection was on the day of the scan."""
    found = factor(tmp_path, SeriesDate="20190401", SeriesTime="080000")
    assert found == pytest.approx(AFTER_AN_HOUR, rel=1e-12)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_scan_time_of_ge(tmp_path: Path, syntax: str) -> None:
    from pydicom.uid import UID

    def private(ds: Dataset) -> None:
        ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20190314101013.00")

    found = factor(tmp_path, SeriesTime="120000", private=private, syntax=UID(syntax))
    assert found == pytest.approx(63500 / (DOSE * 2 ** (-3480 / HALF_LIFE)), rel=1e-12)


@pytest.mark.parametrize(("kind", "expected"), [(None, 1.0), ("BW", 1.0)])
def test_values_that_are_suv_already(tmp_path: Path, kind: str | None, expected: float) -> None:
    assert factor(tmp_path, Units="GML", SUVType=kind, PatientWeight=None) == expected


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_counts_of_philips(tmp_path: Path, syntax: str) -> None:
    from pydicom.uid import UID

    def to_suv(ds: Dataset) -> None:
        ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.000551")

    def to_activity(ds: Dataset) -> None:
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0")
        block.add_new(0x09, "DS", "1.25")

    assert factor(tmp_path / "a", Units="CNTS", private=to_suv, syntax=UID(syntax)) == 0.000551
    found = factor(tmp_path / "b", Units="CNTS", private=to_activity, syntax=UID(syntax))
    assert found == pytest.approx(1.25 * AFTER_AN_HOUR, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"Units": None}, "Units is missing, expected BQML"),
        ({"Units": "PROPCPS"}, "Units is PROPCPS, expected BQML"),
        ({"Units": "CNTS"}, "Units is CNTS, and Philips's private SUV scale (7053,1000) is missing"),
        ({"Units": "GML", "SUVType": "LBM"}, "the values are SUV by another measure already (SUVType LBM)"),
        ({"CorrectedImage": ["DECY", "SCAT"]}, "CorrectedImage does not hold ATTN"),
        ({"CorrectedImage": "ATTN"}, "CorrectedImage does not hold DECY"),
        ({"CorrectedImage": None}, "CorrectedImage does not hold ATTN"),
        ({"DecayCorrection": None}, "DecayCorrection is missing, expected START or ADMIN"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE, expected START or ADMIN"),
        ({"PatientWeight": None}, "PatientWeight is missing or not positive"),
        ({"PatientWeight": ""}, "PatientWeight is missing or not positive"),
        ({"PatientWeight": "0"}, "PatientWeight is missing or not positive"),
        ({"drug": {"RadionuclideTotalDose": None}}, "RadionuclideTotalDose is missing or not positive"),
        ({"drug": {"RadionuclideHalfLife": None}}, "RadionuclideHalfLife is missing or not positive"),
        (
            {"drug": {"RadiopharmaceuticalStartTime": None}},
            "RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are missing",
        ),
        ({"AcquisitionDate": None}, "AcquisitionDate is missing"),
        ({"AcquisitionTime": None}, "AcquisitionTime is missing"),
        ({"AcquisitionTime": ""}, "AcquisitionTime is missing"),
        ({"AcquisitionDate": "soon"}, "AcquisitionDate and AcquisitionTime are not a date and a time"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20190312091213"}}, "the injection lies 49.0 h before the scan"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20190314111213"}}, "the injection lies -1.0 h before the scan"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        factor(tmp_path, **options)
    start = f"{tmp_path} (3 files): SUV cannot be computed: {reason}"
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("; ingest without suv (--suv) to keep the file's units")


@pytest.mark.parametrize("keyword", ["SeriesTime", "SeriesDate"])
def test_without_the_time_of_the_series_acquisitions_count(tmp_path: Path, keyword: str) -> None:
    """Anonymised: an empty SeriesTime is not midnight."""
    found = factor(tmp_path, AcquisitionTime="101213", **{keyword: ""})
    assert found == pytest.approx(AFTER_AN_HOUR, rel=1e-12)


def test_no_drug(tmp_path: Path) -> None:
    def private(ds: Dataset) -> None:
        del ds.RadiopharmaceuticalInformationSequence

    with pytest.raises(FormatError, match="RadiopharmaceuticalInformationSequence is missing"):
        factor(tmp_path, private=private)


def test_only_pet(tmp_path: Path) -> None:
    voxels, affine = real_volume((8, 8, 3))
    write_series(tmp_path, voxels, affine, modality="CT")
    with pytest.raises(FormatError, match="Modality is CT, expected PT"):
        suv_factor(one(tmp_path))


def test_the_patient_is_not_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        factor(tmp_path, Units="PROPCPS")
    assert "Quillfeather" not in str(caught.value)


def nuclide(code: str) -> dict[str, Any]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "nuclide"
    return {"RadionuclideCodeSequence": Items([item])}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"drug": {"RadionuclideTotalDose": "370"}}, "RadionuclideTotalDose is 370, expected 1e[+]06 to 1e[+]11 Bq"),
        ({"drug": {"RadionuclideHalfLife": "20.4"}}, "RadionuclideHalfLife is 20.4, expected 60 to 1e[+]06 s"),
        (
            {"drug": {"RadionuclideHalfLife": "109.77", **nuclide("77004003")}},
            "RadionuclideHalfLife is 109.77, expected 6256.89 to 6915.51 s of F-18",
        ),
        ({"drug": nuclide("C-131A3")}, "RadionuclideHalfLife is 6586.2, expected 3859.47 to 4265.73 s of Ga-68"),
        ({"PatientWeight": "70000"}, "PatientWeight is 70000, expected 0.5 to 500 kg"),
        ({"beds": ({}, {"PatientWeight": "64"}, {})}, "PatientWeight differs between the files of the series"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        factor(tmp_path, **changes)


def test_a_nuclide_with_its_half_life(tmp_path: Path) -> None:
    assert factor(tmp_path / "a", drug=nuclide("77004003")) == factor(tmp_path / "b")
