"""Prepared items, as they lie in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from radioloader.storage.catalog import PREPARED
from radioloader.storage.snapshot import Snapshot
from radioloader.types import VolumeRef

__all__ = ["Prepared", "StoredItems"]


@dataclass(frozen=True)
class Prepared:
    """An item in the store.

    Attributes:
        volumes: Its volumes by key, in the order of the keys.
        about: All else, as JSON.
        hash: Of the source.
    """

    volumes: Mapping[str, VolumeRef]
    about: str
    hash: str


class StoredItems:
    """What a store has of items prepared in one way."""

    def __init__(self, snapshot: Snapshot, recipe: str) -> None:
        self._snapshot = snapshot
        self._keys = {
            name: str(info.recipe["key"])
            for name, info in snapshot.collections.items()
            if info.recipe.get(PREPARED) == recipe
        }
        self.places: dict[str, dict[str, int]] = {}
        self._about: dict[str, str] = {}
        self.stamps: dict[str, str] = {}
        for name in self._keys:
            rows = snapshot.details(name, ["source", "source_hash"])
            for place, (source, hash_) in enumerate(
                zip(rows["source"].tolist(), rows["source_hash"].tolist(), strict=True)
            ):
                self.places.setdefault(hash_, {})[name] = place
                if source:  # of an item's first volume
                    kept = json.loads(source)
                    self._about[hash_] = kept["about"]
                    if kept["stamps"]:
                        self.stamps[kept["stamps"]] = hash_

    def lacks(self, hashes: Mapping[int, str], failures: Mapping[int, str]) -> dict[str, int]:
        """The first item of each content that is not there."""
        missing = {i: h for i, h in hashes.items() if i not in failures and h not in self.places}
        return {h: i for i, h in sorted(missing.items(), reverse=True)}

    def prepared(self, hash_: str) -> Prepared:
        about = self._about[hash_]
        found = {}
        for name, place in self.places[hash_].items():
            tile = tuple(self._snapshot.tiles(name)[place].tolist())
            found[self._keys[name]] = replace(self._snapshot.index(name).ref(place), tile=tile)
        order = json.loads(about)["volumes"]
        return Prepared({key: found[key] for key in order}, about, hash_)
