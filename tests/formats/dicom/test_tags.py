"""Which attributes are kept."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from radioloader.errors import ConfigError
from radioloader.formats.dicom.headers import quiet
from radioloader.formats.dicom.tags import TECHNICAL, check_keep_tags, identifying, technical_values
from tests.formats.dicom.identity import IDENTIFYING, IDENTIFYING_UIDS


def test_technical_attributes_are_standard_and_do_not_identify() -> None:
    for keyword, kind in TECHNICAL.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        value_kinds = str(dictionary_VR(tag)).split(" or ")
        assert (kind == "float") == bool(set(value_kinds) & {"DS", "IS", "US", "FD", "SS"}), keyword
        assert not identifying(keyword)
    # ManufacturerModelName is on PS3.15's list for some of its options only; it names no person.
    assert not (set(TECHNICAL) & {*IDENTIFYING, *IDENTIFYING_UIDS}) - {"ManufacturerModelName"}


@pytest.mark.parametrize("keyword", [*IDENTIFYING, *IDENTIFYING_UIDS])
def test_what_identifies_is_known_to(keyword: str) -> None:
    if keyword == "ManufacturerModelName" or dictionary_VR(tag_for_keyword(keyword)) == "SQ":
        return
    known = {
        "SmokingStatus",  # coded, CS
        "PatientSexNeutered",
        "DetectorID",
    }
    assert identifying(keyword) or keyword in known or dictionary_VR(tag_for_keyword(keyword)) == "CS"


def dataset(**values: Any) -> Dataset:
    ds = Dataset()
    with quiet():
        for keyword, value in values.items():
            setattr(ds, keyword, value)
    return ds


def test_values_by_kind() -> None:
    ds = dataset(
        Modality="MR",
        EchoTime="3.906250e-01",
        FlipAngle="15",
        ImageType=["ORIGINAL", "PRIMARY", "M"],
        ScanOptions=["FS", "PFP"],
        PixelBandwidth="",
        KVP=None,
        Manufacturer="",
        BitsStored=12,
        PatientName="Quillfeather^Ottoline",
        PatientAge="071Y",
        InstitutionName="Saint Wilfreda Infirmary",
    )
    assert technical_values(ds) == {
        "Modality": "MR",
        "EchoTime": 0.390625,
        "FlipAngle": 15.0,
        "ImageType": "ORIGINAL\\PRIMARY\\M",
        "ScanOptions": "FS\\PFP",
        "BitsStored": 12.0,
    }
    assert technical_values(ds, ["PatientAge", "PatientName"]) == technical_values(ds) | {
        "PatientAge": "071Y",
        "PatientName": "Quillfeather^Ottoline",
    }


@pytest.mark.parametrize("value", [["1", "2"], "nan", "inf", "-inf", "1e999", "three"])
def test_numbers_that_are_none_are_left_out(value: Any) -> None:
    ds = Dataset()
    with quiet():
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag

        text = "\\".join(value) if isinstance(value, list) else value
        ds._dict[Tag(tag_for_keyword("EchoTime"))] = RawDataElement(
            Tag(tag_for_keyword("EchoTime")), "DS", len(text), text.encode(), 0, False, True
        )
        assert technical_values(ds) == {}


def test_keep_tags() -> None:
    assert check_keep_tags(["PatientAge", "StudyDate", "PatientAge"]) == ["PatientAge", "StudyDate"]
    assert check_keep_tags("PatientAge") == ["PatientAge"]
    assert check_keep_tags([]) == []


@pytest.mark.parametrize("keyword", ["patientage", "Age", "(0010,1010)", "", 5, None, "PixelDataX"])
def test_keywords_that_are_none(keyword: Any) -> None:
    with pytest.raises(ConfigError, match="is not the keyword of a DICOM attribute, such as 'PatientAge'"):
        check_keep_tags([keyword])


@pytest.mark.parametrize("keyword", ["PixelData", "RequestAttributesSequence", "RedPaletteColorLookupTableData"])
def test_keywords_without_plain_values(keyword: str) -> None:
    with pytest.raises(ConfigError, match=f"keep_tags: {keyword} holds no plain value"):
        check_keep_tags([keyword])
