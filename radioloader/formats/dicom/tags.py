"""Which attributes of a DICOM file are looked at, which are kept, and which may name somebody.

What is kept by default is an allow-list: an attribute that is not on it is never stored, whatever it holds. (PS3.15 Annex E lists what
identifies; a deny-list made of it would let private and future attributes through.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableSequence
from typing import Any

from radioloader._optional import require
from radioloader.errors import ConfigError
from radioloader.formats.dicom.vocabulary import is_known

__all__ = ["TECHNICAL", "check_keep_tags", "identifying", "is_uid", "technical_values"]

TECHNICAL: Mapping[str, str] = {
    "Modality": "str",
    "Manufacturer": "str",
    "ManufacturerModelName": "str",
    "ImageType": "str",
    "BodyPartExamined": "str",
    "PatientPosition": "str",
    "SliceThickness": "float",
    "SpacingBetweenSlices": "float",
    "KVP": "float",
    "XRayTubeCurrent": "float",
    "Exposure": "float",
    "ExposureTime": "float",
    "ConvolutionKernel": "str",
    "FilterType": "str",
    "ReconstructionDiameter": "float",
    "GantryDetectorTilt": "float",
    "MagneticFieldStrength": "float",
    "RepetitionTime": "float",
    "EchoTime": "float",
    "InversionTime": "float",
    "FlipAngle": "float",
    "EchoTrainLength": "float",
    "NumberOfAverages": "float",
    "PixelBandwidth": "float",
    "ScanningSequence": "str",
    "SequenceVariant": "str",
    "ScanOptions": "str",
    "MRAcquisitionType": "str",
    "ImagedNucleus": "str",
    "Units": "str",
    "DecayCorrection": "str",
    "AttenuationCorrectionMethod": "str",
    "ReconstructionMethod": "str",
    "RescaleType": "str",
    "BitsStored": "float",
    "PixelPaddingValue": "float",
    "LossyImageCompression": "str",
}
"""Attributes that are stored, with the kind of their column: how a picture was made, not of whom, by whom, where or when."""

_CAN_NAME = frozenset(["AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT", "UN", "OB"])
"""Value representations that can hold a name, a date, an identifier or free text (PS3.5 6.2)."""

_PERSONAL = (0x0010, 0x0012, 0x0032, 0x0038, 0x0040)
"""Groups about the patient, trials, visits and requests: there codes and numbers may tell who it is as well (PS3.15 Table E.1-1)."""

_PLAIN = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "SV",
        "TM",
        "UC",
    ]
)
_PLAIN |= {"UI", "UL", "UR", "US", "UT", "UV"}
_NUMBERS = frozenset(["DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"])


def identifying(keyword: str) -> bool:
    """Whether an attribute may tell who somebody is: not technical, and about a person or of a kind that can hold names, dates,
    identifiers or free text."""
    datadict = require("pydicom.datadict", extra="dicom")
    return keyword not in TECHNICAL and (
        datadict.tag_for_keyword(keyword) >> 16 in _PERSONAL
        or str(datadict.dictionary_VR(keyword)).split(" or ")[0] in _CAN_NAME
    )


def check_keep_tags(keywords: Iterable[str]) -> list[str]:
    """The attributes that a user wants to keep besides :data:`TECHNICAL`, by keyword.

    Raises:
        ConfigError: Not a keyword of a standard attribute with plain values.
    """
    if isinstance(keywords, str):
        keywords = [keywords]
    datadict = require("pydicom.datadict", extra="dicom")
    kept = []
    for keyword in keywords:
        tag = datadict.tag_for_keyword(keyword) if isinstance(keyword, str) and keyword else None
        if tag is None:
            raise ConfigError(
                f"keep_tags: {keyword!r} is not the keyword of a DICOM attribute, such as 'PatientAge' (PS3.6); private attributes "
                "cannot be kept: nobody knows what they hold"
            )
        if not set(datadict.dictionary_VR(tag).split(" or ")) <= _PLAIN:
            raise ConfigError(f"keep_tags: {keyword} holds no plain value (it is {datadict.dictionary_VR(tag)})")
        kept.append(keyword)
    return list(dict.fromkeys(kept))


def technical_values(dataset: Any, extra: Iterable[str] = ()) -> dict[str, str | float]:
    """The values of :data:`TECHNICAL` and ``extra`` attributes that a dataset has, by keyword. Left out are those that cannot be read, and
    texts that no device writes (:mod:`.vocabulary`); of ``extra`` attributes every text is kept."""
    asked = set(extra)
    values: dict[str, str | float] = {}
    for keyword in dict.fromkeys((*TECHNICAL, *asked)):
        value = dataset.get(keyword)
        if value is None or value == "":
            continue
        if _is_number(keyword):
            number = _number(value)
            if number is not None:
                values[keyword] = number
        elif (text := _text(value)) and (keyword in asked or is_known(keyword, _parts(text))):
            values[keyword] = text
    return values


def is_uid(keyword: str) -> bool:
    """Whether an attribute holds UIDs."""
    return str(require("pydicom.datadict", extra="dicom").dictionary_VR(keyword)) == "UI"


def _is_number(keyword: str) -> bool:
    """Whether the column of an attribute holds numbers. By the standard, never by the value: all files of a store must agree."""
    if keyword in TECHNICAL:
        return TECHNICAL[keyword] == "float"
    datadict = require("pydicom.datadict", extra="dicom")
    tag = datadict.tag_for_keyword(keyword)
    return datadict.dictionary_VM(tag) == "1" and set(datadict.dictionary_VR(tag).split(" or ")) <= _NUMBERS


def _number(value: Any) -> float | None:
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split("\\")]


def _text(value: Any) -> str:
    # Not everything that can be iterated over is several values: a person's name is not.
    if isinstance(value, MutableSequence | tuple):
        return "\\".join(str(part) for part in value)
    return str(value)
