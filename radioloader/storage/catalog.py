"""The catalog: collections and their volumes, as columns of arrays.

Opening a store reads these tables and no voxel array. The columns stay columns: a row becomes a
:class:`~radioloader.types.VolumeRef` when it is asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import KeyNotFoundError
from radioloader.storage._malloc import trim
from radioloader.storage.store import Store
from radioloader.storage.table import Column, Commits, newest
from radioloader.storage.uri import join
from radioloader.types import VolumeRef

__all__ = [
    "CLASSES",
    "COLLECTION_TABLES",
    "FOREGROUND_COORDINATES",
    "PREDICTION",
    "PREPARED",
    "CollectionInfo",
    "VolumeIndex",
    "columns_of",
    "obs_row",
    "occupied_slices",
    "origin_columns",
    "pack_occupied",
    "read_collections",
    "read_index",
]

_AFFINE = [f"affine_{row}{column}" for row in range(3) for column in range(4)]
_SHAPE = ["nx", "ny", "nz", "nt"]
_SPACING = ["spacing_x", "spacing_y", "spacing_z"]
_MANY = 20_000
_STATISTICS = ["stat_min", "stat_max", "stat_mean", "stat_std"]

_INDEX = ["obs_id", "obs_subject_id", "uri", *_SHAPE, "dtype", "slope", "intercept", *_AFFINE, "axcodes"]

FOREGROUND_COORDINATES = 2048
"""Coordinates that the foreground index keeps for each volume and class, at most."""

PREDICTION = "prediction"
"""Key of the recipe of a collection of predictions: what they were made with."""

PREPARED = "prepared"
"""Key of the recipe of a collection that transforms made of other volumes: which ones."""

CLASSES = "classes"
"""Key of the recipe of a label collection whose classes have names."""

COLLECTION_TABLES: dict[str, list[Column]] = {
    "obs": [
        Column("obs_id", "str"),
        Column("obs_subject_id", "str"),
        Column("uri", "str"),
        *[Column(name, "int") for name in _SHAPE],
        Column("dtype", "str"),
        Column("slope", "float"),
        Column("intercept", "float"),
        *[Column(name, "float") for name in _AFFINE],
        *[Column(name, "float") for name in _SPACING],
        Column("axcodes", "str"),
        Column("source_axcodes", "str"),
        Column("header", "bytes"),
        Column("source", "str"),
        Column("source_hash", "str"),
        Column("content_hash", "str"),
        Column("recipe", "str"),
        *[Column(name, "float") for name in _STATISTICS],
        Column("nonfinite", "int"),
        Column("nonzero", "int"),
        Column("occupied", "bytes"),
    ],
    "foreground": [
        Column("obs_id", "str"),
        Column("class", "int"),
        Column("voxels", "int"),
        Column("coordinates", "bytes"),
    ],
}


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection's row.

    Attributes:
        id: Name on disk.
        name: Name for users.
        kind: ``"image"`` or ``"label"``.
        recipe: What ingest was asked to do when the collection was made.
    """

    id: str
    name: str
    kind: str
    recipe: Mapping[str, Any]

    @property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Classes by name, as far as they were named: several of a region, such as nnU-Net's "whole tumor" of 1, 2 and 3."""
        named = self.recipe.get(CLASSES, {})
        return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in named.items()}

    @property
    def computed(self) -> bool:
        """Whether its volumes were computed from other ones, and not read from files."""
        return PREDICTION in self.recipe or PREPARED in self.recipe


def read_collections(store: Store, commits: Commits) -> dict[str, CollectionInfo]:
    """The collections at a version, by name."""
    rows = newest(store.table("collections").read(), commits, "collection_id")
    infos = [
        CollectionInfo(str(id_), str(name), str(kind), json.loads(recipe))
        for id_, name, kind, recipe in zip(
            rows["collection_id"], rows["name"], rows["kind"], rows["recipe"], strict=True
        )
    ]
    return {info.name: info for info in sorted(infos, key=lambda info: info.name)}


