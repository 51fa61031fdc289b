"""Stores to export, and the way back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

Hashes = dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def hashes() -> Callable[..., Hashes]:
    """``hashes(uri)``: content hash by collection, then subject."""

    def read(uri: Any) -> Hashes:
        store = rl.open(uri)
        return {
            name: dict(
                zip(store[name].obs_subject_ids, store.snapshot.detail(name, "content_hash").tolist(), strict=True)
            )
            for name in store.collection_names
        }

    return read


@pytest.fixture
def back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[rl.ExportReport], str]:
    """``back(report)``: runs the command that the report gives, and returns the URI of the store that it makes."""
    from radioloader.cli.main import main

    def run(report: rl.ExportReport) -> str:
        uri = str(tmp_path / f"again-{report.layout}")
        words = shlex.split(report.command)
        assert words[:3] == ["radioloader", "ingest", "STORE"]
        monkeypatch.setattr(sys, "argv", ["radioloader", "ingest", uri, *words[3:], "--workers", "1"])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code
        return uri

    return run


@pytest.fixture(scope="session")
def make_store(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``make_store({"T1w": {"a": array, ...}}, ...)``: a store of arrays, or of files that are there; keywords as for ``ingest``."""

    def make(collections: dict[str, dict[str, Any]], *, affine: Any = None, **options: Any) -> str:
        root = tmp_path_factory.mktemp("made")
        sources = {
            name: {
                subject: what
                if isinstance(what, Path)
                else write_image(root / "files" / f"{c}-{i}.nii.gz", np.asarray(what), affine)
                for i, (subject, what) in enumerate(volumes.items())
            }
            for c, (name, volumes) in enumerate(collections.items())
        }
        report = rl.ingest(root / "store", sources, workers=1, allow_missing=True, **options)
        assert report.ok, str(report)
        return str(root / "store")

    return make


@pytest.fixture(scope="session")
def image() -> Callable[..., np.ndarray[Any, Any]]:
    """``image(seed, shape=(6, 5, 4), dtype="i2")``: random voxels."""

    def make(seed: int, shape: tuple[int, ...] = (6, 5, 4), dtype: str = "i2") -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)

    return make


@pytest.fixture(scope="session")
def label() -> Callable[..., np.ndarray[Any, Any]]:
    """``label(1, 2, shape=(6, 5, 4))``: a label of these classes."""

    def make(*classes: int, shape: tuple[int, ...] = (6, 5, 4), dtype: str = "u1") -> np.ndarray[Any, Any]:
        array = np.zeros(shape, dtype)
        for place, value in enumerate(classes):
            array[place, 1:3] = value
        return array

    return make
