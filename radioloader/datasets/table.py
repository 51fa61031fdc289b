"""Which volumes a dataset reads: subjects and, for each, one volume of every collection. Checked when it is made."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from radioloader.config import StorageConfig
from radioloader.datasets.columns import Columns
from radioloader.errors import ConfigError, GridMismatchError, KeyNotFoundError, ShapeError
from radioloader.geometry import grid_distance
from radioloader.storage.catalog import VolumeIndex
from radioloader.storage.foreground import read_foreground
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.uri import join
from radioloader.types import Triple, VolumeRef

__all__ = ["RESERVED", "HasSnapshot", "SubjectTable", "snapshot_of"]

RESERVED = ("image", "label", "affine", "location", "obs_subject_id", "obs_id")
"""Keys of a sample that targets cannot take; ``label`` they can where there is no label collection."""

_KEPT_REFS = 4096


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
    """n subjects, C image collections, perhaps a label collection. All of it lies in :class:`Columns`: workers map them.

    Attributes:
        columns: The arrays; ``shapes`` (n, 3) and ``affines`` (n, 4, 4) are those of the first image.

    Args:
        snapshot: The store.
        available: Subjects of the store, or of the selection that was given.
        image: Image collections.
        label: Label collection.
        targets: Column of ``obs_meta`` by name in the sample.
        subjects: Which subjects, in this order; None takes all.
        tolerance_mm: How far apart the collections' grids may lie.
        extra: Further collections on the same grid, which positions read.

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
        extra: Sequence[str] = (),
    ) -> None:
        chosen = _choose(snapshot, available, subjects)
        self.snapshot = snapshot
        self.collections = [*image, *([label] if label is not None else []), *extra]
        self._images = len(image)
        self._has_label = label is not None
        self.targets = dict(targets)
        self._refs: dict[tuple[int, int], VolumeRef] = {}
        indexes = [snapshot.index(name) for name in self.collections]
        places = [_find(index, chosen) for index in indexes]
        self._uris = [index.uri for index in indexes]
        self._dtypes: list[str] = sorted(
            {name for index, place in zip(indexes, places, strict=True) for name in index.dtypes(place)}
        )
        arrays: dict[str, npt.NDArray[Any]] = {
            "subjects": np.array(chosen, dtype=np.str_),
            "axcodes": indexes[0].all_axcodes[places[0]].astype(np.str_),
            "affines": indexes[0].affines[places[0]],
            "shapes": indexes[0].shapes[places[0], :3],
        }
        for number, (name, index, place) in enumerate(zip(self.collections, indexes, places, strict=True)):
            part = index.columns(place)
            part["dtype"] = np.searchsorted(self._dtypes, part["dtype"]).astype(np.int8)
            part["tile"] = snapshot.tiles(name)[place]
            arrays |= {f"{key}.{number}": values for key, values in part.items()}
        self.columns = Columns(arrays)
        self._check_grids([index.affines[place] for index, place in zip(indexes, places, strict=True)], tolerance_mm)
        channels = np.stack([np.maximum(self.columns[f"shape.{k}"][:, 3], 1) for k in range(len(indexes))], axis=1)
        self.image_channels = self._uniform_channels(channels[:, : self._images].sum(axis=1), "image")
        self.label_channels = self._uniform_channels(channels[:, self._images], "label") if label is not None else 0
        self.extend({f"target.{name}": self.metadata(column, "target") for name, column in targets.items()})

    def shared(self) -> dict[str, Any]:
        """What another process on this machine makes this table of, small and picklable."""
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_refs", "snapshot", "columns")
        } | {"columns": self.columns.__getstate__()}

    @classmethod
    def from_shared(cls, snapshot: Snapshot, shared: Mapping[str, Any]) -> SubjectTable:
        """The table that :meth:`shared` described.

        Raises:
            OSError: The process that described it is gone or on another machine, or its file was cut off.
        """
        table = cls.__new__(cls)
        table.__dict__.update(shared)
        table.snapshot, table._refs = snapshot, {}
        table.columns = Columns.__new__(Columns)
        table.columns.__setstate__(shared["columns"])
        return table

    def extend(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add columns, before the table is shared."""
        if arrays:
            self.columns = Columns({**self.columns, **arrays})

    def __len__(self) -> int:
        return len(self.columns["subjects"])

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """(n, 3) int64, spatial shape of each subject's grid."""
        return self.columns["shapes"]

    def images(self, volume: int) -> list[VolumeRef]:
        """The image volumes of a subject, in the order of the channels."""
        return [self._ref(volume, column) for column in range(self._images)]

    def label(self, volume: int) -> VolumeRef:
        """The label volume of a subject."""
        return self._ref(volume, self._images)

    def extra(self, volume: int, collection: str) -> VolumeRef:
        """The volume of a subject in one of the further collections."""
        return self._ref(volume, self.collections.index(collection))

    def _ref(self, volume: int, number: int) -> VolumeRef:
        ref = self._refs.get((volume, number))
        if ref is None:
            part = {
                key: self.columns[f"{key}.{number}"][volume]
                for key in ("uri", "shape", "dtype", "slope", "intercept", "obs_id", "tile")
            }
            shape = tuple(part["shape"].tolist())
            ref = VolumeRef(
                uri=join(self._uris[number], str(part["uri"])),
                shape=shape if shape[3] else shape[:3],
                dtype=self._dtypes[int(part["dtype"])],
                slope=float(part["slope"]),
                intercept=float(part["intercept"]),
                obs_id=str(part["obs_id"]),
                obs_subject_id=self.subject(volume),
                collection=self.collections[number],
                tile=tuple(part["tile"].tolist()),
            )
            if len(self._refs) >= _KEPT_REFS:
                self._refs.clear()
            self._refs[volume, number] = ref
        return ref

    def shape(self, volume: int) -> Triple:
        """Spatial shape (X, Y, Z) of a subject's grid."""
        x, y, z = self.columns["shapes"][volume].tolist()
        return (x, y, z)

    def subject(self, volume: int) -> str:
        """Id of a subject."""
        return str(self.columns["subjects"][volume])

    def obs_id(self, volume: int) -> str:
        """obs_id of a subject's first image: what its random streams are keyed by."""
        return str(self.columns["obs_id.0"][volume])

    def axcodes(self, volume: int) -> str:
        """Axis codes of a subject's grid."""
        return str(self.columns["axcodes"][volume])

    def image_dtypes(self) -> dict[str, VolumeRef]:
        """The distinct dtypes of image values, each with a volume that has it."""
        return self._value_dtypes(range(self._images))

    def label_dtypes(self) -> dict[str, VolumeRef]:
        """The distinct dtypes of label values, each with a volume that has it."""
        return self._value_dtypes([self._images])

    def details(self, number: int, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """(n,) columns of what ingest noted, such as ``stat_max``, of each subject's volume in collection ``number``."""
        name = self.collections[number]
        index = self.snapshot.index(name)
        place = np.array([index.place(obs_id) for obs_id in self.columns[f"obs_id.{number}"].tolist()], dtype=np.int64)
        return {key: values[place] for key, values in self.snapshot.details(name, names).items()}

    def foreground(self) -> dict[str, npt.NDArray[Any]]:
        """The label's foreground index as columns; see :func:`~radioloader.storage.foreground.read_foreground`.

        Raises:
            ConfigError: A label has none.
        """
        number = self._images
        found = read_foreground(
            self.snapshot.store,
            self.snapshot.index(self.collections[number]),
            self.columns[f"obs_id.{number}"].tolist(),
        )
        lacking = np.flatnonzero(np.diff(found["foreground.first"]) == 0)
        if lacking.size:
            raise ConfigError(
                f"{self.label(int(lacking[0])).describe()} has no foreground index ({lacking.size} of {len(self)} have none): it holds "
                f"values that are not whole numbers, or too many of them; choose other positions, or ingest a label map"
            )
        return found

    def metadata(self, column: str, what: str = "column") -> npt.NDArray[Any]:
        """(n,) values of a column of ``obs_meta``: numbers, or text.

        Raises:
            ConfigError: It is missing for a subject.
        """
        place = {subject: i for i, subject in enumerate(self.snapshot.subject_ids)}
        subjects = self.columns["subjects"].tolist()
        values = self.snapshot.metadata([column])[column][[place[subject] for subject in subjects]]
        if values.dtype.kind == "M":
            texts: npt.NDArray[Any] = np.datetime_as_string(values, unit="auto").astype(object)
            texts[np.isnat(values)] = None
            values = texts
        missing = [s for s, value in zip(subjects, values.tolist(), strict=True) if value is None or value != value]
        if missing:
            raise ConfigError(
                f"{what} {column!r} is missing for {len(missing)} subjects, such as {missing[:3]}; choose subjects that have it "
                "(subjects=, or a selection such as store.loc[[...]])"
            )
        return np.array(values.tolist()) if values.dtype == object else values

    def fingerprint(self) -> str:
        """Digest of which volumes these are: their ids and stored arrays."""
        digest = hashlib.sha256()
        for number in range(len(self.collections)):
            for key in ("obs_id", "uri"):
                digest.update("\x1f".join(self.columns[f"{key}.{number}"].tolist()).encode())
        return digest.hexdigest()[:32]

    def _value_dtypes(self, numbers: Sequence[int] | range) -> dict[str, VolumeRef]:
        found: dict[str, VolumeRef] = {}
        for number in numbers:
            scaled = (self.columns[f"slope.{number}"] != 1.0) | (self.columns[f"intercept.{number}"] != 0.0)
            codes = np.where(scaled, -1, self.columns[f"dtype.{number}"])
            for code, first in zip(*np.unique(codes, return_index=True), strict=True):
                found.setdefault("float64" if code < 0 else self._dtypes[int(code)], self._ref(int(first), number))
        return found

    def _check_grids(self, affines: Sequence[npt.NDArray[np.float64]], tolerance_mm: float) -> None:
        first = self.columns["shapes"]
        for number, name in enumerate(self.collections[1:], start=1):
            shapes = self.columns[f"shape.{number}"][:, :3]
            differ = (first != shapes).any(axis=1) | (affines[0] != affines[number]).any(axis=(1, 2))
            for volume in np.flatnonzero(differ).tolist():
                pair = f"subject {self.subject(volume)!r}: collections {self.collections[0]!r} and {name!r} are not on one grid"
                a, b = self.shape(volume), tuple(shapes[volume].tolist())
                if a != b:
                    raise GridMismatchError(f"{pair}: shapes {a} and {b}; resample one of them before ingest")
                distance = grid_distance(affines[0][volume], affines[number][volume], a)
                if distance > tolerance_mm:
                    raise GridMismatchError(
                        f"{pair}: the same voxel lies up to {distance:.4g} mm apart, allowed are {tolerance_mm:g} mm; resample one of them "
                        "before ingest, or raise grid_tolerance_mm"
                    )

    def _uniform_channels(self, channels: npt.NDArray[np.int64], what: str) -> int:
        odd = np.flatnonzero(channels != channels[0])
        if odd.size:
            raise ShapeError(
                f"subjects {self.subject(0)!r} and {self.subject(int(odd[0]))!r} have {channels[0]} and {channels[odd[0]]} {what} "
                "channels (time points); choose subjects with the same number"
            )
        return int(channels[0])


def _find(index: VolumeIndex, subjects: Sequence[str]) -> npt.NDArray[np.int64]:
    places = []
    missing = []
    for subject in subjects:
        place = index.only(subject)
        if place is None:
            missing.append(subject)
        else:
            places.append(place)
    if missing:
        raise KeyNotFoundError(
            f"collection {index.info.name!r} has no volume of {len(missing)} of {len(subjects)} subjects, such as {missing[:3]}; "
            f"choose those that have one, such as subjects=store[{index.info.name!r}].obs_subject_ids, or ingest what is missing"
        )
    return np.array(places, dtype=np.int64)


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
