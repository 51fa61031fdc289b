"""Fixtures of the ingest tests."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import radioloader as rl
from radioloader.storage.foreground import foreground_of, read_foreground
from radioloader.storage.store import Store


@pytest.fixture(scope="session")
def touch() -> Callable[..., Path]:
    """``touch(root, "a/b.nii.gz", ...)``: empty files, for what only looks at names; returns root."""

    def make(root: Path, *names: str) -> Path:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return make


@pytest.fixture(scope="session")
def content() -> Callable[[Any], dict[str, Any]]:
    """``content(uri)``: all that a store shows, in a form that compares: ids, order, catalog columns, voxels, foreground, obs_meta."""

    def read(uri: Any) -> dict[str, Any]:
        store = rl.open(uri)
        result: dict[str, Any] = {
            "subjects": store.obs_subject_ids,
            "obs_meta": repr(store.obs_meta.read().to_dict("records")),
        }
        for name in store.collection_names:
            collection = store[name]
            index = store.snapshot.index(name)
            foreground = read_foreground(Store.open(uri), index, index.obs_ids.tolist())
            result[name] = {
                "kind": collection.kind,
                "obs": [repr(row) for row in collection.obs.read().to_dict("records")],
                "headers": [bytes(header).hex() for header in store.snapshot.detail(name, "header")],
                "voxels": [_digest(volume.to_numpy()) for volume in collection],
                "foreground": {
                    obs_id: {
                        value: (count, places.tolist())
                        for value, (count, places) in foreground_of(foreground, volume).items()
                    }
                    for volume, obs_id in enumerate(index.obs_ids.tolist())
                },
            }
        return result

    return read


def _digest(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], str]:
    return array.dtype.str, array.shape, hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


@pytest.fixture(scope="session")
def shows_sources() -> Callable[..., list[str]]:
    """``shows_sources(uri, root)``: asserts that every visible subject of a store made from :func:`make_cohort`'s folders is whole and
    equals its source files; returns the subjects."""

    def check(
        uri: Any, root: Path, collections: Iterable[tuple[str, str]] = (("T1w", "images"), ("seg", "labels"))
    ) -> list[str]:
        store = rl.open(uri)
        for name, folder in collections:
            if not len(store):
                break
            assert store[name].obs_subject_ids == store.obs_subject_ids, f"{name} is not there for every subject"
            for volume in store[name]:
                source = nib.load(root / folder / f"{volume.obs_subject_id}_{name}.nii.gz")
                np.testing.assert_array_equal(volume.to_numpy(), np.asanyarray(source.dataobj))
                np.testing.assert_array_equal(volume.affine, source.affine)
        return store.obs_subject_ids

    return check


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's, but in memory where there is room: these tests commit so often that they would mostly wait for the disk."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2**29 else None
    with tempfile.TemporaryDirectory(prefix="radioloader-test-", dir=base) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def arrays() -> Callable[[Any], set[str]]:
    """``arrays(uri)``: the voxel arrays on disk, whether or not a row names them."""
    return lambda uri: {str(path) for path in Path(uri).glob("c/*/volumes/*")}


@pytest.fixture(scope="module")
def images(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, 001, 002 and 003, with one tiny image each."""
    root = tmp_path_factory.mktemp("images")
    for number in (1, 2, 3):
        write_image(root / f"{number:03d}.nii.gz", np.full((4, 4, 4), number, np.int16))
    return root


@pytest.fixture
def load(images: Path, tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, list[str]]]:
    """Ingests ``images`` with a table into the test's store; gives what the store then shows, and the notes."""

    def run(table: Any, source: Any = None, **options: Any) -> tuple[pd.DataFrame, list[str]]:
        report = rl.ingest(
            tmp_path / "store", {"CT": images if source is None else source}, obs_meta=table, workers=1, **options
        )
        assert report.ok, str(report)
        notes = [note for note in report.notes if not note.startswith("subject ids come from")]
        return rl.open(tmp_path / "store").obs_meta.read(), notes

    return run


_VERSION_3 = 0x20080522  # linux/capability.h
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@pytest.fixture
def obeys_permissions() -> Iterator[None]:
    """For the test, root is held to the permissions of files as everybody else is (this thread, and those it starts)."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "capset"):
        pytest.skip("root obeys no permissions here; run the tests as another user")
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low words, then high ones
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] &= ~_OVERRIDES
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0
