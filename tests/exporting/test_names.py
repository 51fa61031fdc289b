"""Names of files from ids that hold anything."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.exporting.names import check_paths, fold, safe_name, unique_names

HOSTILE = [
    "../../outside",
    "/etc/absolute",
    "a/b",
    "a_b",
    "..",
    ".hidden",
    "-rf",
    "with space",
    "tab\tand\nline",
    'quote"d',
    "Case",
    "case",
    "ünï",
    "u\u0308mlaut",
    "患者",
    "x" * 300,
    "x" * 299 + "y",
    "trailing.",
    "case_0001",
    "sub-01_T1w",
    "con:*?<>|",
    "PRN",
    "aux.b",
]


@given(st.text() | st.from_regex(r"(?i)\A(con|prn|aux|nul|(com|lpt).)(\..*)?\Z"))
def test_a_name_is_one_part_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert name
    assert not set(name) & set('/\\:*?"<>|\0 \t\n')
    assert name[0] not in ".-"
    assert name[-1] != "."
    assert not re.fullmatch(r"(?i)(con|prn|aux|nul|(com|lpt)[1-9\u00b9\u00b2\u00b3])(\..*)?", name)
    assert len(name.encode()) <= 120
    assert safe_name(name) == name


@given(st.lists(st.text(max_size=4), unique_by=lambda text: unicodedata.normalize("NFC", text)))
def test_ids_are_told_apart_also_where_case_is_not(ids: list[str]) -> None:
    names = unique_names(ids)
    assert len({fold(name) for name in names.values()}) == len(ids)


def test_devices_of_windows_are_no_names() -> None:
    ids = ["CON", "prn", "Aux.nii", "nul", "COM1", "lpt9.a.b", "com\u00b2", "CON..", "con." + "x" * 200]
    assert [safe_name(id_) for id_ in ids[:8]] == [
        "CON_",
        "prn_",
        "Aux_.nii",
        "nul_",
        "COM1_",
        "lpt9_.a.b",
        "com\u00b2_",
        "CON__",
    ]
    assert safe_name(ids[8]).startswith("con_.xx")
    others = ["CONE", "com0", "com10", "a.con", "LPT", "conin"]
    assert [safe_name(id_) for id_ in others] == others
    names = unique_names(["CON", "con_", "x"])
    assert names["x"] == "x"
    assert sorted(name[:5] for name in names.values() if name != "x") == ["CON__", "con__"]


def test_ids_that_are_names_stay() -> None:
    plain = ["hippocampus_001", "sub-01_ses-2", "A.b+c", "ünï", "患者"]
    assert unique_names(plain) == {id_: id_ for id_ in plain}


@pytest.fixture(scope="module")
def hostile(make_store: Any, image: Any) -> str:
    """A store whose subjects have these ids. Do not change it."""
    return str(make_store({"T1w": {id_: image(i, (3, 3, 3)) for i, id_ in enumerate(HOSTILE)}}))


@pytest.mark.parametrize("layout", ["nifti", "bids"])
def test_hostile_ids_stay_inside(layout: str, hostile: str, tmp_path: Path, hashes: Any, back: Any) -> None:
    ids = [id_ for id_ in HOSTILE if layout != "bids" or id_ not in ("a_b", "case", "u\u0308mlaut")]
    expected = {unicodedata.normalize("NFC", id_) for id_ in ids}
    before = set(tmp_path.rglob("*"))
    report = rl.export(rl.open(hostile).loc[sorted(expected)], tmp_path / "a" / "out", layout=layout)
    assert report.ok
    assert report.volumes == len(ids)
    out = tmp_path / "a" / "out"
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "a"}
    assert all(path == out or path.is_relative_to(out) for path in new)
    assert len({fold(str(path)) for path in new}) == len(new)
    again = back(report)
    names = {id_: report.renamed.get(id_, id_) for id_ in expected}
    found = hashes(again)["T1w"]
    assert found == {names[id_]: digest for id_, digest in hashes(hostile)["T1w"].items() if id_ in expected}
    table = rl.open(again).obs_meta.read().set_index("obs_subject_id")["source_id"]
    for id_, name in report.renamed.items():
        assert table[name] == id_


def test_hostile_names_of_collections(make_store: Any, image: Any, tmp_path: Path, hashes: Any, back: Any) -> None:
    names = ["../up", "T1W", "t1w", "participants.tsv", "患"]
    uri = make_store({name: {"s": image(i)} for i, name in enumerate(names)}, labels=[])
    report = rl.export(uri, tmp_path / "a" / "out")
    assert report.ok
    assert len(list((tmp_path / "a" / "out").rglob("*.nii.gz"))) == len(names)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert hashes(back(report)) == hashes(uri)


def test_paths_that_meet() -> None:
    check_paths(["a/b", "a/c", "d"])
    for paths, what in (
        (["a/b", "A/B"], "would be the same file"),
        (["a", "a/b"], "would be a file and a folder"),
        (["a/b", "a"], "would be the same file"),
        (["a/../b"], "no path within"),
        (["/a"], "no path within"),
    ):
        with pytest.raises(ConfigError, match=what):
            check_paths(paths)
