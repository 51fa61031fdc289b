"""MONAI's samples: what is kept of them, and how they are made again without their voxels."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta

from radioloader.adapters.compact import compact
from radioloader.adapters.crops import Found, consumed, find, looks_for
from radioloader.adapters.identity import NONE, Identities, names_of, renamed
from radioloader.adapters.prepare import Made
from radioloader.adapters.sources import Item
from radioloader.adapters.split import Plan
from radioloader.adapters.stored import Prepared
from radioloader.adapters.values import decode, encode
from radioloader.errors import ConfigError
from radioloader.formats.nifti import make_header
from radioloader.formats.orientation import turn_grid
from radioloader.geometry import affine_problem, axcodes
from radioloader.ingestion.derived import SourceGrid

__all__ = ["STORED_AS", "ItemPreparation", "Unread", "Wanted"]

_KEPT = 128
_MOVES = {"Transpose", "Transposed"}
"""Transforms that move voxels and leave the affine as it was."""


class ItemPreparation:
    """MONAI's deterministic transforms; see :class:`~radioloader.adapters.prepare.Preparation`.

    Args:
        plan: The pipeline.
    """

    def __init__(self, plan: Plan) -> None:
        self._transform, self._crop = plan.prepare(), plan.crop
        self._track_meta = get_track_meta()
        self.names = [type(transform).__name__ for transform in plan.prefix]

    def transforms(self) -> Any:
        return self._transform.transforms

    def settings(self) -> Any:
        return [looks_for(self._crop), self._track_meta]

    def __call__(self, item: Item, hash_: str) -> Made:
        before = get_track_meta()
        set_track_meta(self._track_meta)  # this may be a process that was started afresh
        try:
            sample = self._transform(dict(item.data))
        finally:
            set_track_meta(before)
        if not isinstance(sample, Mapping):
            raise ConfigError(f"the deterministic transforms made a {type(sample).__name__} of it, expected a dict")
        found = find(self._crop, sample, hash_) if self._crop is not None else None
        gone = set(consumed(self._crop))
        volumes = {key: value for key, value in sample.items() if _is_volume(value)}
        if not volumes:
            raise ConfigError(
                "it has no volume (C, X, Y, Z) after the deterministic transforms, which are "
                f"{', '.join(self.names) or 'none: the first transform is random, a plain function or lazy'}. LoadImaged and "
                "EnsureChannelFirstd must be among them; put what is not deterministic behind these"
            )
        odd = [key for key in volumes if not isinstance(key, str)]
        if odd:
            raise ConfigError(f"the key {odd[0]!r} of a volume is not a text")
        paths, names = item.places, names_of(self._transform.transforms)
        about = {
            "keys": [encode(key, paths={}, where="a key") for key in sample if key not in gone],
            "volumes": {key: _describe(value, paths, names, key) for key, value in volumes.items()},
            "rest": {
                encode(key, paths={}, where="a key"): encode(value, paths=paths, where=f"{key!r}")
                for key, value in sample.items()
                if key not in volumes and key not in gone
            },
            "found": None if found is None else _found_to_json(found),
        }
        arrays = {key: compact(_as_array(value)) for key, value in volumes.items()}
        told = not _MOVES & set(self.names)
        grids = {
            key: grid for key, value in volumes.items() if told and (grid := _source_grid(value, arrays[key].dtype))
        }
        return Made({key: (arrays[key], _affine(value)) for key, value in volumes.items()}, about, grids)


def _affine(value: Any) -> npt.NDArray[np.float64]:
    affine = getattr(value, "affine", None)
    return np.eye(4) if affine is None else np.asarray(affine, np.float64)


def _source_grid(value: Any, dtype: np.dtype[Any]) -> SourceGrid | None:
    """The grid of the file that a volume was loaded from, as MONAI notes it."""
    meta = getattr(value, "meta", {})
    affine, shape = (meta.get(name) for name in ("original_affine", "spatial_shape"))
    if affine is None or shape is None or np.shape(affine) != (4, 4) or len(shape) < 3:
        return None
    affine, size = np.asarray(affine, np.float64), tuple(int(n) for n in shape[:3])
    if affine_problem(affine) is not None:
        return None
    if meta.get("as_closest_canonical"):  # then MONAI notes the file's affine, and the shape after turning
        size, _ = turn_grid(size, np.eye(4), "RAS", axcodes(affine))
    return SourceGrid(make_header(size, dtype, affine), axcodes(affine))


def _is_volume(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 4 and value.size != 0


def _describe(value: Any, paths: Mapping[str, str], names: Mapping[Any, str], key: str) -> dict[str, Any]:
    dtype = str(value.dtype).removeprefix("torch.")
    about: dict[str, Any] = {"shape": [int(n) for n in value.shape], "dtype": dtype}
    if hasattr(value, "applied_operations"):  # MONAI's MetaTensor
        if getattr(value, "pending_operations", None):
            raise ConfigError(f"{key!r} has operations that are still to be done (lazy transforms)")
        operations = [renamed(operation, lambda id_: names.get(id_, NONE)) for operation in value.applied_operations]
        about |= {
            "kind": "MetaTensor",
            "meta": encode(value.meta, paths=paths, where=f"the metadata of {key!r}"),
            "operations": encode(operations, paths=paths, where=f"the applied operations of {key!r}"),
        }
    else:
        about["kind"] = "tensor" if isinstance(value, torch.Tensor) else "array"
    return about


def _as_array(value: Any) -> npt.NDArray[Any]:
    """(X, Y, Z), or (X, Y, Z, C) for several channels."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().as_subclass(torch.Tensor)
        value = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
    array = np.asarray(value)
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"volumes of dtype {array.dtype} cannot be stored")
    return np.ascontiguousarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))


