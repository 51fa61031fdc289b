"""Which transform an applied operation is of: MONAI knows it by ``id()``, which another process or a copy has not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from monai.transforms import Transform

__all__ = ["NONE", "Identities", "names_of", "renamed"]

NONE = "none"
"""MONAI's id of what any transform may undo (``TraceKeys.NONE``)."""


def names_of(transforms: Sequence[Any]) -> dict[int, str]:
    """A name for each transform and each that it is made of, by ``id()``: the same ones for a copy of ``transforms``."""
    return {id(transform): name for name, transform in _named(transforms, "")}


def _named(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    waiting = [(name, thing)]
    while waiting:
        name, thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, list | tuple):
            waiting += [(f"{name}/{number}", part) for number, part in enumerate(thing)]
        elif isinstance(thing, Transform):
            yield name, thing
            waiting += [(f"{name}/{key}", part) for key, part in vars(thing).items()]


def renamed(operation: Any, ids: Callable[[Any], Any]) -> Any:
    """An applied operation, and those that it holds, with other ids."""
    if isinstance(operation, Mapping):
        named = "class" in operation and "id" in operation
        return {key: ids(value) if named and key == "id" else renamed(value, ids) for key, value in operation.items()}
    return operation


class Identities:
    """Gives operations the ids of this process's transforms, also after it was sent to a worker.

    Attributes:
        transforms: The pipeline's, or here copies of them.

    Args:
        transforms: The pipeline's.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)
        self._ids = {name: number for number, name in names_of(self.transforms).items()}
        self._copies: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"transforms": self.transforms, "_ids": self._ids}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        # These are copies: what they note is to be undone by the transforms they are copies of.
        here = names_of(self.transforms)
        self._copies = {number: self._ids[name] for number, name in here.items() if name in self._ids}

    def find(self, name: str) -> int | str:
        """The id of a transform, by its name."""
        return self._ids.get(name, NONE)

    def correct(self, sample: Any) -> None:
        """Replace the ids of copies in the applied operations of a sample, or of a list of samples."""
        if not self._copies:
            return
        for part in sample if isinstance(sample, list) else [sample]:
            for value in part.values() if isinstance(part, Mapping) else ():
                operations = getattr(value, "applied_operations", None)
                if operations:
                    operations[:] = [
                        renamed(operation, lambda id_: self._copies.get(id_, id_)) for operation in operations
                    ]
