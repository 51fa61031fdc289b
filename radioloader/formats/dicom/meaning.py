"""What a frame is a picture of, as far as its header says so: what must never share a volume, and what may follow one another in one."""

from __future__ import annotations

import re
from typing import Any

from radioloader.formats.dicom.values import integer, moment, number, seconds, text

NUMBERS = ("echo", "inversion", "flip", "kvp", "thickness")
"""Kinds that are numbers, which scanners write with some jitter from slice to slice."""

__all__ = ["NUMBERS", "diffusion_direction", "image_type", "indexes", "kind_name", "kinds"]

_COMPONENTS = {"0": "MAGNITUDE", "1": "PHASE", "2": "REAL", "3": "IMAGINARY"}
_NAMES = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary", "PHASE MAP": "phase"}
_PLAIN = {
    "ORIGINAL",
    "DERIVED",
    "PRIMARY",
    "SECONDARY",
    "OTHER",
    "NONE",
    "ND",
    "NORM",
    "DIS2D",
    "DIS3D",
    "FM",
    "MIXED",
    "AXIAL",
}


def image_type(dataset: Any) -> str:
    """ImageType as one text."""
    return text(dataset, "ImageType").upper()


def kinds(dataset: Any) -> tuple[tuple[str, str], ...]:
    """What must be equal for frames to share a volume, by name; only what the header holds.

    Image type (magnitude, phase, maps, localizers: PS3.3 C.7.6.1.1.2, C.8.3.1), echo, inversion time, flip angle, tube voltage, units,
    slice thickness, reconstruction kernel and filter.
    """
    found = {"type": image_type(dataset), "component": text(dataset, "ComplexImageComponent")}
    private = _private(dataset, 0x0043, "GEMS_PARM_01", 0x2F)
    if private is not None:
        found["component"] = _COMPONENTS.get(str(private), "")
    for name, keyword in (
        ("echo", "EchoTime"),
        ("inversion", "InversionTime"),
        ("flip", "FlipAngle"),
        ("kvp", "KVP"),
        ("thickness", "SliceThickness"),
    ):
        value = dataset.get(keyword)
        if value not in (None, ""):
            found[name] = f"{number(dataset, keyword, 0.0):.4g}"
    echo = integer(dataset, "EchoNumbers")
    if echo is not None:
        found["echo number"] = str(echo)
    found["units"] = text(dataset, "Units")
    found["kernel"] = text(dataset, "ConvolutionKernel")
    found["filter"] = text(dataset, "FilterType")
    return tuple((name, value) for name, value in found.items() if value)


def indexes(dataset: Any) -> tuple[tuple[str, float | str], ...]:
    """What may tell frames at one position apart within a volume, by name; only what the header holds."""
    found: dict[str, float | str] = {}
    b_value = _b_value(dataset)
    if b_value is not None:
        found["b-value"] = b_value
        found["direction"] = diffusion_direction(dataset)
    for name, keyword in (
        ("temporal position", "TemporalPositionIdentifier"),
        ("trigger", "TriggerTime"),
        ("frame reference", "FrameReferenceTime"),
        ("acquisition", "AcquisitionNumber"),
    ):
        if dataset.get(keyword) not in (None, ""):
            found[name] = number(dataset, keyword, 0.0)
    clock = seconds(text(dataset, "AcquisitionDateTime")) or _clock(dataset, "Acquisition")
    if clock is not None:
        found["time"] = clock
    content = _clock(dataset, "Content")
    if content is not None:
        found["content time"] = content
    return tuple(found.items())


def _clock(dataset: Any, which: str) -> float | None:
    return moment(text(dataset, f"{which}Date"), text(dataset, f"{which}Time"))


def _b_value(dataset: Any) -> float | None:
    """b-value in s/mm2: the standard's attribute, else the vendors' (which their conformance statements describe)."""
    if dataset.get("DiffusionBValue") not in (None, ""):
        return number(dataset, "DiffusionBValue", 0.0)
    for group, creator, element in (
        (0x0019, "SIEMENS MR HEADER", 0x0C),
        (0x0043, "GEMS_PARM_01", 0x39),
        (0x2001, "Philips Imaging DD 001", 0x03),
    ):
        value = _private(dataset, group, creator, element)
        if isinstance(value, int | float | str):
            try:
                b_value = float(value)
            except ValueError:
                continue
            # GE adds 10^9 to tell that it is the value of a scan with several directions.
            return b_value % 1e9 if creator.startswith("GEMS") and b_value >= 1e9 else b_value
    return None


def diffusion_direction(dataset: Any) -> str:
    """Direction of the diffusion gradient as text, as the vendor counts it (GE by the axes of the picture, others by the patient's); empty
    when there is none."""
    value = dataset.get("DiffusionGradientOrientation")
    if value is None:
        value = _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0E, whole=True)
    for group, creator, first in (
        (0x0019, "GEMS_ACQU_01", 0xBB),
        (0x2005, "Philips MR Imaging DD 001", 0xB0),
    ):
        if value is None:
            parts = [_private(dataset, group, creator, first + axis) for axis in range(3)]
            value = None if None in parts else parts
    try:
        return "" if value is None else ",".join(f"{float(part):.4f}" for part in value)
    except (TypeError, ValueError):
        return ""


def _private(dataset: Any, group: int, creator: str, element: int, *, whole: bool = False) -> Any:
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, AttributeError):
        return None
    if isinstance(value, bytes):  # of implicit VR nothing is known of a private value
        try:
            value = value.decode("ascii").strip(" \0").split("\\")
        except UnicodeDecodeError:
            return None
    if whole or isinstance(value, str | int | float):
        return value
    try:
        return value[0]
    except (TypeError, IndexError):
        return None


def kind_name(name: str, value: str, *, place: int) -> str:
    """A short name for one of several volumes that differ in ``name``, fit for a collection: ``"phase"``, ``"echo2"``.

    Args:
        name: What differs, as :func:`kinds` names it.
        value: Its value.
        place: Its place among the values, from 1.
    """
    if name == "type":
        parts = [part for part in value.split("\\") if part not in _PLAIN]
        words = [_NAMES.get(part, part) for part in parts]
        slug = "_".join(re.sub(r"[^a-z0-9]+", "", word.lower()) for word in words if word)
        return slug or f"type{place}"
    if name == "component":
        return value.lower()
    if name in ("echo", "echo number"):
        return f"echo{place}"
    if name == "units":
        return re.sub(r"[^a-z0-9]+", "", value.lower()) or f"units{place}"
    return re.sub(r"[^A-Za-z0-9]+", "", f"{name}{value}".replace(".", "p"))
