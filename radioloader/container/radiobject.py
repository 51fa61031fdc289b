"""A store as an object: subjects, their metadata, their collections of volumes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from radioloader.config import StorageConfig
from radioloader.container.collection import VolumeCollection
from radioloader.container.views import Indexer
from radioloader.errors import KeyNotFoundError
from radioloader.storage.problems import Problem, read_problems
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import USER_PREFIX, Snapshot
from radioloader.storage.versions import At

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ObsMeta", "RadiObject", "open_store"]


class RadiObject:
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
        self._subjects: list[str] | None = None

    @classmethod
    def _view(cls, parent: RadiObject, subjects: list[str]) -> RadiObject:
        view = cls.__new__(cls)
        view.snapshot, view._reader, view._subjects = parent.snapshot, parent._reader, subjects
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
    def obs_subject_ids(self) -> list[str]:
        """Ids of the subjects, sorted (or in the order of a selection)."""
        return list(self.snapshot.subject_ids if self._subjects is None else self._subjects)

    @property
    def collection_names(self) -> list[str]:
        """Names of the collections, sorted."""
        return list(self.snapshot.collections)

    @property
    def obs_meta(self) -> ObsMeta:
        """The subjects' own columns."""
        return ObsMeta(self.snapshot, self._subjects)

    def __len__(self) -> int:
        return len(self.snapshot.subject_ids if self._subjects is None else self._subjects)

    def __contains__(self, subject: object) -> bool:
        return subject in (self.snapshot.subject_ids if self._subjects is None else self._subjects)

    def __getitem__(self, name: str) -> VolumeCollection:
        if not isinstance(name, str):
            raise TypeError(
                f"store[name] takes the name of a collection, got {name!r}; select subjects with iloc or loc"
            )
        index = self.snapshot.index(name)
        places = (
            None
            if self._subjects is None
            else [place for subject in self._subjects for place in index.of_subject(subject)]
        )
        return VolumeCollection(self.snapshot, name, self._reader, places)

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
        """Selection of subjects by place."""
        return Indexer(len(self), lambda i: self._subset([i]), self._subset)

    @property
    def loc(self) -> Indexer[RadiObject, RadiObject]:
        """Selection of subjects by id."""
        return Indexer(len(self), lambda i: self._subset([i]), self._subset, find=self._find)

    def _find(self, subject: str) -> int:
        if not hasattr(self, "_place_of"):
            self._place_of = {name: place for place, name in enumerate(self.obs_subject_ids)}
        try:
            return self._place_of[subject]
        except KeyError:
            raise KeyNotFoundError(f"{self.uri} has no subject {subject!r}") from None

    def _subset(self, places: list[int]) -> RadiObject:
        subjects = self.obs_subject_ids
        return RadiObject._view(self, [subjects[place] for place in places])

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

    def __repr__(self) -> str:
        names = ", ".join(f"{name} ({len(self[name])} {self[name].kind}s)" for name in self.collection_names)
        return f"RadiObject({self.uri!r}, {len(self)} subjects, version {self.version}: {names or 'no collections'})"


class ObsMeta:
    """The table of the subjects' own columns."""

    def __init__(self, snapshot: Snapshot, subjects: list[str] | None) -> None:
        self._snapshot, self._subjects = snapshot, subjects

    def __repr__(self) -> str:
        return f"ObsMeta({len(self)} subjects; {', '.join(self.columns)}); read() gives a DataFrame"

    @property
    def columns(self) -> list[str]:
        """``obs_subject_id`` and the users' columns."""
        return ["obs_subject_id", *self._snapshot.metadata_columns]

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, one row a subject.

        Args:
            columns: Which; None reads all.

        Raises:
            KeyNotFoundError: No such column.
        """
        import pandas as pd

        wanted = [name for name in (self.columns if columns is None else columns) if name != "obs_subject_id"]
        values = self._snapshot.metadata(wanted)
        kinds = {
            name.removeprefix(USER_PREFIX): column.kind
            for name, column in self._snapshot.store.table("obs_meta").columns().items()
        }
        data: dict[str, Any] = {"obs_subject_id": self._snapshot.subject_ids}
        for name in wanted:
            data[name] = _series(values[name], kinds[name])
        frame = pd.DataFrame(data)
        if columns is not None:
            frame = frame[list(columns)]
        if self._subjects is not None:
            place = {subject: i for i, subject in enumerate(self._snapshot.subject_ids)}
            frame = frame.iloc[[place[subject] for subject in self._subjects]].reset_index(drop=True)
        return frame

    def __len__(self) -> int:
        return len(self._snapshot.subject_ids if self._subjects is None else self._subjects)


def _series(values: Any, kind: str) -> Any:
    """A column with pandas's own type for missing values where numpy has none."""
    import pandas as pd

    if kind in ("int", "bool") and values.dtype == object:
        return pd.array(values.tolist(), dtype="Int64" if kind == "int" else "boolean")
    if kind == "str":
        return pd.Series(values.tolist())
    return values


def open_store(uri: str | os.PathLike[str], *, config: StorageConfig | None = None, at: At | None = None) -> RadiObject:
    """Open a store for reading; public as ``radioloader.open``. See :class:`RadiObject`."""
    return RadiObject(uri, config=config, at=at)
