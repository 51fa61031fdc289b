"""Reading voxels.

Concurrency: a reader may be used from any number of threads; it opens its own TileDB context and arrays in each process, so it
may be pickled and may cross a fork.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig, available_cores, get_config
from radioloader.errors import ReadError
from radioloader.storage import slabs
from radioloader.storage._fragment import UnknownLayout
from radioloader.storage._pool import Pool, shared
from radioloader.storage._query import Handle, open_handle
from radioloader.storage._scratch import Scratch
from radioloader.storage._tiles import TileHandle, open_tiles
from radioloader.storage.blocks import BlockCache, tiles_of
from radioloader.storage.context import Lease, lease_for, register
from radioloader.storage.joint import groups
from radioloader.storage.regions import Regions
from radioloader.storage.request import ReadRequest, as_numpy, check_buffer, distribute, failure_of, shape_of
from radioloader.storage.uri import is_remote
from radioloader.types import Box, VolumeRef

if TYPE_CHECKING:
    import torch

__all__ = ["ReadRequest", "VolumeReader", "unshared"]

_MAX_THREADS = 8

Piece = Callable[[], list[tuple[ReadRequest, ReadError]]]
"""Does a piece of work; gives the requests that failed."""


class _Calling(threading.local):
    alone = False


_calling = _Calling()


@contextmanager
def unshared() -> Iterator[None]:
    """In the block this thread reads by itself, for whoever has several threads read already; ``ReadConfig.max_workers`` still counts."""
    before, _calling.alone = _calling.alone, True
    try:
        yield
    finally:
        _calling.alone = before


class VolumeReader:
    """Reads boxes of stored volumes into numpy or torch memory.

    Arrays are opened when their first voxel is wanted, and the most recently used ones stay open.

    Args:
        config: Access, threads and how many arrays stay open; None takes the process's defaults.
    """

    def __init__(self, config: StorageConfig | None = None) -> None:
        self.config = get_config() if config is None else config
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._handles: OrderedDict[str, tuple[Handle, Lease | None]] = OrderedDict()
        self._scratch = Scratch()
        self._regions = Regions()
        self._tiles = BlockCache(self.config.read.cache_mb * 2**20)
        self._pool = Pool()
        self._pid = os.getpid()
        register(self)

    def forget(self, lease: Lease) -> None:
        """Drop the arrays that are open in a context that is to go."""
        if self._pid == os.getpid():
            with self._lock:
                for uri in [uri for uri, (_, owner) in self._handles.items() if owner is lease]:
                    del self._handles[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.config = state["config"]
        self._reset()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            # In a forked child the parent's handles, threads and lock are dead weight; ours start afresh.
            self._reset()

    def close(self) -> None:
        """Close the open arrays and end the reading threads. The reader opens them again when it is used again."""
        self._check_process()
        self._tiles.clear()
        self.drop_regions()
        with self._lock:
            self._handles.clear()
        self._pool.close()

    def drop_regions(self) -> None:
        """Give back the memory of regions that are kept."""
        self._regions.clear()

    def __enter__(self) -> VolumeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open_arrays(self) -> int:
        """How many arrays are open in this process."""
        return len(self._handles) if self._pid == os.getpid() else 0

    def read(
        self,
        ref: VolumeRef,
        box: Box | None = None,
        *,
        out: npt.NDArray[Any] | torch.Tensor | None = None,
        dtype: npt.DTypeLike | None = None,
        pad_value: float = 0.0,
    ) -> npt.NDArray[Any]:
        """Read one region.

        Values are the volume's: stored values times slope plus intercept, in float64, then cast; rounded to the nearest whole number
        (halves to the even one) where they are floats and the result is not.

        Args:
            ref: The volume.
            box: Region, half-open, in voxels of the stored grid; may reach over the border. None reads all of it.
            out: Memory to read into, C-contiguous for the last three axes; None allocates.
            dtype: dtype of the result when ``out`` is None; None takes :attr:`VolumeRef.value_dtype`.
            pad_value: Value of voxels outside the volume.

        Returns:
            The region (X, Y, Z), or (T, X, Y, Z) for a 4D volume; ``out`` as a numpy array when it was given.

        Raises:
            ShapeError: ``out`` has another shape than the region.
            ReadError: The array is missing, damaged or out of reach; names subject, collection, URI and box.
        """
        if out is None:
            target = np.empty(shape_of(ref, box), ref.value_dtype if dtype is None else np.dtype(dtype))
        else:
            target = as_numpy(out)
        self._check_process()
        request = ReadRequest(ref, box, target, pad_value)
        check_buffer(request)
        for _, failure in self._read_parts([[request]]):
            raise failure
        return target

    def read_many(self, requests: Sequence[ReadRequest]) -> None:
        """Read regions side by side, each into its own memory. Regions of one volume that lie in the same tiles are read once.

        Args:
            requests: What to read, and where to.

        Raises:
            ReadError, ShapeError: As :meth:`read`; the first failure, after all others have ended.
        """
        failures = self.try_many(requests)
        if failures:
            raise failures[min(failures)]

    def try_many(self, requests: Sequence[ReadRequest]) -> dict[int, ReadError]:
        """As :meth:`read_many`, but gives the failed reads by their place in ``requests``; all others are done.

        Raises:
            ShapeError: A buffer has another shape than its region.
        """
        self._check_process()
        for request in requests:
            check_buffer(request)
        requests = [self._regions.settled(request) for request in requests]
        found = groups([(request.ref, request.inner, request.region) for request in requests])
        parts = [[requests[place] for place in group] for group in found]
        failed: dict[int, ReadError] = {}
        for request, error in self._read_parts(parts):
            failed.setdefault(id(request), error)
        return {place: failed[id(request)] for place, request in enumerate(requests) if id(request) in failed}

    def _read_parts(self, parts: Sequence[Sequence[ReadRequest]]) -> list[tuple[ReadRequest, ReadError]]:
        """Read parts side by side, large ones in slabs; returns the requests that failed, perhaps more than once."""
        spare = threads if (threads := self._threads()) > len(parts) else 1
        pieces: list[Piece] = []
        helpers: list[Piece] = []
        for part in parts:
            found = self._pieces(part, spare)
            if threads > 1 and self._is_shared(part):
                found[0], more = shared(found[0], partial(self._fetch, part), threads - 1)
                helpers += more
            pieces += found
        pieces += helpers
        if min(threads, len(pieces)) <= 1:
            outcomes = [piece() for piece in pieces]
        else:  # which waits for all: the buffers belong to the caller again then
            outcomes = self._pool.run(pieces, threads)
        return [failure for outcome in outcomes for failure in outcome]

    def _pieces(self, part: Sequence[ReadRequest], threads: int) -> list[Piece]:
        """A part as it is, or the slabs of its one large request."""
        whole: list[Piece] = [partial(self._read, part)]
        request, inner = part[0], part[0].inner
        itemsize, channels = np.dtype(request.ref.dtype).itemsize, request.ref.channels
        if len(part) > 1 or inner is None or request.region is not None:
            return whole
        if prod(inner.shape) * itemsize * channels < slabs.LARGE:
            return whole
        try:
            tile = request.ref.tile or self._handle(request.ref)[0].tile
        except tiledb.TileDBError:  # which the read will meet as well
            return whole
        boxes = slabs.cut(
            request.whole,
            inner,
            tile,
            itemsize=itemsize,
            channels=channels,
            threads=threads,
            direct=request.direct,
        )
        return whole if len(boxes) == 1 else [partial(self._read_slab, request.part(box), request) for box in boxes]

    def _read_slab(self, slab: ReadRequest, owner: ReadRequest) -> list[tuple[ReadRequest, ReadError]]:
        return [(owner, failure_of(owner, error.__cause__)) for _, error in self._read([slab])]

    def _is_shared(self, part: Sequence[ReadRequest]) -> bool:
        """Whether a part reads a region, in parts that several threads can read."""
        ref, region = part[0].ref, part[0].region
        return (
            region is not None
            and self._direct(ref.uri)
            and self._regions.find(ref, ref.time_points[-1], region) is None
        )

    def _fetch(self, part: Sequence[ReadRequest]) -> None:
        """Have the region of a part kept."""
        ref, region, box = part[0].ref, part[0].region, part[0].inner
        assert region is not None
        assert box is not None
        for time in ref.time_points:
            self._region(ref, time, region, box)

    def _threads(self) -> int:
        if self.config.read.max_workers is not None:
            return self.config.read.max_workers
        return 1 if _calling.alone or _in_loader_worker() else min(_MAX_THREADS, available_cores())

    def _handle(self, ref: VolumeRef) -> tuple[Handle, Lease | None]:
        with self._lock:
            found = self._handles.get(ref.uri)
            if found is not None:
                self._handles.move_to_end(ref.uri)
                return found
        found = self._open(ref.uri)
        with self._lock:
            # Handles in use by other threads live on until their read ends.
            self._handles[ref.uri] = found
            while len(self._handles) > self.config.read.max_open_arrays:
                self._handles.popitem(last=False)
        return found

    def _direct(self, uri: str) -> bool:
        """Whether tiles are decoded here, without a query of TileDB."""
        return self.config.read.direct and not is_remote(uri)

    def _open(self, uri: str, *, tiles: bool = True) -> tuple[Handle, Lease | None]:
        direct = tiles and self._direct(uri)
        handle = open_tiles(uri, lambda: lease_for(uri, self.config).context) if direct else None
        if handle is not None:
            return handle, None
        lease = lease_for(uri, self.config)
        return open_handle(uri, lease.context), lease

    def _read(self, requests: Sequence[ReadRequest]) -> list[tuple[ReadRequest, ReadError]]:
        """Read regions of one volume in one go; returns those that failed."""
        boxes = [box for request in requests if (box := request.inner) is not None]
        if not boxes:
            for request in requests:
                request.out[...] = request.pad_value
            return []
        ref, region = requests[0].ref, requests[0].region
        around = boxes[0] if len(boxes) == 1 else Box.around(boxes)
        try:
            for channel, time in enumerate(ref.time_points):
                outs = [request.out[channel] if len(ref.shape) == 4 else request.out for request in requests]
                if region is None:
                    self._read_3d(time, requests, outs, around)
                else:
                    distribute(requests, outs, self._region(ref, time, region, around), region)
        except tiledb.TileDBError as error:
            if len(requests) > 1:  # perhaps not all of them fail
                return [failure for request in requests for failure in self._read([request])]
            if region is not None:  # perhaps what fails is beside the box
                return [(requests[0], failure) for _, failure in self._read([replace(requests[0], region=None)])]
            return [(requests[0], failure_of(requests[0], error))]
        return []

    def _region(self, ref: VolumeRef, time: int, region: Box, box: Box) -> npt.NDArray[Any]:
        """Stored values of a region, of which ``box`` is wanted now."""
        return self._regions.get(ref, time, region, box, read=self._read_stored, share=self._direct(ref.uri))

    def _read_3d(
        self, time: int, requests: Sequence[ReadRequest], outs: Sequence[npt.NDArray[Any]], around: Box
    ) -> None:
        ref = requests[0].ref
        straight = len(outs) == 1 and self._places(ref, outs[0].dtype)
        if straight:
            target, box = outs[0], requests[0].whole
            if around != box:
                target[...] = requests[0].pad_value
                target = target[around.slices(box.start)]
        else:
            target = self._scratch(around.shape, np.dtype(ref.dtype))
        read = self._read_tiles if self._tiles.limit and ref.tile is not None else self._read_stored
        read(ref, time, around, target)
        if not straight:
            distribute(requests, outs, target, around)

    def _places(self, ref: VolumeRef, dtype: np.dtype[Any]) -> bool:
        """Whether stored voxels can be read straight into memory of ``dtype``."""
        handle = self._handle(ref)[0]
        fits = dtype == np.dtype(ref.dtype) or (isinstance(handle, TileHandle) and handle.places(dtype))
        return fits and not ref.scaled

    def _read_stored(self, ref: VolumeRef, time: int, box: Box, target: npt.NDArray[Any]) -> None:
        handle, lease = self._handle(ref)
        ranges = [(a, b - 1) for a, b in zip(box.start, box.stop, strict=True)]
        ranges += [(time, time)] * (len(ref.shape) - 3)
        try:
            handle.read(ranges, target)
        except (UnknownLayout, OSError):
            handle, lease = found = self._open(ref.uri, tiles=False)  # which says what is wrong, if anything is
            cells = target if target.dtype == np.dtype(ref.dtype) else np.empty(target.shape, ref.dtype)
            handle.read(ranges, cells)
            if cells is not target:
                target[...] = cells
            with self._lock:
                self._handles[ref.uri] = found
        if lease is not None:
            lease.count()

    def _read_tiles(self, ref: VolumeRef, time: int, box: Box, target: npt.NDArray[Any]) -> None:
        """Stored values of a box, from the tiles that are kept; those that are missing are read in one go."""
        assert ref.tile is not None
        tiles = dict(tiles_of(box, ref.tile, ref.spatial_shape))
        kept = {number: self._tiles.find((ref.uri, time, number)) for number in tiles}
        found = {number: block for number, block in kept.items() if block is not None}
        missing = [number for number in tiles if number not in found]
        if missing:
            around = Box.around([tiles[number] for number in missing])
            read = np.empty(around.shape, ref.dtype)
            self._read_stored(ref, time, around, read)
            for number in missing:
                found[number] = np.array(
                    read[tiles[number].slices(around.start)], order="C"
                )  # not a view: it would keep all
                self._tiles.put((ref.uri, time, number), found[number])
        for number, tile in tiles.items():
            part = tile.intersection(box)
            target[part.slices(box.start)] = found[number][part.slices(tile.start)]


def _in_loader_worker() -> bool:
    module = sys.modules.get("torch.utils.data")  # a process that never imported torch is no worker of a DataLoader
    return module is not None and module.get_worker_info() is not None
