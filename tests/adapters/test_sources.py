"""What an item of a datalist is known by."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radioloader.adapters.sources import as_item, settled
from radioloader.errors import FormatError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a.nii.gz").write_bytes(b"image")
    (tmp_path / "b.nii.gz").write_bytes(b"label")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"slice")
    return tmp_path


def item(folder: Path, **more: Any) -> Any:
    return as_item({"image": str(folder / "a.nii.gz"), "label": folder / "b.nii.gz", "age": 3, **more})


def test_files_are_found_by_where_they_stand(files: Path) -> None:
    found = as_item({"image": [str(files / "a.nii.gz"), str(files / "b.nii.gz")], "text": "no file", "n": 1})
    assert found.files == {"image[0]": str(files / "a.nii.gz"), "image[1]": str(files / "b.nii.gz")}
    assert found.places == {str(files / "a.nii.gz"): "image[0]", str(files / "b.nii.gz"): "image[1]"}
    assert found.name == f"{files / 'a.nii.gz'}, {files / 'b.nii.gz'}"


def test_the_content_and_the_values_decide_not_the_folder(files: Path, tmp_path: Path) -> None:
    plain = item(files).hash()
    moved = tmp_path / "moved"
    shutil.copytree(files, moved, ignore=shutil.ignore_patterns("moved"))
    assert item(moved).hash() == plain
    shutil.move(moved / "a.nii.gz", moved / "renamed.nii.gz")
    renamed = as_item({"image": str(moved / "renamed.nii.gz"), "label": moved / "b.nii.gz", "age": 3})
    assert renamed.hash() != plain  # a transform may go by the name
    assert item(files, age=4).hash() != plain
    assert item(files, array=np.arange(3)).hash() != item(files, array=np.arange(1, 4)).hash()
    swapped = as_item({"image": str(files / "b.nii.gz"), "label": files / "a.nii.gz", "age": 3})
    assert swapped.hash() != plain
    (files / "b.nii.gz").write_bytes(b"lable")
    assert item(files).hash() != plain


def test_a_folder_is_all_its_files_and_their_names(files: Path) -> None:
    def hash_() -> str:
        return str(as_item({"image": str(files / "series")}).hash())

    found = [hash_()]
    (files / "series" / "2.dcm").write_bytes(b"slice")
    found.append(hash_())
    (files / "series" / "2.dcm").rename(files / "series" / "0.dcm")
    found.append(hash_())
    (files / "series" / "0.dcm").write_bytes(b"other")
    found.append(hash_())
    assert len(set(found)) == 4


def test_both_files_of_a_pair_count(tmp_path: Path) -> None:
    (tmp_path / "x.hdr").write_bytes(b"header")
    (tmp_path / "x.img").write_bytes(b"voxels")
    one = as_item({"image": str(tmp_path / "x.hdr")})
    before = one.hash()
    (tmp_path / "x.img").write_bytes(b"VOXELS")
    assert one.hash() != before


def test_stamps_tell_a_change_that_keeps_size_and_time(files: Path) -> None:
    path = files / "a.nii.gz"
    before, times = item(files).stamps(), os.stat(path)
    assert item(files).stamps() == before
    path.write_bytes(b"IMAGE")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert item(files).stamps() != before


def test_a_file_that_changed_just_now_is_not_settled(files: Path) -> None:
    assert not settled(item(files).stamps())
    past = json.loads(item(files).stamps())
    for stamp in past[0]:
        stamp[2] = stamp[3] = time.time_ns() - 3_000_000_000
    assert settled(json.dumps(past))
    past[0][0][3] = time.time_ns()
    assert not settled(json.dumps(past))


def test_a_file_that_goes_missing_is_named(files: Path) -> None:
    one = item(files)
    (files / "b.nii.gz").unlink()
    with pytest.raises(FormatError, match=r"b.nii.gz"):
        one.hash()
    with pytest.raises(FormatError, match=r"b.nii.gz"):
        one.stamps()


def test_an_item_without_files_is_known_by_its_values() -> None:
    one = as_item({"image": np.arange(4), "name": "x"})
    assert one.files == {}
    assert (
        one.hash()
        == as_item({"image": np.arange(4), "name": "x"}).hash()
        != as_item({"image": np.arange(4), "name": "y"}).hash()
    )
    assert "name='x'" in one.name
    assert (one.stamps(), one.subject("0123456789abcdef"), settled("")) == ("", "item-0123456789ab", True)


def test_files_deep_in_an_item_and_beside_their_header(tmp_path: Path) -> None:
    (tmp_path / "t1.nii.gz").write_bytes(b"one")
    (tmp_path / "x.mhd").write_bytes(b"NDims = 3\nElementDataFile = x.raw\n")
    (tmp_path / "x.raw").write_bytes(b"voxels")
    deep = as_item({"files": {"t1": [str(tmp_path / "t1.nii.gz")]}, "image": str(tmp_path / "x.mhd")})
    assert list(deep.files) == ["files['t1'][0]", "image"]
    hashes, stamps = [deep.hash()], [deep.stamps()]
    for name in ("t1.nii.gz", "x.raw"):
        (tmp_path / name).write_bytes(b"other")
        hashes.append(deep.hash())
        stamps.append(deep.stamps())
    assert len(set(hashes)) == len(set(stamps)) == 3


def test_a_file_that_is_not_there_is_named() -> None:
    assert as_item({"image": "/absent/case.nii.gz", "n": 1}).name == "/absent/case.nii.gz"
