"""Deterministic transforms, run once for each item, into a store."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from radioloader.adapters.digest import UnhashableError, digest
from radioloader.adapters.sources import settled
from radioloader.adapters.stored import Prepared, StoredItems
from radioloader.config import StorageConfig, available_cores
from radioloader.errors import ConfigError, RadioloaderError, StoreLockedError, StoreWriteError
from radioloader.ingestion.derived import DerivedVolume, SourceGrid, append_volumes, discard_volumes, write_derived
from radioloader.ingestion.pool import run
from radioloader.ingestion.progress import ProgressBar
from radioloader.ingestion.report import IngestItem
from radioloader.storage.catalog import PREPARED
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

__all__ = ["Made", "Preparation", "prepare", "recipe_of"]

_VERSION = 2
"""Of what is kept of an item."""

_COMMIT_EVERY_S = 10.0
_POLL_S = 0.5


class Source(Protocol):
    """What a sample is made of."""

    @property
    def name(self) -> str:
        """The item in words."""

    def subject(self, hash_: str) -> str:
        """Id of the subject in the store, given what :meth:`hash` gave."""

    def stamps(self) -> str:
        """As long as this text is the same, so is what :meth:`hash` gives; empty: nothing tells."""

    def hash(self) -> str:
        """SHA-256 in hex of all that the sample is made of."""


@dataclass(frozen=True)
class Made:
    """A sample, to be kept.

    Attributes:
        volumes: By key: voxels (X, Y, Z) or (X, Y, Z, C), and the affine (4, 4).
        about: All else, as JSON; ``volumes`` in it has the keys in their order.
        grids: By key: the grid of the file that it comes from, where that is known.
    """

    volumes: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[np.float64]]]
    about: Mapping[str, Any]
    grids: Mapping[str, SourceGrid] = field(default_factory=dict)


class Preparation(Protocol):
    """Makes samples of items. Goes to worker processes."""

    @property
    def names(self) -> list[str]:
        """The deterministic transforms, for people."""

    def transforms(self) -> Any:
        """The deterministic transforms, for their hash."""

    def settings(self) -> Any:
        """What else decides what is kept."""

    def __call__(self, item: Any, hash_: str) -> Made:
        """The sample of an item, whose hash seeds what is drawn."""


@dataclass(frozen=True)
class _Task:
    item: Source
    hash: str
    subject: str
    preparation: Preparation
    recipe: str
    store: Store
    config: StorageConfig
    threads: int


@dataclass
class _Outcome:
    hash: str
    volumes: list[DerivedVolume] = field(default_factory=list)
    failure: str | None = None
    fatal: bool = False
    nbytes: int = 0


def recipe_of(preparation: Preparation, prefix_id: str | None) -> str:
    """A name for what is done to items: where it changes, items are prepared anew.

    Raises:
        ConfigError: A transform cannot be hashed, and there is no ``prefix_id``.
    """
    try:
        prefix = digest(preparation.transforms()) if prefix_id is None else f"id {prefix_id}"
    except UnhashableError as error:
        raise ConfigError(
            f"the deterministic transforms cannot be told from others: {error}. Name them yourself with prefix_id='...', and give another "
            "one whenever you change them; or use a function with a name in place of a lambda"
        ) from error
    return digest([_VERSION, prefix, preparation.settings()])


def prepare(
    store: Store,
    items: Sequence[Source],
    preparation: Preparation,
    *,
    prefix_id: str | None,
    workers: int | None,
    progress: bool,
    config: StorageConfig,
) -> tuple[list[Prepared | None], dict[int, str]]:
    """Have every item in the store.

    What is there already, by the content of its files and the transforms, is used. Several processes may call this at once: one of
    them works, and the others wait and use what it made.

    Args:
        store: The store.
        items: The items.
        preparation: What to do to them.
        prefix_id: Names the deterministic transforms instead of their hash.
        workers: Processes; None takes as many as cores.
        progress: Show a progress bar.
        config: Tiles, compression, access.

    Returns:
        What there is of each item, and why the others failed, by their places.

    Raises:
        StoreWriteError: The store cannot be written.
    """
    recipe = recipe_of(preparation, prefix_id)
    failures: dict[int, str] = {}
    stored = StoredItems(Snapshot(store), recipe)
    hashes = _hashes(items, stored, failures)
    while stored.lacks(hashes, failures):
        try:
            with store.write() as transaction:
                # What is missing now that nobody else writes.
                todo = StoredItems(Snapshot(store), recipe).lacks(hashes, failures)
                tasks = _tasks(store, items, preparation, recipe, todo, workers, config)
                _work(store, transaction, tasks, workers, progress, config, todo, failures)
        except StoreLockedError:
            time.sleep(_POLL_S)
        stored = StoredItems(Snapshot(store), recipe)
    return [None if i in failures else stored.prepared(hashes[i]) for i in range(len(items))], failures


def _hashes(items: Sequence[Source], stored: StoredItems, failures: dict[int, str]) -> dict[int, str]:
    def hash_of(number: int) -> str:
        item = items[number]
        stamps = item.stamps()
        known = stored.stamps.get(stamps) if stamps else None
        return known if known is not None else item.hash()

    found: dict[int, str] = {}
    with ThreadPoolExecutor(available_cores(), "radioloader-hash") as pool:
        futures = {i: pool.submit(hash_of, i) for i in range(len(items)) if i not in failures}
        for number, future in futures.items():
            try:
                found[number] = future.result()
            except RadioloaderError as error:
                failures[number] = str(error)
    return found


def _tasks(
    store: Store,
    items: Sequence[Source],
    preparation: Preparation,
    recipe: str,
    todo: Mapping[str, int],
    workers: int | None,
    config: StorageConfig,
) -> list[_Task]:
    preparation = copy.deepcopy(
        preparation
    )  # transforms keep things of what they saw last; the user's stay as they are
    threads = max(1, min(torch.get_num_threads(), available_cores() // _workers(workers, len(todo))))
    return [
        _Task(items[i], h, items[i].subject(h), preparation, recipe, store, config, threads)
        for h, i in sorted(todo.items(), key=lambda pair: pair[1])
    ]


def _workers(workers: int | None, tasks: int) -> int:
    if workers is None and tasks <= 2:
        return 1  # processes import torch and MONAI first: two small items took 13 s with them and 3 s without
    return max(1, min(workers or available_cores(), tasks))


def _work(
    store: Store,
    transaction: Any,
    tasks: Sequence[_Task],
    workers: int | None,
    progress: bool,
    config: StorageConfig,
    todo: Mapping[str, int],
    failures: dict[int, str],
) -> None:
    finished: list[DerivedVolume] = []
    last = time.monotonic()

    def commit() -> None:
        nonlocal last
        if finished:
            try:
                append_volumes(store, transaction, finished, lambda name: _collection_recipe(name, tasks[0]))
                transaction.commit(f"{len(finished)} prepared volumes", {"volumes": len(finished)})
            except BaseException:
                transaction.abandon()
                raise
            finished.clear()
        last = time.monotonic()

    with _bar(len(tasks), progress) as bar:
        results = run(_prepare_item, tasks, workers=_workers(workers, len(tasks)), lost=_lost)
        try:
            for task, outcome in _paired(tasks, results):
                if outcome.fatal:
                    raise StoreWriteError(outcome.failure)
                if outcome.failure is not None:
                    failures[todo[task.hash]] = outcome.failure
                finished += outcome.volumes
                if bar is not None:
                    status = "failed" if outcome.failure else "ingested"
                    bar.advance(IngestItem(task.subject, status, outcome.failure or "", {}, (), outcome.nbytes))
                if time.monotonic() - last >= _COMMIT_EVERY_S:
                    commit()
            commit()
        except BaseException:  # a Ctrl-C as well: whole items are worth keeping
            results.close()  # type: ignore[attr-defined]
            with contextlib.suppress(StoreWriteError):
                commit()
            raise


def _paired(tasks: Sequence[_Task], results: Iterator[_Outcome]) -> Iterator[tuple[_Task, _Outcome]]:
    by_hash = {task.hash: task for task in tasks}
    for outcome in results:
        yield by_hash[outcome.hash], outcome


def _collection_recipe(name: str, task: _Task) -> dict[str, Any]:
    return {PREPARED: task.recipe, "key": name.rpartition("@")[0], "transforms": task.preparation.names}


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[ProgressBar | None]:
    if not shown:
        yield None
        return
    bar = ProgressBar(total)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()


def _lost(task: _Task) -> _Outcome:
    return _Outcome(
        task.hash,
        failure=f"{task.item.name}: the worker process died while it prepared this item (killed, or out of memory?); use fewer workers "
        "(num_workers=), or leave it out",
    )


def _told(error: BaseException) -> str:
    """An error and what it came from: MONAI's own says only which transform it was."""
    told: list[str] = []
    current: BaseException | None = error
    while current is not None and len(told) < 5:
        text = f"{type(current).__name__}: {current}"
        if text not in told:
            told.append(text)
        current = current.__cause__
    return "; because of ".join(told)


