"""Changes of a store that touch no voxels: what leaves it, and what is called otherwise. Each call is one commit: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.ingestion.slots import moved_id
from radioloader.storage.edits import (
    drop_collection,
    drop_subjects,
    drop_volumes,
    move_subjects,
    move_volumes,
    rename_collection,
)
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

__all__ = ["remove", "rename"]


def _ids(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


def _need(wanted: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    missing = sorted(set(wanted).difference(known))
    if missing:
        more = f" (nor {len(missing) - 1} others of {len(set(wanted))})" if len(missing) > 1 else ""
        raise KeyNotFoundError(f"{where} has no {what} {missing[0]!r}{more}; nothing was changed")


def remove(
    store: Store,
    subjects: str | Iterable[str],
    collections: str | Iterable[str],
    volumes: Mapping[str, str | Iterable[str]],
    message: str | None,
) -> None:
    """See :meth:`RadiObject.remove`."""
    gone, dropped = _ids(subjects), _ids(collections)
    chosen = {name: _ids(ids) for name, ids in volumes.items()}
    with store.write() as transaction:
        now = Snapshot(store, transaction.commits)
        _need(gone, now.subject_places, "subject", store.uri)
        for name in [*dropped, *chosen]:
            now.collection(name)
        for name, ids in chosen.items():
            _need(ids, now.index(name).obs_ids.tolist(), "volume", f"collection {name!r} of {store.uri}")
        count = 0
        for name, info in now.collections.items():
            if name in dropped:
                count += drop_collection(store, transaction, info)
                continue
            index = now.index(name)
            of_subjects = [str(index.obs_ids[place]) for subject in gone for place in index.of_subject(subject)]
            count += drop_volumes(store, transaction, info, [*of_subjects, *chosen.get(name, [])])
        if gone:
            drop_subjects(store, transaction, gone)
        if not transaction.pending:
            return
        parts = [
            f"{len(what)} {kind}{'s' * (len(what) != 1)}"
            for what, kind in ((gone, "subject"), (dropped, "collection"))
            if what
        ]
        said = f"removed {' and '.join([*parts, f'{count} volumes'])}"
        changes = {"removed": {"subjects": len(gone), "collections": sorted(dropped), "volumes": count}}
        transaction.commit(said if message is None else message, changes)


def rename(store: Store, collections: Mapping[str, str], subjects: Mapping[str, str], message: str | None) -> None:
    """See :meth:`RadiObject.rename`."""
    names = {old: new for old, new in collections.items() if old != new}
    people = {old: new for old, new in subjects.items() if old != new}
    with store.write() as transaction:
        now = Snapshot(store, transaction.commits)
        for name in names:
            if now.collection(name).computed:
                raise ConfigError(
                    f"collection {name!r} of {store.uri} was computed from others, and is found again by its name; it cannot be renamed"
                )
        _need(people, now.subject_places, "subject", store.uri)
        _check(names, list(now.collections), "collection", store.uri)
        _check(people, now.subject_ids, "subject", store.uri)
        for name, info in now.collections.items():
            moves = _moves(now, name, names.get(name, name), people)
            if moves:
                move_volumes(store, transaction, info, moves)
            if name in names:
                rename_collection(store, transaction, info, names[name])
        if people:
            move_subjects(store, transaction, people)
        if not transaction.pending:
            return
        parts = [
            f"{kind} {old!r} to {new!r}"
            for kind, what in (("collection", names), ("subject", people))
            for old, new in what.items()
        ]
        said = f"renamed {', '.join(parts[:5])}{f' and {len(parts) - 5} more' if parts[5:] else ''}"
        changes = {"renamed": {"collections": names, "subjects": len(people)}}
        transaction.commit(said if message is None else message, changes)


def _check(renamed: Mapping[str, str], existing: Sequence[str], what: str, uri: str) -> None:
    """Whether nobody's name is taken from them."""
    stay = set(existing) - renamed.keys()
    seen: dict[str, str] = {}
    for old, new in renamed.items():
        if not isinstance(new, str) or not new or "\0" in new:
            raise ConfigError(
                f"{what} {old!r} cannot be called {new!r}: a name is text, not empty, without NUL characters"
            )
        if new in stay:
            raise ConfigError(f"{uri} has a {what} {new!r} already, so {old!r} cannot be called that")
        if new in seen:
            raise ConfigError(f"{what}s {seen[new]!r} and {old!r} cannot both be called {new!r}")
        seen[new] = old


def _moves(now: Snapshot, name: str, new_name: str, people: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """New obs_id and subject of the volumes of a collection: ids are made of subject and collection, and ingests find volumes by that."""
    index = now.index(name)
    moves = {}
    for obs_id, subject in zip(index.obs_ids.tolist(), index.subject_ids.tolist(), strict=True):
        person = people.get(subject, subject)
        if person == subject and new_name == name:
            continue
        moves[obs_id] = (moved_id(obs_id, subject, name, new_name, person), person)
    return moves
