"""The foreground index as it is read: of the volumes that are there now, whatever was ingested before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from radioloader.errors import ConfigError
from radioloader.storage import foreground
from radioloader.storage.foreground import foreground_of, read_foreground
from radioloader.storage.snapshot import Snapshot

Array = np.ndarray[Any, Any]


def ingest(store: Path, write_image: Callable[..., Path], arrays: Mapping[str, Array], **arguments: Any) -> None:
    files: dict[str, dict[str, Path]] = {"MR": {}, "seg": {}}
    for subject, array in arrays.items():
        files["MR"][subject] = write_image(store.parent / "MR" / f"{subject}.nii.gz", np.ones(array.shape, np.uint8))
        files["seg"][subject] = write_image(store.parent / "seg" / f"{subject}.nii.gz", array)
    report = rl.ingest(store, files, workers=1, labels=["seg"], **arguments)
    assert report.ok, str(report)


def label(*boxes: tuple[int, int], shape: tuple[int, int, int] = (9, 8, 7), dtype: Any = np.uint8) -> Array:
    """Class c in so many voxels, from the first one on in C order."""
    result = np.zeros(shape, dtype)
    start = 3
    for value, count in boxes:
        result.flat[start : start + count] = value
        start += count
    return result


def read(store: Path, subjects: list[str]) -> tuple[dict[str, Array], list[dict[int, tuple[int, Array]]]]:
    snapshot = Snapshot.open(store)
    index = snapshot.index("seg")
    obs_ids = [str(index.obs_ids[index.of_subject(subject)[0]]) for subject in subjects]
    columns = read_foreground(snapshot.store, index, obs_ids)
    return columns, [foreground_of(columns, i) for i in range(len(subjects))]


def check(found: dict[int, tuple[int, Array]], array: Array) -> None:
    """The index is that of ``array``: all coordinates where they are few."""
    values, counts = np.unique(array, return_counts=True)
    assert list(found) == values.tolist()
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        number, coordinates = found[value]
        assert number == count
        assert len(coordinates) == min(count, 2048)
        unique = {tuple(voxel) for voxel in coordinates.tolist()}
        assert len(unique) == len(coordinates)
        assert {int(array[voxel]) for voxel in unique} == {value}


def test_the_index_is_that_of_the_labels_in_any_order(write_image: Callable[..., Path], tmp_path: Path) -> None:
    arrays = {
        "a": label((1, 5), (3, 1)),
        "b": label((2, 40), shape=(5, 6, 30)),
        "c": np.zeros((4, 4, 4), np.uint8),
        "d": label((-2, 6), (700, 3), dtype=np.int16),
        "e": np.full((4, 4, 4), 9, np.uint8),
        "f": np.random.default_rng(0).integers(0, 2, (20, 20, 20), np.uint8),  # more than the index keeps
    }
    ingest(tmp_path / "store", write_image, arrays)
    for subjects in (list("abcdef"), list("fdb"), ["c"]):
        columns, found = read(tmp_path / "store", subjects)
        for subject, index in zip(subjects, found, strict=True):
            check(index, arrays[subject])
        assert columns["foreground.coordinates"].dtype == np.uint16
        assert not any(array.dtype.hasobject for array in columns.values())


def test_a_replaced_volume_has_the_classes_of_the_new_one(write_image: Callable[..., Path], tmp_path: Path) -> None:
    old = {"a": label((1, 5), (2, 7)), "b": label((1, 9)), "c": label((4, 4))}
    ingest(tmp_path / "store", write_image, old)
    new = {"a": label((2, 3)), "c": label((1, 2), (4, 9), (5, 1))}  # a lost class 1, c gained two
    ingest(tmp_path / "store", write_image, new)
    _, found = read(tmp_path / "store", ["a", "b", "c"])
    for index, array in zip(found, (new["a"], old["b"], new["c"]), strict=True):
        check(index, array)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_many_rows_are_read_in_stretches(
    write_image: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    arrays = {f"s{n}": label(*[(value, value + n) for value in range(1, 4)]) for n in range(5)}  # 20 rows
    ingest(tmp_path / "store", write_image, {name: arrays[name] for name in ("s3", "s0", "s4")})
    ingest(tmp_path / "store", write_image, {name: arrays[name] for name in ("s2", "s1")})
    expected, _ = read(tmp_path / "store", ["s4", "s1", "s0"])
    monkeypatch.setattr(foreground, "_ROWS", rows)
    columns, found = read(tmp_path / "store", ["s4", "s1", "s0"])
    for index, name in zip(found, ("s4", "s1", "s0"), strict=True):
        check(index, arrays[name])
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values, strict=True)


def test_labels_without_an_index(write_image: Callable[..., Path], tmp_path: Path) -> None:
    soft = np.arange(2000, dtype=np.int16).reshape(20, 10, 10)
    many = np.arange(12 * 11 * 10, dtype=np.int16).reshape(12, 11, 10)
    ingest(tmp_path / "store", write_image, {"a": label((1, 5)), "b": soft, "c": many})
    columns, found = read(tmp_path / "store", ["a", "b", "c"])
    assert np.diff(columns["foreground.first"]).tolist() == [2, 0, 0]
    assert found[1:] == [{}, {}]
    check(found[0], label((1, 5)))
    arguments: dict[str, Any] = {"image": "MR", "label": "seg", "patch_size": 4, "positions": rl.ForegroundPositions()}
    with pytest.raises(
        ConfigError,
        match=r"subject 'b', collection 'seg', .* has no foreground index \(2 of 3 have none\): it holds values that are not whole",
    ):
        rl.PatchDataset(tmp_path / "store", **arguments)
    assert len(rl.PatchDataset(tmp_path / "store", **arguments, subjects=["a"])) == 1
    with pytest.raises(ConfigError, match="needs a label collection: give label="):
        rl.PatchDataset(tmp_path / "store", **arguments | {"label": None})
    with pytest.raises(ConfigError, match=r"subject 'a', collection 'MR', .* has no foreground index"):
        rl.PatchDataset(tmp_path / "store", **arguments | {"label": "MR"})
