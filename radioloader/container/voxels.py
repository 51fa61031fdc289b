"""What every volume can do, wherever its voxels are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from radioloader.container.counting import histogram, percentiles
from radioloader.container.indexing import normalise
from radioloader.geometry import plane_axis, spacing
from radioloader.types import Box

if TYPE_CHECKING:
    import torch

__all__ = ["OrientationInfo", "Voxels"]


@dataclass(frozen=True, slots=True)
class OrientationInfo:
    """How a volume lies.

    Attributes:
        axcodes: Anatomical direction in which each axis grows, such as ``"RAS"``.
        source_axcodes: The same for the file that it comes from; empty where nobody noted it.
        affine: (4, 4) float64, voxel index to RAS mm.
    """

    axcodes: str
    source_axcodes: str
    affine: npt.NDArray[np.float64]

    @property
    def is_turned(self) -> bool:
        """Whether axes were flipped or swapped when the volume came in."""
        return bool(self.source_axcodes) and self.source_axcodes != self.axcodes


class Voxels(ABC):
    """A 3D image, or a series of them. Index it like a numpy array: ``volume[100:200, :, :]`` reads those voxels and no others.

    Attributes:
        affine: (4, 4) float64, voxel index to RAS mm.
        axcodes: Anatomical direction in which each axis grows, such as ``"RAS"``.
    """

    affine: npt.NDArray[np.float64]
    axcodes: str

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T) in voxels."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """dtype of :meth:`to_numpy`."""

    @property
    @abstractmethod
    def tile(self) -> tuple[int, int, int]:
        """Extents (x, y, z) of what is read at least, in voxels."""

    @property
    @abstractmethod
    def _source_axcodes(self) -> str: ...

    @abstractmethod
    def describe(self) -> str:
        """The volume in words, for messages."""

    @abstractmethod
    def _read_box(self, box: Box, times: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        """Values of a box, (X, Y, Z) or (X, Y, Z, T); of a series at some time points, in their order."""

    @abstractmethod
    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest of the finite values."""

    @property
    def ndim(self) -> int:
        """3, or 4 for a series."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along x, y and z, in mm."""
        return spacing(self.affine)

    def to_numpy(self) -> npt.NDArray[Any]:
        """All voxels, (X, Y, Z) or (X, Y, Z, T), as nibabel's array proxy gives them for the source file (turned to :attr:`axcodes`).

        Raises:
            ReadError: The array is missing, damaged or out of reach.
        """
        return self._read_box(Box.whole(self.shape))

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        part = normalise(index, self.shape)
        if part.box is None:
            nothing: npt.NDArray[Any] = np.empty(self.shape, self.dtype)[index]  # reads nothing
            return nothing
        result: npt.NDArray[Any] = self._read_box(part.box, part.times)[part.rest]
        return result

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.describe()}: reading makes an array, so that copy=False cannot be")
        values = self.to_numpy()
        return values if dtype is None else values.astype(dtype, copy=False)

    def to_torch(self, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        """All voxels as a tensor, (X, Y, Z); (T, X, Y, Z) of a series, whose time points lie one after the other.

        Args:
            dtype: dtype of the tensor; None takes that of :attr:`dtype`.

        Raises:
            ReadError: The array is missing, damaged or out of reach.
        """
        import torch

        values = self.to_numpy()
        # Of a series this undoes the turn of axes that numpy's order takes, and copies nothing.
        tensor = torch.from_numpy(np.moveaxis(values, 3, 0) if self.ndim == 4 else values)
        return tensor if dtype is None else tensor.to(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.to_numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU: kDLCPU of dlpack.h

    def _slice(self, plane: str, index: int, time: int | None) -> npt.NDArray[Any]:
        axis = plane_axis(self.axcodes, plane)
        if not -self.shape[axis] <= index < self.shape[axis]:
            raise IndexError(f"{plane} slice {index} is outside the {self.shape[axis]} slices of {self.describe()}")
        if time is not None and self.ndim != 4:
            raise IndexError(f"time={time}: {self.describe()} is 3D, and has no time points")
        return self[(*(slice(None),) * axis, index, ..., *([] if time is None else [time]))]

    def axial(self, index: int, time: int | None = None) -> npt.NDArray[Any]:
        """One axial slice: the array plane across the axis that is closest to inferior-superior, other axes in stored order.

        Args:
            index: Number of the slice along that axis; negative ones count from the end.
            time: Of a series, one time point, without touching the others; None gives all of them, on the last axis.
        """
        return self._slice("axial", index, time)

    def sagittal(self, index: int, time: int | None = None) -> npt.NDArray[Any]:
        """One sagittal slice: across the axis that is closest to left-right; see :meth:`axial`."""
        return self._slice("sagittal", index, time)

    def coronal(self, index: int, time: int | None = None) -> npt.NDArray[Any]:
        """One coronal slice: across the axis that is closest to posterior-anterior; see :meth:`axial`."""
        return self._slice("coronal", index, time)

    axial_slice, sagittal_slice, coronal_slice = axial, sagittal, coronal

    def percentiles(self, q: float | Sequence[float]) -> npt.NDArray[np.float64]:
        """Percentiles of the finite values, exactly as ``numpy.percentile(..., q)`` has them, a slab of tiles at a time.

        Args:
            q: From 0 to 100.

        Raises:
            ConfigError: ``q`` is outside 0 to 100.
            ReadError: The array is missing, damaged or out of reach.
        """
        return percentiles(self._slabs, q, self.dtype)

    def histogram(
        self, bins: int | Sequence[float] = 64, value_range: tuple[float, float] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """How often values occur, counted a slab of tiles at a time, so that the volume is never held whole.

        Args:
            bins: Number of bins of equal width, or their edges, ascending.
            value_range: Lowest and highest value that are counted; None takes those of the volume.

        Returns:
            (bins,) counts, and (bins + 1,) edges: a bin holds its lower edge, the last one also its upper edge, as ``numpy.histogram`` does
            it. NaN and infinite values are not counted.

        Raises:
            ConfigError: ``bins`` or ``value_range`` make no sense.
            ReadError: The array is missing, damaged or out of reach.
        """
        return histogram(self._slabs(), bins, self._bounds() if value_range is None else value_range)

    def _slabs(self) -> Iterator[npt.NDArray[Any]]:
        """The values, a time point and a row of tiles across x at a time."""
        thick = self.tile[0]
        for time in range(self.shape[3] if self.ndim == 4 else 1):
            for start in range(0, self.shape[0], thick):
                box = Box((start, 0, 0), (min(start + thick, self.shape[0]), self.shape[1], self.shape[2]))
                yield self._read_box(box, (time,) if self.ndim == 4 else None)

    @property
    def orientation_info(self) -> OrientationInfo:
        """How the volume lies, now and in the file that it comes from."""
        return OrientationInfo(self.axcodes, self._source_axcodes, self.affine.copy())
