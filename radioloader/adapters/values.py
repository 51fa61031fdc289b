"""What belongs to a sample besides its voxels, as JSON: metadata, applied operations, numbers, names. Exact, and never a pickle."""

from __future__ import annotations

import base64
import enum
import importlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from radioloader.errors import ConfigError, FormatError

__all__ = ["decode", "encode"]

_LARGEST = 2**16
_PACKAGES = ("monai", "torchio")
"""Packages whose enumerations are looked up by name when a sample is read."""


def encode(value: Any, *, paths: Mapping[str, str], where: str) -> str:
    """JSON of a value.

    Args:
        value: Plain values, numpy and torch arrays and scalars, paths, and dicts, lists and tuples of them.
        paths: Names for texts that may be others when the value is read again: the paths of the source files.
        where: The value in words, for error messages.

    Raises:
        ConfigError: It holds something else, or an array of more than 64 KiB; says where.
    """
    return json.dumps(_encoded(value, paths, where), separators=(",", ":"), ensure_ascii=True)


def decode(text: str, *, paths: Mapping[str, str]) -> Any:
    """The value of which :func:`encode` made ``text``.

    Args:
        text: The JSON.
        paths: The texts by their names.
    """
    try:
        return _decoded(json.loads(text), paths)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise FormatError(
            f"the stored metadata of a sample cannot be read: {error!r}; remove the store and prepare it anew"
        ) from error


def _encoded(value: Any, paths: Mapping[str, str], where: str) -> Any:
    if isinstance(value, enum.Enum):
        kind = type(value)
        if kind.__module__.partition(".")[0] in _PACKAGES:
            return {"$": "enum", "type": f"{kind.__module__}:{kind.__qualname__}", "name": value.name}
        return _encoded(value.value, paths, where)
    if isinstance(value, str | PurePath):
        text = str(value)
        path = {"$": "file", "name": paths[text]} if text in paths else text
        return {"$": "path", "value": path} if isinstance(value, PurePath) else path
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return value if np.isfinite(value) else {"$": "float", "value": repr(value)}
    if isinstance(value, bytes):
        return {"$": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().as_subclass(torch.Tensor)
        if array.dtype == torch.bfloat16:
            raise ConfigError(f"{where} is a bfloat16 tensor, which cannot be stored; convert it to float32 before")
        return {"$": "tensor", "value": _array(array.numpy(), where)}
    if isinstance(value, np.ndarray | np.generic):
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            return {"$": "objects", "value": _encoded(value.tolist(), paths, where)}
        return {"$": "array" if isinstance(value, np.ndarray) else "scalar", "value": _array(np.asarray(value), where)}
    if isinstance(value, torch.dtype):
        return {"$": "torch.dtype", "value": str(value).removeprefix("torch.")}
    if isinstance(value, np.dtype):
        return {"$": "dtype", "value": value.str}
    if isinstance(value, torch.device):
        return {"$": "device", "value": str(value)}
    if isinstance(value, torch.Size):
        return {"$": "size", "value": list(value)}
    if isinstance(value, slice):
        return {"$": "slice", "value": [_encoded(part, paths, where) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, Mapping):
        # MONAI's keys are enumerations that equal their text.
        keys = [key.value if isinstance(key, enum.Enum) and isinstance(key, str) else key for key in value]
        pairs = [
            [_encoded(key, {}, where), _encoded(part, paths, f"{where}[{key!r}]")]
            for key, part in zip(keys, value.values(), strict=True)
        ]
        if all(isinstance(key, str) and key != "$" for key, _ in pairs):
            return dict(pairs)
        return {"$": "mapping", "value": pairs}
    if isinstance(value, list | tuple):
        parts = [_encoded(part, paths, f"{where}[{number}]") for number, part in enumerate(value)]
        return parts if isinstance(value, list) else {"$": "tuple", "value": parts}
    if isinstance(value, set | frozenset):
        return {"$": "set", "value": [_encoded(part, paths, where) for part in sorted(value, key=repr)]}
    raise ConfigError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be stored with the sample; remove it before the "
        "first random transform (DeleteItemsd), or put what makes it after that"
    )


def _array(array: np.ndarray[Any, Any], where: str) -> list[Any]:
    if array.nbytes > _LARGEST:
        raise ConfigError(
            f"{where} is an array of shape {array.shape} and {array.nbytes} bytes, neither a volume (C, X, Y, Z) nor small; remove it "
            "before the first random transform (DeleteItemsd), or put what makes it after that"
        )
    return [array.dtype.str, list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    dtype, shape, data = value
    return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()


def _decoded(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_decoded(part, paths) for part in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {name: _decoded(part, paths) for name, part in value.items()}
    if kind == "enum":
        return _enum(value["type"], value["name"])
    if kind == "file":
        return paths[value["name"]]
    content = value["value"]
    match kind:
        case "path":
            from pathlib import Path

            return Path(_decoded(content, paths))
        case "float":
            return float(content)
        case "bytes":
            return base64.b64decode(content)
        case "tensor":
            return torch.from_numpy(_as_array(content))
        case "array":
            return _as_array(content)
        case "scalar":
            return _as_array(content)[()]
        case "objects":
            return np.array(_decoded(content, paths), dtype=object)
        case "torch.dtype":
            return getattr(torch, content)
        case "dtype":
            return np.dtype(content)
        case "device":
            return torch.device(content)
        case "size":
            return torch.Size(content)
        case "slice":
            return slice(*_decoded(content, paths))
        case "mapping":
            return {_decoded(k, paths): _decoded(v, paths) for k, v in content}
        case "tuple":
            return tuple(_decoded(content, paths))
        case "set":
            return set(_decoded(content, paths))
    raise ValueError(f"unknown kind {kind!r}")


def _enum(name: str, member: str) -> Any:
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] not in _PACKAGES:
        raise ValueError(f"{name} is of no package that is looked up")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise TypeError(f"{name} is no enumeration")
    return found[member]
