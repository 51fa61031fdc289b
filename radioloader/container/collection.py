"""A collection of volumes, such as all T1w images of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from radioloader.container.views import Indexer
from radioloader.container.volume import Volume
from radioloader.errors import KeyNotFoundError
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VolumeCollection"]


class VolumeCollection:
    """Volumes of one collection, sorted by subject. Lazy: selecting reads nothing.

    ``iloc[i]`` gives a :class:`Volume` by place, ``loc[id]`` by obs_id or, where a subject has one volume, by subject id; slices and
    lists give collections.
    """

    def __init__(self, snapshot: Snapshot, name: str, reader: VolumeReader, places: list[int] | None = None) -> None:
        self.snapshot = snapshot
        self.name = name
        self._reader = reader
        self._index = snapshot.index(name)
        self._places = list(range(len(self._index))) if places is None else places

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
        return [str(self._index.obs_ids[place]) for place in self._places]

    @property
    def obs_subject_ids(self) -> list[str]:
        """Subject of each volume."""
        return [str(self._index.subject_ids[place]) for place in self._places]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each volume, (X, Y, Z) or (X, Y, Z, T)."""
        return [self._index.ref(place).shape for place in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Volume]:
        return (self._volume(place) for place in self._places)

    @property
    def iloc(self) -> Indexer[Volume, VolumeCollection]:
        """Selection by place."""
        return Indexer(len(self), lambda i: self._volume(self._places[i]), self._subset)

    @property
    def loc(self) -> Indexer[Volume, VolumeCollection]:
        """Selection by obs_id or subject id."""
        return Indexer(len(self), lambda i: self._volume(self._places[i]), self._subset, find=self._find)

    def _find(self, key: str) -> int:
        places = [i for i, subject in enumerate(self.obs_subject_ids) if subject == key]
        volume = self._place_of_obs_id.get(key)
        if volume is not None:
            if places and places != [volume]:
                raise KeyNotFoundError(
                    f"{key!r} is a subject of {self.name!r} and also the obs_id of another subject's volume; choose by iloc"
                )
            return volume
        if len(places) > 1:
            raise KeyNotFoundError(
                f"subject {key!r} has {len(places)} volumes in {self.name!r}; choose one by its obs_id"
            )
        if not places:
            raise KeyNotFoundError(f"collection {self.name!r} has no volume or subject {key!r}")
        return places[0]

    @property
    def _place_of_obs_id(self) -> dict[str, int]:
        if not hasattr(self, "_by_obs_id"):
            self._by_obs_id = {obs_id: i for i, obs_id in enumerate(self.obs_ids)}
        return self._by_obs_id

    def _volume(self, place: int) -> Volume:
        return Volume(self.snapshot, self.name, place, self._reader)

    def _subset(self, positions: list[int]) -> VolumeCollection:
        return VolumeCollection(self.snapshot, self.name, self._reader, [self._places[i] for i in positions])

    def read_obs(self) -> pd.DataFrame:
        """The catalog's rows of these volumes, one row a volume."""
        import pandas as pd

        columns = [
            name
            for name in self.snapshot.store.table("c", self._index.info.id, "obs").columns()
            if name not in ("header", "uri", "dicom")
        ]
        return pd.DataFrame(
            {name: self.snapshot.detail(self.name, name)[np.array(self._places, np.int64)] for name in columns}
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot, "name": self.name, "reader": self._reader, "places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        shapes = sorted(set(self.shapes)) if len(self) <= 1000 else []
        what = "x".join(map(str, shapes[0])) if len(shapes) == 1 else "mixed shapes"
        return f"VolumeCollection({self.name!r}, {len(self)} {self.kind}s, {what})"
