"""Named masks to classes and label volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radioloader.errors import ConfigError, FormatError, ShapeError
from radioloader.formats.dicom.labels import Classes, combine, match_classes

SHAPE = (5, 4, 3)


def mask_of(*voxels: int, order: str = "C") -> Any:
    mask = np.zeros(60, np.bool_)
    mask[list(voxels)] = True
    return np.asarray(mask.reshape(SHAPE), order=order)  # type: ignore[call-overload]


class TestMatch:
    def test_globs_names_and_case(self) -> None:
        found = match_classes(
            ["GTV_1", "gtv_2", "Lung_L", "lung right", "Body"], {"GTV*": 1, "LUNG*": 2, "body": 3}, where="rs.dcm"
        )
        assert found.values == {"GTV_1": 1, "gtv_2": 1, "Lung_L": 2, "lung right": 2, "Body": 3}
        assert found.titles == {1: "GTV", 2: "LUNG", 3: "body"}
        assert found.notes == ()
        assert found.dtype == np.uint8

    def test_a_name_that_looks_like_a_glob_is_a_name(self) -> None:
        assert match_classes(["GTV[1]", "GTV1"], {"GTV[1]": 4}, where="x").values == {"GTV[1]": 4, "GTV1": 4}
        assert match_classes(["what?", "whats"], {"what[?]": 4}, where="x").values == {"what?": 4}

    def test_several_patterns_of_one_class(self) -> None:
        found = match_classes(["GTV", "CTV", "GTVn"], {"GTV*": 1, "CTV": 1, "*n": 1}, where="x")
        assert found.values == {"GTV": 1, "CTV": 1, "GTVn": 1}
        assert found.titles == {1: "GTV"}

    def test_what_matches_nothing_is_noted(self) -> None:
        found = match_classes(["GTV", "Couch", "Body"], {"GTV": 1, "Heart*": 2}, where="x")
        assert found.values == {"GTV": 1}
        assert found.titles == {1: "GTV", 2: "Heart"}
        assert found.notes == (
            "2 structures match no pattern and were left out",
            "patterns that match no structure: 'Heart*'",
        )

    def test_a_name_of_two_classes_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"rs\.dcm: structure 'Lung_L'.*'Lung\*' \(class 2\), '\*_L' \(class 3\)"):
            match_classes(["GTV", "Lung_L"], {"GTV": 1, "Lung*": 2, "*_L": 3}, where="rs.dcm")
        # An exact name does not win over a glob, either.
        with pytest.raises(ConfigError, match="'GTV'"):
            match_classes(["GTV"], {"GTV": 1, "GTV*": 2}, where="rs.dcm")

    def test_without_a_mapping_the_only_structure_is_class_1(self) -> None:
        found = match_classes(["GTV", "GTV"], None, where="x")
        assert (found.values, found.titles) == ({"GTV": 1}, {1: "class_1"})
        with pytest.raises(ConfigError, match=r"rs\.dcm: holds 2 structures: 'GTV', 'Lung'.*\{'GTV': 1, 'Lung': 2\}"):
            match_classes(["GTV", "Lung"], None, where="rs.dcm")

    def test_nothing_to_match(self) -> None:
        with pytest.raises(FormatError, match=r"rs\.dcm: holds no structures"):
            match_classes([], {"GTV": 1}, where="rs.dcm")
        with pytest.raises(
            FormatError, match=r"rs\.dcm: none of its structures matches 'GTV'; they are 'Lung', 'Body'"
        ):
            match_classes(["Lung", "Body"], {"GTV": 1}, where="rs.dcm")
        with pytest.raises(ConfigError, match=r"is empty.*'Lung'"):
            match_classes(["Lung"], {}, where="rs.dcm")

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", 65536])
    def test_classes_that_a_label_volume_cannot_hold(self, value: Any) -> None:
        with pytest.raises(ConfigError, match="the class of 'GTV'"):
            match_classes(["GTV"], {"GTV": value}, where="x")

    def test_titles_can_be_names_of_folders_and_differ(self) -> None:
        assert match_classes(["a"], {"a": 1, "*": 1, "??": 2, "Großes Hirn/L*": 3}, where="x").titles == {
            1: "a",
            2: "class_2",
            3: "Gro_es_Hirn_L",
        }
        # On a clash all of them get their class, or "GTV_1" could be another one's.
        assert match_classes(["CTV"], {"GTV*": 1, "*gtv": 2, "GTV_1": 3, "CTV": 4}, where="x").titles == {
            1: "GTV_1",
            2: "gtv_2",
            3: "GTV_1_3",
            4: "CTV_4",
        }

    @given(st.dictionaries(st.text("aA*?_1", min_size=1, max_size=4), st.integers(1, 6), min_size=1, max_size=8))
    def test_titles_always_differ(self, mapping: dict[str, int]) -> None:
        try:
            titles = match_classes(["a"], {**mapping, "a": mapping.get("a", 1)}, where="x").titles
        except ConfigError:
            return  # 'a' matched two classes
        assert len({title.casefold() for title in titles.values()}) == len(titles)
        assert all(title and set(title) <= set("aA_1class23456-") for title in titles.values())


CLASSES = Classes({"GTV": 1, "GTVn": 1, "Lung": 2, "Body": 3}, {1: "GTV", 2: "Lung", 3: "Body"})


class TestCombine:
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_one_label_volume(self, order: str) -> None:
        masks = [("GTV", mask_of(0, 7, order=order)), ("Lung", mask_of(30, 31, order=order))]
        (key,) = found = combine([*masks, ("GTVn", mask_of(7, 8, order=order))], CLASSES, where="x")
        labels = found[key]
        assert key == ""
        assert labels.dtype == np.uint8
        assert labels.flags[f"{order}_CONTIGUOUS"]
        expected = np.zeros(60, np.uint8)
        expected[[0, 7, 8]], expected[[30, 31]] = 1, 2
        assert np.array_equal(labels, expected.reshape(SHAPE))

    def test_names_without_a_class_are_left_out(self) -> None:
        found = combine([("Couch", mask_of(*range(60))), ("GTV", mask_of(3))], CLASSES, where="x")
        assert found[""].sum() == 1
        with pytest.raises(FormatError, match=r"rs\.dcm: holds no mask"):
            combine([("Couch", mask_of(1))], CLASSES, where="rs.dcm")

    def test_classes_above_255_need_more_bits_whether_present_or_not(self) -> None:
        classes = match_classes(["a", "b"], {"a": 1, "b": 300}, where="x")
        labels = combine([("a", mask_of(1)), ("b", mask_of(2))], classes, where="x")[""]
        assert labels.dtype == np.uint16
        assert labels.max() == 300
        assert combine([("a", mask_of(1))], match_classes(["a"], {"a": 1, "b": 300}, where="x"), where="x")[
            ""
        ].dtype == (np.uint16)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_overlaps_are_refused_with_all_that_is_needed(self, order: str) -> None:
        masks = [
            ("GTV", mask_of(0, 1, 2, order=order)),
            ("GTVn", mask_of(2, 3, order=order)),
            ("Lung", mask_of(2, 3, 20, order=order)),
            ("Body", mask_of(0, 20, 59, order=order)),
        ]
        with pytest.raises(FormatError) as caught:
            combine(masks, CLASSES, where="rs.dcm")
        for part in (
            "rs.dcm",
            "'Lung' (class 2) and 'GTV', 'GTVn' (class 1) share 2 voxels",
            "'Body' (class 3) and 'GTV', 'GTVn' (class 1) share 1 voxels",
            "'Body' (class 3) and 'Lung' (class 2) share 1 voxels",
            "on_overlap='separate'",
        ):
            assert part in str(caught.value)

    def test_separate_gives_a_binary_volume_for_each_class(self) -> None:
        masks = [("GTV", mask_of(0, 1)), ("Lung", mask_of(1, 20)), ("GTVn", mask_of(1, 59))]
        found = combine(masks, CLASSES, on_overlap="separate", where="x")
        assert list(found) == ["GTV", "Lung"]
        assert {key: np.flatnonzero(volume).tolist() for key, volume in found.items()} == {
            "GTV": [0, 1, 59],
            "Lung": [1, 20],
        }
        assert all(volume.dtype == np.uint8 and volume.max() == 1 for volume in found.values())
        # The same without an overlap: each subject of a cohort gets the same volumes.
        assert list(combine([("GTV", mask_of(0))], CLASSES, on_overlap="separate", where="x")) == ["GTV"]

    def test_masks_are_asked_for_one_at_a_time(self) -> None:
        alive = 0

        def masks() -> Iterator[tuple[str, Any]]:
            nonlocal alive
            import weakref

            for number, name in enumerate(["GTV", "Lung", "Body"]):
                mask = mask_of(number)
                alive += 1

                def gone() -> None:
                    nonlocal alive
                    alive -= 1

                weakref.finalize(mask, gone)
                yield name, mask
                del mask
                assert alive == 0

        assert combine(masks(), CLASSES, where="x")[""].sum() == 6

    def test_an_empty_mask_is_a_class_that_is_there(self) -> None:
        assert not combine([("GTV", mask_of())], CLASSES, where="x")[""].any()

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ShapeError, match=r"rs\.dcm: the mask of 'Lung' has shape \(1, 2, 3\), .*\(5, 4, 3\)"):
            combine([("GTV", mask_of(0)), ("Lung", np.ones((1, 2, 3), np.bool_))], CLASSES, where="rs.dcm")

    def test_options_that_are_not_allowed(self) -> None:
        with pytest.raises(ConfigError, match="on_overlap='first'"):
            combine([("GTV", mask_of(0))], CLASSES, on_overlap="first", where="x")  # type: ignore[arg-type]

    @given(
        st.lists(st.tuples(st.sampled_from(list(CLASSES.values)), st.sets(st.integers(0, 59))), min_size=1, max_size=6)
    )
    def test_each_voxel_has_its_class_or_none_wins(self, drawn: list[tuple[str, set[int]]]) -> None:
        owners: dict[int, set[int]] = {}
        for name, voxels in drawn:
            for voxel in voxels:
                owners.setdefault(voxel, set()).add(CLASSES.values[name])
        masks = [(name, mask_of(*voxels)) for name, voxels in drawn]
        if any(len(classes) > 1 for classes in owners.values()):
            with pytest.raises(FormatError, match="overlap"):
                combine(masks, CLASSES, where="x")
        else:
            labels = combine(masks, CLASSES, where="x")[""].ravel()
            assert {i: {int(labels[i])} for i in np.flatnonzero(labels).tolist()} == owners
        separate = combine(masks, CLASSES, on_overlap="separate", where="x")
        for number, title in CLASSES.titles.items():
            expected = {voxel for voxel, classes in owners.items() if number in classes}
            if title in separate:
                assert set(np.flatnonzero(separate[title]).tolist()) == expected
            else:
                assert not expected
