"""What is to be exported: subjects and collections of a store, and where the volumes' files lie in space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from radioloader.container.radiobject import RadiObject
from radioloader.container.volume import Volume
from radioloader.errors import ConfigError
from radioloader.exporting.headers import FileGrid, read_grid
from radioloader.storage.foreground import class_voxels
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import USER_PREFIX

__all__ = ["Member", "Selection", "select"]


@dataclass(frozen=True, slots=True)
class Member:
    """A stored volume.

    Attributes:
        collection: Its collection.
        place: Its place in the collection's index.
        subject: Whose it is.
        obs_id: Its id.
    """

    collection: str
    place: int
    subject: str
    obs_id: str


class Selection:
    """Subjects and collections of a store.

    Attributes:
        store: The store.
        images: Image collections, in the order that was given.
        labels: Label collections.
        ordered: Whether somebody gave the images' order.
        reader: Reads them.

    Args:
        store: The store, or a selection of its subjects.
        images: As the attribute.
        labels: As the attribute.
        names: What collections are called in the output.
        ordered: As the attribute.
    """

    def __init__(
        self,
        store: RadiObject,
        images: Sequence[str],
        labels: Sequence[str],
        names: Mapping[str, str],
        *,
        ordered: bool,
    ) -> None:
        self.store, self.images, self.labels, self.ordered = store, list(images), list(labels), ordered
        self.snapshot = store.snapshot
        self.reader = VolumeReader(store.snapshot.store.config)
        self._names = names

    @property
    def collections(self) -> list[str]:
        """All of them, images first."""
        return [*self.images, *self.labels]

    @cached_property
    def subjects(self) -> list[str]:
        """The subjects."""
        return self.store.obs_subject_ids

    def name(self, collection: str) -> str:
        """What a collection is called in the output."""
        return self._names.get(collection, collection)

    def of(self, collection: str, subject: str) -> list[Member]:
        """A subject's volumes in a collection."""
        index = self.snapshot.index(collection)
        return [Member(collection, place, subject, str(index.obs_ids[place])) for place in index.of_subject(subject)]

    def volume(self, member: Member) -> Volume:
        """The volume, for reading."""
        return Volume(self.snapshot, member.collection, member.place, self.reader)

    def header(self, member: Member) -> bytes:
        """The NIfTI header that the file will have."""
        block: bytes = self.snapshot.detail(member.collection, "header")[member.place]
        return block

    def grid(self, member: Member) -> FileGrid:
        """What the file will hold, by its header.

        Raises:
            ConfigError: The store has no header of it.
        """
        index = self.snapshot.index(member.collection)
        return read_grid(self.header(member), int(index.shapes[member.place, 3]), index.ref(member.place).describe())

    def classes(self, collection: str) -> dict[str, tuple[int, ...]]:
        """Voxel values of a label collection's classes by name, as far as they were named."""
        return self.snapshot.collection(collection).classes

    def occurring(self, collection: str) -> list[int]:
        """The classes that occur in a label collection, of which volume does not matter; without those that the index does not have."""
        index = self.snapshot.index(collection)
        places, values, _ = class_voxels(self.snapshot.store, index)
        wanted = set(self.subjects)
        subjects = index.subject_ids[places].tolist()
        return sorted({value for subject, value in zip(subjects, values.tolist(), strict=True) if subject in wanted})

    def metadata_kinds(self) -> dict[str, str]:
        """Kind of each of the subjects' columns."""
        columns = self.snapshot.store.table("obs_meta").columns()
        return {name: columns[f"{USER_PREFIX}{name}"].kind for name in self.snapshot.metadata_columns}

    @cached_property
    def _metadata(self) -> dict[str, dict[str, Any]]:
        columns = self.snapshot.metadata()
        values = {name: [_plain(value) for value in column] for name, column in columns.items()}
        return {
            subject: {name: column[i] for name, column in values.items()}
            for i, subject in enumerate(self.snapshot.subject_ids)
        }

    def value(self, subject: str, column: str) -> Any:
        """A subject's value in a column; None where it is missing, or there is no such column."""
        return self._metadata[subject].get(column)


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else value
    return value.item() if isinstance(value, np.generic) else value


def select(
    store: RadiObject,
    images: Sequence[str] | str | None,
    labels: Sequence[str] | str | None,
    names: Mapping[str, str] | None,
    *,
    label_by_itself: bool,
) -> Selection:
    """The collections that are meant.

    Args:
        store: The store, or a selection of its subjects.
        images: Image collections; None takes all where ``labels`` is None too, and else none.
        labels: Label collections, likewise.
        names: Names in the output by collection.
        label_by_itself: Take the labels even where only ``images`` were named, and the other way round.

    Raises:
        KeyNotFoundError: No such collection.
        ConfigError: It is of the other kind, there is nothing to export, or names are wrong.
    """
    infos = store.snapshot.collections
    named = images is not None or labels is not None
    chosen: dict[str, list[str]] = {}
    for kind, given in (("image", images), ("label", labels)):
        if given is None:
            every = [info.name for info in infos.values() if info.kind == kind and not info.computed]
            chosen[kind] = [] if named and not label_by_itself else every
            continue
        chosen[kind] = [given] if isinstance(given, str) else list(dict.fromkeys(given))
        for name in chosen[kind]:
            if store.snapshot.collection(name).kind != kind:
                other = "label" if kind == "image" else "image"
                raise ConfigError(f"collection {name!r} holds {other}s; name it with {other}s=[...] (--{other} {name})")
    names = dict(names or {})
    both = [*chosen["image"], *chosen["label"]]
    if not both:
        computed = [info.name for info in infos.values() if info.computed]
        hint = f"; {', '.join(computed)} are computed, and exported where they are named" if computed else ""
        raise ConfigError(f"{store.uri}: there is no collection to export{hint}")
    for name, new in names.items():
        if name not in both:
            raise ConfigError(f"names: {name!r} is none of the collections that are exported, {', '.join(both)}")
        if not new or not isinstance(new, str):
            raise ConfigError(f"names: {name!r} is to be called {new!r}; give a text")
    used = [names.get(name, name) for name in both]
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two collections would be called {twice!r}; give other names (names, --name)")
    selection = Selection(store, chosen["image"], chosen["label"], names, ordered=images is not None)
    # Read now, by one thread: what is kept then is only looked up.
    for name in both:
        selection.snapshot.details(name, ["header", "source_axcodes"])
    return selection
