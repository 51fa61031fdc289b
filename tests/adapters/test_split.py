"""Which transform runs where."""

from __future__ import annotations

from typing import Any

import pytest

mt = pytest.importorskip("monai.transforms")

from radioloader.adapters.split import PATCH, PREPARED, READ, split  # noqa: E402

KEYS = ["image", "label"]


def load() -> list[Any]:
    return [mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS), mt.Spacingd(KEYS, (2, 2, 2))]


def crop(**more: Any) -> Any:
    return mt.RandCropByPosNegLabeld(KEYS, "label", (16, 16, 16), **more)


def places(plan: Any) -> list[tuple[str, str]]:
    return [(name, where) for name, where, _ in plan.steps]


def test_deterministic_then_crop_then_the_rest() -> None:
    prefix, pad, rest = load(), mt.SpatialPadd(KEYS, (32, 32, 32)), [mt.RandFlipd(KEYS), mt.ScaleIntensityd("image")]
    the_crop = crop()
    plan = split(mt.Compose([*prefix, pad, the_crop, *rest]))
    assert plan.prefix == prefix
    assert plan.pads == [pad]
    assert plan.crop is the_crop
    assert plan.rest == rest
    assert plan.random
    assert places(plan) == [
        ("LoadImaged", PREPARED),
        ("EnsureChannelFirstd", PREPARED),
        ("Spacingd", PREPARED),
        ("SpatialPadd", READ),
        ("RandCropByPosNegLabeld", READ),
        ("RandFlipd", PATCH),
        ("ScaleIntensityd", PATCH),
    ]
    assert str(plan).splitlines()[-1].split(maxsplit=1) == [
        "ScaleIntensityd",
        "on every sample       comes after a random transform",
    ]


@pytest.mark.parametrize(
    "the_crop",
    [
        mt.RandSpatialCropd(KEYS, (8, 8, 8)),
        mt.RandSpatialCropSamplesd(KEYS, (8, 8, 8), 2),
        mt.RandScaleCropd(KEYS, 0.5),
        crop(),
        mt.RandCropByLabelClassesd(KEYS, "label", (8, 8, 8), num_classes=3),
        mt.RandWeightedCropd(KEYS, "weight", (8, 8, 8)),
    ],
    ids=lambda t: type(t).__name__,
)
def test_the_crops_that_are_left_to_the_read(the_crop: Any) -> None:
    assert split(mt.Compose([*load(), the_crop])).crop is the_crop


def test_a_pipeline_without_randomness_is_prepared_whole() -> None:
    plan = split(mt.Compose(load()))
    assert (len(plan.prefix), plan.crop, plan.rest, plan.random) == (3, None, [], False)


def test_a_random_transform_before_the_crop_gets_whole_volumes() -> None:
    flip, the_crop = mt.RandFlipd(KEYS), crop()
    plan = split(mt.Compose([*load(), flip, the_crop]))
    assert plan.crop is None
    assert plan.rest == [flip, the_crop]
    assert plan.steps[3] == ("RandFlipd", PATCH, "random; whole volumes are read for it")


class MyCrop(mt.RandSpatialCropd):
    def __call__(self, data: Any, lazy: Any = None) -> Any:
        return super().__call__(data, lazy)


def test_a_subclass_may_do_something_else() -> None:
    assert split(mt.Compose([*load(), MyCrop(KEYS, (8, 8, 8))])).crop is None


def test_a_plain_function_is_not_prepared_as_in_monai() -> None:
    def own(sample: Any) -> Any:
        return sample

    plan = split(mt.Compose([*load(), own, crop()]))
    assert plan.rest[0] is own
    assert plan.steps[3] == (
        "own",
        PATCH,
        "a plain function, which MONAI does not cache either; whole volumes are read for it",
    )


@pytest.mark.parametrize(
    "pad",
    [
        mt.SpatialPadd(KEYS, (32, 32, 32), mode="edge"),
        mt.SpatialPadd(KEYS, (32, 32, 32), value=3),
        mt.SpatialPadd(KEYS, (32, 32, 32), mode=["constant", "reflect"]),
        mt.BorderPadd(KEYS, 4),
    ],
    ids=["edge", "value", "one of two", "another class"],
)
def test_other_padding_is_prepared(pad: Any) -> None:
    plan = split(mt.Compose([*load(), pad, crop()]))
    assert (plan.prefix[-1], plan.pads) == (pad, [])
    assert plan.crop is not None


def test_weights_are_looked_at_after_padding() -> None:
    plan = split(
        mt.Compose([*load(), mt.SpatialPadd(KEYS, (32, 32, 32)), mt.RandWeightedCropd(KEYS, "weight", (8, 8, 8))])
    )
    assert len(plan.prefix) == 4
    assert plan.pads == []
    assert plan.crop is not None


def test_padding_alone_is_prepared() -> None:
    plan = split(mt.Compose([*load(), mt.SpatialPadd(KEYS, (32, 32, 32))]))
    assert (len(plan.prefix), plan.pads) == (4, [])


@pytest.mark.parametrize(("lazy", "own"), [(True, False), (None, True)], ids=["pipeline", "transform"])
def test_lazy_resampling_is_monais(lazy: bool | None, own: bool) -> None:
    space = mt.Spacingd(KEYS, (2, 2, 2), lazy=own)
    plan = split(mt.Compose([*load()[:2], space, crop()], lazy=lazy))
    assert plan.crop is None
    assert plan.rest[0] is space
    assert "lazy" in plan.steps[2][2]
    assert split(mt.Compose([*load()[:2], space, crop()], lazy=False)).crop is not None


def test_nested_pipelines_are_one() -> None:
    the_crop = crop()
    plan = split(mt.Compose([mt.Compose(load()), mt.Compose([the_crop, mt.Compose([mt.RandFlipd(KEYS)])])]))
    assert len(plan.prefix) == 3
    assert plan.crop is the_crop
    assert len(plan.rest) == 1


def test_a_choice_of_transforms_is_random() -> None:
    choice = mt.OneOf([mt.Flipd(KEYS, 0), mt.Flipd(KEYS, 1)])
    plan = split(mt.Compose([*load(), choice]))
    assert plan.rest == [choice]
    assert plan.random


def test_a_pipeline_that_passes_items_on_in_its_own_way_runs_as_it_is() -> None:
    plan = split(mt.Compose([*load(), crop()], map_items=False))
    assert (plan.prefix, plan.crop, len(plan.rest)) == ([], None, 4)


def test_one_transform_and_none() -> None:
    only = mt.LoadImaged(KEYS)
    assert split(only).prefix == [only]
    assert split(None).prefix == []
    assert "read as they are" in str(split(None))


def test_the_users_random_state_is_left_alone() -> None:
    flip = mt.RandFlipd(KEYS, 0.5)
    flip.set_random_state(5)
    expected = flip.R.get_state()[1].copy()
    plan = split(mt.Compose([*load(), flip]).set_random_state(5))
    state = flip.R.get_state()[1].copy()
    plan.prepare()
    plan.finish()
    assert (flip.R.get_state()[1] == state).all()
    assert not (state == expected).all()  # the pipeline's own seeding
