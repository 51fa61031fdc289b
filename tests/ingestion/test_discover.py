"""From globs, folders, lists and mappings to one file for each subject and collection."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from radioloader.errors import ConfigError
from radioloader.ingestion.discover import discover, find_files, is_label_name

Touch = Callable[..., Path]


def names(paths: list[str]) -> list[str]:
    return [os.path.basename(path) for path in paths]


# Files of one source


def test_a_folder_gives_its_nifti_files_sorted_without_hidden_and_other_files(tmp_path: Path, touch: Touch) -> None:
    touch(
        tmp_path,
        "b.nii.gz",
        "a.nii",
        "UPPER.NII.GZ",
        ".hidden.nii.gz",
        "._a.nii",
        "notes.txt",
        "x.nii.gz.tmp",
        "c.json",
        "deep/z.nii.gz",
    )
    found = find_files("T1w", tmp_path)
    assert names(found) == ["UPPER.NII.GZ", "a.nii", "b.nii.gz"]
    assert all(os.path.isabs(path) for path in found)
    assert find_files("T1w", str(tmp_path) + "/") == found


def test_a_folder_without_files_of_its_own_gives_those_below_it(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "sub-1/anat/t1.nii.gz", "sub-2/t1.nii", ".git/annex/t1.nii.gz", "sub-2/.cache/t1.nii.gz", "README")
    assert [os.path.relpath(path, tmp_path) for path in find_files("T1w", tmp_path)] == [
        "sub-1/anat/t1.nii.gz",
        "sub-2/t1.nii",
    ]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "raw/sub-1/t1.nii.gz", "cohort/readme")
    (tmp_path / "cohort" / "sub-1").symlink_to(tmp_path / "raw" / "sub-1")
    (tmp_path / "raw" / "sub-1" / "up").symlink_to(tmp_path / "cohort")
    found = find_files("T1w", tmp_path / "cohort")
    assert [os.path.relpath(path, tmp_path) for path in found] == ["cohort/sub-1/t1.nii.gz"]


def test_a_glob_may_be_recursive_and_matches_only_nifti_files(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "s1/a.nii.gz", "s2/deep/b.nii.gz", "s2/a.txt", "s2/.c.nii.gz")
    assert names(find_files("T1w", f"{tmp_path}/**/*")) == ["a.nii.gz", "b.nii.gz"]
    assert names(find_files("T1w", f"{tmp_path}/s?/*.nii.gz")) == ["a.nii.gz"]


def test_one_file_and_a_list_are_taken_as_they_are(
    tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "b.nii.gz", "a.nii")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_files("T1w", "b.nii.gz") == [str(tmp_path / "b.nii.gz")]
    assert find_files("T1w", ["b.nii.gz", tmp_path / "a.nii", "./b.nii.gz", "~/a.nii"]) == [
        str(tmp_path / n) for n in ("a.nii", "b.nii.gz")
    ]
    # a generator, as Path.glob gives
    assert names(find_files("T1w", tmp_path.glob("*.nii*"))) == ["a.nii", "b.nii.gz"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pair", [("a.hdr", "a.img"), ("a.hdr.gz", "a.img.gz"), ("a.HDR", "a.IMG"), ("a.hdr", "a.img.gz")]
)
def test_a_hdr_img_pair_counts_once_from_every_kind_of_source(
    tmp_path: Path, touch: Touch, pair: tuple[str, str]
) -> None:
    touch(tmp_path, *pair, "b.nii.gz")
    sources: list[Any] = [tmp_path, f"{tmp_path}/*", [tmp_path / name for name in (*pair, "b.nii.gz")]]
    for source in sources:
        assert names(find_files("T1w", source)) == [pair[0], "b.nii.gz"]


def test_img_files_alone_stand_for_their_pairs(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "a.hdr", "a.img", "b.hdr", "b.img")
    assert names(find_files("T1w", f"{tmp_path}/*.img")) == ["a.img", "b.img"]
    assert names(find_files("T1w", [tmp_path / "b.img"])) == ["b.img"]


def test_a_dangling_link_is_kept_so_that_its_subject_fails_by_name(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "a.nii.gz", "c.nii.gz/inside.txt")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "annex" / "objects" / "b")
    assert names(find_files("T1w", tmp_path)) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "empty",
            "collection 'T1w': the folder {root}/empty holds no NIfTI file (.nii.gz, .nii, .hdr.gz, .hdr, .img.gz, .img)",
        ),
        ("nowhere/*.nii.gz", "collection 'T1w': {root}/nowhere/*.nii.gz matches nothing (looked in "),
        ("empty/*.txt", "collection 'T1w': {root}/empty/*.txt matches 2 files, but none is NIfTI (looked in "),
    ],
)
def test_a_source_without_files_is_refused_by_name(tmp_path: Path, touch: Touch, source: str, text: str) -> None:
    touch(tmp_path, "empty/a.txt", "empty/b.txt")
    with pytest.raises(ConfigError) as caught:
        find_files("T1w", f"{tmp_path}/{source}")
    assert str(caught.value).startswith(text.format(root=tmp_path))


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ({}, "images is empty; give at least one collection, such as {'T1w': 'images/*.nii.gz'}"),
        (
            "images/*.nii.gz",
            "images='images/*.nii.gz' is not a mapping from collection to source, such as {'T1w': 'images/*.nii.gz'}",
        ),
        ({"T1w": []}, "collection 'T1w': the list of files is empty"),
        ({"T1w": {}}, "collection 'T1w': the mapping is empty"),
        ({"T1w": None}, "collection 'T1w': None is no glob, folder, list of paths or mapping"),
        ({"": "x"}, "the collection name '' is not a non-empty string"),
        ({"a\0": "x"}, "the collection name 'a\\x00' holds a NUL character, which a store does not keep; rename it"),
        ({3: "x"}, "the collection name 3 is not a non-empty string"),
    ],
)
def test_wrong_sources_are_refused_in_words(images: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        discover(images)
    assert str(caught.value) == text


# Subjects across collections

LAYOUTS: dict[str, tuple[dict[str, list[str]], list[str], str]] = {
    "endings with the collection's name": (
        {"T1w": ["a_T1w", "b_T1w"], "seg": ["a_seg", "b_seg"]},
        ["a", "b"],
        "file name without the collection's name",
    ),
    "endings in another case, and other delimiters": (
        {"T1W": ["p 1-t1w", "p 2-t1w"], "Seg": ["p 1.seg", "p 2.seg"]},
        ["p 1", "p 2"],
        "file name without the collection's name",
    ),
    "same names in two folders": ({"CT": ["x1", "x2"], "mask": ["x1", "x2"]}, ["x1", "x2"], "file name"),
    "nnU-Net": (
        {"T1w": ["BRATS_001_0000", "BRATS_002_0000"], "seg": ["BRATS_001", "BRATS_002"]},
        ["BRATS_001", "BRATS_002"],
        "file name without nnU-Net's channel (_0000)",
    ),
    "nnU-Net, two channels": (
        {
            "T1w": ["c1_0000", "c11_0000", "c21_0000"],
            "T2w": ["c1_0001", "c11_0001", "c21_0001"],
            "seg": ["c1", "c11", "c21"],
        },
        ["c1", "c11", "c21"],
        "file name without nnU-Net's channel (_0000)",
    ),
    "nnU-Net, one case": (
        {"T1w": ["c1_0000"], "seg": ["c1"]},
        ["c1"],
        "file name without nnU-Net's channel (_0000)",
    ),
    "nnU-Net, images alone": (
        {"CT": ["case1_0000", "case2_0000"]},
        ["case1", "case2"],
        "file name without nnU-Net's channel (_0000)",
    ),
    "nnU-Net, images of another channel alone": (
        {"PET": ["case1_0001", "case2_0001"]},
        ["case1", "case2"],
        "file name without nnU-Net's channel (_0000)",
    ),
    "nnU-Net, one image of another channel": ({"PET": ["case_0007"]}, ["case_0007"], "file name"),
    "numbered cases": ({"CT": ["case_0000", "case_0001"]}, ["case_0000", "case_0001"], "file name"),
    "BIDS": (
        {"T1w": ["sub-01_T1w", "sub-02_T1w"], "seg": ["sub-01_space-orig_dseg", "sub-02_space-orig_dseg"]},
        ["sub-01", "sub-02"],
        "BIDS entities (sub-, ses-)",
    ),
    "BIDS with sessions": (
        {"T1w": ["sub-01_ses-a_T1w", "sub-01_ses-b_T1w"], "seg": ["sub-01_ses-a_seg", "sub-01_ses-b_seg"]},
        ["sub-01_ses-a", "sub-01_ses-b"],
        "BIDS entities (sub-, ses-)",
    ),
    "BIDS with runs, which the entities do not tell apart": (
        {"T1w": ["sub-01_run-1_T1w", "sub-01_run-2_T1w"], "seg": ["sub-01_run-1_seg", "sub-01_run-2_seg"]},
        ["sub-01_run-1", "sub-01_run-2"],
        "file name without the collection's name",
    ),
    "a folder for each subject": (
        {"T1w": ["s1/t1", "s2/t1"], "seg": ["s1/truth", "s2/truth"]},
        ["s1", "s2"],
        "folder name",
    ),
    "BraTS": (
        {"T1w": ["B_01/B_01_t1", "B_02/B_02_t1"], "seg": ["B_01/B_01_seg", "B_02/B_02_seg"]},
        ["B_01", "B_02"],
        "file name without what all files of the collection end in",
    ),
    "one collection": ({"CT": ["x_CT", "y_CT"]}, ["x", "y"], "file name without the collection's name"),
    "one collection, plain names": ({"CT": ["x", "y"]}, ["x", "y"], "file name"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_subjects_are_matched_in_the_usual_layouts(tmp_path: Path, touch: Touch, layout: str) -> None:
    files, subjects, rule = LAYOUTS[layout]
    for name, stems in files.items():
        touch(tmp_path / name, *[f"{stem}.nii.gz" for stem in stems])
    cohort = discover({name: tmp_path / name for name in files})
    assert (list(cohort.files), cohort.failures, cohort.rule) == (subjects, {}, rule)
    for subject, stems in zip(subjects, zip(*files.values(), strict=True), strict=True):
        assert cohort.files[subject] == {
            name: str(tmp_path / name / f"{stem}.nii.gz") for name, stem in zip(files, stems, strict=True)
        }


def test_a_rule_that_fits_most_subjects_wins_and_the_rest_is_listed(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path / "images", "a_T1w.nii.gz", "b_T1w.nii.gz", "c_T1w.nii.gz")
    touch(tmp_path / "labels", "a_seg.nii.gz", "b_seg.nii.gz")
    cohort = discover({"T1w": tmp_path / "images", "seg": tmp_path / "labels"})
    assert list(cohort.files) == ["a", "b", "c"]
    assert cohort.failures == {
        "c": f"missing 'seg': no file of subject 'c' in collection 'seg' (it has {tmp_path}/images/c_T1w.nii.gz); add it, or allow it with "
        "allow_missing (--allow-missing)"
    }
    assert discover({"T1w": tmp_path / "images", "seg": tmp_path / "labels"}, allow_missing=True).failures == {}


@pytest.mark.parametrize(
    "regex", [r"case(?P<subject>\d+)", r"case(\d+)", r"(?<=case)\d+", r"(img|lbl)/case(?P<subject>\d+)"]
)
def test_subject_regex_finds_the_id_in_the_path(tmp_path: Path, touch: Touch, regex: str) -> None:
    touch(tmp_path, "img/case1-x.nii.gz", "img/case2-y.nii.gz", "lbl/case1-u.nii.gz", "lbl/case2-v.nii.gz")
    cohort = discover({"T1w": tmp_path / "img", "seg": tmp_path / "lbl"}, subject_regex=regex)
    assert (list(cohort.files), cohort.rule, cohort.failures) == (["1", "2"], f"subject_regex={regex!r}", {})


def test_a_subject_regex_that_does_not_fit_is_explained(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "case1.nii.gz", "other.nii.gz")
    with pytest.raises(ConfigError) as caught:
        discover({"T1w": tmp_path}, subject_regex=r"case\d")
    assert str(caught.value) == rf"collection 'T1w': subject_regex='case\\d' finds nothing in {tmp_path}/other.nii.gz"
    with pytest.raises(
        ConfigError, match=r"^subject_regex='\(' is not a regular expression: missing \), unterminated subpattern"
    ):
        discover({"T1w": tmp_path}, subject_regex="(")


def test_collections_without_a_common_subject_are_refused_with_examples(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "i/anna.nii.gz", "i/bert.nii.gz", "l/1.nii.gz", "l/2.nii.gz", "l/3.nii.gz", "l/4.nii.gz")
    with pytest.raises(ConfigError) as caught:
        discover({"T1w": tmp_path / "i", "seg": tmp_path / "l"})
    assert str(caught.value) == (
        "no subject has a file in every collection, going by file names (T1w: ['anna', 'bert']; seg: ['1', '2', '3']); give subject_regex "
        "(--subject-regex), or a mapping from subject id to path for each collection"
    )


def test_a_mapping_names_its_subjects_and_others_are_matched_to_it(
    tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "x/one.nii.gz", "x/two.nii.gz", "y/A_seg.nii.gz", "y/B_seg.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    cohort = discover({"T1w": {"B": "x/one.nii.gz", "A": "~/x/two.nii.gz"}, "seg": tmp_path / "y"})
    assert cohort.files == {
        "A": {"T1w": str(tmp_path / "x/two.nii.gz"), "seg": str(tmp_path / "y/A_seg.nii.gz")},
        "B": {"T1w": str(tmp_path / "x/one.nii.gz"), "seg": str(tmp_path / "y/B_seg.nii.gz")},
    }
    # ids that are not text, as a table of subjects gives them
    assert list(discover({"T1w": {7: "x/one.nii.gz"}}).files) == ["7"]  # type: ignore[dict-item]


def test_names_that_differ_in_their_unicode_form_only_are_one_name(tmp_path: Path, touch: Touch) -> None:
    composed, decomposed = "m\u00fcller", "mu\u0308ller"
    touch(tmp_path, f"i/{decomposed}_T1w.nii.gz", f"l/{composed}_seg.nii.gz", f"p/{decomposed}/pet.nii.gz")
    cohort = discover({"T1w": tmp_path / "i", "seg": tmp_path / "l", "PET": {decomposed: f"{tmp_path}/x.nii"}})
    assert (list(cohort.files), cohort.failures) == ([composed], {})
    assert cohort.files[composed]["T1w"] == f"{tmp_path}/i/{decomposed}_T1w.nii.gz"  # the file keeps its own name
    assert list(discover({"PET": tmp_path / "p"}, subject_regex=r"/p/(.+)/").files) == [composed]


def test_a_duplicate_subject_id_fails_with_all_its_files(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "s1/t1.nii.gz", "s1/t1.nii", "s2/t1.nii.gz", "l/s1/truth.nii.gz", "l/s2/truth.nii.gz")
    cohort = discover({"T1w": f"{tmp_path}/s*/*", "seg": tmp_path / "l"})
    assert list(cohort.files) == ["s1", "s2"]
    assert cohort.failures == {
        "s1": f"duplicate subject id 's1' in collection 'T1w': {tmp_path}/s1/t1.nii, {tmp_path}/s1/t1.nii.gz; rename one, or give a "
        "mapping from subject id to path"
    }


def test_an_id_that_a_store_would_cut_fails_alone() -> None:
    cohort = discover({"T1w": {"a\0": "/x/a.nii", "b": "/x/b.nii"}})
    assert cohort.failures == {"a\0": "the subject id 'a\\x00' of /x/a.nii holds a NUL character; give another id"}


def test_a_name_that_is_not_utf8_fails_alone(tmp_path: Path, touch: Touch) -> None:
    touch(tmp_path, "a.nii.gz")
    broken = os.fsencode(tmp_path) + b"/m\xfcller.nii.gz"  # latin-1
    with open(broken, "wb"):
        pass
    cohort = discover({"T1w": tmp_path})
    assert [os.fsencode(subject) for subject in cohort.files] == [b"a", b"m\xfcller"]
    assert list(cohort.failures.values()) == [f"{tmp_path}/m\\udcfcller.nii.gz: the name is not valid UTF-8; rename it"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("seg", True),
        ("labels", True),
        ("liver_mask", True),
        ("tumorSeg", True),
        ("GT", True),
        ("segmentation-2", True),
        ("T1w", False),
        ("CT", False),
        ("segovia", False),
        ("unmasked", False),
        ("", False),
    ],
)
def test_collections_are_labels_by_their_names(name: str, label: bool) -> None:
    assert is_label_name(name) is label


# Real layouts


def test_a_decathlon_task_is_found_whole(shared_data: Path) -> None:
    root = shared_data / "hippocampus"
    cohort = discover({"T1w": root / "imagesTr", "seg": root / "labelsTr"})
    assert cohort.failures == {}
    assert len(cohort.files) == len(list((root / "imagesTr").glob("[!.]*.nii.gz"))) > 0
    for subject, files in cohort.files.items():
        assert os.path.basename(files["T1w"]) == os.path.basename(files["seg"]) == f"{subject}.nii.gz"
