"""Which volume of a subject is where: slots and their ids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radioloader.ingestion.dicom_slots import Candidate, give_slots
from radioloader.ingestion.slots import collection_of, make_slot, obs_id_of, shown, slot_of

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(names, names, st.one_of(st.just(""), names))
def test_the_id_of_a_slot_leads_back_to_it(subject: str, collection: str, suffix: str) -> None:
    slot = make_slot(collection, suffix)
    assert collection_of(slot) == collection
    assert "\0" not in shown(slot)
    assert slot_of(subject, collection, obs_id_of(subject, slot)) == slot


def test_ids_of_no_rule_are_the_plain_slot() -> None:
    assert slot_of("a", "CT", "somebody_else") == "CT"
    assert slot_of("a", "CT", "a_CT") == "CT"


def one(series: str, number: int | None = None, part: int = 0) -> Candidate:
    source: Any = SimpleNamespace(name=f"dicom:{series}" + (f"#part{part}" if part else ""))
    return Candidate("CT", number, series, part, source)


def given_to(members: list[Candidate], stored: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    slots, gone = give_slots(members, {make_slot(*key.split(" ")): name for key, name in stored.items()})
    return {slot.replace("\0", " "): member.source.name for slot, member in slots.items()}, {
        slot.replace("\0", " ") for slot in gone
    }


@pytest.mark.parametrize(
    ("members", "stored", "slots", "gone"),
    [
        # Nothing is there
        ([one("a", 3)], {}, {"CT": "dicom:a"}, set()),
        ([one("b", 9), one("a", 3)], {}, {"CT s3": "dicom:a", "CT s9": "dicom:b"}, set()),
        ([one("b", 3), one("a", 3)], {}, {"CT s3": "dicom:a", "CT s3_2": "dicom:b"}, set()),
        ([one("b"), one("a")], {}, {"CT s": "dicom:a", "CT s_2": "dicom:b"}, set()),
        ([one("a", 3, 1), one("a", 3, 2)], {}, {"CT part1": "dicom:a#part1", "CT part2": "dicom:a#part2"}, set()),
        (
            [one("a", 3, 1), one("a", 3, 2), one("b", 4)],
            {},
            {"CT s3_part1": "dicom:a#part1", "CT s3_part2": "dicom:a#part2", "CT s4": "dicom:b"},
            set(),
        ),
        # What is known keeps its place, beside what is new
        ([one("a", 3), one("b", 9)], {"CT": "dicom:b"}, {"CT": "dicom:b", "CT s3": "dicom:a"}, set()),
        ([one("a", 3)], {"CT s3": "dicom:a", "CT s9": "dicom:b"}, {"CT s3": "dicom:a"}, set()),
        # Never in the place of another
        ([one("a", 3)], {"CT": "dicom:b"}, {"CT s3": "dicom:a"}, set()),
        ([one("a", 3)], {"CT": "/images/a.nii.gz"}, {"CT s3": "dicom:a"}, set()),
        ([one("a", 3)], {"CT s3": "dicom:b"}, {"CT s3_2": "dicom:a"}, set()),
        (
            [one("a", 3, 1), one("a", 3, 2)],
            {"CT": "dicom:b"},
            {"CT s3_part1": "dicom:a#part1", "CT s3_part2": "dicom:a#part2"},
            set(),
        ),
        # Unless that is the same series in another shape
        (
            [one("a", 3, 1), one("a", 3, 2)],
            {"CT": "dicom:a"},
            {"CT part1": "dicom:a#part1", "CT part2": "dicom:a#part2"},
            {"CT"},
        ),
        (
            [one("a", 3)],
            {"CT part1": "dicom:a#part1", "CT part2": "dicom:a#part2"},
            {"CT": "dicom:a"},
            {"CT part1", "CT part2"},
        ),
        (
            [one("a", 3, 1), one("a", 3, 2)],
            {"CT part1": "dicom:a#part1", "CT part2": "dicom:a#part2", "CT part3": "dicom:a#part3"},
            {"CT part1": "dicom:a#part1", "CT part2": "dicom:a#part2"},
            {"CT part3"},
        ),
    ],
)
def test_slots_that_volumes_get(
    members: list[Candidate], stored: dict[str, str], slots: dict[str, str], gone: set[str]
) -> None:
    assert given_to(members, stored) == (slots, gone)
    assert given_to(members[::-1], stored) == (slots, gone)
    # And once more, when they are stored
    left = {key: name for key, name in stored.items() if key not in gone}
    assert given_to(members, left | slots) == (slots, set())
