"""TorchIO: subjects whose images read from a store, and a queue that reads patches instead of volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from radioloader._checks import as_whole
from radioloader._optional import require
from radioloader.config import StorageConfig
from radioloader.datasets.table import HasSnapshot, snapshot_of
from radioloader.errors import ConfigError, IngestError, KeyNotFoundError
from radioloader.ingestion.derived import SourceGrid
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store
from radioloader.storage.uri import normalise

require("torchio", extra="torchio")

import torchio as tio  # noqa: E402

from radioloader.adapters.lazy_image import Voxels  # noqa: E402
from radioloader.adapters.prepare import prepare  # noqa: E402
from radioloader.adapters.stored import Prepared  # noqa: E402
from radioloader.adapters.subjects import (  # noqa: E402
    StoreSubject,
    SubjectPreparation,
    prepared_subject,
    split_transform,
)

__all__ = ["SubjectsDataset"]

Names = str | Sequence[str] | Mapping[str, str]


class SubjectsDataset(tio.SubjectsDataset):  # type: ignore[misc]
    """A ``tio.SubjectsDataset`` of a store's subjects, whose images read their voxels when these are wanted.

    Shape, spacing, affine and orientation cost no read; cropping (``tio.Crop``, ``image[...]``, TorchIO's samplers) reads no more than the
    box; anything else reads the volume. Images are ``tio.ScalarImage`` and ``tio.LabelMap``, so that transforms resample labels as labels.

    Deterministic transforms at the head of the pipeline run once for each subject; what they make goes into the store, and is known by the
    content of the volumes and the arguments of the transforms. :meth:`explain` tells which ones these are.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections: a mapping from name in the subject to collection, or names that are both.
        label: Label collections, likewise.
        transform: Gets a subject and returns one.
        targets: Columns of ``obs_meta`` that subjects carry; a mapping from name in the subject to column renames them.
        subjects: Which subjects, in this order; None takes all.
        load_getitem: Read all voxels of a subject when it is taken, as ``tio.SubjectsDataset`` does.
        prepared: URI of the store for prepared subjects; None takes ``store``.
        num_workers: Processes that prepare; None takes as many as cores.
        progress: Show a progress bar while subjects are prepared.
        prefix_id: Names the deterministic transforms, where they cannot be hashed: give another one when you change them.
        config: Access and threads; None takes the store's.

    Attributes:
        store: URI of the store in which the volumes of :attr:`collections` lie.
        collections: The collection of each image, prepared where transforms ran once: such as for :func:`radioloader.predict`.

    Raises:
        KeyNotFoundError: An unknown collection, subject or column, or a subject without one of the volumes.
        ConfigError: No image, or one name twice, or a transform cannot be hashed.
        IngestError: Subjects could not be prepared; names them.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | HasSnapshot,
        image: Names = (),
        label: Names = (),
        transform: Callable[[Any], Any] | None = None,
        *,
        targets: Names = (),
        subjects: Sequence[str] | None = None,
        load_getitem: bool = False,
        prepared: str | os.PathLike[str] | None = None,
        num_workers: int | None = None,
        progress: bool = True,
        prefix_id: str | None = None,
        config: StorageConfig | None = None,
    ) -> None:
        if isinstance(store, list | tuple):
            raise ConfigError(
                f"the first argument is a store, got a {type(store).__name__}; ingest the files once (radioloader ingest STORE --image "
                "t1=...), and give SubjectsDataset('STORE', image='t1', ...)"
            )
        snapshot, available = snapshot_of(store, config)
        chosen = list(available) if subjects is None else [str(subject) for subject in subjects]
        unknown = sorted(set(chosen) - set(available))
        if unknown:
            raise KeyNotFoundError(
                f"{snapshot.store.uri} has no subjects {unknown[:3]} ({len(unknown)} of {len(chosen)} are unknown)"
            )
        images, labels = _mapping(image, "image"), _mapping(label, "label")
        columns = _mapping(targets, "targets")
        names = [*images, *labels, *columns]
        if not images and not labels:
            raise ConfigError("image is empty; name at least one collection")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"{twice[0]!r} is the name of more than one part of a subject")
        reader = VolumeReader(snapshot.store.config if config is None else config)
        items = _subjects(snapshot, chosen, images, labels, columns, reader)
        head, tail, steps = split_transform(transform)
        self.store, self._steps = snapshot.store.uri, steps
        self.collections = {**images, **labels}
        made = [item.make() for item in items]
        if head:
            self.store = self.store if prepared is None else normalise(prepared)
            found = _prepare(self.store, items, head, prefix_id, num_workers, progress, reader)
            self.collections = {name: ref.collection for one in found[:1] for name, ref in one.volumes.items()}
            made = [prepared_subject(one, reader, item.more) for one, item in zip(found, items, strict=True)]
        super().__init__(made, transform=tail, load_getitem=load_getitem)

    def explain(self) -> str:
        """Which transform runs where, and why: one line each."""
        width = max((len(name) for name, _, _ in self._steps), default=0)
        return "\n".join(f"{name:<{width}}  {where:<20}  {why}" for name, where, why in self._steps) or "no transforms"


