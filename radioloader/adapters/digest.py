"""A hash of a transform that is the same in every process, and another one when what the transform does may have changed."""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
import torch.fx

from radioloader.adapters.packages import is_installed, version_of
from radioloader.errors import ConfigError

__all__ = ["UnhashableError", "bytes_of", "digest"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
# Random state does not decide what a deterministic transform does; tracing and caches neither.
_NO_PART = frozenset(
    (
        *("_tracing", "_abc_impl", "__annotations__", "__dict__", "__weakref__", "__doc__", "__module__"),
        *("__qualname__", "__firstlineno__", "__static_attributes__", "__slotnames__"),
    )
)
_NO_STATE = (logging.Logger, logging.Handler, type(threading.Lock()), type(threading.RLock()), threading.local)
_FIELDS = (MemberDescriptorType, GetSetDescriptorType, type(vars(namedtuple("_One", "field"))["field"]))
_CONTAINERS = (dict, list, tuple, set, frozenset, MappingProxyType)
_LIGHTNING = ("lightning", "pytorch_lightning")
_NETWORK = frozenset((*vars(torch.nn.Module()), "_compiled_call_impl", "prepare_data_per_node"))
_GENERATORS = (np.random.RandomState, np.random.Generator, torch.Generator)


class UnhashableError(ConfigError):
    """What a part of a pipeline does cannot be told from outside."""


def digest(thing: Any, *, files: bool = True) -> str:
    """SHA-256 in hex of what decides a transform: types, arguments, and the code of what the user wrote.

    Classes and functions of installed packages count by their name and their package's version; those of scripts by their code and all
    that this refers to. Random state takes no part.

    Args:
        thing: Transforms, plain values, arrays, containers of them.
        files: Texts that are the path of a file count by what is in it, too.

    Raises:
        UnhashableError: It holds a lambda, or an object that cannot be looked into; says where.
    """
    state = _Digest(files)
    state.add(thing, "transform")
    return state.sum.hexdigest()


class _Digest:
    def __init__(self, files: bool) -> None:
        self.sum = hashlib.sha256()
        self._files = files
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # or an id might be given twice

    def _put(self, kind: str, *texts: str) -> None:
        for text in (kind, *texts):
            data = text.encode("utf-8", "surrogatepass")
            self.sum.update(len(data).to_bytes(8, "little") + data)

    def add(self, thing: Any, where: str) -> None:
        if isinstance(thing, enum.Enum):
            self._put("enum", type(thing).__qualname__, thing.name)
            self.add(thing.value, f"{where}.value")
            self.add(type(thing), where)
        elif isinstance(thing, _PLAIN):
            self._put(type(thing).__name__, repr(thing))
            if isinstance(thing, str):
                self._add_file(thing)
        elif isinstance(thing, PurePath):
            self._put("path", str(thing))
            self._add_file(str(thing))
        elif isinstance(thing, _NO_STATE):
            self._put(type(thing).__name__)
        elif isinstance(thing, torch.dtype | np.dtype | torch.device | np.generic | slice | range):
            self._put(type(thing).__name__, repr(thing))
        elif id(thing) in self._seen:
            self._put("again", str(self._seen[id(thing)]))
        else:
            self._seen[id(thing)] = len(self._seen)
            self._alive.append(thing)
            self._add_object(thing, where)

    def _add_file(self, path: str) -> None:
        """What is in a file that a transform is given by its path."""
        if self._files and 0 < len(path) < 4096 and "\0" not in path and os.path.isfile(path):
            with open(path, "rb") as file:
                self._put("content", hashlib.file_digest(file, "sha256").hexdigest())

    def _add_object(self, thing: Any, where: str) -> None:
        if isinstance(thing, Mapping | list | tuple | set | frozenset) and type(thing) not in _CONTAINERS:
            self.add(type(thing), where)
        if isinstance(thing, torch.Tensor):
            self._put("tensor", str(thing.dtype), _shape(thing, where))
            self.sum.update(bytes_of(thing))
        elif isinstance(thing, torch.nn.Module):
            self._add_network(thing, where)
        elif isinstance(thing, np.ndarray):
            if thing.dtype.hasobject:
                self.add(thing.tolist(), where)
                return
            self._put("array", thing.dtype.str, str(thing.shape))
            self.sum.update(np.ascontiguousarray(thing).tobytes())
        elif isinstance(thing, Mapping):
            self._put("mapping", type(thing).__name__, str(len(thing)))
            for key, value in thing.items():
                self.add(key, where)
                self.add(value, f"{where}[{key!r}]")
        elif isinstance(thing, list | tuple):
            self._put(type(thing).__name__, str(len(thing)))
            for number, value in enumerate(thing):
                self.add(value, f"{where}[{number}]")
        elif isinstance(thing, set | frozenset):
            self._put(type(thing).__name__, *sorted(digest(value) for value in thing))
        elif isinstance(thing, functools.partial):
            self._put("partial")
            self.add([thing.func, thing.args, thing.keywords], where)
        elif isinstance(thing, MethodType):
            self._put("method", thing.__func__.__qualname__)
            self.add(thing.__self__, where)
            self.add(thing.__func__, where)
        elif isinstance(thing, BuiltinFunctionType | np.ufunc | WrapperDescriptorType | MethodDescriptorType):
            self._put("builtin", getattr(thing, "__module__", None) or "", thing.__name__)
        elif isinstance(thing, re.Pattern):
            self._put("pattern", repr(thing.pattern), str(thing.flags))
        elif isinstance(thing, ModuleType):
            self._add_module(thing, where)
        elif isinstance(thing, FunctionType):
            self._add_function(thing, where)
        elif isinstance(thing, type):
            self._add_class(thing, where)
        elif isinstance(thing, property):
            self.add([thing.fget, thing.fset], where)
        elif isinstance(thing, staticmethod | classmethod):
            self._put(type(thing).__name__)
            self.add(thing.__func__, where)
        else:
            self._add_instance(thing, where)

    def _add_function(self, function: FunctionType, where: str) -> None:
        # Not by its __module__, which functools.wraps takes from the function that is wrapped.
        if is_installed(function.__globals__.get("__name__", "")):
            self._put("function", function.__module__ or "", function.__qualname__, version_of(function.__module__))
            self._add_closure(function, where)
            return
        if function.__name__ == "<lambda>":
            raise UnhashableError(f"{where} is a lambda ({_place(function)})")
        self._put("function", function.__qualname__)
        self.add([function.__defaults__, function.__kwdefaults__, dict(vars(function))], where)
        self._add_closure(function, where)
        self._add_code(function.__code__)
        for name in sorted(set(_names(function.__code__))):
            if name in function.__globals__:
                self._put("global", name)
                self.add(function.__globals__[name], f"{name!r}, which {function.__qualname__} uses,")
        for name in sorted(set(_imports(function.__code__, function.__globals__))):
            self.add(_module(name, where), f"{name!r}, which {function.__qualname__} imports,")

    def _add_closure(self, function: FunctionType, where: str) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__":  # of super(): the class is being hashed
                continue
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            self.add(value, f"{name!r} inside {where}")

    def _add_code(self, code: CodeType) -> None:
        self._put("code", code.co_code.hex(), *code.co_names, "", *code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_code(constant)
            elif isinstance(constant, frozenset):
                self._put("frozenset", *sorted(map(repr, constant)))
            else:
                self._put("constant", repr(constant))

    def _add_module(self, module: ModuleType, where: str) -> None:
        """A module that code uses; of a script's own, also what it uses in turn."""
        self._put("module", module.__name__)
        if is_installed(module.__name__):
            self._put("version", version_of(module.__name__))
            return
        path = getattr(module, "__file__", None)
        if path is None:  # made in C, or of several folders
            return
        try:
            with open(path, "rb") as file:
                self.sum.update(hashlib.sha256(file.read()).digest())
        except OSError as error:
            raise UnhashableError(f"{where} is the module {module.__name__!r}, whose file is gone: {error}") from error
        for name, value in sorted(vars(module).items()):
            if not name.startswith("__") and _is_plain(value):  # perhaps from elsewhere
                self._put("value", name)
                self.add(value, name)
        for value in list(vars(module).values()):
            other = (
                value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
            )
            if other is not None and other is not module and not is_installed(other.__name__):
                self.add(other, f"{module.__name__!r}, which is used,")

    def _add_class(self, kind: type, where: str) -> None:
        if is_installed(kind.__module__):
            self._put("class", kind.__module__, kind.__qualname__, version_of(kind.__module__))
            return
        self._put("class", kind.__qualname__)
        if type(kind) is not type:
            self.add(type(kind), where)
        for base in kind.__bases__:
            self.add(base, where)
        for name, value in sorted(vars(kind).items()):
            if isinstance(value, _FIELDS) or name in _NO_PART:
                continue
            if callable(value) or _is_plain(value) or not (name.startswith("__") and name.endswith("__")):
                self._put("attribute", name)
                self.add(value, f"{kind.__qualname__}.{name}")

    def _add_network(self, network: torch.nn.Module, where: str) -> None:
        """A network: its code, its weights and settings, what hooks in; not its mode."""
        self._put("network")
        written = isinstance(network, torch.jit.ScriptModule | torch.fx.GraphModule)
        if written:  # generated, and all that there is to tell them by
            graph = getattr(network, "inlined_graph", None)  # of TorchScript, whose code leaves constants out
            self._put("code", str(network.code if graph is None else graph.str(False)))
        else:
            self.add(type(network), where)
        recurse = isinstance(network, torch.jit.ScriptModule)
        tensors = [*network.named_parameters(recurse=recurse), *network.named_buffers(recurse=recurse)]
        self.add(sorted(tensors, key=lambda pair: pair[0]), where)
        # Of torch.export: checks of what it is given.
        parts = {
            n: part for n, part in network._modules.items() if not type(part).__module__.startswith("torch.export")
        }
        self.add({} if recurse else parts, where)
        if not written:  # whose hooks are torch's
            self.add([*network._forward_pre_hooks.values(), *network._forward_hooks.values()], f"a hook of {where}")
        lightning = any(base.__module__.partition(".")[0] in _LIGHTNING for base in type(network).__mro__)
        for name, value in sorted(vars(network).items()):
            runtime = name in _NETWORK or (lightning and name.startswith("_") and name != "_hparams")
            if not runtime and (not written or isinstance(value, torch.Tensor)):
                self._put("attribute", name)
                self.add(value, f"{type(network).__name__}.{name}")

    def _add_instance(self, thing: Any, where: str) -> None:
        kind = type(thing)
        if isinstance(thing, _GENERATORS):
            return
        self._put("instance")
        self.add(kind, where)
        state = {name: value for name, value in getattr(thing, "__dict__", {}).items() if name not in _NO_PART}
        if hasattr(kind, "set_random_state"):  # MONAI's Randomizable keeps its generator there
            state.pop("R", None)
        if any(
            f"{base.__module__}.{base.__qualname__}" == "monai.data.image_reader.ImageReader" for base in kind.__mro__
        ):
            state.pop("filenames", None)  # of what it read last
        slots = [
            name for base in kind.__mro__ for name in _slots(base) if name not in _NO_PART and hasattr(thing, name)
        ]
        if not state and not slots and not hasattr(thing, "__dict__") and kind is not object:
            raise UnhashableError(f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be looked into")
        for name in sorted(state):
            self._put("attribute", name)
            self.add(state[name], f"{kind.__name__}.{name}")
        for name in sorted(set(slots)):
            self._put("slot", name)
            self.add(getattr(thing, name), f"{kind.__name__}.{name}")


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The values of a tensor, in C order."""
    dense = tensor.detach().as_subclass(torch.Tensor)
    dense = dense.to_dense() if dense.layout is not torch.strided else dense
    return dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""


def _shape(tensor: torch.Tensor, where: str) -> str:
    if torch.nn.parameter.is_lazy(tensor):
        raise UnhashableError(f"{where} has parameters that are not there yet: run the model once before")
    return str(tuple(tensor.shape))


def _slots(kind: type) -> list[str]:
    names: Any = vars(kind).get("__slots__", ())
    return [names] if isinstance(names, str) else list(names)


def _names(code: CodeType) -> list[str]:
    """The global names that a function and those inside it may use."""
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return [*code.co_names, *inner]


def _imports(code: CodeType, known: Mapping[str, Any]) -> Iterator[str]:
    """The modules that a function and those inside it import."""
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        if step.opname != "IMPORT_NAME":
            continue
        # The level and the names of an import are put on the stack before it.
        taken = steps[place - 1].argval if place else None
        level = steps[place - 2].argval if place > 1 and isinstance(steps[place - 2].argval, int) else 0
        name = str(step.argval)
        if level:
            name = importlib.util.resolve_name("." * level + name, known.get("__package__"))
        yield name
        for part in taken if isinstance(taken, tuple) else ():
            if f"{name}.{part}" in sys.modules:
                yield f"{name}.{part}"
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _imports(part, known)


def _module(name: str, where: str) -> ModuleType:
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception as error:
        raise UnhashableError(f"{where} imports {name!r}, which cannot be imported: {error}") from error


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Whether a value is made of numbers, texts and arrays alone."""
    if isinstance(value, Mapping):
        return depth > 0 and all(_is_plain(part, depth - 1) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)
    return isinstance(
        value, (*_PLAIN, PurePath, np.ndarray, np.generic, torch.Tensor, torch.dtype, np.dtype, enum.Enum)
    )


def _place(function: FunctionType) -> str:
    code = function.__code__
    return f"line {code.co_firstlineno} of {PurePath(code.co_filename).name}"
