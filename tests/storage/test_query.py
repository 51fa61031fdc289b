"""The low-level and the public read path give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiledb
from hypothesis import given, settings
from hypothesis import strategies as st

from radioloader import StorageConfig, TileConfig, VolumeReader, VolumeRef
from radioloader.config import ReadConfig
from radioloader.storage import _query
from radioloader.storage._query import DirectHandle, PublicHandle, open_handle
from radioloader.storage.context import context_for
from radioloader.storage.schema import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_paths_give_the_same_bytes(
    put: Callable[..., VolumeRef], tmp_path: Path, dtype: str, counts: Callable[[int, int], int]
) -> None:
    shape = (9, 7, 11, 2) if dtype in ("uint8", "float64") else (9, 7, 11)
    raw = np.random.default_rng(0).integers(0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, dtype=np.uint8)
    array = raw.view(dtype).reshape(shape)  # any bit pattern, NaNs with payload among them
    ref = put(tmp_path, array, tile=TileConfig(custom=(4, 3, 5)))
    ctx = context_for(ref.uri)
    direct, public = DirectHandle(ref.uri, ctx), PublicHandle(ref.uri, ctx)

    @settings(max_examples=counts(15, 400), deadline=None, derandomize=True)
    @given(st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).map(sorted) for n in shape]))
    def check(pairs: tuple[list[int], ...]) -> None:
        ranges = [(low, high) for low, high in pairs]
        size = tuple(high - low + 1 for low, high in ranges)
        a, b = np.zeros(size, dtype), np.ones(size, dtype)
        direct.read(ranges, a)
        public.read(ranges, b)
        truth = array[tuple(slice(low, high + 1) for low, high in ranges)]
        assert a.tobytes() == b.tobytes() == truth.tobytes()

    check()


def test_the_installed_tiledb_has_the_low_level_names() -> None:
    """Else reading would silently be several times slower: adapt ``DirectHandle`` to the new names."""
    assert _query._direct_works()
    assert _query._handle_class is DirectHandle


@pytest.mark.parametrize("name", ["Query", "Subarray", "LayoutType"])
def test_a_tiledb_without_a_low_level_name_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tiledb.libtiledb, name)
    assert not _query._direct_works()


def test_the_reader_works_on_the_public_path(
    put: Callable[..., VolumeRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (9, 7, 11, 3), dtype=np.int16)
    ref = put(tmp_path, array)
    monkeypatch.setattr(_query, "_handle_class", PublicHandle)
    assert isinstance(open_handle(ref.uri, context_for(ref.uri)), PublicHandle)
    reader = VolumeReader(StorageConfig(read=ReadConfig(direct=False)))
    np.testing.assert_array_equal(reader.read(ref), np.moveaxis(array, 3, 0), strict=True)
