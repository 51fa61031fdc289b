"""Classes of labels: voxels are whole numbers, and the numbers may have names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, FormatError
from radioloader.ingestion.intake import Loaded

__all__ = ["ClassNames", "Classes", "read_all_classes", "read_classes", "whole_numbers"]

Classes = Mapping[str, int | Sequence[int]]
"""Class by name; several classes of a region."""

ClassNames = Classes | Mapping[str, str] | str | os.PathLike[str]
"""What a user gives: classes by name, names by class as in decathlon's ``dataset.json``, or the path of such a file."""

_SHOWN = 5
_CHUNK = 2**20
_LARGEST = 2**53  # above it, not every whole number is a float64


def whole_numbers(volume: Loaded, where: str) -> Loaded:
    """A label volume with integer voxels: programs that save labels as floats lose nothing by it, and training code expects classes.

    Its header keeps the dtype of the file, so that an export gives the file back.

    Args:
        volume: The label as it was read.
        where: Its file and collection, for messages.

    Raises:
        FormatError: It holds values that are not whole.
    """
    voxels = volume.voxels
    scaled = (volume.slope, volume.intercept) != (1.0, 0.0)
    if voxels.dtype.kind != "f" and not scaled:
        return volume
    flat = voxels.reshape(-1)
    low, high = np.inf, -np.inf
    odd: dict[float, None] = {}
    count = 0
    for start in range(0, flat.size, _CHUNK):
        values = flat[start : start + _CHUNK].astype(np.float64)
        if scaled:
            values = values * volume.slope + volume.intercept
        # NaN is not equal to itself, and what is infinite is no class either.
        bad = values[(values != np.rint(values)) | (np.abs(values) > _LARGEST)]
        count += bad.size
        if bad.size and len(odd) < _SHOWN:
            odd |= dict.fromkeys(np.unique(bad)[:_SHOWN].tolist())
        elif not bad.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if count:
        shown = ", ".join(f"{value:.9g}" for value in list(odd)[:_SHOWN])
        raise FormatError(
            f"{where}: labels are whole numbers, and {count} of its {flat.size} voxels are not, such as {shown}; round them, threshold a "
            "probability map, or ingest it as an image (--image)"
        )
    if scaled:
        return volume  # the scaling belongs to the file; what it gives is whole
    return replace(volume, voxels=voxels.astype(_narrowest(low, high)))


def _narrowest(low: float, high: float) -> npt.DTypeLike:
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return np.int64


def read_classes(collection: str, given: ClassNames) -> dict[str, int | list[int]]:
    """Names of a label collection's classes, checked.

    Args:
        collection: The collection, for messages.
        given: Class, or classes of a region, by name (``{"liver": 1, "whole": [1, 2]}``); names by class (``{"1": "liver"}``), as
            decathlon has them; or the path of a JSON file that is such a mapping or has it under ``labels`` (``dataset.json``).

    Raises:
        ConfigError: It is none of these.
    """
    where = f"classes of collection {collection!r}"
    names: Any = given
    if isinstance(given, str | os.PathLike):
        where = f"{where} from {os.fspath(given)}"
        try:
            names = json.loads(Path(given).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{where}: it could not be read as JSON: {error}") from error
        if isinstance(names, Mapping) and isinstance(names.get("labels"), Mapping):
            names = names["labels"]
    if not isinstance(names, Mapping) or not names:
        raise ConfigError(f"{where}: {names!r} is not a mapping from name to class, such as {{'liver': 1}}")
    if all(
        _whole(key) is not None and isinstance(value, str) and _whole(value) is None for key, value in names.items()
    ):
        names = {str(name): _whole(key) for key, name in names.items()} | _twice(where, names)
    result: dict[str, int | list[int]] = {}
    for name, value in names.items():
        many = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = [_whole(one) for one in (value if many else [value])]
        if not isinstance(name, str) or not name or not numbers or None in numbers:
            raise ConfigError(
                f"{where}: {name!r} is mapped to {value!r}; expected a whole number, or a list of them for a region"
            )
        found = [number for number in numbers if number is not None]
        result[name] = found if many else found[0]
    return result


def read_all_classes(
    given: Mapping[str, ClassNames] | None, labels: Sequence[str]
) -> dict[str, dict[str, int | list[int]]]:
    """Names of the classes of several label collections, checked.

    Args:
        given: As for :func:`read_classes`, by collection.
        labels: The label collections.

    Raises:
        ConfigError: One is none, or its names cannot be used.
    """
    for name in given or {}:
        if name not in labels:
            raise ConfigError(
                f"classes names those of {name!r}, which is not among the label collections {', '.join(map(repr, labels)) or '(none)'}"
            )
    return {name: read_classes(name, names) for name, names in (given or {}).items()}


def _twice(where: str, names: Mapping[Any, Any]) -> dict[str, int]:
    values = list(names.values())
    double = sorted({name for name in values if values.count(name) > 1})
    if double:
        raise ConfigError(f"{where}: the name {double[0]!r} stands for several classes; give each its own")
    return {}


def _whole(value: Any) -> int | None:
    """A whole number, also where JSON has it as text; None of anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None
