"""Decoded voxels that are kept for the next reads of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import product
from typing import Any

import numpy.typing as npt

from radioloader.types import Box, Triple

__all__ = ["BlockCache", "tiles_of"]

Block = npt.NDArray[Any]


class BlockCache:
    """Blocks by key, the most recently used ones, bounded in bytes. For any number of threads.

    Args:
        limit: Bytes of all blocks together; a block that is larger is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self._loading: dict[Hashable, threading.Event] = {}
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0

    def find(self, key: Hashable) -> Block | None:
        """The block, if it is kept."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: Hashable, block: Block) -> None:
        """Keep a block. Nobody may change it from now on."""
        with self._lock:
            self._put(key, block)

    def get(self, key: Hashable, load: Callable[[], Block]) -> Block:
        """The block, made by ``load`` where it is not kept. Threads that want the same one wait for the first, rather than make it as well;
        what ``load`` raises is raised here, and the next one tries anew."""
        while True:
            with self._lock:
                block = self._blocks.get(key)
                if block is not None:
                    self._blocks.move_to_end(key)
                    return block
                running = self._loading.get(key)
                if running is None:
                    mine = self._loading[key] = threading.Event()
                    break
            running.wait()
        try:
            block = load()
            with self._lock:
                self._put(key, block)
            return block
        finally:
            with self._lock:
                del self._loading[key]
            mine.set()

    def _put(self, key: Hashable, block: Block) -> None:
        if block.nbytes > self.limit:
            return
        block.flags.writeable = False
        replaced = self._blocks.pop(key, None)
        self._bytes += block.nbytes - (0 if replaced is None else replaced.nbytes)
        self._blocks[key] = block
        while self._bytes > self.limit:
            _, dropped = self._blocks.popitem(last=False)
            self._bytes -= dropped.nbytes


def tiles_of(box: Box, tile: Triple, shape: Triple) -> Iterator[tuple[Triple, Box]]:
    """Number (x, y, z) and box of each tile that ``box`` touches, in row-major order; cut off at the border of the volume."""
    numbers = product(*[range(a // t, -(-b // t)) for a, b, t in zip(box.start, box.stop, tile, strict=True)])
    for x, y, z in numbers:
        start = (x * tile[0], y * tile[1], z * tile[2])
        stop = tuple(min(a + t, n) for a, t, n in zip(start, tile, shape, strict=True))
        yield (x, y, z), Box(start, stop)  # type: ignore[arg-type]
