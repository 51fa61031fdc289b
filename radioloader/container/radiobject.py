"""A store as an object: subjects, their metadata, their collections of volumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.container.changes import Changes, Source, move_into
from radioloader.container.collection import VolumeCollection
from radioloader.container.describe import describe_html, describe_text
from radioloader.container.tables import ObsMeta
from radioloader.container.views import Indexer, as_places, draw
from radioloader.errors import KeyNotFoundError, ReadError
from radioloader.ingestion.pipeline import ingest
from radioloader.storage.problems import Problem, read_problems
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store
from radioloader.storage.versions import At

__all__ = ["RadiObject", "open_store"]

Places = npt.NDArray[np.int64]


class RadiObject(Changes):
    """Subjects of a store, at the version that it had when it was opened, or an older one. Lazy: selecting reads no voxels.

    ``store.T1w`` or ``store["T1w"]`` is a collection; ``iloc`` and ``loc`` select subjects and give RadiObjects.

    Args:
        uri: Local path or ``s3://bucket/prefix``.
        config: Access; None takes the process's defaults.
        at: An older version: its number; or a time, for the newest version of that time: ISO 8601 text or a ``datetime`` (local, where no
            zone is given), or seconds since 1970 (float), as :meth:`history` has them. None takes the newest version.

    Raises:
        StoreNotFoundError, NotAStoreError, StoreVersionError: The store cannot be opened.
        KeyNotFoundError: It has no such version, or did not exist then.
        ConfigError: ``at`` is neither a version nor a time.
    """

    def __init__(
        self, uri: str | os.PathLike[str], *, config: StorageConfig | None = None, at: At | None = None
    ) -> None:
        self.snapshot = Snapshot.open(uri, config=config, at=at)
        self._reader = VolumeReader(self.snapshot.store.config)
        self._pinned = at is not None
        self._places: Places | None = None
        self._names: tuple[str, ...] | None = None

    @classmethod
    def from_images(
        cls,
        uri: str | os.PathLike[str],
        images: Mapping[str, Source],
        *,
        config: StorageConfig | None = None,
        **options: Any,
    ) -> RadiObject:
        """Ingest files, and open the store: :func:`radioloader.ingest`, whose ``options`` it takes, and :func:`radioloader.open`.

        Subjects that could not be ingested are warned of; :meth:`problems` keeps them.

        Args:
            uri: The store, which is created where there is none.
            images: Source of each collection.
            config: Tiles, compression and access; None takes the process's defaults.
            options: Of :func:`radioloader.ingest`.

        Raises:
            The errors of :func:`radioloader.ingest`.
        """
        report = ingest(uri, images, config=config, **options)
        if not report.ok:
            warnings.warn(str(report), stacklevel=2)
        return cls(uri, config=config)

    from_niftis = from_dicoms = from_images

    @classmethod
    def from_volume_collections(
        cls,
        uri: str | os.PathLike[str],
        collections: Mapping[str, VolumeCollection],
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        message: str | None = None,
        progress: bool = False,
        config: StorageConfig | None = None,
    ) -> RadiObject:
        """Make a store of collections, or selections of them, of one store or several; subjects' own columns come with them.

        Args:
            uri: The store, which is created where there is none.
            collections: The volumes by the name that the collection gets.
            workers: Processes; None takes the cores that this process may use.
            executor: Runs the subjects instead of processes of our own.
            message: What :meth:`history` says of it.
            progress: Show a progress bar on stderr.
            config: Access to the store; None takes the process's defaults.

        Raises:
            ConfigError, CatalogError: What comes does not fit what is there, or with each other.
            ReadError: A volume could not be read.
            StoreLockedError, StoreWriteError: The store cannot be written.
        """
        subjects = dict.fromkeys(subject for one in collections.values() for subject in one.obs_subject_ids)
        snapshots = {id(one.snapshot): one.snapshot for one in collections.values()}
        report = move_into(
            Store.open_or_create(uri, config=config),
            collections,
            subjects=list(subjects),
            snapshots=list(snapshots.values()),
            workers=workers,
            executor=executor,
            message=message,
            what="made of",
            progress=progress,
        )
        if not report.ok:
            raise ReadError(f"not all could be read; the others are in the store: {report}")
        return cls(uri, config=config)

    def _view(self, *, places: Places | None = None, names: tuple[str, ...] | None = None) -> RadiObject:
        """A selection of subjects (places among those of the store), or of collections."""
        view = RadiObject.__new__(RadiObject)
        view.snapshot, view._reader, view._pinned = self.snapshot, self._reader, self._pinned
        view._places = self._places if places is None else places
        view._names = self._names if names is None else names
        return view

    @property
    def uri(self) -> str:
        """Where the store lies."""
        return self.snapshot.store.uri

    @property
    def version(self) -> int:
        """The version that this shows."""
        return self.snapshot.commits.version

    @property
    def is_view(self) -> bool:
        """Whether this is a selection of the store's subjects or collections."""
        return self._places is not None or self._names is not None

    @property
    def obs_subject_ids(self) -> list[str]:
        """Ids of the subjects, sorted (or in the order of a selection)."""
        ids = self.snapshot.subject_ids
        return list(ids) if self._places is None else [ids[place] for place in self._places.tolist()]

    @property
    def collection_names(self) -> list[str]:
        """Names of the collections, sorted (or in the order of a selection)."""
        return list(self.snapshot.collections if self._names is None else self._names)

    @property
    def collections(self) -> dict[str, VolumeCollection]:
        """The collections by name."""
        return {name: self[name] for name in self.collection_names}

    @property
    def obs_meta(self) -> ObsMeta:
        """The subjects' own columns."""
        return ObsMeta(self.snapshot, self._all_places())

    def _all_places(self) -> Places:
        return np.arange(len(self.snapshot.subject_ids)) if self._places is None else self._places

    def __len__(self) -> int:
        return len(self.snapshot.subject_ids if self._places is None else self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self.obs_subject_ids)

    def __contains__(self, subject: object) -> bool:
        place = self.snapshot.subject_places.get(subject) if isinstance(subject, str) else None
        return place is not None and (self._places is None or place in self._at)

    def __getitem__(self, name: str) -> VolumeCollection:
        if not isinstance(name, str):
            raise TypeError(
                f"store[name] takes the name of a collection, got {name!r}; select subjects with iloc or loc"
            )
        if self._names is not None and name not in self._names:
            raise KeyNotFoundError(f"collection {name!r} is not among those selected: {', '.join(self._names)}")
        index = self.snapshot.index(name)
        if self._places is None:
            return VolumeCollection(self.snapshot, name, self._reader)
        ids = self.snapshot.subject_ids
        places = [place for subject in self._places.tolist() for place in index.of_subject(ids[subject])]
        return VolumeCollection(self.snapshot, name, self._reader, np.array(places, np.int64))

    def __getattr__(self, name: str) -> VolumeCollection:
        # Only reached for names that are no attributes; private ones must fail fast, or unpickling would recurse.
        if name.startswith("_") or name == "snapshot":
            raise AttributeError(name)
        try:
            return self[name]
        except KeyNotFoundError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self.collection_names if name.isidentifier())]

    @property
    def iloc(self) -> Indexer[RadiObject, RadiObject]:
        """Selection of subjects by place: an integer, a slice, a list, or a boolean mask."""
        return Indexer(len(self), lambda i: self._subset([i]), self._subset)

    @property
    def loc(self) -> Indexer[RadiObject, RadiObject]:
        """Selection of subjects by id: one, a list, a slice (both ends are part of it), or a boolean mask."""
        return Indexer(len(self), lambda i: self._subset([i]), self._subset, find=self._find)

    @cached_property
    def _at(self) -> dict[int, int]:
        """Of a selection: position by place in the store; the last one of a subject that was chosen twice."""
        assert self._places is not None
        return {place: position for position, place in enumerate(self._places.tolist())}

    def _find(self, subject: str) -> int:
        place = self.snapshot.subject_places.get(subject)
        position = place if place is None or self._places is None else self._at.get(place)
        if position is None:
            what = f"the selection from {self.uri}" if self._places is not None else self.uri
            raise KeyNotFoundError(f"{what} has no subject {subject!r}")
        return position

    def _subset(self, positions: Sequence[int] | Places) -> RadiObject:
        chosen = as_places(positions)
        return self._view(places=chosen if self._places is None else self._places[chosen])

    def head(self, n: int = 5) -> RadiObject:
        """The first ``n`` subjects."""
        return self._subset(range(min(as_whole(n, "n", minimum=0), len(self))))

    def tail(self, n: int = 5) -> RadiObject:
        """The last ``n`` subjects."""
        return self._subset(range(max(0, len(self) - as_whole(n, "n", minimum=0)), len(self)))

    def sample(self, n: int = 5, *, seed: int | None = None) -> RadiObject:
        """``n`` subjects, drawn without replacement, in the order in which they are here (all, where there are no more).

        Args:
            n: How many.
            seed: Makes the same choice again; None draws anew each time.
        """
        return self._subset(draw(len(self), n, seed))

    def filter(self, expression: str) -> RadiObject:
        """The subjects that an expression over their own columns selects, such as ``"age > 40 and sex == 'F'"``.

        Columns are compared with constants: ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in [...]``, ``not in [...]``,
        ``18 <= age < 65``; joined by ``and``, ``or``, ``not``. A column of booleans may stand alone; names that are no Python names
        stand in backticks; times are text (``"scan_date >= '2024-01-01'"``). A comparison with a missing value is neither true nor
        false, so neither it nor its opposite selects the subject; ``age is None`` does.

        Raises:
            ConfigError: The expression cannot be understood, or compares a column with a value of another kind.
            KeyNotFoundError: No such column.
        """
        chosen = self.snapshot.subjects_where(expression)
        return self._view(places=np.flatnonzero(chosen) if self._places is None else self._places[chosen[self._places]])

    def select_collections(self, names: str | Sequence[str]) -> RadiObject:
        """The same subjects with some of the collections only, in this order.

        Raises:
            KeyNotFoundError: No such collection.
        """
        chosen = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
        for name in chosen:
            if name not in self.collection_names:
                raise KeyNotFoundError(
                    f"{self.uri} has no collection {name!r}; it has {', '.join(map(repr, self.collection_names)) or 'none'}"
                )
        return self._view(names=chosen)

    def describe(self) -> str:
        """What is inside, in a few lines: subjects and their columns, collections with kind, number, dtype, shapes and spacings."""
        return describe_text(self)

    def history(self) -> list[dict[str, Any]]:
        """The store's commits, oldest first: ``version``, ``time`` (seconds since 1970), ``message``, ``changes``."""
        return self.snapshot.store.history()

    def problems(self) -> list[Problem]:
        """What ingests could not take in, at this version: subjects that failed, files that were left out, each with the reason."""
        return read_problems(self.snapshot.store, self.snapshot.commits)

    def close(self) -> None:
        """Close what is open. It opens again when it is used again."""
        self._reader.close()

    def __enter__(self) -> RadiObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "snapshot": self.snapshot,
            "reader": self._reader,
            "pinned": self._pinned,
            "places": self._places,
            "names": self._names,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.snapshot, self._reader, self._pinned = state["snapshot"], state["reader"], state["pinned"]
        self._places, self._names = state["places"], state["names"]

    def __repr__(self) -> str:
        names = ", ".join(f"{name} ({len(self[name])} {self[name].kind}s)" for name in self.collection_names)
        return f"RadiObject({self.uri!r}, {len(self)} subjects, version {self.version}: {names or 'no collections'})"

    def _repr_html_(self) -> str:
        return describe_html(self)


def open_store(uri: str | os.PathLike[str], *, config: StorageConfig | None = None, at: At | None = None) -> RadiObject:
    """Open a store for reading; public as ``radioloader.open``. See :class:`RadiObject`."""
    return RadiObject(uri, config=config, at=at)
