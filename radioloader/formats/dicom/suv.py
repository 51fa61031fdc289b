"""Standardized uptake values by body weight from the headers of PET (PS3.3 C.8.9, by QIBA's vendor-neutral pseudo-code)."""

from __future__ import annotations

import math
from typing import Any

from radioloader.errors import FormatError
from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom.headers import open_dataset
from radioloader.formats.dicom.values import item, moment, number, seconds, text
from radioloader.formats.dicom.volumes import DicomVolume

__all__ = ["suv_factor"]

_DAY = 86400
_WEIGHT, _DOSE, _HALF_LIFE = (0.5, 500.0), (1e6, 1e11), (60.0, 1e6)
"""What is possible: kg, Bq, and seconds of a nuclide that is not one of those below."""
_NEAR = 0.05
_NUCLIDES = {
    code: (name, seconds_)
    for name, seconds_, codes in (
        ("F-18", 6586.2, ("77004003", "C-111A1")),
        ("C-11", 1221.8, ("40565003", "C-105A1")),
        ("N-13", 597.9, ("21576001", "C-107A1")),
        ("O-15", 122.2, ("129504001", "C-B1038")),
        ("Ga-68", 4062.6, ("35337001", "C-131A3")),
        ("Cu-64", 45721.0, ("3932008", "C-127A2")),
        ("Zr-89", 282276.0, ("63360001", "C-168A4")),
        ("Rb-82", 76.0, ("79197006", "C-159A2")),
        ("I-124", 360806.0, ("40937006", "C-114A5")),
    )
    for code in codes
}
"""Half-lives in seconds by the codes of PS3.16 CID 4020, of SNOMED CT and of SNOMED RT."""


def suv_factor(volume: DicomVolume) -> float:
    """What the values (slope and intercept applied) are multiplied by to be SUV by body weight, in g/ml.

    Raises:
        FormatError: They cannot be computed; the message names the attribute that is missing.
    """
    paths = sorted({frame.path for places in volume.slices for frame in places})
    datasets = []
    with quiet(lenient=True):
        for path in paths:
            try:
                with open(path, "rb") as stream:
                    datasets.append(open_dataset(path, stream))
            except OSError as error:
                raise FormatError(f"{path}: could not be read: {error.strerror or error}") from error
        try:
            return _factor(datasets)
        except FormatError as error:
            raise FormatError(
                f"{volume.describe()}: SUV cannot be computed: {error}; ingest without suv (--suv) to keep the file's units"
            ) from None


def _factor(datasets: list[Any]) -> float:
    first = datasets[0]
    units = text(first, "Units")
    if text(first, "Modality") != "PT":
        raise FormatError(f"Modality is {text(first, 'Modality') or 'missing'}, expected PT")
    if units == "GML":
        kind = text(first, "SUVType")
        if kind in ("", "BW"):  # PS3.3 C.8.9.1: BW where SUVType is absent
            return 1.0
        raise FormatError(f"the values are SUV by another measure already (SUVType {kind})")
    activity = 1.0
    if units == "CNTS":
        scale = _philips(first, 0x00)
        if scale > 0:
            return scale
        activity = _philips(first, 0x09)
        if activity <= 0:
            raise FormatError("Units is CNTS, and Philips's private SUV scale (7053,1000) is missing")
    elif units != "BQML":
        raise FormatError(f"Units is {units or 'missing'}, expected BQML")
    corrected = text(first, "CorrectedImage").split("\\")
    for needed in ("ATTN", "DECY"):
        if needed not in corrected:
            raise FormatError(f"CorrectedImage does not hold {needed}: the values are not activities")
    weight = number(first, "PatientWeight", 0.0) * 1000  # kg to g
    drug = item(first, "RadiopharmaceuticalInformationSequence")
    if drug is None:
        raise FormatError("RadiopharmaceuticalInformationSequence is missing")
    dose = number(drug, "RadionuclideTotalDose", 0.0)
    half_life = number(drug, "RadionuclideHalfLife", 0.0)
    for name, value in (
        ("PatientWeight", weight),
        ("RadionuclideTotalDose", dose),
        ("RadionuclideHalfLife", half_life),
    ):
        if value <= 0:
            raise FormatError(f"{name} is missing or not positive")
    _check_plausible(weight / 1000, dose, half_life, drug)
    _check_equal(datasets)
    return activity * weight / (dose * 2 ** (-_elapsed(datasets, drug) / half_life))


