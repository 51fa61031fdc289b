"""What the volumes of a subject are called in a collection: one volume plainly, several by the numbers of their series."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from radioloader.ingestion.intake import VolumeSource
from radioloader.ingestion.slots import collection_of, make_slot, series_of

__all__ = ["Candidate", "give_slots", "lacking", "stale_slots"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A source that wants a slot.

    Attributes:
        collection: Its collection.
        number: SeriesNumber; None when there is none.
        series: SeriesInstanceUID.
        part: Which part of an irregular stack it is; 0 when that was not split.
        source: Itself.
    """

    collection: str
    number: int | None
    series: str
    part: int
    source: VolumeSource


def give_slots(members: Sequence[Candidate], stored: Mapping[str, str]) -> tuple[dict[str, Candidate], set[str]]:
    """Slots for a subject's volumes of one collection.

    A source keeps the slot that it has in the store. The slot of another source is never taken: that would replace a volume that nobody
    spoke of. Parts of a series that no longer exist (it was split in another way, or not at all, by then) give way.

    Args:
        members: The volumes.
        stored: What the store has: name of the source by slot.

    Returns:
        The volumes by slot, and the slots of the store whose volumes have given way.
    """
    names = {one.source.name for one in members}
    series = {series_of(name) for name in names}
    gone = {slot for slot, name in stored.items() if name not in names and series_of(name) in series}
    own = {name: slot for slot, name in stored.items() if name in names}
    others = stored.keys() - gone - set(own.values())
    slots: dict[str, Candidate] = {}
    rest = []
    for one in sorted(members, key=lambda one: (one.number is None, one.number or 0, one.series, one.part)):
        if one.source.name in own and own[one.source.name] not in slots:
            slots[own[one.source.name]] = one
        else:
            rest.append(one)
    plain = len(members) == 1 and not others
    numbered = len({one.series for one in members}) > 1 or bool(slots) or bool(others)
    for one in rest:
        words = []
        if numbered and not plain:
            words.append(f"s{one.number}" if one.number is not None else "s")
        if one.part and not plain:
            words.append(f"part{one.part}")
        base = "_".join(words)
        slot, more = make_slot(one.collection, base), 1
        while slot in slots or slot in others:
            more += 1
            slot = make_slot(one.collection, f"{base}_{more}" if base else f"{more}")
        slots[slot] = one
    return slots, gone - slots.keys()


def stale_slots(
    asked: str, stored: Mapping[str, str], chosen: Collection[str], there: Mapping[str, Collection[str]]
) -> set[str]:
    """Slots of a subject whose volumes have become others, in the collections that one name makes: a series of which a second echo came is
    no longer one volume in NAME, but two, in NAME_echo1 and NAME_echo2.

    Args:
        asked: The name of the collection as it was asked for.
        stored: What the store has of the subject: name of the source by slot.
        chosen: Names of the sources that come in.
        there: By series, the names of all of its volumes that the files hold now; an empty one for one that cannot be used, and then it is
            not known what the volumes are.
    """
    series = {series_of(name) for name in chosen}
    return {
        slot
        for slot, name in stored.items()
        if series_of(name) in series
        and collection_of(slot) in (asked, f"{asked}_{_kind(name)}")
        and not {name, ""} & set(there.get(series_of(name), [""]))
    }


def lacking(stored: Mapping[str, str], stale: Collection[str], chosen: Collection[str]) -> set[str]:
    """The series of which the store has several kinds of volumes, all stale, and the files now hold one: they are not all there."""
    alone = {series_of(name) for name in chosen if not _kind(name)}
    return alone & {series_of(stored[slot]) for slot in stale if _kind(stored[slot])}


def _kind(source: str) -> str:
    """What a source shows, other than the other volumes of its series: the suffix of its collection."""
    return re.sub(r"_?part\d+$", "", source.partition("#")[2])
