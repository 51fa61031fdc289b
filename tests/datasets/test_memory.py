"""Memory of batches."""

from __future__ import annotations

import copy

import pytest
import torch

from radioloader.datasets import memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64, torch.uint16])
@pytest.mark.parametrize("voxels", [16, 2**20 * 5 + 3])  # beside and beyond what gets huge pages
def test_ordinary_memory(dtype: torch.dtype, voxels: int) -> None:
    made = memory.allocate({"image": ((1, 1, voxels), dtype), "one": ((2, 2), dtype)})
    image, one = made["image"], made["one"]
    assert list(made) == ["image", "one"]
    assert (image.dtype, image.shape, one.shape) == (dtype, (1, 1, voxels), (2, 2))
    assert image.is_contiguous()
    assert image.data_ptr() % 64 == 0
    image.fill_(3)
    one.fill_(5)
    assert image[0, 0, -1] == image[0, 0, 0] == 3
    again = copy.deepcopy(image)
    assert torch.equal(again.view(torch.uint8), image.view(torch.uint8))
    moved = image.clone()
    del image, made
    assert (moved.view(torch.uint8) == again.view(torch.uint8)).all()
