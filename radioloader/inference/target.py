"""Where predictions go: a collection of the store, and what it says of how they were made."""

from __future__ import annotations

import hashlib
import json
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from radioloader import __version__
from radioloader.adapters.digest import UnhashableError, digest
from radioloader.config import StorageConfig
from radioloader.datasets.patch import PatchDataset
from radioloader.errors import ConfigError, StoreLockedError
from radioloader.formats.nifti import header_for
from radioloader.inference.identity import bare, identify, name_of, weights_hash
from radioloader.inference.output import Output, Spool
from radioloader.ingestion.derived import (
    DerivedVolume,
    SourceGrid,
    append_volumes,
    begin_collection,
    write_derived,
)
from radioloader.storage.catalog import PREDICTION
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

__all__ = ["Target", "provenance"]


def provenance(
    model: Callable[..., Any], model_id: str | None, transform: Callable[..., Any] | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What predictions are made with, as JSON-able values. ``identity`` is another one where that decides other predictions.

    Raises:
        ConfigError: What the model or the transform does cannot be told from outside.
    """
    model = bare(model)
    weights = weights_hash(model) if isinstance(model, torch.nn.Module) else None
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
        if not isinstance(name, str) or not name or "\0" in name:
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

    def begin(self, subjects: Sequence[str], *, overwrite: bool, create: bool) -> list[str]:
        """Make the collection, and say which subjects it lacks.

        Args:
            subjects: Those that are asked for.
            overwrite: Drop what was predicted otherwise.
            create: Whether this process makes it.

        Raises:
            ConfigError: It holds something else.
        """
        while True:
            snapshot = Snapshot(self.store)
            stored, others = self._look(snapshot, overwrite)
            recipe = snapshot.collections[self._name].recipe if self._name in snapshot.collections else {}
            current = recipe.get(PREDICTION, {}).get("identity") == self.provenance["identity"]
            if create and (others or not current):
                try:
                    with self.store.write() as transaction:
                        begin_collection(
                            self.store,
                            transaction,
                            self._name,
                            self._form.collection_kind,
                            {PREDICTION: self.provenance},
                            drop=others,
                        )
                        transaction.commit(f"predictions {self._name!r}", {"dropped": len(others)})
                except StoreLockedError:
                    _pause()
                    continue
            return [subject for subject in subjects if stored.get(subject) != self._hash(subject)]

    def _look(self, snapshot: Snapshot, overwrite: bool) -> tuple[dict[str, str], list[str]]:
        """What is there by this model: the hash by subject; and the ids of what is there by another."""
        info = snapshot.collections.get(self._name)
        if info is None:
            return {}, []
        if PREDICTION not in info.recipe:
            raise ConfigError(
                f"{self.uri} has a collection {self._name!r} that holds no predictions; give another name, out='...'"
            )
        index, rows = snapshot.index(self._name), snapshot.details(self._name, ["source", "source_hash"])
        stored: dict[str, str] = {}
        others: list[str] = []
        for place, (source, hash_) in enumerate(zip(rows["source"], rows["source_hash"], strict=True)):
            if json.loads(source)["identity"] == self.provenance["identity"]:
                stored[str(index.subject_ids[place])] = str(hash_)
            else:
                others.append(str(index.obs_ids[place]))
        if others and not overwrite:
            raise ConfigError(
                f"{self._name!r} of {self.uri} holds predictions of {len(others)} subjects that were made otherwise: "
                f"{self._differs(info.recipe[PREDICTION])}. Give another name, out='...', or overwrite=True"
            )
        return stored, others

    def _differs(self, old: Mapping[str, Any]) -> str:
        """In what, for people."""
        new = self.provenance
        found = [
            f"{name}={old['arguments'].get(name)!r}, now {value!r}"
            for name, value in new["arguments"].items()
            if old["arguments"].get(name) != value
        ]
        found += [
            f"{what} {str(old[what])[:60]}, now {str(new[what])[:60]}"
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
        """
        while True:
            try:
                with self.store.write() as transaction:
                    append_volumes(self.store, transaction, volumes, lambda name: {PREDICTION: self.provenance})
                    transaction.commit(f"{len(volumes)} predictions {self._name!r}", {"volumes": len(volumes)})
                return True
            except StoreLockedError:
                if not wait:
                    return False
            _pause()


def _pause() -> None:
    time.sleep(random.uniform(0.05, 0.3))
