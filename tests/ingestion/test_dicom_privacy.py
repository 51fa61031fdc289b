"""Nothing that was planted into DICOM files to identify somebody is anywhere in a store."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb

import radioloader as rl
from radioloader.formats.dicom.tags import TECHNICAL

pytest.importorskip("pydicom")

from tests.formats.dicom.make import plant_identity, plant_uids, real_volume, write_series
from tests.formats.dicom.structures import on_slice, write_rtstruct

FOLDER = "Zimmerblatt^Quirinus"
STRUCTURE = "GTV Quirinus Zimmerblatt"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A folder with a series and a structure set; what was planted, and the UIDs of it."""
    root = tmp_path_factory.mktemp("planted")
    voxels, affine = real_volume((20, 18, 8))
    words: dict[str, str] = {}
    uids: dict[str, str] = {}

    def plant(ds: Any, place: int) -> None:
        own = {name: ds.get(name) for name in ("SOPInstanceUID", "ContentTime", "AcquisitionTime")}
        words.update(plant_identity(ds))
        uids.update(plant_uids(ds))
        ds.SOPInstanceUID = own["SOPInstanceUID"]  # of this instance alone
        uids[f"instance {place}"] = ds.SOPInstanceUID

    write_series(root / "dicom" / FOLDER, voxels, affine, extra=plant)
    grid = rl.scan(root / "dicom").volumes[0].grid
    assert grid is not None
    square = np.array([[4, 4], [9, 4], [9, 9], [4, 9]])
    write_rtstruct(root / "dicom" / FOLDER / "set", grid, {STRUCTURE: [on_slice(grid, 3, square)]})
    uids.pop("SOPInstanceUID")
    return root, words | {"folder": FOLDER, "structure": STRUCTURE}, uids


def test_names_and_dates_are_nowhere(planted: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path) -> None:
    root, words, _ = planted
    report = rl.ingest(tmp_path / "store", _sources(root), workers=1)
    assert report.ok, str(report)
    # What is short, or a number, may be found by chance; what is technical is stored.
    searched = {
        keyword: text
        for keyword, text in words.items()
        if keyword not in TECHNICAL and len(text) >= 8 and not text.replace(".", "").isdigit()
    }
    clocks = {keyword: text for keyword, text in words.items() if "Time" in keyword and len(text) > 12}
    assert len(searched) > 100
    assert _found(tmp_path / "store", searched | clocks) == []


def test_with_a_key_uids_are_nowhere(planted: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path) -> None:
    root, words, uids = planted
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    report = rl.ingest(tmp_path / "store", _sources(root), workers=1, pseudonymize=tmp_path / "key")
    assert report.ok, str(report)
    key = {"key": "0123456789abcdef", "PatientID": words["PatientID"]}
    assert _found(tmp_path / "store", uids | key) == []


def test_the_search_finds_what_is_there(planted: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path) -> None:
    root, words, uids = planted
    report = rl.ingest(tmp_path / "store", _sources(root), workers=1, keep_tags=["PatientComments"])
    assert report.ok, str(report)
    assert {"PatientComments", "SeriesInstanceUID", "instance 3"} <= set(_found(tmp_path / "store", words | uids))


def _sources(root: Path) -> dict[str, Any]:
    folder = root / "dicom"
    return {"CT": rl.DicomSource(folder, modality="CT"), "seg": rl.DicomSource(folder, structures={"gtv*": 1})}


def _found(store: Path, words: dict[str, str]) -> list[str]:
    texts = list(_texts(store))
    return sorted(k for k, word in words.items() if any(word.lower().encode() in text for text in texts))


def _texts(store: Path) -> Iterator[bytes]:
    """All that a store holds, as bytes in lower case: paths, files as they are, and what is compressed in them."""
    for path in sorted(store.rglob("*")):
        yield str(path.relative_to(store)).lower().encode()
        if path.is_file():
            yield path.read_bytes().lower()
    for path in {folder.parent for folder in store.rglob("__schema")}:
        with tiledb.open(str(path)) as array:
            yield repr(dict(array.meta)).lower().encode()
            if array.schema.sparse:
                for column in array[:].values():
                    for value in column.tolist():
                        yield value.lower() if isinstance(value, bytes) else str(value).lower().encode()
                        if isinstance(value, bytes) and value[:1] == b"\x78":
                            yield zlib.decompress(value).lower()
