from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference

from radioloader.errors import ConfigError
from radioloader.inference.sums import WindowSums
from radioloader.inference.windows import Windows, as_overlap, importance

SIZES = st.tuples(*[st.integers(1, 12)] * 3)
MANY = 500 if os.environ.get("RADIOLOADER_STRESS") else 60
OVERLAPS = st.tuples(*[st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.99])] * 3)


@given(shape=st.tuples(*[st.integers(1, 30)] * 3), size=SIZES, overlap=OVERLAPS)
@settings(max_examples=MANY, deadline=None)
def test_windows_lie_where_monai_has_them(shape: Any, size: Any, overlap: Any) -> None:
    windows = Windows(shape, size, overlap)
    padded = [max(n, s) for n, s in zip(shape, size, strict=True)]
    steps = [s if s == n else max(1, int(s * (1 - o))) for n, s, o in zip(padded, size, overlap, strict=True)]
    before = [(p - n) // 2 for p, n in zip(padded, shape, strict=True)]
    expected = [
        tuple(part.start - b for part, b in zip(parts, before, strict=True))
        for parts in dense_patch_slices(padded, size, steps)
    ]
    assert [windows.window(number).start for number in range(len(windows))] == expected


@given(shape=st.tuples(*[st.integers(1, 20)] * 3), size=SIZES, overlap=OVERLAPS)
@settings(max_examples=MANY // 2, deadline=None)
def test_cells_cover_the_volume_once_and_are_complete_with_their_window(shape: Any, size: Any, overlap: Any) -> None:
    windows = Windows(shape, size, overlap)
    seen, last = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
    for number in range(len(windows)):
        inside = windows.window(number).clip(shape)
        assert inside is not None
        last[inside.slices()] = number
        touched = [windows.cell(cell) for cell in windows.cells(number)]
        assert (
            sum(int(torch.ones(shape)[inside.intersection(cell).slices()].sum()) for cell in touched)
            == torch.ones(shape)[inside.slices()].sum()
        )
    for number in range(len(windows)):
        cell = windows.cell(windows.cell_of(number)).slices()
        seen[cell] += 1
        assert (last[cell] == number).all()
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 8, 3), (64, 64, 64), (96, 1, 33), (160, 192, 128)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_weights_are_monais(size: Any, blend: str) -> None:
    assert torch.equal(importance(size, blend), compute_importance_map(size, mode=blend))


@pytest.mark.parametrize("value", [1.0, -0.1, (0.5, 0.5), "0.5", None, float("nan"), (0.5, 0.5, 1)])
def test_overlap_that_is_none(value: Any) -> None:
    with pytest.raises(ConfigError, match="overlap="):
        as_overlap(value)
    assert as_overlap(0) == (0.0, 0.0, 0.0)
    assert as_overlap([0.5, 0.25, 0]) == (0.5, 0.25, 0.0)


@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3), size=SIZES, overlap=OVERLAPS, limit=st.sampled_from([0, 4000, 2**30])
)
@settings(max_examples=MANY // 3, deadline=None)
def test_sums_give_what_sliding_window_inference_gives(shape: Any, size: Any, overlap: Any, limit: int) -> None:
    image = torch.rand((1, 2, *shape), generator=torch.Generator().manual_seed(sum(shape)))
    place = torch.linspace(0, 1, size[0] * size[1] * size[2]).reshape(size)

    def model(patches: torch.Tensor) -> torch.Tensor:
        """Depends on where a voxel is in its window: a wrong weight shows."""
        return torch.cat([patches * place, patches.square() + place, patches[:, :1] - 0.5], dim=1)

    windows = Windows(shape, size, overlap)
    if len(windows) > 3000:
        return
    expected = sliding_window_inference(image, size, 4, model, overlap=overlap, mode="gaussian")[0]
    sums = WindowSums(windows, importance(size, "gaussian"), limit=limit)
    result = torch.full_like(expected, torch.nan)
    for number in range(len(windows)):
        window = windows.window(number)
        inside = window.clip(shape)
        assert inside is not None
        patch = torch.zeros((2, *size))
        patch[(slice(None), *inside.slices(window.start))] = image[0][(slice(None), *inside.slices())]
        assert not sums.complete
        box, mean = sums.add(model(patch[None])[0])
        result[(slice(None), *box.slices())] = mean
    assert sums.complete
    sums.close()
    assert torch.equal(result, expected)


def test_memory_of_sums_is_bounded() -> None:
    windows = Windows((64, 40, 40), (16, 16, 16), (0.5, 0.5, 0.5))
    sums = WindowSums(windows, importance(windows.size, "constant"), limit=100_000)
    held = []
    for number in range(len(windows)):
        box, mean = sums.add(torch.full((3, 16, 16, 16), float(number)))
        assert mean.shape == (3, *box.shape)
        held.append(sums._bytes)
        assert sums._bytes == sum(tensor.nbytes for tensor in sums._held.values())
    assert max(held) <= 100_000
    assert sums._file is not None
    assert not sums._held
    assert not sums._slots
    # Cells of two rows of windows, and no more: slots are used again. The largest ones are those at the end.
    assert sums._file.seek(0, 2) <= 4 * 4 * 16**3 * (2 * 4 * 4)
    sums.close()
