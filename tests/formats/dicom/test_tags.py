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


KEPT: dict[str, list[Any]] = {
    "Modality": ["CT", "PT"],
    "ImageType": [["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], ["DERIVED", "SECONDARY", "", "MPR"]],
    "BodyPartExamined": [
        "HEAD",
        "BRAIN",
        "CHESTABDPELVIS",
        "CHEST_TO_PELVIS",
        "HEAD & NECK",
        "WHOLE BODY",
        "LSPINE",
        "Chest",
    ],
    "PatientPosition": ["HFS", "FFP"],
    "RescaleType": ["HU", "US", "HU_MOD", "normalized".upper()],
    "Units": ["BQML", "CNTS", "GML"],
    "ConvolutionKernel": ["B30f", "STANDARD", "FC08", "FC13-H", "YB", ["Br36f", "2"], "I26f", "BONEPLUS", "T80s"],
    "FilterType": ["BODY FILTER", "WEDGE_2", "0", "LARGE BOWTIE FIL"],
    "ImagedNucleus": ["1H", "31P", "H1", "23Na"],
    "ScanOptions": ["FS", ["HELICAL MODE"]],
    "ScanningSequence": [["GR", "IR"], "SE"],
    "Manufacturer": ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems", "Canon Medical Systems Corporation"],
    "ManufacturerModelName": ["Biograph64_mCT", "LightSpeed Pro 16", "SOMATOM Definition AS+", "Achieva dStream"],
    "ReconstructionMethod": ["OSEM3D 4i8s", "PSF+TOF 2i21s", "VPFX"],
    "AttenuationCorrectionMethod": ["measured,AC_CT", "CT-derived mu-map"],
}
TYPED: dict[str, list[Any]] = {
    "Modality": ["Ottoline Q"],
    "ImageType": [["ORIGINAL", "PRIMARY", "for Dr. Marrowby"]],
    "BodyPartExamined": ["QUILLFEATHER LEG", "HEAD 1958", "Ottoline"],
    "PatientPosition": ["HFS OTTOLINE"],
    "RescaleType": ["Quillfeather", "HU OTTOLINE"],
    "Units": ["OTTOLINE"],
    "ConvolutionKernel": ["QUILLFEATHER", "Ottoline", ["B30f", "Marrowby"]],
    "FilterType": ["QUILLFEATHER", "BODY OTTOLINE"],
    "ImagedNucleus": ["Ottoline"],
    "ScanOptions": ["Ottoline"],
    "ScanningSequence": [["GR", "OTTOLINE"]],
    "Manufacturer": ["Quillfeather^Ottoline", "MR 604417", "a@b.example"],
    "ManufacturerModelName": ["installed 2019-03-14", "SN 0012345"],
    "ReconstructionMethod": ["Quillfeather^Ottoline"],
    "AttenuationCorrectionMethod": ["14.03.2019"],
}


@pytest.mark.parametrize(("kept", "values"), [(True, KEPT), (False, TYPED)])
def test_of_texts_what_devices_write_is_kept(kept: bool, values: dict[str, list[Any]]) -> None:
    for keyword, given in values.items():
        for value in given:
            text = "\\".join(value) if isinstance(value, list) else value
            found = technical_values(dataset(**{keyword: value}))
            assert found == ({keyword: text} if kept else {}), (keyword, value)
            # Who asks for it by name gets it.
            assert technical_values(dataset(**{keyword: value}), [keyword]) == {keyword: text}


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
