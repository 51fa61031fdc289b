"""What is kept of a sample besides its voxels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radioloader.adapters.values import decode, encode
from radioloader.errors import ConfigError, FormatError


def again(value: Any) -> Any:
    return decode(encode(value, paths={}, where="it"), paths={})


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(2**70),
        0.1,
        math.inf,
        "text \u00e9 \ud800",
        b"\x00\xff",
        Path("a/b"),
        [1, [2.5, "x"]],
        (1, (2, [3])),
        {"a": 1, "$": 2},
        {1: "one", (2, 3): "pair"},
        {"x", "y"},
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.float32(1.5),
        np.array(7, np.uint8),
        np.bool_(True),
        np.array(["a", "bc"]),
        torch.eye(4, dtype=torch.float64),
        torch.tensor([True, False]),
        torch.float16,
        np.dtype("int16"),
        torch.device("cpu"),
        torch.Size([1, 2]),
        slice(1, None, 2),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),  # not in the order of their hashes
)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(again(value), value)


def test_nan_and_arrays_are_the_readers_own() -> None:
    text = encode([math.nan, np.zeros(3)], paths={}, where="it")
    first, second = decode(text, paths={}), decode(text, paths={})
    assert math.isnan(first[0])
    first[1][:] = 1  # writable, and shared with nobody
    assert second[1].tolist() == [0, 0, 0]


def test_paths_go_by_where_they_stand_in_the_item() -> None:
    value = {"filename_or_obj": "/data/one.nii.gz", "other": "/data/two", "path": Path("/data/one.nii.gz")}
    text = encode(value, paths={"/data/one.nii.gz": "image"}, where="it")
    assert "one.nii.gz" not in text
    assert decode(text, paths={"image": "/moved/one.nii.gz"}) == {
        "filename_or_obj": "/moved/one.nii.gz",
        "other": "/data/two",
        "path": Path("/moved/one.nii.gz"),
    }


def test_monais_enumerations() -> None:
    enums = pytest.importorskip("monai.utils.enums")
    value = {"space": enums.SpaceKeys.RAS, enums.TraceKeys.ID: 1}
    found = again(value)
    assert found["space"] is enums.SpaceKeys.RAS
    assert found == value
    assert found["id"] == 1


def test_what_cannot_be_kept_is_named_by_its_place() -> None:
    with pytest.raises(ConfigError, match=r"'meta'\['a'\]\[1\] is a builtins.object, which cannot be stored"):
        encode({"a": [1, object()]}, paths={}, where="'meta'")
    with pytest.raises(ConfigError, match=r"'big' is an array of shape \(300, 1000\) and 2400000 bytes"):
        encode(np.zeros((300, 1000)), paths={}, where="'big'")
    with pytest.raises(ConfigError, match=r"bfloat16"):
        encode(torch.zeros(1, dtype=torch.bfloat16), paths={}, where="it")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        json.dumps({"$": "enum", "type": "os:system", "name": "x"}),
        json.dumps({"$": "enum", "type": "monai.utils.enums:np", "name": "x"}),
        json.dumps({"$": "unheard of", "value": 1}),
        json.dumps({"$": "array", "value": ["<i4", [3], "AAAA"]}),
    ],
    ids=["cut off", "another package", "no enumeration", "unknown", "short array"],
)
def test_damage_and_forgery_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        decode(text, paths={})
