"""Weighted means of overlapping windows, in memory that does not grow with the volume."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from math import prod
from typing import IO

import numpy as np
import torch

from radioloader.inference.scratch import explained
from radioloader.inference.windows import Windows
from radioloader.types import Box, Triple

__all__ = ["WindowSums"]


class WindowSums:
    """Adds up what a model gave for the windows of one volume, which come in raster order.

    Sums are held for the cells (see :class:`~radioloader.inference.windows.Windows`) that are begun and not complete; those that were
    not touched for longest go to a file when they take more than ``limit`` bytes.

    Args:
        windows: The windows.
        weights: (X, Y, Z) float32, how much each voxel of a window counts.
        limit: Bytes of sums that are kept in memory, about.
    """

    def __init__(self, windows: Windows, weights: torch.Tensor, *, limit: int) -> None:
        self._windows, self._weights, self._limit = windows, weights, limit
        self._next = 0
        self._held: OrderedDict[Triple, torch.Tensor] = OrderedDict()
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._slots: dict[Triple, int] = {}
        self._free: list[int] = []
        self._slot_size = 0

    @property
    def complete(self) -> bool:
        """Whether all windows came."""
        return self._next == len(self._windows)

    def add(self, values: torch.Tensor) -> tuple[Box, torch.Tensor]:
        """Add the next window.

        Args:
            values: (K, X, Y, Z) float32, what the model gave for it.

        Returns:
            The voxels of which all windows came with this one, and their weighted means, (K, x, y, z) float32.
        """
        number, self._next = self._next, self._next + 1
        window, own = self._windows.window(number), self._windows.cell_of(number)
        weighted = values * self._weights
        for cell in self._windows.cells(number):
            box = self._windows.cell(cell)
            shared = box.intersection(window)
            sums = self._take(cell, (len(values) + 1, *box.shape))
            here, there = shared.slices(box.start), shared.slices(window.start)
            sums[:-1][(slice(None), *here)] += weighted[(slice(None), *there)]
            sums[-1][here] += self._weights[there]
        done = self._held.pop(own)
        self._bytes -= done.nbytes
        self._make_room()
        return self._windows.cell(own), done[:-1].div_(done[-1])

    def close(self) -> None:
        """Drop all."""
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, cell: Triple, shape: tuple[int, ...]) -> torch.Tensor:
        sums = self._held.get(cell)
        if sums is None:
            sums = torch.empty(shape) if cell in self._slots else torch.zeros(shape)
            if cell in self._slots:
                assert self._file is not None
                slot = self._slots.pop(cell)
                self._file.seek(slot * self._slot_size)
                data = sums.numpy().data.cast("B")
                while data:  # no more than 2 GiB at once
                    data = data[self._file.readinto(data) :]  # type: ignore[attr-defined]
                self._free.append(slot)
            self._held[cell] = sums
            self._bytes += sums.nbytes
        self._held.move_to_end(cell)
        return sums

    def _write(self, slot: int, sums: torch.Tensor) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="radioloader-", buffering=0)  # noqa: SIM115 - closed with this
            largest = prod(int(np.diff(axis).max()) for axis in self._windows.edges)
            self._slot_size = largest * len(sums) * sums.itemsize
        self._file.seek(slot * self._slot_size)
        data = sums.numpy().data.cast("B")
        while data:
            data = data[self._file.write(data) :]

    def _make_room(self) -> None:
        while self._bytes > self._limit and self._held:
            cell, sums = self._held.popitem(last=False)
            self._bytes -= sums.nbytes
            slot = self._free.pop() if self._free else len(self._slots)
            self._slots[cell] = slot
            with explained("sums of windows", (slot + 1) * self._slot_size):
                self._write(slot, sums)