class VolumeIndex:
    """The volumes of one collection at one version, sorted by (subject, obs_id). n is their number.

    Attributes:
        info: The collection.
        uri: URI of the collection's group.
        obs_ids: (n,) str objects.
        subject_ids: (n,) str objects.
        shapes: (n, 4) int64, (X, Y, Z, T); T is 0 for 3D volumes.
        affines: (n, 4, 4) float64, voxel index to RAS mm.
        all_axcodes: (n,) str objects, axis codes of the volumes as they are stored.
        commits: (n,) uint64, the commit that wrote each volume.
        rows: (n,) uint64, each volume's row in the ``obs`` table.
    """

    _PER_VOLUME = (
        "obs_ids",
        "subject_ids",
        "shapes",
        "affines",
        "all_axcodes",
        "commits",
        "rows",
        "_dtypes",
        "_uris",
        "_slopes",
        "_intercepts",
    )

    def __init__(self, info: CollectionInfo, uri: str, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        self.info = info
        self.uri = uri
        order = np.lexsort((rows["obs_id"].astype(str), rows["obs_subject_id"].astype(str)))
        # Of 100,000 volumes each byte counts: equal texts are one object, and what is on disk only is kept as bytes.
        self.obs_ids = rows["obs_id"][order]
        self.subject_ids = _shared(rows["obs_subject_id"][order])
        self.all_axcodes, self._dtypes = (_once(_shared(rows[name][order])) for name in ("axcodes", "dtype"))
        self._uris = np.array([uri.encode() for uri in rows["uri"][order].tolist()], np.bytes_)
        self._slopes, self._intercepts = _once(rows["slope"][order]), _once(rows["intercept"][order])
        self.commits: npt.NDArray[np.uint64] = _once(rows["commit"][order])
        self.rows: npt.NDArray[np.uint64] = rows["row"][order]
        self.shapes: npt.NDArray[np.int64] = np.stack([rows[name][order] for name in _SHAPE], axis=1)
        self.affines: npt.NDArray[np.float64] = np.zeros((len(self), 4, 4))
        for number, name in enumerate(_AFFINE):
            self.affines[:, number // 4, number % 4] = rows[name][order]
        self.affines[:, 3, 3] = 1.0

    def __len__(self) -> int:
        return len(self.obs_ids)

    @cached_property
    def _by_subject(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, subject in enumerate(self.subject_ids.tolist()):
            places.setdefault(subject, []).append(place)
        return places

    @cached_property
    def _by_obs_id(self) -> dict[str, int]:
        return {obs_id: place for place, obs_id in enumerate(self.obs_ids.tolist())}

    def __contains__(self, obs_id: object) -> bool:
        return obs_id in self._by_obs_id

    def of_subject(self, subject: str) -> list[int]:
        """Places of a subject's volumes; empty when it has none."""
        return self._by_subject.get(subject, [])

    def only(self, subject: str) -> int | None:
        """Place of a subject's volume; None when it has none.

        Raises:
            KeyNotFoundError: It has several, and which one is meant is not for us to guess.
        """
        places = self.of_subject(subject)
        if len(places) > 1:
            names = ", ".join(repr(str(self.obs_ids[place])) for place in places[:5])
            raise KeyNotFoundError(
                f"subject {subject!r} has {len(places)} volumes in collection {self.info.name!r}: {names}{', ...' if places[5:] else ''}; "
                "one for each subject is needed: choose other subjects (subjects=, or a selection such as store.loc[[...]]), or ingest "
                "into a new store with a narrower selection, such as DicomSource(root, description=..., select=...)"
            )
        return places[0] if places else None

    def place(self, obs_id: str) -> int:
        """Place of a volume.

        Raises:
            KeyNotFoundError: No such volume.
        """
        try:
            return self._by_obs_id[obs_id]
        except KeyError:
            raise KeyNotFoundError(f"collection {self.info.name!r} has no volume {obs_id!r}") from None

    def axcodes(self, place: int) -> str:
        """Axis codes of the volume as it is stored, such as ``"RAS"``."""
        return str(self.all_axcodes[place])

    def subset(self, places: npt.NDArray[np.int64] | Sequence[int]) -> VolumeIndex:
        """Only the volumes at some places."""
        chosen = np.asarray(places, np.int64)
        index = VolumeIndex.__new__(VolumeIndex)
        index.info, index.uri = self.info, self.uri
        for name in self._PER_VOLUME:
            setattr(index, name, getattr(self, name)[chosen])
        return index

    def dtypes(self, places: npt.NDArray[np.int64]) -> list[str]:
        """The distinct stored dtypes of some volumes."""
        return sorted(set(self._dtypes[places].tolist()))

    def columns(self, places: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """What locates some volumes, as arrays without Python objects: ``uri`` (relative to :attr:`uri`), ``obs_id``, ``shape`` (n, 4),
        ``dtype``, ``slope``, ``intercept``."""
        return {
            "uri": self._uris[places].astype(np.str_),
            "obs_id": self.obs_ids[places].astype(np.str_),
            "shape": self.shapes[places],
            "dtype": self._dtypes[places].astype(np.str_),
            "slope": self._slopes[places].astype(np.float64),
            "intercept": self._intercepts[places].astype(np.float64),
        }

    def ref(self, place: int) -> VolumeRef:
        """Locator of the volume at ``place``."""
        x, y, z, t = self.shapes[place].tolist()
        return VolumeRef(
            uri=join(self.uri, self._uris[place].decode()),
            shape=(x, y, z, t) if t else (x, y, z),
            dtype=self._dtypes[place],
            slope=float(self._slopes[place]),
            intercept=float(self._intercepts[place]),
            obs_id=self.obs_ids[place],
            obs_subject_id=self.subject_ids[place],
            collection=self.info.name,
        )


def _shared(texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same texts, of which equal ones are one object: also those of other columns and tables."""
    result = np.empty(len(texts), dtype=object)
    result[:] = list(map(sys.intern, texts.tolist()))
    return result


def _once(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values, held once where all are equal."""
    same = len(values) > 1 and bool((values == values[0]).all())
    return np.broadcast_to(values[:1].copy(), values.shape) if same else values


def read_index(store: Store, info: CollectionInfo, commits: Commits) -> VolumeIndex:
    """The volumes of a collection at a version."""
    rows = newest(store.table("c", info.id, "obs").read(_INDEX), commits, "obs_id")
    index = VolumeIndex(info, store.collection_uri(info.id), rows)
    if len(index) >= _MANY:
        del rows
        trim()  # what TileDB read into is as large as the index
    return index


def pack_occupied(masks: Sequence[npt.NDArray[np.bool_]]) -> bytes:
    """The column ``occupied`` of three masks (X,), (Y,), (Z,): which slices across each axis are not empty."""
    return b"".join(np.packbits(mask).tobytes() for mask in masks)


def occupied_slices(data: bytes, shape: Sequence[int], axis: int) -> npt.NDArray[np.bool_]:
    """(n,) which slices across ``axis`` of a volume of spatial ``shape`` are not empty, from its column ``occupied``."""
    lengths = [-(-int(n) // 8) for n in shape[:3]]
    start = sum(lengths[:axis])
    part = np.frombuffer(data[start : start + lengths[axis]], np.uint8)
    return np.unpackbits(part, count=int(shape[axis])).astype(np.bool_)


def obs_row(
    *,
    shape: Sequence[int],
    affine: npt.NDArray[np.float64],
    spacing: Sequence[float],
    statistics: Mapping[str, float],
    **columns: Any,
) -> dict[str, Any]:
    """One row of an ``obs`` table; ``columns`` are the ones that are stored as they are."""
    return {
        **columns,
        **dict(zip(_SHAPE, [*(int(n) for n in shape), 0][:4], strict=True)),
        **dict(zip(_AFFINE, np.asarray(affine, np.float64)[:3].ravel().tolist(), strict=True)),
        **dict(zip(_SPACING, spacing, strict=True)),
        **statistics,
    }


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows of one table as its columns, for :meth:`~radioloader.storage.store.Transaction.append`; None where a row has no value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def origin_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that rows of an ``obs`` table have besides those that every volume has: what is known of where they come from."""
    standard = {column.name for column in COLLECTION_TABLES["obs"]}
    kinds = {float: "float", str: "str", bytes: "bytes"}
    found = {
        name: Column(name, kinds[type(value)], nullable=not isinstance(value, float))
        for row in rows
        for name, value in row.items()
        if name not in standard and value is not None
    }
    return list(found.values())
