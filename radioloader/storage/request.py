"""What is asked of a reader, and how what it reads gets where it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ReadError, ShapeError
from radioloader.types import Box, VolumeRef

__all__ = ["ReadRequest", "as_numpy", "check_buffer", "distribute", "failure_of", "shape_of"]


@dataclass(frozen=True, slots=True, eq=False)
class ReadRequest:
    """One region and the place for it.

    Attributes:
        ref: The volume.
        box: Region of the volume; None for all of it.
        out: Where it goes, shape (X, Y, Z), or (T, X, Y, Z) for a 4D volume; any real dtype.
        pad_value: Value of voxels outside the volume.
        region: A larger box, which is read whole and kept for the next requests that name it; None reads no more than ``box``.
        whole: The region; all of the volume where ``box`` is None.
        inner: The part of the region inside the volume; None when there is none.
    """

    ref: VolumeRef
    box: Box | None
    out: npt.NDArray[Any]
    pad_value: float = 0.0
    region: Box | None = None
    whole: Box = field(init=False)
    inner: Box | None = field(init=False)

    def __post_init__(self) -> None:
        whole = Box.whole(self.ref.shape) if self.box is None else self.box
        object.__setattr__(self, "whole", whole)
        object.__setattr__(self, "inner", whole.clip(self.ref.shape))

    @property
    def direct(self) -> bool:
        """Whether stored voxels are what goes into ``out``, and in their order."""
        out = self.out if len(self.ref.shape) == 3 else self.out[0]
        return (
            out.dtype == np.dtype(self.ref.dtype)
            and out.flags.c_contiguous
            and not self.ref.scaled
            and self.whole == self.inner
        )

    def part(self, box: Box) -> ReadRequest:
        """The same of a box inside the region."""
        return ReadRequest(self.ref, box, self.out[(..., *box.slices(self.whole.start))], self.pad_value)


def failure_of(request: ReadRequest, error: BaseException | None) -> ReadError:
    """What a caller is told of TileDB's ``error``."""
    failure = ReadError(
        f"could not read box {request.box or request.inner} of {request.ref.describe()}: {error}. Where its files are damaged or gone, "
        'restore them or ingest the cohort into a new store; on_error="skip" or subjects= of a dataset go on without it'
    )
    failure.__cause__ = error
    return failure


def distribute(
    requests: Sequence[ReadRequest], outs: Sequence[npt.NDArray[Any]], stored: npt.NDArray[Any], around: Box
) -> None:
    """Put the stored values of ``around`` where the requests want them."""
    for request, out in zip(requests, outs, strict=True):
        box, inner = request.whole, request.inner
        assert inner is not None
        source, place = stored, out
        if inner != around:
            source = stored[inner.slices(around.start)]
        if inner != box:
            out[...] = request.pad_value
            place = out[inner.slices(box.start)]
        _convert(request.ref, source, place)


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


def shape_of(ref: VolumeRef, box: Box | None) -> tuple[int, ...]:
    """Shape of what is read: (X, Y, Z), or (T, X, Y, Z) for a 4D volume."""
    spatial = ref.spatial_shape if box is None else box.shape
    return (ref.channels, *spatial) if len(ref.shape) == 4 else spatial


def check_buffer(request: ReadRequest) -> None:
    # TileDB looks at neither: it would fill a larger buffer in part, and write into memory that numpy calls read-only.
    shape, out = shape_of(request.ref, request.box), request.out
    if out.shape == shape and out.flags.writeable:
        return
    what = f"box {request.box or 'None (the whole volume)'} of {request.ref.describe()}"
    if out.shape != shape:
        raise ShapeError(f"the buffer has shape {out.shape}, but {what} has {shape}")
    raise ShapeError(f"the buffer for {what} is read-only")


def as_numpy(out: Any) -> npt.NDArray[Any]:
    if isinstance(out, np.ndarray):
        return out
    if not hasattr(out, "numpy"):
        raise ShapeError(f"out must be a numpy array or a CPU tensor, got {type(out).__name__}")
    try:
        array: npt.NDArray[Any] = out.numpy()
    except (RuntimeError, TypeError) as error:  # on another device, requires grad, or a dtype that numpy lacks
        raise ShapeError(f"out must be a CPU tensor of a dtype that numpy has, without grad: {error}") from error
    return array
