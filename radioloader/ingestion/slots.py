"""Which volume of a subject: its collection, and where the subject has several in it, what tells them apart.

A slot is the collection's name, or that and a suffix after a NUL character, which names of collections never hold.
"""

from __future__ import annotations

__all__ = ["collection_of", "is_dicom", "make_slot", "moved_id", "obs_id_of", "series_of", "shown", "slot_of"]


def make_slot(collection: str, suffix: str = "") -> str:
    """The slot of a subject's volume in a collection."""
    return f"{collection}\0{suffix}" if suffix else collection


def collection_of(slot: str) -> str:
    """The collection of a slot."""
    return slot.partition("\0")[0]


def obs_id_of(subject: str, slot: str) -> str:
    """The id of the volume in its collection."""
    return f"{subject}_{shown(slot)}"


def moved_id(obs_id: str, subject: str, collection: str, new_collection: str, new_subject: str | None = None) -> str:
    """The id of a volume in another collection, or of another subject; an id that follows no rule of ours stays."""
    plain = obs_id_of(subject, collection)
    if obs_id != plain and not obs_id.startswith(f"{plain}_"):
        return obs_id
    return obs_id_of(subject if new_subject is None else new_subject, new_collection) + obs_id.removeprefix(plain)


def shown(slot: str) -> str:
    """A slot as users see it."""
    return slot.replace("\0", "_")


def slot_of(subject: str, collection: str, obs_id: str) -> str:
    """The slot that has this id; the plain one where the id follows no rule of ours."""
    prefix = f"{subject}_{collection}_"
    return make_slot(collection, obs_id.removeprefix(prefix) if obs_id.startswith(prefix) else "")


def is_dicom(source: str) -> bool:
    """Whether a source is a series, named by its UIDs, and no file."""
    return source.startswith("dicom:")


def series_of(source: str) -> str:
    """What all volumes of a series, or of a segmentation, share of their names; other sources are alone."""
    return source.partition("#")[0] if is_dicom(source) else source
