"""What tells a model from another one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from radioloader.adapters.digest import UnhashableError, digest
from radioloader.errors import ConfigError

__all__ = ["bare", "identify", "name_of", "weights_hash"]

_WRITTEN = (torch.jit.ScriptModule, torch.fx.GraphModule)
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


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


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 in hex of all parameters and buffers, with their names, dtypes and shapes."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor):  # extra state
            found.update(f"{name}:{digest(value)}".encode())
            continue
        found.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return found.hexdigest()


def identify(model: Callable[..., Any], model_id: str | None) -> str:
    """A text that is another one where the model, its code or its settings are; weights are not in it, see :func:`weights_hash`.

    Raises:
        ConfigError: What the model does cannot be told from outside, and there is no ``model_id``.
    """
    if model_id is not None:
        return f"id {model_id}"
    try:
        if not isinstance(model, torch.nn.Module):
            return digest(model)
        parts = [
            (name, type(module).__qualname__, {k: v for k, v in vars(module).items() if k != "training" and _plain(v)})
            for name, module in model.named_modules()
        ]
        # Of TorchScript and torch.export: generated, and all that there is to tell them by.
        code = {name: _code(module) for name, module in model.named_modules() if isinstance(module, _WRITTEN)}
        types = {
            f"{type(module).__module__}.{type(module).__qualname__}": type(module)
            for module in model.modules()
            if not isinstance(module, _WRITTEN)
        }
        return digest([parts, code, [types[name] for name in sorted(types)]])
    except UnhashableError as error:
        raise ConfigError(
            f"the model cannot be told from others: {error}. Name it yourself with model_id='...', and give another one whenever you "
            "change it; weights of a torch.nn.Module are told apart in any case"
        ) from error


def _code(module: Any) -> str:
    graph = getattr(module, "inlined_graph", None)  # of TorchScript, whose code leaves constants out
    return str(module.code if graph is None else graph.str(False))


def _plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple | list) and all(_plain(item) for item in value))
