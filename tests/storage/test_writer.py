"""Writing one volume."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiledb

from radioloader import StorageConfig, VolumeReader, VolumeRef
from radioloader.errors import FormatError, StoreWriteError
from radioloader.storage.context import context_for
from radioloader.storage.writer import _c_order, write_volume


@pytest.mark.parametrize("shape", [(33, 7, 20), (16, 16, 16), (1, 40, 3), (17, 5, 18, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_makes_no_difference(
    put: Callable[..., VolumeRef], tmp_path: Path, shape: tuple[int, ...], order: str
) -> None:
    array = np.random.default_rng(0).integers(-99, 99, shape, dtype=np.int16)
    given = np.array(array, order=order)[::-1] if order == "F" else array[::-1]
    assert _c_order(given).flags.c_contiguous
    np.testing.assert_array_equal(_c_order(given), array[::-1], strict=True)
    got = VolumeReader().read(put(tmp_path, given))
    np.testing.assert_array_equal(np.moveaxis(got, 0, 3) if len(shape) == 4 else got, array[::-1], strict=True)


def test_names_are_random_and_tell_nothing(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    array = np.zeros((3, 3, 3), np.int16)
    paths = {write_volume(str(tmp_path), array, codes="RAS", config=StorageConfig(), owner="sub-01") for _ in range(5)}
    assert len(paths) == 5
    assert all(re.fullmatch(r"volumes/[0-9a-f]{24}", path) for path in paths)


def test_one_volume_is_one_fragment(put: Callable[..., VolumeRef], tmp_path: Path) -> None:
    ref = put(tmp_path, np.zeros((30, 30, 30), np.int16))
    assert len(tiledb.array_fragments(ref.uri, ctx=context_for(ref.uri))) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreWriteError, match=r"could not write subject 'a', collection 'CT' to .*/file/volumes/"):
        write_volume(
            str(tmp_path / "file"),
            np.zeros((3, 3, 3), np.int16),
            codes="RAS",
            config=StorageConfig(),
            owner="subject 'a', collection 'CT'",
        )


def test_unsupported_dtypes_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="float16"):
        write_volume(str(tmp_path), np.zeros((3, 3, 3), np.float16), codes="RAS", config=StorageConfig(), owner="a")
    assert list(tmp_path.iterdir()) == []
