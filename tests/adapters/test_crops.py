"""MONAI's crops on volumes that were not read: the same boxes and metadata as on real ones."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

mt = pytest.importorskip("monai.transforms")

from monai.data import MetaTensor  # noqa: E402

from radioloader.adapters.crops import CANDIDATES, Crop, Found, can_push_pad, find, looks_for  # noqa: E402

KEYS = ["image", "label"]
SHAPE = (24, 20, 18)
AFFINE = torch.tensor([[-1.5, 0, 0, 30], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]], dtype=torch.float64)


def real() -> dict[str, Any]:
    image = torch.arange(2 * np.prod(SHAPE)).reshape(2, *SHAPE).float()
    label = torch.zeros(1, *SHAPE)  # as LoadImaged gives it; MONAI calls every voxel of uint8 background
    label[0, 4:9, 5:11, 3:8] = 1
    label[0, 15:18, 10:12, 10:15] = 2
    weight = torch.zeros(1, *SHAPE)
    weight[0, 10:14, 8:12, 8:10] = torch.arange(1, 33).reshape(4, 4, 2)
    return {
        "image": MetaTensor(image, affine=AFFINE),
        "label": MetaTensor(label, affine=AFFINE),
        "weight": MetaTensor(weight, affine=AFFINE),
        "name": "a",
    }


def unread(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        key: MetaTensor(torch.empty(value.shape, dtype=value.dtype, device="meta"), meta=dict(value.meta))
        if isinstance(value, torch.Tensor)
        else value
        for key, value in sample.items()
    }


def cut(volume: torch.Tensor, box: Any) -> torch.Tensor:
    """The voxels of a box; 0 around the volume."""
    padded = torch.nn.functional.pad(volume.as_tensor(), [50] * 6)
    return padded[(slice(None), *(slice(a + 50, b + 50) for a, b in zip(box.start, box.stop, strict=True)))]


def as_list(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


CROPS = {
    "spatial": lambda: mt.RandSpatialCropd(KEYS, (8, 9, -1), random_size=False),
    "random size": lambda: mt.RandSpatialCropd(KEYS, (8, 9, 7), random_size=True),
    "centred": lambda: mt.RandSpatialCropd(KEYS, (8, 9, 7), random_center=False, random_size=True),
    "samples": lambda: mt.RandSpatialCropSamplesd(KEYS, (8, 9, 7), 3, random_size=False),
    "scale": lambda: mt.RandScaleCropd(KEYS, 0.5, random_size=True),
    "some keys": lambda: mt.RandSpatialCropd(["image"], (8, 9, 7), random_size=False),
}


@pytest.mark.parametrize("name", CROPS)
@pytest.mark.parametrize("padded", [False, True])
def test_boxes_and_metadata_are_those_of_monai(name: str, padded: bool) -> None:
    pads = [mt.SpatialPadd(KEYS, (30, 20, 26)), mt.SpatialPadd(KEYS, (30, 27, 26), method="end")] if padded else []
    mine = Crop(pads, CROPS[name]())
    for seed in range(5):
        theirs = CROPS[name]().set_random_state(seed=seed)
        expected = as_list(mt.Compose([*pads, theirs])(real()))
        # A Compose seeds what is in it.
        theirs.set_random_state(seed=seed)
        sample = real()
        for pad in pads:
            sample = pad(sample)
        expected = as_list(theirs(sample))
        result, box = mine(unread(real()), None, seed=seed, name="a")
        assert len(as_list(result)) == len(expected)
        for got, want in zip(as_list(result), expected, strict=True):
            assert list(got) == list(want)
            for key in (*KEYS, "weight"):
                place = box(key, got[key])
                assert torch.equal(cut(real()[key], place), want[key].as_tensor())
                assert torch.equal(got[key].affine, want[key].affine)
                assert [op["class"] for op in got[key].applied_operations] == [
                    op["class"] for op in want[key].applied_operations
                ]
                assert set(got[key].meta) == set(want[key].meta)


def test_the_operation_is_of_the_users_crop_also_in_a_copy() -> None:
    crop = mt.RandSpatialCropd(KEYS, (8, 9, 7), random_size=False)
    mine = Crop([], crop)
    for one in (mine, pickle.loads(pickle.dumps(mine))):
        result, _ = one(unread(real()), None, seed=1, name="a")
        assert result["image"].applied_operations[-1]["id"] == id(crop.cropper)


def indexed(kind: str, **more: Any) -> Any:
    if kind == "posneg":
        return mt.RandCropByPosNegLabeld("image", "label", (5, 5, 5), num_samples=30, **more)
    if kind == "classes":
        return mt.RandCropByLabelClassesd("image", "label", (5, 5, 5), num_classes=3, num_samples=30, **more)
    return mt.RandWeightedCropd("image", "weight", (5, 5, 5), num_samples=30, **more)


VARIANTS = [
    ("posneg", {}),
    ("posneg", {"pos": 3, "neg": 1, "image_key": "image", "image_threshold": 4000}),
    ("classes", {"ratios": [1, 2, 2]}),
    ("classes", {"ratios": [1, 0, 1], "image_key": "image", "image_threshold": 2000}),
    ("weighted", {}),
]


@pytest.mark.parametrize(("kind", "more"), VARIANTS, ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_centres_are_distributed_as_monais(kind: str, more: dict[str, Any], padded: bool) -> None:
    from scipy.stats import chi2_contingency

    crop = indexed(kind, **more)
    keys = [*KEYS, "weight"]
    pads = [mt.SpatialPadd(keys, (28, 20, 24))] if padded and kind != "weighted" else []
    mine, found = Crop(pads, crop), find(crop, real(), "a")
    assert found is not None
    sample = real()
    for pad in pads:
        sample = pad(sample)
    theirs = indexed(kind, **more).set_random_state(seed=0)
    counts: list[Counter[Any]] = [Counter(), Counter()]
    for seed in range(20):
        drawn = theirs(sample), mine(unread(real()), found, seed=seed, name="a")[0]
        for counter, samples in zip(counts, drawn, strict=True):
            for one in samples:
                centre = [int(n) for n in one["image"].meta["crop_center"]]
                # In eighths of the volume, and by what lies there.
                counter[(*(n // 9 for n in centre), int(sample["label"][0, *centre]))] += 1
    cells = [cell for cell in counts[0] | counts[1] if counts[0][cell] + counts[1][cell] >= 20]
    rest = [sum(counter.values()) - sum(counter[cell] for cell in cells) for counter in counts]
    table = [
        [*(counter[cell] for cell in cells), *([left] if sum(rest) else [])]
        for counter, left in zip(counts, rest, strict=True)
    ]
    assert len(cells) > 3 or kind == "weighted"
    assert chi2_contingency(table).pvalue > 1e-3


def test_patches_of_a_weighted_crop_are_where_the_weights_are() -> None:
    crop = indexed("weighted")
    found = find(crop, real(), "a")
    weights = real()["weight"][0]
    result, _ = Crop([], crop)(unread(real()), found, seed=3, name="a")
    assert all(weights[*[int(n) for n in one["image"].meta["crop_center"]]] > 0 for one in result)


def test_what_a_crop_looks_for_decides_whether_it_is_looked_for_again() -> None:
    plain = looks_for(indexed("posneg"))
    assert looks_for(indexed("posneg", pos=5)) == plain
    assert looks_for(indexed("posneg", image_key="image", image_threshold=3)) != plain
    assert looks_for(indexed("classes")) != plain
    assert looks_for(mt.RandSpatialCropd(KEYS, 5)) == ()


def test_no_more_positions_than_a_sample_are_kept() -> None:
    sample = real()
    found = find(indexed("posneg"), sample, "a")
    assert found is not None
    foreground = int((sample["label"] > 0).sum())
    assert found.counts == [foreground, int(np.prod(SHAPE)) - foreground]
    assert [len(part) for part in found.positions] == [foreground, CANDIDATES]
    assert sorted(found.positions[0]) == np.flatnonzero(sample["label"].numpy().ravel()).tolist()
    assert len(set(found.positions[1])) == CANDIDATES
    assert (sample["label"].numpy().ravel()[found.positions[1]] == 0).all()


def test_indices_that_the_pipeline_made_are_used() -> None:
    sample = mt.FgBgToIndicesd("label", image_key="image", image_threshold=5000)(real())
    crop = indexed("posneg", fg_indices_key="label_fg_indices", bg_indices_key="label_bg_indices")
    found = find(crop, sample, "a")
    assert found is not None
    assert found.counts == [len(sample["label_fg_indices"]), len(sample["label_bg_indices"])]
    assert found.padding is None


def test_padding_is_background_as_often_as_it_is_there() -> None:
    shape, padded, before = (10, 10, 10), (20, 10, 10), (5, 0, 0)
    found = Found(shape, [0, 1000], [np.zeros(0, np.int64), np.arange(1000)], padding=1)
    numbers = found.padded(before, padded, "a")[1]
    assert len(numbers) == CANDIDATES
    x = np.unravel_index(numbers, padded)[0]
    outside = ((x < 5) | (x >= 15)).mean()
    assert abs(outside - 0.5) < 0.05
    assert found.padded(before, padded, "a")[1].tolist() == numbers.tolist()


def test_padding_that_is_left_to_the_read() -> None:
    assert can_push_pad(mt.SpatialPadd(KEYS, 30, mode=("constant", "constant")))
    assert not can_push_pad(mt.SpatialPadd(KEYS, 30, mode=("constant", "edge")))
    assert not can_push_pad(mt.DivisiblePadd(KEYS, 8))