def _found_to_json(found: Found) -> dict[str, Any]:
    return {
        "shape": list(found.shape),
        "counts": found.counts,
        "positions": [_packed(part) for part in found.positions],
        "padding": found.padding,
    }


def _packed(numbers: npt.NDArray[np.int64]) -> str:
    """Positions, whose order means nothing, as text."""
    steps = np.diff(np.sort(numbers), prepend=0)
    return base64.b64encode(zlib.compress(steps.astype("<i8").tobytes(), 9)).decode()


def _unpacked(text: str) -> npt.NDArray[np.int64]:
    return np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8"))


class Unread:
    """Samples without their voxels.

    Args:
        items: What there is in the store.
        files: Of each item, the paths of its files by where they stand in it.
        identities: The deterministic transforms.
    """

    def __init__(self, items: list[Prepared], files: list[dict[str, str]], identities: Identities) -> None:
        self._items, self._files, self._identities = items, files, identities
        self._reset()

    def _reset(self) -> None:
        self._parsed: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_parsed", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def about(self, number: int) -> dict[str, Any]:
        """What was kept of an item."""
        with self._lock:
            kept = self._parsed.get(number)
            if kept is not None:
                self._parsed.move_to_end(number)
                return kept
        about: dict[str, Any] = json.loads(self._items[number].about)
        if about["found"] is not None:
            about["found"] = _found_from_json(about["found"])
        about["keys"] = [(text, decode(text, paths={})) for text in about["keys"]]
        with self._lock:
            self._parsed[number] = about
            while len(self._parsed) > _KEPT:
                self._parsed.popitem(last=False)
        return about

    def sample(self, number: int) -> dict[Any, Any]:
        """The item after the deterministic transforms; its volumes are tensors (C, X, Y, Z) on the device ``meta``."""
        about, paths, sample = self.about(number), self._files[number], {}
        for text, key in about["keys"]:
            described = about["volumes"].get(key) if isinstance(key, str) else None
            if described is None:
                sample[key] = decode(about["rest"][text], paths=paths)
                continue
            value = torch.empty(described["shape"], dtype=getattr(torch, described["dtype"]), device="meta")
            if described["kind"] == "MetaTensor":
                meta, operations = decode(described["meta"], paths=paths), decode(described["operations"], paths=paths)
                operations = [renamed(operation, self._identities.find) for operation in operations]
                value = MetaTensor(value, meta=meta, applied_operations=operations)
            sample[key] = value
        return sample


def _found_from_json(found: Mapping[str, Any]) -> Found:
    return Found(
        tuple(found["shape"]), found["counts"], [_unpacked(part) for part in found["positions"]], found["padding"]
    )


STORED_AS = {torch.bool: torch.uint8, torch.float16: torch.float32}
"""dtypes that are read as others."""


@dataclass(frozen=True)
class Wanted:
    """A volume's part that is being read: what it will be like, and where its voxels go."""

    like: Any
    tensor: torch.Tensor
    array: bool

    def wrapped(self) -> Any:
        tensor = self.tensor
        if tensor.dtype != self.like.dtype:
            tensor = tensor.view(torch.bool) if self.like.dtype == torch.bool else tensor.to(self.like.dtype)
        if isinstance(self.like, MetaTensor):
            return MetaTensor(tensor, meta=self.like.meta, applied_operations=self.like.applied_operations)
        return tensor.numpy() if self.array else tensor