def _check_plausible(weight: float, dose: float, half_life: float, drug: Any) -> None:
    """Values in other units than the standard's (MBq, grams, minutes) are off by powers of ten, and so would be the SUV.

    Raises:
        FormatError: One cannot be what it says.
    """
    nuclide = item(drug, "RadionuclideCodeSequence")
    known = None if nuclide is None else _NUCLIDES.get(text(nuclide, "CodeValue"))
    usual = (known[1] * (1 - _NEAR), known[1] * (1 + _NEAR)) if known else _HALF_LIFE
    of = f" of {known[0]}" if known else ""
    for name, value, (low, high), unit in (
        ("PatientWeight", weight, _WEIGHT, "kg"),
        ("RadionuclideTotalDose", dose, _DOSE, "Bq"),
        ("RadionuclideHalfLife", half_life, usual, f"s{of} (RadionuclideCodeSequence)" if known else "s"),
    ):
        if not low <= value <= high:
            raise FormatError(f"{name} is {value:g}, expected {low:g} to {high:g} {unit}; is it in other units?")


def _check_equal(datasets: list[Any]) -> None:
    """One injection, one patient: what the factor is made of is the same in all files of a series.

    Raises:
        FormatError: It is not.
    """
    drugs = [item(dataset, "RadiopharmaceuticalInformationSequence") or {} for dataset in datasets]
    for holders, keyword in (
        *((datasets, keyword) for keyword in ("PatientWeight", "Units", "DecayCorrection", "CorrectedImage")),
        *(
            (drugs, keyword)
            for keyword in ("RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartTime")
        ),
        (drugs, "RadiopharmaceuticalStartDateTime"),
    ):
        found = {_plain(text(holder, keyword)) for holder in holders}
        if len(found) > 1:
            raise FormatError(f"{keyword} differs between the files of the series ({len(found)} values), expected one")


def _plain(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _elapsed(datasets: list[Any], drug: Any) -> float:
    """Seconds from the injection to the moment that the decay of the images is corrected to."""
    correction = text(datasets[0], "DecayCorrection")
    if correction == "ADMIN":
        return 0.0
    if correction != "START":
        raise FormatError(f"DecayCorrection is {correction or 'missing'}, expected START or ADMIN")
    start = _scan_start(datasets)
    injected = seconds(text(drug, "RadiopharmaceuticalStartDateTime"))
    if injected is None:
        clock = seconds(text(drug, "RadiopharmaceuticalStartTime"))
        if clock is None:
            raise FormatError("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are missing")
        # On the day of the scan, or the day before: only the time of day is given.
        injected = start - start % _DAY + clock % _DAY
        if injected > start:
            injected -= _DAY
    elapsed = start - injected
    if not 0 <= elapsed < _DAY:
        raise FormatError(f"the injection lies {elapsed / 3600:.1f} h before the scan, expected 0 to 24 h")
    return elapsed


def _scan_start(datasets: list[Any]) -> float:
    """When the scan of the first bed position began: SeriesDate and SeriesTime, unless they are missing or later than an acquisition. Then
    the series was made later, and GE's own attribute or the frames' reference times tell (PS3.3 C.8.9.1.1.2, C.8.9.4.1.5).
    """
    first = datasets[0]
    acquired = []
    for dataset in datasets:
        for keyword in ("AcquisitionDate", "AcquisitionTime"):
            if not text(dataset, keyword):
                raise FormatError(f"{keyword} is missing")
        clock = moment(text(dataset, "AcquisitionDate"), text(dataset, "AcquisitionTime"))
        if clock is None or clock < _DAY:
            raise FormatError("AcquisitionDate and AcquisitionTime are not a date and a time")
        acquired.append((clock, dataset))
    earliest, dataset = min(acquired, key=lambda pair: pair[0])
    series = moment(text(first, "SeriesDate"), text(first, "SeriesTime")) if text(first, "SeriesDate") else None
    if series is not None and series <= earliest:
        return series
    scanned = seconds(_private(first, 0x0009, "GEMS_PETD_01", 0x0D))
    if scanned is not None and scanned <= earliest:
        return scanned
    duration = number(dataset, "ActualFrameDuration", 0.0) / 1000
    reference = number(dataset, "FrameReferenceTime", -1.0) / 1000
    if duration <= 0 or reference < 0:
        return earliest
    # The moment within a frame at which its activity is the mean of the frame
    decay = math.log(2) / number(item(first, "RadiopharmaceuticalInformationSequence"), "RadionuclideHalfLife", 0.0)
    average = math.log(decay * duration / (1 - math.exp(-decay * duration))) / decay
    return earliest + average - reference


def _philips(dataset: Any, element: int) -> float:
    """A scale of Philips: 0x00 from counts to SUV, 0x09 from counts to Bq/ml; 0 when it is missing."""
    try:
        return float(_private(dataset, 0x7053, "Philips PET Private Group", element))
    except ValueError:
        return 0.0


def _private(dataset: Any, group: int, creator: str, element: int) -> str:
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, AttributeError):
        return ""
    if isinstance(value, bytes):  # of implicit VR nothing is known of a private value
        value = value.decode("ascii", "replace")
    return str(value).strip(" \0")
