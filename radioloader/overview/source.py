"""What a report or a picture is of: a store, or some of its subjects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.config import StorageConfig
from radioloader.container.radiobject import RadiObject
from radioloader.errors import ConfigError
from radioloader.storage.catalog import VolumeIndex
from radioloader.storage.snapshot import Snapshot

__all__ = ["SubjectsSnapshot", "snapshot_of"]


class SubjectsSnapshot(Snapshot):
    """A snapshot as if the store had only some of its subjects.

    Args:
        whole: The store.
        subjects: Ids of subjects that it has.
    """

    def __init__(self, whole: Snapshot, subjects: Iterable[str]) -> None:
        super().__init__(whole.store, whole.commits)
        self.whole, self._chosen = whole, frozenset(subjects)

    def __getstate__(self) -> dict[str, Any]:
        return {"whole": self.whole, "subjects": sorted(self._chosen)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["whole"], state["subjects"])  # type: ignore[misc]

    def index(self, name: str) -> VolumeIndex:
        """The volumes of those subjects in a collection."""
        if name not in self._indexes:
            every = self.whole.index(name)
            self._indexes[name] = every.subset(
                [place for subject in self._chosen for place in every.of_subject(subject)]
            )
        return self._indexes[name]

    @cached_property
    def subject_ids(self) -> list[str]:
        """Those subjects, sorted."""
        return [subject for subject in self.whole.subject_ids if subject in self._chosen]

    def metadata(self, columns: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """As :meth:`Snapshot.metadata`, of those subjects."""
        kept = np.array([subject in self._chosen for subject in self.whole.subject_ids], np.bool_)
        return {name: values[kept] for name, values in self.whole.metadata(columns).items()}


def snapshot_of(uri: str | os.PathLike[str] | RadiObject, config: StorageConfig | None) -> Snapshot:
    """The store that is meant, at its newest version, or at that of an opened one.

    Args:
        uri: A path, ``s3://bucket/prefix``, or an opened store or a selection of its subjects.
        config: Access; None takes the process's defaults. An opened store keeps its own.

    Raises:
        ConfigError: It is none of these.
        StoreNotFoundError, NotAStoreError, StoreVersionError: The store cannot be opened.
    """
    if isinstance(uri, RadiObject):
        chosen = set(uri.obs_subject_ids)
        # All of its subjects are the store itself: files that no subject is known of belong to it.
        whole = len(chosen) == len(uri.snapshot.subject_ids)
        return uri.snapshot if whole else SubjectsSnapshot(uri.snapshot, chosen)
    if not isinstance(uri, str | os.PathLike):
        raise ConfigError(
            f"uri={uri!r} is a {type(uri).__name__}; it must be a path, s3://bucket/prefix, an opened store (radioloader.open(...)) or a "
            "selection of its subjects (store.loc[[...]])"
        )
    return Snapshot.open(uri, config=config)
