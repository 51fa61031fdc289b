"""Random transforms that depend on the sample's key alone, and leave the script's own generators as they were."""

from __future__ import annotations

import copy
import functools
import logging
import os
import random
import sysconfig
import threading
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["SeededTransform"]

_log = logging.getLogger("radioloader")

# Keyed by process: a lock inherited through fork may be held by a thread that was not.
_locks: dict[int, threading.RLock] = {}

_PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, BuiltinFunctionType, np.ndarray, torch.Tensor)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_STDLIB = sysconfig.get_path("stdlib")
_MOST = 100_000


class SeededTransform:
    """Calls a transform with all its randomness seeded.

    The global generators of torch (CPU), numpy and ``random`` are seeded before each call and restored afterwards. So are generators
    that the transform carries itself or uses as globals of its module (MONAI's ``Randomizable``, numpy's, torch's and Python's
    generators); they are found once, wherever they sit in it. Generators are shared by all threads, so one call runs at a time.

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
            if self._carried is not None:
                return self._called(sample, seed, self._carried)
            self._carried = list(_generators(self.transform))
            untouched = copy.deepcopy(sample)
            result = self._called(sample, seed, self._carried)
            # The first call may have made generators, which were not seeded then.
            known = {id(generator) for generator in self._carried}
            self._carried = list(_generators(self.transform))
            if all(id(generator) in known for generator in self._carried):
                return result
            return self._called(untouched, seed, self._carried)

    def _called(self, sample: Any, seed: int, carried: list[Any]) -> Any:
        states = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        own = [_state(generator) for generator in carried]
        try:
            torch.default_generator.manual_seed(seed % 2**63)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - this is the generator that transforms use
            random.seed(seed)
            for number, generator in enumerate(carried):
                _seed(generator, (seed + number) % 2**32)
            return self.transform(sample)
        finally:
            torch.default_generator.set_state(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            random.setstate(states[2])
            for generator, state in zip(carried, own, strict=True):
                _restore(generator, state)


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, np.random.RandomState | random.Random):
        generator.seed(seed)
    else:
        generator.set_random_state(seed=seed)


def _state(generator: Any) -> Any:
    """The state of a generator that the script may use as well; None for MONAI's, whose owner the transform is."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, torch.Generator | np.random.RandomState):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else None


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)


def _generators(transform: Any) -> Iterator[Any]:
    """What carries random state in a transform: in attributes, containers, closures, bound objects and globals, at any depth."""
    waiting: list[Any] = [transform]
    seen: set[int] = set()
    while waiting:
        if len(seen) >= _MOST:
            _log.warning(
                "%r holds more than %d objects: random generators among the others are not seeded, so that samples may differ from run to "
                "run; draw from torch's, numpy's or random's global generator in it",
                type(transform).__name__,
                _MOST,
            )
            return
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _PLAIN):
            continue
        seen.add(id(thing))
        if isinstance(thing, _GENERATORS):
            yield thing
            continue
        # Of the type: an object may answer to any name.
        if callable(getattr(type(thing), "set_random_state", None)):
            yield thing
        waiting += reversed(_parts(thing))


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, dict):  # no other mapping: it may read a file for each value
        return list(dict.values(thing))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        return [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *_used_globals(thing)]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    slots: list[Any] = []
    for kind in type(thing).__mro__:
        slots += [part for part in vars(kind).values() if isinstance(part, FunctionType)]
        names = getattr(kind, "__slots__", ())
        slots += [getattr(thing, n) for n in ([names] if isinstance(names, str) else names) if hasattr(thing, n)]
    # MONAI keeps a Randomizable's generator as its attribute R, which set_random_state replaces: seeding the owner is enough.
    own = [
        value
        for name, value in getattr(thing, "__dict__", {}).items()
        if name != "R" or not hasattr(type(thing), "set_random_state")
    ]
    return [*own, *slots]


def _used_globals(function: FunctionType) -> list[Any]:
    """Globals that a function uses, where it is the script's; those of libraries are many, and carry nothing of a transform's."""
    path = function.__code__.co_filename
    if "site-packages" in path or "dist-packages" in path or path.startswith(_STDLIB):
        return []
    known = function.__globals__
    return [known[name] for name in _names(function.__code__) if name in known]


def _names(code: CodeType) -> list[str]:
    """The global names that a function and those inside it may use."""
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
