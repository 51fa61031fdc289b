"""Patches around a chosen voxel: foreground, classes, probability maps."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError
from radioloader.samplers.positions import Site, Stream, uniform_start
from radioloader.types import Box, Triple

__all__ = ["ForegroundPositions", "WeightedPositions"]

_log = logging.getLogger("radioloader")


def _around(centre: npt.NDArray[Any], shape: Triple, patch_size: Triple) -> Triple:
    """Start of the patch that has ``centre`` in its middle, moved so that it lies inside the volume."""
    start = []
    for c, n, size in zip(centre.tolist(), shape, patch_size, strict=True):
        room = n - size
        start.append(min(max(c - size // 2, 0), room) if room >= 0 else room // 2)
    x, y, z = start
    return (x, y, z)


@dataclass(frozen=True)
class ForegroundPositions:
    """A share of the patches is centred on foreground, the others lie anywhere; or patches are centred on classes by ratios.

    Centres come from the foreground index that ingest wrote: choosing one reads no voxel. The index keeps up to 2048 coordinates of
    each class and volume, a uniform sample of its voxels. A patch whose centre is near the border is moved into the volume.

    - ``ForegroundPositions(1 / 3)`` is nnU-Net's oversampling (``oversample_foreground_percent=0.33``), decided for each patch by its
      key: with that probability a foreground class of the volume, each equally likely, then one of its voxels.
    - ``ForegroundPositions(p / (p + n), by="voxel", otherwise="background")`` chooses centres as MONAI's
      ``RandCropByPosNegLabel(pos=p, neg=n)``: any foreground voxel, else a background voxel.
    - ``ForegroundPositions(ratios={0: 1, 1: 3, 2: 3})`` chooses them as MONAI's ``RandCropByLabelClasses(ratios=[1, 3, 3])``. Classes
      that a volume lacks leave their share to its others.

    A volume without what is asked for gets patches anywhere.

    Attributes:
        share: Probability of a patch centred on foreground.
        by: ``"class"``: each foreground class of the volume is equally likely; ``"voxel"``: each foreground voxel is.
        otherwise: Where the other patches lie: ``"anywhere"``, or centred on ``"background"`` (class 0).
        classes: Which classes are foreground; None: all but 0.
        ratios: Weight by class, instead of all other arguments.
    """

    share: float = 1 / 3
    by: str = "class"
    otherwise: str = "anywhere"
    classes: tuple[int, ...] | None = None
    ratios: Mapping[int, float] | None = None

    needs_foreground = True

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float | np.number) or not 0 <= self.share <= 1:
            raise ConfigError(f"share={self.share!r} must be a probability, from 0 to 1")
        for name, allowed in (("by", ("class", "voxel")), ("otherwise", ("anywhere", "background"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        if not isinstance(self.classes, Iterable | None) or isinstance(self.classes, str):
            raise ConfigError(f"classes={self.classes!r} must be several whole numbers, such as (1, 2)")
        if not isinstance(self.ratios, Mapping | None):
            raise ConfigError(f"ratios={self.ratios!r} must be a mapping from class to weight, such as {{0: 1, 1: 3}}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(sorted({int(value) for value in self.classes})))
            if not self.classes:
                raise ConfigError("classes is empty; name at least one, or leave it out for all but 0")
        if self.ratios is not None:
            if (self.share, self.by, self.otherwise, self.classes) != (1 / 3, "class", "anywhere", None):
                raise ConfigError(
                    "ratios says which classes are centred on; leave share, by, otherwise and classes out"
                )
            ratios = {int(value): float(weight) for value, weight in dict(self.ratios).items()}
            if not ratios or not all(np.isfinite(w) and w >= 0 for w in ratios.values()) or not sum(ratios.values()):
                raise ConfigError(f"ratios={self.ratios!r} must give weights of at least 0, and not only 0")
            object.__setattr__(self, "ratios", dict(sorted(ratios.items())))

    def __hash__(self) -> int:
        return hash(repr(self))

    def check_classes(self, present: Sequence[int]) -> None:
        """Say which of the classes no volume has: an error where it is all of them, a warning in the log where it is some.

        Args:
            present: The classes that there are.

        Raises:
            ConfigError: None of the classes that are asked for, background aside, is among them.
        """
        ratios = self.ratios or {}
        asked = set(self.classes or ()) | {value for value, weight in ratios.items() if weight > 0}
        unknown = sorted(asked - set(present))
        if not unknown:
            return
        text = f"no volume has class {', '.join(map(str, unknown))}; the labels hold {', '.join(map(str, present))}"
        if (asked - {0} or asked).isdisjoint(present):
            raise ConfigError(f"{self!r}: {text}")
        _log.warning("%r: %s", self, text)

    def count(self, site: Site, patch_size: Triple) -> int | None:
        return None

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        generator = stream("position")
        chosen = self._class(site.foreground(), generator)
        if chosen is None:
            return uniform_start(site.shape, patch_size, generator)
        return _around(chosen[generator.integers(len(chosen))], site.shape, patch_size)

    def _class(
        self, index: Mapping[int, tuple[int, npt.NDArray[Any]]], generator: np.random.Generator
    ) -> npt.NDArray[Any] | None:
        """Coordinates to choose a centre from; None: anywhere."""
        if self.ratios is not None:
            weights = {value: self.ratios[value] for value in index if self.ratios.get(value, 0.0) > 0}
        elif generator.random() < self.share:
            wanted = [value for value in index if (value != 0 if self.classes is None else value in self.classes)]
            weights = {value: 1.0 if self.by == "class" else float(index[value][0]) for value in wanted}
        else:
            weights = {0: 1.0} if self.otherwise == "background" and 0 in index else {}
        if not weights:
            return None
        values = sorted(weights)
        edges = np.cumsum([weights[value] for value in values])
        place = int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))
        return index[values[min(place, len(values) - 1)]][1]


_KEPT_MAPS = 512


@dataclass(frozen=True)
class WeightedPositions:
    """Patches centred on voxels in proportion to a probability map, another collection on the same grid.

    A process reads a volume's map once, tile by tile, to sum it (and keeps one number a tile for the last 512 volumes), then one tile
    of it for each patch. Values below 0 and NaN count as 0; a map without a positive value gives patches anywhere. A patch whose
    centre is near the border is moved into the volume.

    Attributes:
        collection: The collection with the map; values need not add up to 1.
    """

    collection: str
    _sums: OrderedDict[str, Any] = field(default_factory=OrderedDict, init=False, repr=False, compare=False, hash=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False, hash=False)

    @property
    def reads(self) -> str:
        """Name of the collection that is read to choose positions."""
        return self.collection

    def __getstate__(self) -> dict[str, Any]:
        return {"collection": self.collection}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "collection", state["collection"])
        object.__setattr__(self, "_sums", OrderedDict())
        object.__setattr__(self, "_lock", threading.Lock())

    def count(self, site: Site, patch_size: Triple) -> int | None:
        return None

    def start(self, site: Site, patch_size: Triple, *, draw: int, stream: Stream) -> Triple:
        generator = stream("position")
        boxes, edges = self._tiles(site)
        if not edges.size or not edges[-1] > 0:
            return uniform_start(site.shape, patch_size, generator)
        box = boxes[_pick(edges, generator)]
        inside = np.cumsum(_positive(site.read(self.collection, box)))
        voxel = np.array(np.unravel_index(_pick(inside, generator), box.shape)) + np.array(box.start)
        return _around(voxel, site.shape, patch_size)

    def _tiles(self, site: Site) -> tuple[list[Box], npt.NDArray[np.float64]]:
        """The map's tiles, and the running sum of their sums."""
        boxes = _tile_boxes(site.shape, site.tile)
        with self._lock:
            edges = self._sums.get(site.name)
        if edges is None:
            edges = np.cumsum([_positive(site.read(self.collection, box)).sum() for box in boxes])
            with self._lock:
                self._sums[site.name] = edges
                while len(self._sums) > _KEPT_MAPS:
                    self._sums.popitem(last=False)
        return boxes, edges


def _positive(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    flat = np.nan_to_num(values.astype(np.float64).ravel(), nan=0.0, posinf=0.0, neginf=0.0)
    return np.maximum(flat, 0.0)


def _pick(edges: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
    """A place with probability proportional to its share of the running sum."""
    place = int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))
    while place >= len(edges) or (edges[place] - (edges[place - 1] if place else 0.0)) <= 0:
        place -= 1  # rounding may point past the last one, or at one of weight 0
    return place


def _tile_boxes(shape: Triple, tile: Triple) -> list[Box]:
    return [
        Box((x, y, z), (min(x + tile[0], shape[0]), min(y + tile[1], shape[1]), min(z + tile[2], shape[2])))
        for x in range(0, shape[0], tile[0])
        for y in range(0, shape[1], tile[1])
        for z in range(0, shape[2], tile[2])
    ]
