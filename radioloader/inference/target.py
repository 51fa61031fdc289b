"""Where predictions go: a collection of the store, and what it says of how they were made."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from radioloader import __version__
from radioloader.adapters.digest import UnhashableError, digest
from radioloader.config import StorageConfig
from radioloader.datasets.patch import PatchDataset
from radioloader.errors import ConfigError, StoreLockedError
from radioloader.formats.nifti import header_for
from radioloader.inference.identity import bare, identify, name_of, networks_of, weights_hash
from radioloader.inference.output import Output, Spool
from radioloader.ingestion.derived import (
    DerivedVolume,
    SourceGrid,
    append_volumes,
    begin_collection,
    collection_id,
    discard_volumes,
    write_derived,
)
from radioloader.storage.catalog import COLLECTION_TABLES, PREDICTION, read_collections
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store, Transaction

__all__ = ["Target", "provenance"]

_log = logging.getLogger("radioloader")
_SAY_AFTER_S = 5.0


def provenance(
    model: Callable[..., Any], model_id: str | None, transform: Callable[..., Any] | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What predictions are made with, as JSON-able values. ``identity`` is another one where that decides other predictions.

    Raises:
        ConfigError: What the model or the transform does cannot be told from outside.
    """
    model = bare(model)
    weights = weights_hash(networks_of(model))
    try:
        transformed = None if transform is None else digest(transform)
    except UnhashableError as error:
        raise ConfigError(
            f"the transform cannot be told from others: {error}. Use a function with a name in place of a lambda"
        ) from error
    decides = [identify(model, model_id), weights, transformed, dict(arguments)]
    return {
        "model": name_of(model),
        "model_id": model_id,
        "weights": weights,
        "transform": None if transform is None else name_of(transform),
        "arguments": dict(arguments),
        "versions": {"radioloader": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "identity": hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
    }


class Target:
    """The collection of predictions.

    Args:
        dataset: All subjects that are asked for, as the model sees them.
        name: The collection.
        form: What is stored.
        made_with: See :func:`provenance`.
        config: Access, tiles and compression; None takes the store's.

    Raises:
        ConfigError: No name for a collection.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        name: str,
        form: Output,
        made_with: dict[str, Any],
        config: StorageConfig | None,
    ) -> None:
        if not isinstance(name, str) or not name or "\0" in name or name != name.encode(errors="replace").decode():
            raise ConfigError(f"out={name!r} must be a name for a collection: text that is not empty")
        if name in dataset.image:
            raise ConfigError(f"out={name!r} is what is predicted from; give another name")
        source = dataset.table.snapshot
        self.store = Store(source.store.uri, source.store.config if config is None else config)
        self.provenance = made_with
        self._name, self._form = name, form
        self._subjects = {subject: place for place, subject in enumerate(dataset.subjects)}
        self._table = dataset.table
        self._images = dataset.image
        columns = ["header", "source_axcodes", "content_hash"]
        self._details = [dataset.table.details(number, columns) for number in range(len(self._images))]

    @property
    def uri(self) -> str:
        """The store."""
        return self.store.uri

    def begin(self, subjects: Sequence[str], *, overwrite: bool, first: bool) -> list[str]:
        """Say which subjects have no prediction, after what must not stay was dropped: what is of other images than the ones now.

        Args:
            subjects: Those that are asked for.
            overwrite: Drop what was predicted otherwise as well.
            first: Whether this process changes the store.

        Raises:
            ConfigError: The collection holds something else.
        """
        stored, gone, new = self._look(Snapshot(self.store), subjects, overwrite)
        if first and (gone or new):
            with self._writing() as transaction:
                # As it is now that nobody else writes.
                stored, gone, new = self._look(Snapshot(self.store, transaction.commits), subjects, overwrite)
                if gone or new:
                    recipe = {PREDICTION: self.provenance}
                    kind = self._form.collection_kind
                    begin_collection(self.store, transaction, self._name, kind, recipe, drop=gone)
                    transaction.commit(f"predictions {self._name!r}", {"dropped": len(gone)})
        if first:
            # Nobody sees it before its first volume. Now, because ranks on an object store, which has no lock, must not all make it.
            self.store.create_collection(collection_id(self._name), COLLECTION_TABLES)
        return [subject for subject in subjects if subject not in stored]

    def _look(self, snapshot: Snapshot, subjects: Sequence[str], overwrite: bool) -> tuple[set[str], list[str], bool]:
        """The subjects that are predicted; the ids of volumes that must go; whether the collection's recipe is another one."""
        self._check_current(snapshot, subjects)
        info = snapshot.collections.get(self._name)
        if info is None:
            return set(), [], False
        if PREDICTION not in info.recipe:
            raise ConfigError(
                f"{self.uri} has a collection {self._name!r} that holds no predictions; give another name, out='...'"
            )
        index, rows = snapshot.index(self._name), snapshot.details(self._name, ["source", "source_hash"])
        stored: set[str] = set()
        others: list[str] = []
        outdated: list[str] = []
        for place, (source, hash_) in enumerate(zip(rows["source"], rows["source_hash"], strict=True)):
            subject, obs_id = str(index.subject_ids[place]), str(index.obs_ids[place])
            if json.loads(source)["identity"] != self.provenance["identity"]:
                others.append(obs_id)
            elif subject in self._subjects and hash_ != self._hash(subject):
                outdated.append(obs_id)
            else:
                stored.add(subject)
        if others and not overwrite:
            raise ConfigError(
                f"{self._name!r} of {self.uri} holds predictions that were made otherwise ({len(others)} volumes): "
                f"{self._differs(info.recipe[PREDICTION])}. Give another name, out='...', or overwrite=True"
            )
        return stored, [*others, *outdated], info.recipe[PREDICTION]["identity"] != self.provenance["identity"]

    def _check_current(self, snapshot: Snapshot, subjects: Sequence[str]) -> None:
        """Refuse to predict images that were replaced after the store was opened.

        Raises:
            ConfigError: Some were.
        """
        if snapshot.commits.version == self._table.snapshot.commits.version:
            return
        for number, name in enumerate(self._images):
            index, now = snapshot.index(name), snapshot.detail(name, "content_hash")
            content = dict(zip(index.obs_ids.tolist(), now.tolist(), strict=True))
            for subject in subjects:
                place = self._subjects[subject]
                obs_id = str(self._table.columns[f"obs_id.{number}"][place])
                if content.get(obs_id) != self._details[number]["content_hash"][place]:
                    raise ConfigError(f"{obs_id!r} of {self.uri} changed after the store was opened; open it again")

    def _differs(self, old: Mapping[str, Any]) -> str:
        """In what, for people."""
        new = self.provenance
        found = [
            f"{name}={old['arguments'].get(name)!r}, now {value!r}"
            for name, value in new["arguments"].items()
            if old["arguments"].get(name) != value
        ]
        found += [
            f"{what} {str(old[what])[: 12 if what == 'weights' else 60]}, now {str(new[what])[: 12 if what == 'weights' else 60]}"
            for what in ("model", "model_id", "weights", "transform")
            if old[what] != new[what]
        ]
        return "; ".join(found) or "the code of the model or the transform is another"

    def _hash(self, subject: str) -> str:
        """Tells what a subject is predicted from."""
        place = self._subjects[subject]
        found = hashlib.sha256(self.provenance["identity"].encode())
        for details in self._details:
            found.update(str(details["content_hash"][place]).encode())
        found.update(self._table.columns["affines"][place].tobytes())
        return found.hexdigest()

    def write(self, subject: str, spool: Spool) -> DerivedVolume:
        """Write a prediction; it exists with :meth:`commit`."""
        place = self._subjects[subject]
        details = self._details[0]
        header = header_for(details["header"][place], spool.voxels.dtype, slope=self._form.slope)
        images = [str(self._table.columns[f"obs_id.{number}"][place]) for number in range(len(self._images))]
        try:
            return write_derived(
                self.store,
                self._name,
                spool.voxels,
                np.array(self._table.columns["affines"][place]),
                subject=subject,
                obs_id=f"{subject}_{self._name}",
                source=json.dumps({"identity": self.provenance["identity"], "of": images}),
                source_hash=self._hash(subject),
                config=self.store.config,
                kind=self._form.collection_kind,
                slope=self._form.slope,
                grid=SourceGrid(header, str(details["source_axcodes"][place])),
            )
        finally:
            spool.release()

    def commit(self, volumes: Sequence[DerivedVolume], *, wait: bool) -> bool:
        """Make predictions exist.

        Args:
            volumes: The predictions.
            wait: Until no other process writes; False: then nothing is done.

        Returns:
            Whether they exist.

        Raises:
            ConfigError: The collection became another prediction's; these are removed.
            StoreWriteError: The store cannot be written.
        """
        try:
            with self._writing(wait=wait) as transaction:
                info = read_collections(self.store, transaction.commits).get(self._name)
                if info is not None and info.recipe.get(PREDICTION, {}).get("identity") != self.provenance["identity"]:
                    discard_volumes(self.store, volumes, self.store.config)
                    raise ConfigError(
                        f"{self._name!r} of {self.uri} was taken meanwhile by predictions that are made otherwise; give each its own name, "
                        "out='...'"
                    )
                append_volumes(self.store, transaction, volumes, lambda name: {PREDICTION: self.provenance})
                transaction.commit(f"{len(volumes)} predictions {self._name!r}", {"volumes": len(volumes)})
        except StoreLockedError:
            return False
        return True

    @contextmanager
    def _writing(self, *, wait: bool = True) -> Iterator[Transaction]:
        """The store's writer; waits for another one, and says so.

        Raises:
            StoreLockedError: Another process writes, and it is not to wait.
        """
        started, said = time.monotonic(), False
        with ExitStack() as stack:
            while True:
                try:
                    transaction = stack.enter_context(self.store.write())
                    break
                except StoreLockedError as error:
                    if not wait:
                        raise
                    if not said and time.monotonic() - started > _SAY_AFTER_S:
                        _log.warning("waiting to write predictions: %s", error)
                        said = True
                time.sleep(random.uniform(0.05, 0.3))
            yield transaction
