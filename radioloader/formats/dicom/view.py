"""A dataset as it is looked at while a folder is scanned: quick for what is not there.

pydicom resolves a keyword, then the tag, then converts, at every access: most of the time that a scan would take, since most attributes
that could matter are missing in most files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from radioloader._optional import require

__all__ = ["HeaderView"]


_PLAIN = frozenset({"AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "SL", "SS", "TM", "UI", "UL", "US"})
"""VRs (PS3.5 6.2) of values that are what they are in any character set."""
_TEXT = frozenset({"LO", "SH"})
"""VRs of values that depend on it, unless they are ASCII."""
_ESCAPE = 0x1B
"""Begins another character set (PS3.5 6.1.2.5)."""


@cache
def _tag(keyword: str) -> int:
    tag = require("pydicom.datadict", extra="dicom").tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)


@cache
def _vr(keyword: str) -> str:
    return str(require("pydicom.datadict", extra="dicom").dictionary_VR(_tag(keyword)))


@cache
def _conversion() -> tuple[Any, Callable[[str, Any], Any]]:
    """The type of elements that are not converted yet, and what converts them."""
    dataelem, values = require("pydicom.dataelem", extra="dicom"), require("pydicom.values", extra="dicom")
    return dataelem.RawDataElement, values.convert_value


class HeaderView:
    """``get``, ``in``, ``private_block`` and attributes of a pydicom dataset, with the same results."""

    __slots__ = ("_dataset", "_elements", "_groups", "_values")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        # Plain numbers as keys: pydicom's tags take their time to be compared.
        self._elements = {int(tag): element for tag, element in dataset.items()}
        self._groups = {tag >> 16 for tag in self._elements}
        self._values: dict[str, Any] = {}

    def get(self, keyword: str) -> Any:
        """The value of an attribute; None where there is none."""
        if keyword not in self._values:
            self._values[keyword] = self._value(keyword)
        return self._values[keyword]

    def _value(self, keyword: str) -> Any:
        tag = _tag(keyword)
        element = self._elements.get(tag)
        if element is None:
            return None
        # What a dataset does around the conversion takes twice as long as that.
        kind, convert = _conversion()
        if isinstance(element, kind) and isinstance(element.value, bytes):
            vr = element.VR or _vr(keyword)
            if vr in _PLAIN or (vr in _TEXT and element.value.isascii() and _ESCAPE not in element.value):
                try:
                    return convert(vr, element)
                except Exception:  # a damaged value: the dataset below gives it as it is, or raises
                    pass
        return self._dataset[tag].value

    def raw(self, keyword: str) -> Hashable:
        """What the file holds for an attribute, not converted; equal where the value is."""
        element = self._elements.get(_tag(keyword))
        if element is None:
            return None
        return element.value if isinstance(element.value, bytes) else repr(element.value)

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._elements

    def private_block(self, group: int, creator: str) -> Any:
        """The private elements of a creator.

        Raises:
            KeyError: There are none.
        """
        if group not in self._groups:
            raise KeyError(creator)
        return self._dataset.private_block(group, creator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)
