"""Fixtures of the storage tests: volumes without an ingest, scripts in processes of their own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from radioloader.config import CompressionConfig, ReadConfig, StorageConfig, TileConfig, WriteConfig
from radioloader.storage.store import Store
from radioloader.storage.uri import join
from radioloader.storage.writer import write_volume
from radioloader.types import VolumeRef


@pytest.fixture
def little_memory() -> Iterator[None]:
    """This process gets 4 GB more, at most: TileDB believes the sizes in damaged files, and allocates before it looks further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 4 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="session")
def put() -> Callable[..., VolumeRef]:
    """Stores one array as a volume: ``put(folder, array, tile=TileConfig(), slope=1.0, intercept=0.0, codes="RAS")``."""

    def write(
        folder: Path,
        array: np.ndarray[Any, Any],
        *,
        tile: TileConfig | None = None,
        compression: CompressionConfig | None = None,
        codes: str = "RAS",
        slope: float = 1.0,
        intercept: float = 0.0,
        name: str = "sub-01",
    ) -> VolumeRef:
        write = WriteConfig(tile=tile or TileConfig(extent=8), compression=compression or CompressionConfig())
        path = write_volume(str(folder), array, codes=codes, config=StorageConfig(write=write), owner=name)
        return VolumeRef(
            uri=join(str(folder), path),
            shape=array.shape,
            dtype=array.dtype.name,
            slope=slope,
            intercept=intercept,
            obs_id=f"{name}_T1w",
            obs_subject_id=name,
            collection="T1w",
        )

    return write


@pytest.fixture(scope="session")
def small_reads() -> StorageConfig:
    """Settings that keep few arrays open and read with four threads, whatever the machine."""
    return StorageConfig(read=ReadConfig(max_open_arrays=4, max_workers=4))


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., str]:
    """Runs a Python script in a process of its own, within a time limit, and returns what it printed.

    A process that hangs is killed with all its children, and fails the test.
    """

    def run(source: str, *arguments: object, timeout: float = 60, expect: int = 0) -> str:
        script = tmp_path / "script.py"
        script.write_text(source)
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            pytest.fail(f"the script still ran after {timeout} s; it printed:\n{output}")
        assert process.returncode == expect, f"exit status {process.returncode}, expected {expect}:\n{output}"
        return output

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new store."""
    return Store.open_or_create(tmp_path / "store")


@pytest.fixture(params=["compiled", "python"])
def tile_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which code reads tiles: the compiled one, where it is built, and that in Python."""
    from radioloader.storage import _tiles

    if request.param == "python":
        monkeypatch.setattr(_tiles, "decoder", None)
    elif _tiles.decoder is None:
        pytest.skip("the compiled reader is not built: no C compiler")
    code: str = request.param
    return code