def _prepare_item(task: _Task) -> _Outcome:
    """What runs in a worker process: never raises, and leaves nothing behind of an item that failed."""
    outcome = _Outcome(task.hash)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(task.threads)
        stamps = task.item.stamps()
        source = stamps if settled(stamps) else ""
        made = task.preparation(task.item, task.hash)
        # Hashed after the transforms read it: a change in between would be kept under the name of what was there before.
        if task.item.stamps() != stamps or task.item.hash() != task.hash:
            raise ConfigError("its files changed while they were read; run again")
        text = json.dumps(dict(made.about), separators=(",", ":"))
        for key, (voxels, affine) in made.volumes.items():
            first = not outcome.volumes
            outcome.nbytes += voxels.nbytes
            outcome.volumes.append(
                write_derived(
                    task.store,
                    f"{key}@{task.recipe[:12]}",
                    voxels,
                    affine,
                    subject=task.subject,
                    obs_id=f"{task.hash[:16]}_{key}",
                    source=json.dumps({"stamps": source, "about": text}) if first else "",
                    source_hash=task.hash,
                    config=task.config,
                    grid=made.grids.get(key),
                )
            )
    except StoreWriteError as error:
        outcome.failure, outcome.fatal = str(error), True
    except MemoryError:
        outcome.failure = f"{task.item.name}: not enough memory; use fewer workers (num_workers=)"
    except Exception as error:  # one item must never stop the others
        outcome.failure = f"{task.item.name}: {_told(error)}"
    finally:
        torch.set_num_threads(threads)
    if outcome.failure is not None:
        discard_volumes(task.store, outcome.volumes, task.config)
        outcome.volumes = []
    return outcome
