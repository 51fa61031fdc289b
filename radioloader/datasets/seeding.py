"""Random transforms that depend on the sample's key alone, and leave the script's own generators as they were."""

from __future__ import annotations

import functools
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["SeededTransform"]

# Keyed by process: a lock inherited through fork may be held by a thread that was not.
_locks: dict[int, threading.RLock] = {}

_PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, BuiltinFunctionType, np.ndarray, torch.Tensor)
_MOST = 10_000


class SeededTransform:
    """Calls a transform with all its randomness seeded.

    The global generators of torch (CPU), numpy and ``random`` are seeded before each call and restored afterwards. Generators that the
    transform carries itself (MONAI's ``Randomizable``, numpy's and torch's generators) are found once, wherever they sit in it, and
    seeded as well. Global generators are shared by all threads, so one call runs at a time.

    Args:
        transform: Gets a sample and returns one.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform
        self._carried: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"transform": self.transform, "_carried": None}

    def __call__(self, sample: Any, seed: int) -> Any:
        """``transform(sample)``, decided by ``sample`` and ``seed`` alone."""
        with _locks.setdefault(os.getpid(), threading.RLock()):
            if self._carried is None:
                self._carried = list(_generators(self.transform))
            states = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
            try:
                torch.default_generator.manual_seed(seed % 2**63)
                np.random.seed(seed % 2**32)  # noqa: NPY002 - this is the generator that transforms use
                random.seed(seed)
                for number, generator in enumerate(self._carried):
                    _seed(generator, (seed + number) % 2**32)
                return self.transform(sample)
            finally:
                torch.default_generator.set_state(states[0])
                np.random.set_state(states[1])  # noqa: NPY002
                random.setstate(states[2])


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, np.random.RandomState | random.Random):
        generator.seed(seed)
    else:
        generator.set_random_state(seed=seed)


def _generators(transform: Any) -> Iterator[Any]:
    """What carries random state in a transform: in attributes, containers, closures and bound objects, at any depth."""
    waiting: list[Any] = [transform]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _PLAIN):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
            yield thing
            continue
        if callable(getattr(thing, "set_random_state", None)):
            yield thing
        waiting += reversed(_parts(thing))


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        return [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    slots = []
    for kind in type(thing).__mro__:
        names = getattr(kind, "__slots__", ())
        slots += [getattr(thing, n) for n in ([names] if isinstance(names, str) else names) if hasattr(thing, n)]
    # MONAI keeps a Randomizable's generator as its attribute R, which set_random_state replaces: seeding the owner is enough.
    own = [
        value
        for name, value in getattr(thing, "__dict__", {}).items()
        if name != "R" or not hasattr(thing, "set_random_state")
    ]
    return [*own, *slots]


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
