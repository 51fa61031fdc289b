"""Tile extents, filters and dtypes of voxel arrays, as TileDB then has them."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import tiledb

from radioloader import CompressionConfig, SliceOrientation, TileConfig, WriteConfig
from radioloader.errors import FormatError
from radioloader.storage.context import context_for, get_context
from radioloader.storage.schema import DTYPES, tile_extents, voxel_schema

SHAPE = (30, 40, 50)
CODES = ["".join(code) for order in permutations(("LR", "PA", "IS")) for code in product(*order)]


def test_isotropic_and_custom_extents_never_exceed_the_volume() -> None:
    assert tile_extents((100, 200, 300), TileConfig()) == (32, 32, 32)
    assert tile_extents(SHAPE, TileConfig(extent=32)) == (30, 32, 32)
    assert tile_extents(SHAPE, TileConfig(custom=(7, 400, 1))) == (7, 40, 1)
    assert tile_extents((*SHAPE, 5), TileConfig(extent=32)) == (30, 32, 32, 1)
    assert tile_extents((1, 1, 1), TileConfig()) == (1, 1, 1)


@pytest.mark.parametrize("codes", CODES)
def test_slice_tiles_hold_one_anatomical_slice_in_every_orientation(codes: str) -> None:
    for kind, letters in (("axial", "IS"), ("sagittal", "LR"), ("coronal", "PA")):
        extents = tile_extents(SHAPE, TileConfig(orientation=SliceOrientation(kind)), codes)
        across = next(axis for axis in range(3) if codes[axis] in letters)
        assert extents == tuple(1 if axis == across else n for axis, n in enumerate(SHAPE))


def test_all_48_orientations_are_tested() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize(
    ("compression", "dtype", "names"),
    [
        (CompressionConfig(), "int16", ["ByteShuffleFilter", "ZstdFilter"]),
        (CompressionConfig(), "uint8", ["ZstdFilter"]),
        (CompressionConfig(), "float32", ["ZstdFilter"]),
        (CompressionConfig(shuffle=False), "int16", ["ZstdFilter"]),
        (CompressionConfig(codec="lz4", shuffle=True), "float64", ["ByteShuffleFilter", "LZ4Filter"]),
        (CompressionConfig(codec="none"), "int16", []),
        (CompressionConfig(checksum=True), "int16", ["ByteShuffleFilter", "ZstdFilter", "ChecksumSHA256Filter"]),
        (CompressionConfig(codec="none", checksum=True), "int16", ["ChecksumSHA256Filter"]),
    ],
)
def test_filters(compression: CompressionConfig, dtype: str, names: list[str], tmp_path: Path) -> None:
    ctx = context_for(str(tmp_path))
    schema = voxel_schema(SHAPE, np.dtype(dtype), write=WriteConfig(compression=compression), codes="RAS", ctx=ctx)
    tiledb.Array.create(str(tmp_path / "a"), schema, ctx=ctx)
    stored = tiledb.ArraySchema.load(str(tmp_path / "a"), ctx=ctx)
    assert [type(one).__name__ for one in stored.attr("voxels").filters] == names


def test_level_of_compression() -> None:
    write = WriteConfig(compression=CompressionConfig(level=-3))
    schema = voxel_schema(SHAPE, np.dtype("int16"), write=write, codes="RAS", ctx=get_context())
    assert schema.attr("voxels").filters[1].level == -3


@pytest.mark.parametrize("dtype", DTYPES)
def test_dimensions_attribute_and_dtype(dtype: str) -> None:
    schema = voxel_schema((*SHAPE, 7), np.dtype(dtype), write=WriteConfig(), codes="RAS", ctx=get_context())
    domain = schema.domain
    assert not schema.sparse
    assert [domain.dim(i).name for i in range(4)] == ["x", "y", "z", "t"]
    assert [tuple(int(v) for v in domain.dim(i).domain) for i in range(4)] == [(0, 29), (0, 39), (0, 49), (0, 6)]
    assert [int(domain.dim(i).tile) for i in range(4)] == [30, 32, 32, 1]
    assert schema.nattr == 1
    assert schema.attr("voxels").dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["complex64", "float16", "bool", "longdouble", "datetime64[s]"])
def test_other_dtypes_are_refused_by_name(dtype: str) -> None:
    kind = np.dtype(dtype)
    with pytest.raises(
        FormatError, match=f"dtype {kind.name.replace('[', '.')[:9]}.* cannot be stored; supported are uint8, int8"
    ):
        voxel_schema(SHAPE, kind, write=WriteConfig(), codes="RAS", ctx=get_context())