def _prepare(
    uri: str | os.PathLike[str],
    items: Sequence[StoreSubject],
    head: Sequence[Any],
    prefix_id: str | None,
    workers: int | None,
    progress: bool,
    reader: VolumeReader,
) -> list[Prepared]:
    store = Store.open_or_create(uri, config=reader.config)
    found, failures = prepare(
        store,
        items,
        SubjectPreparation(head),
        prefix_id=prefix_id,
        workers=as_whole(workers or 0, "num_workers", minimum=0) or None,
        progress=progress,
        config=reader.config,
    )
    if failures:
        some = "; ".join(failures[number] for number in sorted(failures)[:3])
        raise IngestError(
            f"{len(failures)} of {len(items)} subjects could not be prepared: {some}. The others are in the store and will not be "
            "prepared again; leave these out (subjects=)"
        )
    return [item for item in found if item is not None]


def _mapping(names: Names, what: str) -> dict[str, str]:
    if isinstance(names, Mapping):
        return {str(name): str(value) for name, value in names.items()}
    found = [names] if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{what}={names!r} must be a name, several, or a mapping from name to name")
    return {name: name for name in found}


def _subjects(
    snapshot: Snapshot,
    subjects: Sequence[str],
    images: Mapping[str, str],
    labels: Mapping[str, str],
    columns: Mapping[str, str],
    reader: VolumeReader,
) -> list[StoreSubject]:
    parts: list[dict[str, tuple[Voxels, bool]]] = [{} for _ in subjects]
    contents: list[dict[str, str]] = [{} for _ in subjects]
    grids: list[dict[str, SourceGrid]] = [{} for _ in subjects]
    more: list[dict[str, Any]] = [{} for _ in subjects]
    for name, collection, label in [
        *((n, c, False) for n, c in images.items()),
        *((n, c, True) for n, c in labels.items()),
    ]:
        index, tiles = snapshot.index(collection), snapshot.tiles(collection)
        rows = snapshot.details(collection, ["content_hash", "header", "source_axcodes"])
        for number, subject in enumerate(subjects):
            place = index.only(subject)
            if place is None:
                raise KeyNotFoundError(
                    f"collection {collection!r} has no volume of subject {subject!r}; choose subjects that have one (subjects=), or ingest "
                    "what is missing"
                )
            ref = replace(index.ref(place), tile=tuple(tiles[place].tolist()))
            parts[number][name] = Voxels(reader, ref, index.affines[place]), label
            contents[number][name] = str(rows["content_hash"][place])
            grids[number][name] = SourceGrid(rows["header"][place], str(rows["source_axcodes"][place]))
    place_of = {subject: place for place, subject in enumerate(snapshot.subject_ids)}
    for name, column in columns.items():
        values = snapshot.metadata([column])[column].tolist()
        for number, subject in enumerate(subjects):
            more[number][name] = values[place_of[subject]]
    return [StoreSubject(*facts) for facts in zip(subjects, parts, contents, more, grids, strict=True)]
