"""Standardized uptake values by body weight from the headers of PET (PS3.3 C.8.9, by QIBA's vendor-neutral pseudo-code)."""

from __future__ import annotations

from typing import Any

from radioloader.errors import FormatError
from radioloader.formats.dicom.headers import open_dataset, quiet
from radioloader.formats.dicom.values import integer, item, number, seconds, text
from radioloader.formats.dicom.volumes import DicomVolume

__all__ = ["suv_factor"]


def suv_factor(volume: DicomVolume) -> float:
    """What the values (slope and intercept applied) are multiplied by to be SUV by body weight, in g/ml.

    Raises:
        FormatError: They cannot be computed; the message names the attribute that is missing.
    """
    paths = sorted({frame.path for places in volume.slices for frame in places})
    datasets = []
    with quiet():
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
    if units == "CNTS":
        try:
            scale = float(first.private_block(0x7053, "Philips PET Private Group")[0x00].value)
        except (KeyError, TypeError, ValueError, AttributeError):
            scale = 0.0
        if scale > 0:
            return scale
        raise FormatError("Units is CNTS, and Philips's private SUV scale (7053,1000) is missing")
    if units != "BQML":
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
    return weight / (dose * 2 ** (-_elapsed(datasets, drug) / half_life))


def _elapsed(datasets: list[Any], drug: Any) -> float:
    """Seconds from the injection to the moment that the decay of the images is corrected to."""
    correction = text(datasets[0], "DecayCorrection")
    if correction == "ADMIN":
        return 0.0
    if correction != "START":
        raise FormatError(f"DecayCorrection is {correction or 'missing'}, expected START or ADMIN")
    start = _scan_start(datasets)
    moment = text(drug, "RadiopharmaceuticalStartDateTime")
    injected = seconds(moment)
    if injected is None:
        time = text(drug, "RadiopharmaceuticalStartTime")
        injected = seconds(text(datasets[0], "SeriesDate") + time.partition(".")[0].ljust(6, "0")) if time else None
        if injected is not None and injected > start:
            injected -= 86400  # the day before: only the time of day is given
    if injected is None:
        raise FormatError("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are missing")
    elapsed = start - injected
    if not 0 <= elapsed < 86400:
        raise FormatError(f"the injection lies {elapsed / 3600:.1f} h before the scan, expected 0 to 24 h")
    return elapsed


def _scan_start(datasets: list[Any]) -> float:
    """When the scan of the first bed position began: SeriesTime, unless that is later than an acquisition (then the series was made later,
    and the frames' own reference times tell: C.8.9.4)."""
    first = datasets[0]
    series = seconds(text(first, "SeriesDate") + text(first, "SeriesTime").partition(".")[0].ljust(6, "0"))
    acquired = []
    for dataset in datasets:
        date, time = text(dataset, "AcquisitionDate"), text(dataset, "AcquisitionTime")
        moment = seconds(date + time.partition(".")[0].ljust(6, "0")) if time else None
        if moment is None:
            raise FormatError("AcquisitionDate or AcquisitionTime is missing")
        acquired.append((moment, dataset))
    earliest, dataset = min(acquired, key=lambda pair: pair[0])
    if series is not None and series <= earliest:
        return series
    duration = number(dataset, "ActualFrameDuration", 0.0) / 1000
    half_life = number(item(first, "RadiopharmaceuticalInformationSequence"), "RadionuclideHalfLife", 0.0)
    reference = number(dataset, "FrameReferenceTime", -1.0) / 1000
    if duration <= 0 or reference < 0 or integer(dataset, "ActualFrameDuration") is None:
        return earliest
    import math

    decay = math.log(2) / half_life
    average = math.log(decay * duration / (1 - math.exp(-decay * duration))) / decay
    return earliest + average - reference
