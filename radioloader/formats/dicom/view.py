"""A dataset as it is looked at while a folder is scanned: quick for what is not there.

pydicom resolves a keyword, then the tag, then converts, at every access: most of the time that a scan would take, since most attributes
that could matter are missing in most files.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

from radioloader._optional import require

__all__ = ["HeaderView"]


@cache
def _tag(keyword: str) -> int:
    tag = require("pydicom.datadict", extra="dicom").tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)


class HeaderView:
    """``get``, ``in``, ``private_block`` and attributes of a pydicom dataset, with the same results."""

    __slots__ = ("_dataset", "_groups", "_keys", "_values")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._keys = {int(tag) for tag in dataset.keys()}  # noqa: SIM118 - iterating over a dataset gives elements
        self._groups = {tag >> 16 for tag in self._keys}
        self._values: dict[str, Any] = {}

    def get(self, keyword: str) -> Any:
        """The value of an attribute; None where there is none."""
        if keyword not in self._values:
            tag = _tag(keyword)
            self._values[keyword] = self._dataset[tag].value if tag in self._keys else None
        return self._values[keyword]

    def raw(self, keyword: str) -> Hashable:
        """What the file holds for an attribute, not converted; equal where the value is."""
        tag = _tag(keyword)
        if tag not in self._keys:
            return None
        value = self._dataset.get_item(tag).value
        return value if isinstance(value, bytes) else repr(value)

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._keys

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
