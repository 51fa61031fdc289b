"""What is in a store, to be compared."""

from __future__ import annotations

import hashlib
from typing import Any

import radioloader as rl
from radioloader.storage.foreground import class_voxels

__all__ = ["content", "digest"]


def content(store: rl.RadiObject) -> dict[str, Any]:
    """All of a store that a user can see."""
    found: dict[str, Any] = {
        "subjects": store.obs_subject_ids,
        "columns": store.obs_meta.columns,
        "meta": store.obs_meta.read().astype(object).where(store.obs_meta.read().notna(), None).to_numpy().tolist(),
    }
    for name, collection in store.collections.items():
        found[name] = {volume.obs_id: (volume.obs_subject_id, volume.to_numpy().tobytes()) for volume in collection}
        if collection.kind == "label":
            places, classes, voxels = class_voxels(store.snapshot.store, store.snapshot.index(name))
            found[f"{name} index"] = {
                obs_id: list(zip(classes[places == at].tolist(), voxels[places == at].tolist(), strict=True))
                for at, obs_id in zip(collection.places, collection.obs_ids, strict=True)
            }
    return found


def digest(store: rl.RadiObject) -> str:
    """The same in one text, whatever the order of the collections."""
    found = content(store)
    return hashlib.sha256(repr({name: found[name] for name in sorted(found)}).encode()).hexdigest()
