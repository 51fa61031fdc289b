"""Decoded voxels that are kept for the next reads of them."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import numpy.typing as npt

from radioloader.types import Box, Triple

__all__ = ["BlockCache", "tiles_of"]

Block = npt.NDArray[Any]
Parts = Sequence[Callable[[], object]]

_LOOK = 0.1
"""Seconds after which a thread that waits looks by itself: an interrupt may have come before it was woken."""


class BlockCache:
    """Blocks by key, the most recently used ones, bounded in bytes. For any number of threads.

    Args:
        limit: Bytes of all blocks together; a block that is larger is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self._making: dict[Hashable, _Making] = {}
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

    def get(self, key: Hashable, begin: Callable[[], tuple[Block, Parts]]) -> Block:
        """The block, made where it is not kept. Threads that want the same one make it together.

        Args:
            key: Which one.
            begin: Gives the block's memory and what fills parts of it; called once, whatever the number of threads, and quick.

        Raises:
            Exception: What filling a part raised, in the thread that did it; the others try anew.
        """
        while True:
            with self._lock:
                block = self._blocks.get(key)
                if block is not None:
                    self._blocks.move_to_end(key)
                    return block
                making = self._making.get(key)
                if making is None:
                    making = self._making[key] = _Making(*begin())
            try:
                made = making.help()
            finally:
                with self._lock:
                    if self._making.get(key) is making:
                        del self._making[key]
                        if making.made:
                            self._put(key, making.block)
            if made:
                return making.block

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


class _Making:
    """A block that is not complete. Without a lock: an interrupt that comes while one is taken could leave it taken for good."""

    def __init__(self, block: Block, parts: Parts) -> None:
        self.block = block
        self._left = deque(parts)
        self._count = len(parts)
        self._filled: deque[Callable[[], object]] = deque()
        self._failed = False
        self._waiting: deque[threading.Lock] = deque()

    @property
    def made(self) -> bool:
        """Whether all parts are filled."""
        return len(self._filled) == self._count

    def help(self) -> bool:
        """Fill parts until all are; False where one failed in another thread."""
        try:
            while not self._failed:
                try:
                    part = self._left.popleft()
                except IndexError:
                    break
                part()
                self._filled.append(part)
        except BaseException:
            self._failed = True
            raise
        finally:
            if self.made or self._failed:
                while self._waiting:
                    with suppress(IndexError):  # another thread wakes them, too
                        self._waiting.popleft().release()
        mine = threading.Lock()
        mine.acquire()
        self._waiting.append(mine)
        while not (self.made or self._failed):
            mine.acquire(timeout=_LOOK)
        return self.made


def tiles_of(box: Box, tile: Triple, shape: Triple) -> Iterator[tuple[Triple, Box]]:
    """Number (x, y, z) and box of each tile that ``box`` touches, in row-major order; cut off at the border of the volume."""
    numbers = product(*[range(a // t, -(-b // t)) for a, b, t in zip(box.start, box.stop, tile, strict=True)])
    for x, y, z in numbers:
        start = (x * tile[0], y * tile[1], z * tile[2])
        stop = tuple(min(a + t, n) for a, t, n in zip(start, tile, shape, strict=True))
        yield (x, y, z), Box(start, stop)  # type: ignore[arg-type]
