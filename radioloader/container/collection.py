"""A collection of volumes, such as all T1w images of a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.container.describe import collection_html
from radioloader.container.putting import NewVolumes, as_kinds, put_volumes
from radioloader.container.tables import Obs
from radioloader.container.views import Indexer, as_places, draw
from radioloader.container.volume import Volume
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.formats.orientation import check_orientation
from radioloader.storage.catalog import CollectionInfo
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

__all__ = ["VolumeCollection"]


class VolumeCollection:
    """Volumes of one collection, sorted by subject. Lazy: selecting reads nothing.

    ``iloc[i]`` gives a :class:`Volume` by place, ``loc[id]`` by obs_id or, where a subject has one volume, by subject id; slices and
    lists give collections.
    """

    def __init__(
        self, snapshot: Snapshot, name: str, reader: VolumeReader, places: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.snapshot = snapshot
        self.name = name
        self._reader = reader
        self._index = snapshot.index(name)
        self._chosen = places

    @classmethod
    def from_volumes(
        cls,
        uri: str | os.PathLike[str],
        name: str,
        volumes: NewVolumes,
        *,
        kind: str | None = None,
        orientation: str | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        config: StorageConfig | None = None,
    ) -> VolumeCollection:
        """Put arrays and files into a collection of a store, several at once. What is there already with the same content is skipped.

        Args:
            uri: The store, which is created where there is none.
            name: The collection.
            volumes: Of :meth:`Volume.from_numpy` and its relatives; a mapping says the subject of each.
            kind: ``"image"`` or ``"label"``; None goes by the name (``seg``, ``label``, ``mask``, ...).
            orientation: Axis codes such as ``"RAS"`` that voxels are turned to.
            workers: Of arrays threads, of files processes; None takes the cores that this process may use.
            executor: Runs them instead.
            config: Tiles, compression and access; None takes the process's defaults.

        Returns:
            The collection, whole.

        Raises:
            ConfigError: A volume has no subject, or two have the same place; ``kind`` is none.
            IngestError: Some could not be written; the others are in the store.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        found = as_kinds([name], None)[name] if kind is None else kind
        if found not in ("image", "label"):
            raise ConfigError(f"kind={kind!r} is not 'image' or 'label'")
        turned = None if orientation is None else check_orientation(orientation)
        store = Store.open_or_create(uri, config=config)
        put_volumes(store, {name: volumes}, {name: found}, workers=workers, executor=executor, orientation=turned)
        return cls(Snapshot(store), name, VolumeReader(store.config))

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """(n,) which of the collection's volumes these are, by their place among all that the store has of it."""
        return np.arange(len(self._index)) if self._chosen is None else self._chosen

    @property
    def info(self) -> CollectionInfo:
        """The collection's row in the store."""
        return self._index.info

    @property
    def kind(self) -> str:
        """``"image"`` or ``"label"``."""
        return self._index.info.kind

    @property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Of labels: the voxel values of each class by its name, as far as classes were named; several of a region."""
        return self._index.info.classes

    @property
    def obs_ids(self) -> list[str]:
        """Ids of the volumes."""
        ids = self._index.obs_ids
        chosen: list[str] = (ids if self._chosen is None else ids[self._chosen]).tolist()
        return chosen

    @property
    def obs_subject_ids(self) -> list[str]:
        """Subject of each volume."""
        ids = self._index.subject_ids
        chosen: list[str] = (ids if self._chosen is None else ids[self._chosen]).tolist()
        return chosen

    @property
    def subjects(self) -> list[str]:
        """The subjects that have volumes here, each once."""
        return list(dict.fromkeys(self.obs_subject_ids))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each volume, (X, Y, Z) or (X, Y, Z, T)."""
        shapes = self._index.shapes if self._chosen is None else self._index.shapes[self._chosen]
        return [(x, y, z, t) if t else (x, y, z) for x, y, z, t in shapes.tolist()]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that all volumes have, (X, Y, Z) or (X, Y, Z, T); None where they differ, or there are none."""
        shapes = np.unique(self._index.shapes if self._chosen is None else self._index.shapes[self._chosen], axis=0)
        if len(shapes) != 1:
            return None
        shape = tuple(shapes[0].tolist())
        return shape if shape[3] else shape[:3]

    @property
    def is_uniform(self) -> bool:
        """Whether all volumes have one shape."""
        return self.shape is not None

    @property
    def obs(self) -> Obs:
        """What the catalog says of these volumes: shape, spacing, source, hashes, statistics."""
        return Obs(self.snapshot, self.name, self.places)

    def __len__(self) -> int:
        return len(self._index if self._chosen is None else self._chosen)

    def __iter__(self) -> Iterator[Volume]:
        return (self._volume(place) for place in self.places.tolist())

    @property
    def iloc(self) -> Indexer[Volume, VolumeCollection]:
        """Selection by place: an integer gives a volume; a slice, a list or a boolean mask a collection."""
        return Indexer(len(self), self._nth, self._subset)

    @property
    def loc(self) -> Indexer[Volume, VolumeCollection]:
        """Selection by obs_id, or by the id of a subject that has one volume here."""
        return Indexer(len(self), self._nth, self._subset, find=self._find)

    def sel(
        self, *, subject: str | Iterable[str] | None = None, obs_id: str | Iterable[str] | None = None
    ) -> VolumeCollection:
        """The volumes of some subjects, or of some ids, or of both; always a collection, in the order of this one.

        Args:
            subject: Id of a subject, or several; all of its volumes are taken.
            obs_id: Id of a volume, or several.

        Raises:
            KeyNotFoundError: Nothing here has such an id.
        """
        kept = np.ones(len(self), np.bool_)
        for wanted, ids, what in ((subject, self.obs_subject_ids, "subject"), (obs_id, self.obs_ids, "volume")):
            if wanted is not None:
                chosen = {wanted} if isinstance(wanted, str) else set(wanted)
                for id_ in sorted(chosen.difference(ids)):
                    raise KeyNotFoundError(f"collection {self.name!r} has no {what} {id_!r}")
                kept &= np.array([id_ in chosen for id_ in ids], np.bool_)
        return self._subset(np.flatnonzero(kept))

    def filter(self, expression: str) -> VolumeCollection:
        """The volumes that an expression over the columns of :attr:`obs` selects, such as ``"nz > 100 and spacing_z <= 1.5"``; see
        :meth:`RadiObject.filter <radioloader.RadiObject.filter>`.

        Raises:
            ConfigError: The expression cannot be understood, or compares a column with a value of another kind.
            KeyNotFoundError: No such column.
        """
        chosen = self.snapshot.volumes_where(self.name, expression)
        return self._of(np.flatnonzero(chosen) if self._chosen is None else self._chosen[chosen[self._chosen]])

    def head(self, n: int = 5) -> VolumeCollection:
        """The first ``n`` volumes."""
        return self._subset(range(min(as_whole(n, "n", minimum=0), len(self))))

    def tail(self, n: int = 5) -> VolumeCollection:
        """The last ``n`` volumes."""
        return self._subset(range(max(0, len(self) - as_whole(n, "n", minimum=0)), len(self)))

    def sample(self, n: int = 5, *, seed: int | None = None) -> VolumeCollection:
        """``n`` volumes, drawn without replacement, in the order in which they are here; see :meth:`RadiObject.sample`."""
        return self._subset(draw(len(self), n, seed))

    def groupby_subject(self) -> Iterator[tuple[str, VolumeCollection]]:
        """Each subject that has volumes here, with them."""
        positions: dict[str, list[int]] = {}
        for position, subject in enumerate(self.obs_subject_ids):
            positions.setdefault(subject, []).append(position)
        return ((subject, self._subset(which)) for subject, which in positions.items())

    @cached_property
    def _at(self) -> dict[int, int]:
        """Position here by place in the store."""
        return {place: position for position, place in enumerate(self.places.tolist())}

    def _find(self, key: str) -> int:
        index = self._index
        chosen = self._chosen is not None
        positions = [self._at[place] for place in index.of_subject(key) if not chosen or place in self._at]
        place = index.place(key) if key in index else None
        volume = None if place is None or (chosen and place not in self._at) else self._at[place]
        if volume is not None:
            if positions and positions != [volume]:
                raise KeyNotFoundError(
                    f"{key!r} is a subject of {self.name!r} and also the obs_id of another subject's volume; choose by iloc"
                )
            return volume
        if len(positions) > 1:
            raise KeyNotFoundError(
                f"subject {key!r} has {len(positions)} volumes in {self.name!r}; choose one by its obs_id, or take all with "
                f"sel(subject={key!r})"
            )
        if not positions:
            raise KeyNotFoundError(f"collection {self.name!r} has no volume or subject {key!r}")
        return positions[0]

    def _nth(self, position: int) -> Volume:
        return self._volume(position if self._chosen is None else int(self._chosen[position]))

    def _volume(self, place: int) -> Volume:
        return Volume(self.snapshot, self.name, place, self._reader)

    def _subset(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> VolumeCollection:
        chosen = as_places(positions)
        return self._of(chosen if self._chosen is None else self._chosen[chosen])

    def _of(self, places: npt.NDArray[np.int64]) -> VolumeCollection:
        return VolumeCollection(self.snapshot, self.name, self._reader, places)

    def __getstate__(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot, "name": self.name, "reader": self._reader, "places": self._chosen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        shape = self.shape
        what = "mixed shapes" if shape is None else "x".join(map(str, shape))
        return f"VolumeCollection({self.name!r}, {len(self)} {self.kind}s, {what if len(self) else 'none'})"

    def _repr_html_(self) -> str:
        return collection_html(self)
