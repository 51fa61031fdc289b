"""Reading voxels.

Concurrency: a reader may be used from any number of threads; it opens its own TileDB context and arrays in each process, so it
may be pickled and may cross a fork.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig, available_cores, get_config
from radioloader.errors import ReadError, ShapeError
from radioloader.storage import slabs
from radioloader.storage._query import Handle, open_handle
from radioloader.storage.context import Lease, lease_for, register
from radioloader.storage.joint import groups
from radioloader.storage.request import ReadRequest, check_buffer, failure_of, shape_of
from radioloader.types import Box, VolumeRef

if TYPE_CHECKING:
    import torch

__all__ = ["ReadRequest", "VolumeReader"]

_MAX_THREADS = 8


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
        self._handles: OrderedDict[str, tuple[Handle, Lease]] = OrderedDict()
        self._scratch = threading.local()
        self._pool: ThreadPoolExecutor | None = None
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
        with self._lock:
            self._handles.clear()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

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
            target = _as_numpy(out)
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
        parts = [[requests[place] for place in group] for group in groups([(r.ref, r.inner) for r in requests])]
        failed: dict[int, ReadError] = {}
        for request, error in self._read_parts(parts):
            failed.setdefault(id(request), error)
        return {place: failed[id(request)] for place, request in enumerate(requests) if id(request) in failed}

    def _read_parts(self, parts: Sequence[Sequence[ReadRequest]]) -> list[tuple[ReadRequest, ReadError]]:
        """Read parts side by side, large ones in slabs; returns the requests that failed, perhaps more than once."""
        spare = threads if (threads := self._threads()) > len(parts) else 1
        pieces = [piece for part in parts for piece in self._pieces(part, spare)]
        if min(threads, len(pieces)) <= 1:
            outcomes = [self._read_piece(*piece) for piece in pieces]
        else:
            # Wait for all before returning: the buffers belong to the caller again then.
            futures = [self._executor().submit(self._read_piece, *piece) for piece in pieces]
            wait(futures)
            outcomes = [future.result() for future in futures]
        return [failure for outcome in outcomes for failure in outcome]

    def _pieces(
        self, part: Sequence[ReadRequest], threads: int
    ) -> list[tuple[Sequence[ReadRequest], ReadRequest | None]]:
        """A part as it is, or the slabs of its one large request and that request."""
        request, inner = part[0], part[0].inner
        itemsize, channels = np.dtype(request.ref.dtype).itemsize, request.ref.channels
        if len(part) > 1 or inner is None or math.prod(inner.shape) * itemsize * channels < slabs.LARGE:
            return [(part, None)]
        try:
            tile = request.ref.tile or self._handle(request.ref)[0].tile
        except tiledb.TileDBError:  # which the read will meet as well
            return [(part, None)]
        boxes = slabs.cut(
            request.whole,
            inner,
            tile,
            itemsize=itemsize,
            channels=channels,
            threads=threads,
            direct=request.direct,
        )
        return [(part, None)] if len(boxes) == 1 else [([request.part(box)], request) for box in boxes]

    def _read_piece(
        self, requests: Sequence[ReadRequest], owner: ReadRequest | None
    ) -> list[tuple[ReadRequest, ReadError]]:
        """Read a part, or one slab of ``owner``, whose failure it then is."""
        failures = self._read(requests)
        return failures if owner is None else [(owner, failure_of(owner, error.__cause__)) for _, error in failures]

    def _threads(self) -> int:
        if self.config.read.max_workers is not None:
            return self.config.read.max_workers
        return 1 if _in_loader_worker() else min(_MAX_THREADS, available_cores())

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads(), thread_name_prefix="radioloader-read")
                weakref.finalize(self, _shutdown, self._pool, self._pid)
            return self._pool

    def _handle(self, ref: VolumeRef) -> tuple[Handle, Lease]:
        with self._lock:
            found = self._handles.get(ref.uri)
            if found is not None:
                self._handles.move_to_end(ref.uri)
                return found
        lease = lease_for(ref.uri, self.config)
        found = open_handle(ref.uri, lease.context), lease
        with self._lock:
            # Handles in use by other threads live on until their read ends.
            self._handles[ref.uri] = found
            while len(self._handles) > self.config.read.max_open_arrays:
                self._handles.popitem(last=False)
        return found

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Memory of this thread, reused from read to read: fresh pages for every patch cost as much as decoding it."""
        size = int(np.prod(shape)) * dtype.itemsize
        memory: npt.NDArray[np.uint8] | None = getattr(self._scratch, "memory", None)
        if size > _KEPT_SCRATCH:
            return np.empty(shape, dtype)
        if memory is None or memory.size < size:
            memory = self._scratch.memory = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)

    def _read(self, requests: Sequence[ReadRequest]) -> list[tuple[ReadRequest, ReadError]]:
        """Read regions of one volume in one go; returns those that failed."""
        boxes = [box for request in requests if (box := request.inner) is not None]
        if not boxes:
            for request in requests:
                request.out[...] = request.pad_value
            return []
        ref = requests[0].ref
        around = boxes[0] if len(boxes) == 1 else Box.around(boxes)
        ranges = [(a, b - 1) for a, b in zip(around.start, around.stop, strict=True)]
        try:
            handle, lease = self._handle(ref)
            for time in range(ref.channels):
                outs = [request.out[time] if len(ref.shape) == 4 else request.out for request in requests]
                self._read_3d(handle, ranges + [(time, time)] * (len(ref.shape) - 3), requests, outs, around)
                lease.count()
        except tiledb.TileDBError as error:
            if len(requests) > 1:  # perhaps not all of them fail
                return [failure for request in requests for failure in self._read([request])]
            return [(requests[0], failure_of(requests[0], error))]
        return []

    def _read_3d(
        self,
        handle: Handle,
        ranges: list[tuple[int, int]],
        requests: Sequence[ReadRequest],
        outs: Sequence[npt.NDArray[Any]],
        around: Box,
    ) -> None:
        ref = requests[0].ref
        stored = np.dtype(ref.dtype)
        first = outs[0]
        direct = len(outs) == 1 and first.shape == around.shape and first.dtype == stored and not ref.scaled
        direct = direct and first.flags.c_contiguous
        target = first if direct else self._buffer(around.shape, stored)
        handle.read(ranges, target)
        if direct:
            return
        for request, out in zip(requests, outs, strict=True):
            box, inner = request.whole, request.inner
            assert inner is not None
            source, place = target, out
            if inner != around:
                source = target[inner.slices(around.start)]
            if inner != box:
                out[...] = request.pad_value
                place = out[inner.slices(box.start)]
            _convert(ref, source, place)


