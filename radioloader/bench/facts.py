"""What the collections that are measured are like, and bringing them into the system's memory."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import tiledb

from radioloader.bench.choose import Choice
from radioloader.bench.model import CollectionFacts
from radioloader.config import CompressionConfig
from radioloader.storage.catalog import VolumeIndex
from radioloader.storage.context import context_for
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.uri import is_remote
from radioloader.types import Triple

__all__ = ["collection_facts", "warm"]

_PIECE = 4 * 2**20
_TILES_NAMED = 3


def collection_facts(snapshot: Snapshot, choice: Choice) -> tuple[CollectionFacts, ...]:
    """Facts of each collection of a choice; sizes are those of the chosen subjects' volumes."""
    names = [*choice.image, *([] if choice.label is None else [choice.label])]
    return tuple(
        _facts(snapshot, name, "label" if number == len(choice.image) else "image", choice)
        for number, name in enumerate(names)
    )


def warm(snapshot: Snapshot, choice: Choice, *, seconds: float) -> tuple[str, ...]:
    """Read the files of the chosen volumes, so that the system has them in memory, subject by subject.

    Returns:
        The subjects whose files were read in ``seconds``; at least one. On an object store, where the system keeps nothing: all.
    """
    if is_remote(snapshot.store.uri):
        return choice.subjects
    end = time.perf_counter() + seconds
    buffer = bytearray(_PIECE)
    done: list[str] = []
    for subject in choice.subjects:
        for path in _files_of(snapshot, choice, subject):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    if done and time.perf_counter() > end:
                        return tuple(done)
        done.append(subject)
    return tuple(done)


def _files_of(snapshot: Snapshot, choice: Choice, subject: str) -> Iterator[str]:
    for name in (*choice.image, *([] if choice.label is None else [choice.label])):
        index = snapshot.index(name)
        for top, _, files in os.walk(index.ref(index.of_subject(subject)[0]).uri):
            yield from (os.path.join(top, file) for file in files)


def _facts(snapshot: Snapshot, name: str, role: str, choice: Choice) -> CollectionFacts:
    index = snapshot.index(name)
    places = [index.of_subject(subject)[0] for subject in choice.available]
    measured = [index.of_subject(subject)[0] for subject in choice.subjects]
    shapes = index.shapes[places]
    shapes = shapes if shapes[:, 3].any() else shapes[:, :3]
    dtypes = index.dtypes(np.array(places, np.int64))
    compression = CompressionConfig(**json.loads(snapshot.detail(name, "recipe")[measured[0]])["compression"])
    return CollectionFacts(
        name=name,
        role=role,
        volumes=len(places),
        shapes=(tuple(shapes.min(axis=0).tolist()), tuple(shapes.max(axis=0).tolist())),
        dtypes=tuple(dtypes),
        tiles=_usual_tiles(snapshot, name, places),
        codec=_codec(compression, dtypes),
        direct=not is_remote(index.uri)
        and snapshot.store.config.read.direct
        and compression.codec == "zstd"
        and not compression.checksum,
        measured=len(measured),
        stored_bytes=_stored_bytes(snapshot, index, measured),
        raw_bytes=sum(_raw_bytes(index, place) for place in measured),
    )


def _usual_tiles(snapshot: Snapshot, name: str, places: Sequence[int]) -> tuple[Triple, ...]:
    counted = Counter((int(x), int(y), int(z)) for x, y, z in snapshot.tiles(name)[places].tolist())
    return tuple(tile for tile, _ in counted.most_common(_TILES_NAMED))


def _codec(compression: CompressionConfig, dtypes: Sequence[str]) -> str:
    parts = [f"zstd level {compression.level}" if compression.codec == "zstd" else compression.codec]
    if any(compression.shuffles(np.dtype(name)) for name in dtypes):
        parts.append("byte shuffle")
    if compression.checksum:
        parts.append("checksum")
    return ", ".join(parts)


def _raw_bytes(index: VolumeIndex, place: int) -> int:
    ref = index.ref(place)
    return prod(ref.shape) * np.dtype(ref.dtype).itemsize


def _stored_bytes(snapshot: Snapshot, index: VolumeIndex, places: Sequence[int]) -> int | None:
    uris = [index.ref(place).uri for place in places]
    if not is_remote(index.uri):
        return sum(
            os.path.getsize(os.path.join(top, file)) for uri in uris for top, _, files in os.walk(uri) for file in files
        )
    vfs = tiledb.VFS(ctx=context_for(index.uri, snapshot.store.config))
    try:
        return sum(int(vfs.dir_size(uri)) for uri in uris)
    except tiledb.TileDBError:  # listing may be forbidden where reading is not
        return None
