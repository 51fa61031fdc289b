"""What is to be read, and the place for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ReadError, ShapeError
from radioloader.types import Box, VolumeRef

__all__ = ["ReadRequest", "check_buffer", "failure_of", "shape_of"]


@dataclass(frozen=True, slots=True, eq=False)
class ReadRequest:
    """One region and the place for it.

    Attributes:
        ref: The volume.
        box: Region of the volume; None for all of it.
        out: Where it goes, shape (X, Y, Z), or (T, X, Y, Z) for a 4D volume; any real dtype.
        pad_value: Value of voxels outside the volume.
    """

    ref: VolumeRef
    box: Box | None
    out: npt.NDArray[Any]
    pad_value: float = 0.0

    @property
    def whole(self) -> Box:
        """The region; all of the volume where ``box`` is None."""
        return Box.whole(self.ref.shape) if self.box is None else self.box

    @property
    def inner(self) -> Box | None:
        """The part of the region inside the volume; None when there is none."""
        return self.whole.clip(self.ref.shape)

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
    failure = ReadError(f"could not read box {request.box or request.inner} of {request.ref.describe()}: {error}")
    failure.__cause__ = error
    return failure


def shape_of(ref: VolumeRef, box: Box | None) -> tuple[int, ...]:
    """Shape of what is read: (X, Y, Z), or (T, X, Y, Z) for a 4D volume."""
    spatial = ref.spatial_shape if box is None else box.shape
    return (ref.channels, *spatial) if len(ref.shape) == 4 else spatial


def check_buffer(request: ReadRequest) -> None:
    """Refuse a request whose memory does not fit its region.

    Raises:
        ShapeError: Another shape, or read-only.
    """
    # TileDB looks at neither: it would fill a larger buffer in part, and write into memory that numpy calls read-only.
    shape, out = shape_of(request.ref, request.box), request.out
    if out.shape == shape and out.flags.writeable:
        return
    what = f"box {request.box or 'None (the whole volume)'} of {request.ref.describe()}"
    if out.shape != shape:
        raise ShapeError(f"the buffer has shape {out.shape}, but {what} has {shape}")
    raise ShapeError(f"the buffer for {what} is read-only")
