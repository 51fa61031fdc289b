"""A split together with what it was made of, so that it is not used on other data by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radioloader.datasets.split import PARTS, Split, read_json
from radioloader.datasets.table import Store, snapshot_of
from radioloader.errors import ConfigError, KeyNotFoundError
from radioloader.storage.snapshot import Snapshot

__all__ = ["SplitManifest"]

_FORMAT = "radioloader split"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class SplitManifest:
    """A split, and the data and recipe that it was made of.

    Attributes:
        split: The subjects of each part.
        store: URI of the store; for the record, it may lie elsewhere by now.
        store_version: Version of the store; for the record.
        content_hashes: By collection, digest of the voxels by subject, as ingest noted it.
        recipe: How the split was made, as plain values.
    """

    split: Split
    store: str
    store_version: int
    content_hashes: Mapping[str, Mapping[str, str]]
    recipe: Mapping[str, Any]

    @classmethod
    def of(
        cls, split: Split, store: Store, *, collections: Sequence[str], recipe: Mapping[str, Any] | None = None
    ) -> SplitManifest:
        """The manifest of a split of the subjects of ``store``.

        Args:
            split: The split.
            store: URI, or an open store.
            collections: Collections whose volumes are used; each needs a volume of each subject.
            recipe: How the split was made, as values that JSON has.

        Raises:
            KeyNotFoundError: The store has no such collection or subject.
        """
        snapshot, available = snapshot_of(store)
        subjects = [*split.train, *split.val, *split.test]
        lines = _missing(split, available)
        found = {name: _hashes(snapshot, name, subjects) for name in collections}
        lines += [line for name, hashes in found.items() for line in _without_volume(name, subjects, hashes)]
        if lines:
            raise KeyNotFoundError(f"the split does not fit {snapshot.store.uri}: {'; '.join(lines)}")
        return cls(split, snapshot.store.uri, snapshot.commits.version, found, dict(recipe or {}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, which :meth:`Split.load <radioloader.Split.load>` reads as well."""
        data = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "store": self.store,
            "store_version": self.store_version,
            "split": asdict(self.split),
            "recipe": dict(self.recipe),
            "content_hashes": {name: dict(hashes) for name, hashes in self.content_hashes.items()},
        }
        try:
            text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the recipe holds what JSON has not: {error}; give texts, numbers and lists") from error
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SplitManifest:
        """The manifest in a file. :meth:`check` compares it with a store.

        Raises:
            ConfigError: The file is no manifest, of a newer format, or has a subject on two sides.
        """
        where, data = os.fspath(path), read_json(path)
        if data.get("format") != _FORMAT:
            raise ConfigError(
                f"{where} is no manifest of a split: its 'format' is {data.get('format')!r}, not {_FORMAT!r}"
            )
        version = data.get("format_version")
        if not isinstance(version, int) or version > _VERSION:
            raise ConfigError(
                f"{where} has format version {version!r}, this radioloader reads up to {_VERSION}; upgrade radioloader"
            )
        hashes = data.get("content_hashes")
        if not isinstance(hashes, dict) or not all(isinstance(part, dict) for part in hashes.values()):
            raise ConfigError(f"{where} is damaged: it has no content_hashes by collection and subject")
        store, at = str(data.get("store", "")), int(data.get("store_version", 0))
        return cls(Split.load(path), store, at, hashes, dict(data.get("recipe") or {}))

    @classmethod
    def is_in(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a file holds a manifest, rather than a split alone."""
        return read_json(path).get("format") == _FORMAT

    def check(self, store: Store) -> None:
        """Refuse a store whose data are not those that the split was made of. New subjects are nobody's and do no harm.

        Args:
            store: URI, or an open store or selection of its subjects.

        Raises:
            ConfigError: Subjects or volumes are missing, or their contents changed; says which.
        """
        snapshot, available = snapshot_of(store)
        lines = _missing(self.split, available)
        known = set(available)
        for name, expected in self.content_hashes.items():
            if name not in snapshot.collections:
                lines.append(f"there is no collection {name!r}")
                continue
            subjects = [subject for subject in expected if subject in known]
            found = _hashes(snapshot, name, subjects)
            lines += _without_volume(name, subjects, found)
            changed = sorted(s for s in subjects if s in found and found[s] != expected[s])
            if changed:
                lines.append(f"{len(changed)} volumes of {name!r} have other contents, such as those of {changed[:3]}")
        if lines:
            raise ConfigError(
                f"the split of {self.store} (version {self.store_version}) does not fit {snapshot.store.uri} "
                f"(version {snapshot.commits.version}): {'; '.join(lines)}. Use the data that it was made of, or make a new split"
            )


def _missing(split: Split, available: Sequence[str]) -> list[str]:
    known = set(available)
    return [
        f"{len(missing)} {name} subjects are not there, such as {missing[:3]}"
        for name in PARTS
        if (missing := sorted(set(getattr(split, name)) - known))
    ]


def _without_volume(name: str, subjects: Sequence[str], found: Mapping[str, str]) -> list[str]:
    missing = sorted(set(subjects) - set(found))
    return [f"{len(missing)} subjects have no volume in {name!r}, such as {missing[:3]}"] if missing else []


def _hashes(snapshot: Snapshot, name: str, subjects: Sequence[str]) -> dict[str, str]:
    """Digest of what each subject has in a collection, of those that have something: of several volumes, those of all, in their order."""
    index, hashes = snapshot.index(name), snapshot.detail(name, "content_hash")
    places = {subject: found for subject in subjects if (found := index.of_subject(subject))}
    return {subject: "+".join(str(hashes[place]) for place in found) for subject, found in places.items()}
