"""Memory for batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import get_worker_info

__all__ = ["allocate", "pinned"]

_ALIGNMENT = 64
_SMALL = 4096
_HUGE = 4 * 2**20
"""Bytes from which on numpy asks Linux for huge pages, which torch does not: a whole volume's fresh pages cost as much as decoding it."""
_BLOCKS = 3
"""Large tensors of a batch with a block of their own: four file descriptors a batch in all."""


class _Wanted(threading.local):
    pinned = False


_wanted = _Wanted()


@contextmanager
def pinned(wanted: bool) -> Iterator[None]:
    """In the block, what this thread allocates for batches that go to the main process as they are is pinned, if ``wanted``: copies to a
    device then need no copy before. Only where there is an accelerator."""
    before, _wanted.pinned = _wanted.pinned, wanted
    try:
        yield
    finally:
        _wanted.pinned = before


def allocate(
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]], *, final: bool = True
) -> dict[str, torch.Tensor]:
    """Uninitialised tensors of the given shapes and dtypes.

    In a DataLoader worker they lie in shared memory, so that a batch reaches the main process without another copy. Small ones lie side by
    side in one block, each large one in its own: a batch costs few file descriptors, and a small tensor that is kept keeps no
    voxels.

    Args:
        tensors: Shape and dtype by name.
        final: Whether these tensors are what the worker sends; otherwise they are ordinary memory.
    """
    if get_worker_info() is None or not final:
        pin = final and _wanted.pinned
        make = partial(torch.empty, pin_memory=True) if pin else _ordinary
        return {name: make(shape, dtype=dtype) for name, (shape, dtype) in tensors.items()}
    large = [name for name, (shape, dtype) in tensors.items() if _bytes(shape, dtype) > _SMALL][:_BLOCKS]
    result = {name: _shared({name: tensors[name]})[name] for name in large}
    small = {name: what for name, what in tensors.items() if name not in result}
    result |= _shared(small) if small else {}
    return {name: result[name] for name in tensors}


def _ordinary(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    size = _bytes(shape, dtype)
    if size < _HUGE:
        return torch.empty(shape, dtype=dtype)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + size]).view(dtype).reshape(shape)


def _shared(tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, torch.Tensor]:
    """Tensors side by side in one block of shared memory."""
    offsets, end = {}, 0
    for name, (shape, dtype) in tensors.items():
        offsets[name] = end
        end += -(-_bytes(shape, dtype) // _ALIGNMENT) * _ALIGNMENT
    storage: Any = cast(Any, torch.UntypedStorage)._new_shared(end)
    result = {}
    for name, (shape, dtype) in tensors.items():
        tensor: Any = torch.empty(0, dtype=dtype)
        result[name] = tensor.set_(storage, offsets[name] // dtype.itemsize, shape)
    return result


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count
