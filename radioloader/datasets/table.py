"""Which volumes a dataset reads: subjects and, for each, one volume of every collection. Checked when it is made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from radioloader.config import StorageConfig
from radioloader.errors import ConfigError, GridMismatchError, KeyNotFoundError, ShapeError
from radioloader.geometry import grid_distance
from radioloader.storage.catalog import VolumeIndex
from radioloader.storage.snapshot import Snapshot
from radioloader.types import Triple, VolumeRef

__all__ = ["RESERVED", "HasSnapshot", "SubjectTable", "snapshot_of"]

RESERVED = ("image", "label", "affine", "location", "obs_subject_id", "obs_id")
"""Keys of a sample that targets cannot take."""


@runtime_checkable
class HasSnapshot(Protocol):
    """An open store or a selection of its subjects, such as a RadiObject."""

    snapshot: Snapshot

    @property
    def obs_subject_ids(self) -> list[str]: ...


Store = str | os.PathLike[str] | HasSnapshot


def snapshot_of(store: Store, config: StorageConfig | None = None) -> tuple[Snapshot, list[str]]:
    """The snapshot that ``store`` stands for, and its subjects."""
    if isinstance(store, HasSnapshot):
        return store.snapshot, store.obs_subject_ids
    if isinstance(store, str | os.PathLike):
        snapshot = Snapshot.open(store, config=config)
        return snapshot, snapshot.subject_ids
    raise ConfigError(f"store must be a URI or an open store, got {type(store).__name__}")


class SubjectTable:
    """n subjects, C image collections, perhaps a label collection.

    Attributes:
        subjects: (n,) ids.
        shapes: (n, 3) int64, spatial shape of each subject's grid.
        affines: (n, 4, 4) float64 of the first image.
        targets: Values of each target, (n,).

    Args:
        snapshot: The store.
        available: Subjects of the store, or of the selection that was given.
        image: Image collections.
        label: Label collection.
        targets: Column of ``obs_meta`` by name in the sample.
        subjects: Which subjects, in this order; None takes all.
        tolerance_mm: How far apart the collections' grids may lie.

    Raises:
        KeyNotFoundError: An unknown collection, subject or column, or a subject without one of the volumes.
        GridMismatchError: Collections of a subject differ in shape or affine.
        ShapeError: Subjects differ in their number of channels.
        ConfigError: No subject, or a target that is missing for a subject.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        available: Sequence[str],
        *,
        image: Sequence[str],
        label: str | None,
        targets: Mapping[str, str],
        subjects: Sequence[str] | None,
        tolerance_mm: float,
    ) -> None:
        self.subjects = _choose(snapshot, available, subjects)
        self._indexes = [snapshot.index(name) for name in [*image, *([label] if label is not None else [])]]
        self._has_label = label is not None
        self._places = np.stack([self._find(index) for index in self._indexes], axis=1)
        self.shapes: npt.NDArray[np.int64] = self._indexes[0].shapes[self._places[:, 0], :3]
        self.affines: npt.NDArray[np.float64] = self._indexes[0].affines[self._places[:, 0]]
        self._check_grids(tolerance_mm)
        channels = np.stack(
            [np.maximum(i.shapes[p, 3], 1) for i, p in zip(self._indexes, self._places.T, strict=True)], axis=1
        )
        self.image_channels = self._uniform_channels(channels[:, : len(image)].sum(axis=1), "image")
        self.label_channels = self._uniform_channels(channels[:, -1], "label") if self._has_label else 0
        self.targets = {name: self._target(snapshot, column) for name, column in targets.items()}

    def __len__(self) -> int:
        return len(self.subjects)

    def images(self, volume: int) -> list[VolumeRef]:
        """The image volumes of a subject, in the order of the channels."""
        count = len(self._indexes) - self._has_label
        return [
            index.ref(int(place)) for index, place in zip(self._indexes[:count], self._places[volume], strict=False)
        ]

    def label(self, volume: int) -> VolumeRef:
        """The label volume of a subject."""
        return self._indexes[-1].ref(int(self._places[volume, -1]))

    def shape(self, volume: int) -> Triple:
        """Spatial shape (X, Y, Z) of a subject's grid."""
        x, y, z = self.shapes[volume].tolist()
        return (x, y, z)

    def obs_id(self, volume: int) -> str:
        """obs_id of a subject's first image: what its random streams are keyed by."""
        return str(self._indexes[0].obs_ids[self._places[volume, 0]])

    def axcodes(self, volume: int) -> str:
        """Axis codes of a subject's grid."""
        return self._indexes[0].axcodes(int(self._places[volume, 0]))

    def image_dtypes(self) -> dict[str, VolumeRef]:
        """The distinct dtypes of image values, each with a volume that has it."""
        return self._dtypes(range(len(self._indexes) - self._has_label))

    def label_dtypes(self) -> dict[str, VolumeRef]:
        """The distinct dtypes of label values, each with a volume that has it."""
        return self._dtypes([len(self._indexes) - 1])

    def statistic(self, snapshot: Snapshot, column: int, name: str) -> npt.NDArray[Any]:
        """(n,) a statistic of ingest, such as ``stat_max``, of each subject's volume in image collection number ``column``."""
        return snapshot.detail(self._indexes[column].info.name, name)[self._places[:, column]]

    def _dtypes(self, columns: Sequence[int]) -> dict[str, VolumeRef]:
        found: dict[str, VolumeRef] = {}
        for column in columns:
            index, places = self._indexes[column], self._places[:, column]
            for dtype, place in index.value_dtypes(places).items():
                found.setdefault(dtype, index.ref(place))
        return found

    def _find(self, index: VolumeIndex) -> npt.NDArray[np.int64]:
        places = []
        missing = []
        for subject in self.subjects:
            found = index.of_subject(subject)
            if found:
                places.append(found[0])
            else:
                missing.append(subject)
        if missing:
            raise KeyNotFoundError(
                f"collection {index.info.name!r} has no volume of {len(missing)} of {len(self.subjects)} subjects, such as {missing[:3]}; "
                "choose subjects that have one (subjects=), or ingest what is missing"
            )
        return np.array(places, dtype=np.int64)

    def _check_grids(self, tolerance_mm: float) -> None:
        first, places = self._indexes[0], self._places
        for column, index in enumerate(self._indexes[1:], start=1):
            for volume in range(len(self)):
                a, b = first.shapes[places[volume, 0], :3], index.shapes[places[volume, column], :3]
                pair = f"subject {self.subjects[volume]!r}: collections {first.info.name!r} and {index.info.name!r} are not on one grid"
                if (a != b).any():
                    raise GridMismatchError(
                        f"{pair}: shapes {tuple(a.tolist())} and {tuple(b.tolist())}; resample one of them before ingest"
                    )
                x, y = first.affines[places[volume, 0]], index.affines[places[volume, column]]
                if not np.array_equal(x, y) and (distance := grid_distance(x, y, a.tolist())) > tolerance_mm:
                    raise GridMismatchError(
                        f"{pair}: the same voxel lies up to {distance:.4g} mm apart, allowed are {tolerance_mm:g} mm; resample one of them "
                        "before ingest, or raise grid_tolerance_mm"
                    )

    def _uniform_channels(self, channels: npt.NDArray[np.int64], what: str) -> int:
        odd = np.flatnonzero(channels != channels[0])
        if odd.size:
            raise ShapeError(
                f"subjects {self.subjects[0]!r} and {self.subjects[odd[0]]!r} have {channels[0]} and {channels[odd[0]]} {what} "
                "channels (time points); choose subjects with the same number"
            )
        return int(channels[0])

    def _target(self, snapshot: Snapshot, column: str) -> npt.NDArray[Any]:
        place = {subject: i for i, subject in enumerate(snapshot.subject_ids)}
        values = snapshot.metadata([column])[column][[place[subject] for subject in self.subjects]]
        if values.dtype.kind == "M":
            texts: npt.NDArray[Any] = np.datetime_as_string(values, unit="auto").astype(object)
            texts[np.isnat(values)] = None
            values = texts
        missing = [
            subject
            for subject, value in zip(self.subjects, values.tolist(), strict=True)
            if value is None or value != value
        ]
        if missing:
            raise ConfigError(
                f"target {column!r} is missing for {len(missing)} subjects, such as {missing[:3]}; choose subjects that have it"
            )
        if values.dtype == object and not isinstance(values[0], str):
            values = np.array(values.tolist())
        return values


def _choose(snapshot: Snapshot, available: Sequence[str], subjects: Sequence[str] | None) -> list[str]:
    subjects = [subjects] if isinstance(subjects, str) else subjects
    chosen = list(available) if subjects is None else [str(subject) for subject in subjects]
    unknown = sorted(set(chosen) - set(available))
    if unknown:
        raise KeyNotFoundError(
            f"{snapshot.store.uri} has no subjects {unknown[:3]} ({len(unknown)} of {len(chosen)} are unknown)"
        )
    twice = [subject for subject, count in Counter(chosen).items() if count > 1]
    if twice:
        raise ConfigError(f"subjects names a subject more than once: {twice[:3]}")
    if not chosen:
        raise ConfigError(f"there is no subject to read in {snapshot.store.uri}")
    return chosen
