"""TorchIO images whose voxels lie in a store: they know shape and affine, and read what is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from radioloader.storage.reader import VolumeReader
from radioloader.types import Box, VolumeRef

__all__ = ["StoredLabelMap", "StoredScalarImage", "Voxels"]

_AS_TORCH = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
"""As TorchIO reads them: torch's own unsigned types lack most operations."""


@dataclass(frozen=True)
class Voxels:
    """Where the voxels of an image are.

    Attributes:
        reader: Reads them.
        ref: The volume.
        affine: (4, 4) float64, voxel index to RAS mm.
        as_dtype: dtype of the tensor; None takes what TorchIO would make of the stored one.
    """

    reader: VolumeReader
    ref: VolumeRef
    affine: npt.NDArray[np.float64]
    as_dtype: torch.dtype | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Voxels:
        return self  # one reader, with its open arrays, for all copies of a subject

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, X, Y, Z)."""
        return (self.ref.channels, *self.ref.spatial_shape)

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the tensor."""
        if self.as_dtype is not None:
            return self.as_dtype
        name = "float32" if self.ref.scaled else self.ref.dtype
        return cast(torch.dtype, getattr(torch, _AS_TORCH.get(name, name)))

    def read(self, box: Box) -> torch.Tensor:
        """The voxels (C, X, Y, Z) of a box inside the volume."""
        tensor = torch.empty(
            (self.ref.channels, *box.shape), dtype=torch.uint8 if self.dtype == torch.bool else self.dtype
        )
        self.reader.read(self.ref, box, out=tensor if len(self.ref.shape) == 4 else tensor[0])
        return tensor.view(torch.bool) if self.dtype == torch.bool else tensor


class _Unread(torch.Tensor):
    """The data of an image that was not loaded. Cut into, it reads no more than the part; anything else loads the image."""

    _image: Any

    @classmethod
    def of(cls, image: Any) -> _Unread:
        voxels: Voxels = image._voxels
        made = torch.empty(voxels.shape, dtype=voxels.dtype, device="meta").as_subclass(cls)
        made._image = image
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in _KNOWN:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func == _DEVICE:  # a new object each time
            return torch.device("cpu")
        if func is torch.Tensor.__getitem__ and isinstance(args[0], cls):
            image, index = args[0]._image, args[1]
            box = _box(index, image._voxels.shape)
            if box is not None:
                part = image._voxels.read(box)
                channels = index[0] if isinstance(index, tuple) else index
                return part[channels]
        with torch._C.DisableTorchFunctionSubclass():
            return func(*_loaded(tuple(args)), **_loaded(kwargs or {}))


_DEVICE = torch.Tensor.device.__get__
_KNOWN = {
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
    torch.Tensor.ndim.__get__,  # type: ignore[attr-defined]
    torch.Tensor.layout.__get__,  # type: ignore[attr-defined]
    torch.Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.ndimension,
    torch.Tensor.numel,
    torch.Tensor.nelement,
    torch.Tensor.element_size,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_complex,
    torch.Tensor.__len__,
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
}
"""What a shape and a dtype are enough for."""


def _loaded(value: Any) -> Any:
    if isinstance(value, _Unread):
        value._image.load()
        return value._image[tio.DATA]
    if isinstance(value, list | tuple):
        return type(value)(_loaded(part) for part in value)
    if isinstance(value, dict):
        return {key: _loaded(part) for key, part in value.items()}
    return value


def _box(index: Any, shape: Sequence[int]) -> Box | None:
    """The box that an index of (C, X, Y, Z) takes of all channels; None where it is not that simple."""
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > 4 or not all(isinstance(part, slice) for part in parts):
        return None
    if any(part.step not in (None, 1) for part in parts):
        return None
    spatial = [*parts[1:], slice(None), slice(None), slice(None)][:3]
    ranges = [part.indices(n) for part, n in zip(spatial, shape[1:], strict=True)]
    if any(stop <= start for start, stop, _ in ranges):
        return None
    (a, b, _), (c, d, _), (e, f, _) = ranges
    return Box((a, c, e), (b, d, f))


class _Stored:
    """What :class:`StoredScalarImage` and :class:`StoredLabelMap` add to TorchIO's images."""

    _voxels: Voxels | None = None
    _loaded: bool

    @classmethod
    def of(cls, voxels: Voxels) -> Any:
        """An image that reads from a store when its voxels are wanted."""
        image = cls.__new__(cls)
        made = cast(Any, image)
        # As TorchIO's constructor leaves an image that has a path: not loaded.
        made.check_nans, made.reader, made._loaded = False, tio.data.io.read_image, False
        made.path = None
        made._voxels = voxels
        kind = tio.LABEL if isinstance(image, tio.LabelMap) else tio.INTENSITY
        for key, value in (("path", voxels.ref.uri), ("stem", voxels.ref.obs_id), ("type", kind)):
            made[key] = value
        return made

    def __copy__(self) -> Any:
        return cast(Any, super()).__copy__() if self._voxels is None else self._copied(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._copied(lambda value: copy.deepcopy(value, memo))

    def _copied(self, of: Callable[[Any], Any]) -> Any:
        me = cast(Any, self)
        made: Any = cast(Any, type(me)).__new__(type(me))
        for key, value in dict.items(me):
            dict.__setitem__(made, key, of(value))
        made.__dict__.update(
            {name: value if name in ("_voxels", "reader") else of(value) for name, value in vars(me).items()}
        )
        return made

    @property
    def data(self) -> torch.Tensor:
        """Voxels (C, X, Y, Z)."""
        if self._voxels is None or self._loaded:
            return cast(torch.Tensor, cast(Any, super()).data)
        return _Unread.of(self)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4), voxel index to RAS mm."""
        if self._voxels is None or self._loaded:
            return cast(Any, super()).affine  # type: ignore[no-any-return]
        return self._voxels.affine.copy()

    @affine.setter
    def affine(self, matrix: Any) -> None:
        me = cast(Any, self)
        me[tio.AFFINE] = me._parse_affine(matrix)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, X, Y, Z), without reading."""
        if self._voxels is None or self._loaded:
            return cast(Any, super()).shape  # type: ignore[no-any-return]
        return self._voxels.shape

    def __getitem__(self, item: Any) -> Any:
        # Cut voxels may have been put in the place of all before an affine was.
        if (
            self._voxels is not None
            and isinstance(item, str)
            and item == tio.AFFINE
            and tio.AFFINE not in cast(Any, self)
        ):
            return self._voxels.affine.copy()
        return cast(Any, super()).__getitem__(item)

    def load(self) -> None:
        """Read all voxels."""
        me = cast(Any, self)
        if self._voxels is None or self._loaded:
            cast(Any, super()).load()
            return
        me.set_data(self._voxels.read(Box.whole(self._voxels.ref.spatial_shape)))
        me[tio.AFFINE] = self._voxels.affine.copy()

    def unload(self) -> None:
        """Let the voxels go; they are read again when they are wanted."""
        me = cast(Any, self)
        if self._voxels is None:
            cast(Any, super()).unload()
            return
        for key in (tio.DATA, tio.AFFINE):
            dict.pop(me, key, None)
        self._loaded = False


class StoredScalarImage(_Stored, tio.ScalarImage):  # type: ignore[misc]
    """A ``tio.ScalarImage`` in a store. Made by its own constructor, it is a ``tio.ScalarImage`` like any other."""


class StoredLabelMap(_Stored, tio.LabelMap):  # type: ignore[misc]
    """A ``tio.LabelMap`` in a store. Made by its own constructor, it is a ``tio.LabelMap`` like any other."""
