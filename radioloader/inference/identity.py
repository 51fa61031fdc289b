"""What tells a model from another one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from radioloader.adapters.digest import UnhashableError, bytes_of, digest
from radioloader.errors import ConfigError

__all__ = ["bare", "identify", "name_of", "networks_of", "weights_hash"]


def bare(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model without what only changes how it runs: ``torch.compile``, ``DistributedDataParallel``, ``DataParallel``."""
    wrappers = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    while isinstance(model, torch.nn.Module):
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            break
        model = inner
    return model


def name_of(model: Callable[..., Any]) -> str:
    """A model's class or function, for people."""
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}.{named.__qualname__}"


def networks_of(model: Any) -> list[torch.nn.Module]:
    """The networks that a model runs, as far as that can be seen: itself; or what a function closes over, names, or is bound to."""
    found: dict[int, torch.nn.Module] = {}
    seen: set[int] = set()

    def look(thing: Any, depth: int) -> None:
        if isinstance(thing, torch.nn.Module):
            found.setdefault(id(thing), thing)
        elif depth and id(thing) not in seen:
            seen.add(id(thing))
            for part in _parts(thing):
                look(part, depth - 1)

    look(model, 4)
    return list(found.values())


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not bound yet
                continue
        yield from (thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__)
        yield from thing.__defaults__ or ()
    elif isinstance(thing, MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, Mapping):
        yield from thing.values()
    elif isinstance(thing, list | tuple):
        yield from thing
    elif callable(thing) and not isinstance(thing, type):
        yield from getattr(thing, "__dict__", {}).values()
        yield type(thing).__call__


def weights_hash(networks: list[torch.nn.Module]) -> str | None:
    """SHA-256 in hex of all parameters and buffers, with their names, dtypes and shapes; None where there is no network.

    Raises:
        ConfigError: Some are not there yet.
    """
    if not networks:
        return None
    found = hashlib.sha256()
    for network in networks:
        tensors = [*network.named_parameters(), *network.named_buffers()]
        for name, value in sorted(tensors, key=lambda pair: pair[0]):
            if is_lazy(value):
                raise ConfigError(f"{name!r} of {name_of(network)} has no values yet: run the model once before")
            found.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
            found.update(bytes_of(value))
    return found.hexdigest()


def identify(model: Callable[..., Any], model_id: str | None) -> str:
    """A text that is another one where the model, its code, its settings or its weights are.

    Raises:
        ConfigError: What the model does cannot be told from outside, and there is no ``model_id``.
    """
    if model_id is not None:
        return f"id {model_id}"
    try:
        return digest(model)
    except UnhashableError as error:
        raise ConfigError(
            f"the model cannot be told from others: {error}. Name it yourself with model_id='...', and give another one whenever you "
            "change it; weights are told apart in any case"
        ) from error