def _convert(ref: VolumeRef, stored: npt.NDArray[Any], place: npt.NDArray[Any]) -> None:
    """Put stored values, scaled, where they belong."""
    if ref.scaled:
        # In float64 and in this order, as nibabel does it, so that values agree to the last bit.
        values = np.multiply(stored, ref.slope, dtype=np.float64) if ref.slope != 1.0 else stored.astype(np.float64)
        if ref.intercept != 0.0:
            values += ref.intercept
        stored = values
    if stored.dtype.kind == "f" and place.dtype.kind in "iu":
        # A cast alone would cut off towards zero. numpy rounds and casts in one pass, without another array.
        np.rint(stored, out=place, casting="unsafe")
    else:
        np.copyto(place, stored, casting="unsafe")


_KEPT_SCRATCH = 64 * 2**20


def _as_numpy(out: Any) -> npt.NDArray[Any]:
    if isinstance(out, np.ndarray):
        return out
    if not hasattr(out, "numpy"):
        raise ShapeError(f"out must be a numpy array or a CPU tensor, got {type(out).__name__}")
    try:
        array: npt.NDArray[Any] = out.numpy()
    except (RuntimeError, TypeError) as error:  # on another device, requires grad, or a dtype that numpy lacks
        raise ShapeError(f"out must be a CPU tensor of a dtype that numpy has, without grad: {error}") from error
    return array


def _in_loader_worker() -> bool:
    module = sys.modules.get("torch.utils.data")  # a process that never imported torch is no worker of a DataLoader
    return module is not None and module.get_worker_info() is not None


def _shutdown(pool: ThreadPoolExecutor, pid: int) -> None:
    if pid == os.getpid():
        pool.shutdown(wait=False)
