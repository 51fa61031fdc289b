"""Generators that a transform carries are seeded by the sample's key, wherever in it they are."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from tests.datasets.test_transforms import KEYS, Sample, patches

MODULE_GENERATOR = np.random.default_rng(0)


def jitter(sample: Sample) -> Sample:
    sample["random"] = float(MODULE_GENERATOR.random())
    return sample


def through_a_helper(sample: Sample) -> Sample:
    return jitter(sample)


class Wrapper:
    """Wraps a transform, as users' pipelines do."""

    def __init__(self, inner: Any, **more: Any) -> None:
        self.inner = inner
        self.more = more

    def __call__(self, sample: Sample) -> Sample:
        return self.inner(sample)  # type: ignore[no-any-return]


class UsesTheModule:
    def __call__(self, sample: Sample) -> Sample:
        return self.step(sample)

    def step(self, sample: Sample) -> Sample:
        sample["random"] = float(MODULE_GENERATOR.random())
        return sample


class Slotted:
    __slots__ = ("inner", "unset")

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, sample: Sample) -> Sample:
        return self.inner(sample)  # type: ignore[no-any-return]


class Chain:
    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def __call__(self, sample: Sample) -> Sample:
        for step in self.steps:
            sample = step(sample)
        return sample

    def method(self, sample: Sample) -> Sample:
        return self(sample)


def draw(generator: Any) -> Callable[[Sample], Sample]:
    """A transform, a closure, that takes a number from ``generator``."""

    def transform(sample: Sample) -> Sample:
        if isinstance(generator, torch.Generator):
            value = float(torch.rand((), generator=generator))
        else:
            value = float(generator.random())
        return sample | {"random": value + sample.get("random", 0)}

    return transform


def with_default(sample: Sample, generator: Any = np.random.default_rng(3)) -> Sample:  # noqa: B008
    return sample | {"random": float(generator.random())}


INSTANCE = Wrapper(draw(np.random.default_rng()))


def with_argument(generator: Any, sample: Sample, *, scale: float) -> Sample:
    return sample | {"random": float(generator.random()) * scale}


CARRIERS: dict[str, Callable[[], Any]] = {
    "numpy generator": lambda: draw(np.random.default_rng()),
    "numpy random state": lambda: draw(np.random.RandomState()),
    "python random": lambda: draw(random.Random()),
    "torch generator": lambda: draw(torch.Generator()),
    "other bit generator": lambda: draw(np.random.Generator(np.random.SFC64())),
    "wrapped": lambda: Wrapper(Wrapper(draw(np.random.default_rng()))),
    "slots": lambda: Slotted(draw(np.random.default_rng())),
    "list": lambda: Chain(Wrapper(lambda sample: sample), draw(np.random.default_rng()), draw(torch.Generator())),
    "bound method": lambda: Chain(draw(np.random.default_rng())).method,
    "partial": lambda: functools.partial(with_argument, np.random.default_rng(), scale=2.0),
    "partial keyword": lambda: functools.partial(with_default, generator=random.Random()),
    "default": lambda: with_default,
    "dict": lambda: Wrapper(None, a={"b": [draw(random.Random())]}).more["a"]["b"][0],
    "module's": lambda: jitter,
    "module's, by a helper": lambda: through_a_helper,
    "module's, by a method": lambda: UsesTheModule(),
    "module's, in a lambda": lambda: lambda sample: INSTANCE(sample),
    "torch module": lambda: Module(draw(torch.Generator())),
}


class Module(torch.nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sample: Sample) -> Sample:
        return self.inner(sample)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", CARRIERS)
def test_carried_generators_are_seeded_by_the_key(brains: Any, kind: str) -> None:
    dataset = patches(brains, CARRIERS[kind](), patches_per_volume=3)
    expected = [float(dataset[key]["random"]) for key in KEYS]
    assert len(set(expected)) == len(KEYS)
    assert [float(dataset[key]["random"]) for key in reversed(KEYS)] == expected[::-1]
    again = patches(brains, CARRIERS[kind](), patches_per_volume=3)
    assert [float(sample["random"]) for sample in again.__getitems__(KEYS)] == expected
    # The same in workers, however many.
    here = [batch["random"].tolist() for batch in rl.DataLoader(dataset, 3, shuffle=True)]
    there = rl.DataLoader(dataset, 3, shuffle=True, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert [batch["random"].tolist() for batch in there] == here
    assert len({value for batch in here for value in batch}) == 12


@pytest.mark.parametrize(
    "make",
    [np.random.default_rng, np.random.RandomState, random.Random, lambda seed: torch.Generator().manual_seed(seed)],
)
def test_carried_generators_are_as_they_were(brains: Any, make: Any) -> None:
    # The script may use them as well.
    generator, other = make(5), make(5)
    dataset = patches(brains, draw(generator))
    take = draw(generator), draw(other)
    for key in KEYS[:3]:
        dataset[key]
        assert take[0]({})["random"] == take[1]({})["random"]


def test_two_generators_of_one_transform_are_different_streams(brains: Any) -> None:
    def pair(sample: Sample) -> Sample:
        return sample | {"a": float(first.random()), "b": float(second.random())}

    first, second = np.random.default_rng(1), np.random.default_rng(1)
    dataset = patches(brains, pair)
    assert all(sample["a"] != sample["b"] for sample in dataset.__getitems__(KEYS))


def test_a_transform_that_holds_itself(brains: Any) -> None:
    chain = Chain(draw(np.random.default_rng()))
    chain.more = [chain, {"again": chain}]  # type: ignore[attr-defined]
    dataset = patches(brains, chain)
    assert dataset[KEYS[0]]["random"] == dataset[KEYS[0]]["random"] != dataset[KEYS[1]]["random"]


@pytest.mark.parametrize("kind", ["wrapped", "closure", "partial", "list", "compose in compose", "method"])
def test_monais_transforms_inside_users_code(brains: Any, monai_transforms: Any, kind: str) -> None:
    m = monai_transforms

    def make() -> Any:
        flip = m.RandFlipd(keys=["image"], prob=0.5, spatial_axis=1)
        noise = m.RandGaussianNoised(keys=["image"], prob=1.0, std=5.0)
        both = m.Compose([flip, noise])
        return {
            "wrapped": lambda: Wrapper(Slotted(both)),
            "closure": lambda: lambda sample: noise(flip(sample)),
            "partial": lambda: functools.partial(lambda step, sample: step(sample), both),
            "list": lambda: Chain(flip, Wrapper(noise)),
            "compose in compose": lambda: m.Compose([m.Compose([flip]), noise]),
            "method": lambda: Chain(both).method,
        }[kind]()

    dataset = patches(brains, make())
    expected = [dataset[key]["image"].as_subclass(torch.Tensor).clone() for key in KEYS]
    assert len({tuple(image.flatten().tolist()) for image in expected}) == len(KEYS)
    samples = patches(brains, make()).__getitems__(KEYS[::-1])
    for sample, image in zip(samples, expected[::-1], strict=True):
        assert torch.equal(sample["image"].as_subclass(torch.Tensor), image)


class Lazy:
    """Makes its generator in the first call, as some libraries do."""

    def __init__(self) -> None:
        self.generator: np.random.Generator | None = None

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self.generator is None:
            self.generator = np.random.default_rng()
        sample["image"] += float(self.generator.normal())  # in place
        return sample


def test_generators_that_are_made_in_the_first_call(brains: Any) -> None:
    results = []
    for _ in range(2):
        dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, transform=Lazy())
        results.append([dataset[rl.PatchKey(0, draw)]["image"] for draw in (0, 1, 0)])
    first, again = results
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], first[2])
    plain = rl.PatchDataset(brains.uri, image="T1w", patch_size=8)
    added = first[0] - plain[rl.PatchKey(0, 0)]["image"]
    assert added.std() < 1e-3
    # Applied once: all three start from the plain patch, and two of them drew the same number.
    other = first[1] - plain[rl.PatchKey(0, 1)]["image"]
    assert abs(float(added.mean())) > 1e-3
    assert abs(float(added.mean() - other.mean())) > 1e-3


def test_looking_for_generators_runs_no_code_of_the_users(brains: Any) -> None:
    class Reads(dict[str, Any]):
        def values(self) -> Any:
            raise AssertionError("this may read a file for each value")

    class AnswersToAnything:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda: None

    class Transform:
        def __init__(self) -> None:
            self.table = Reads(a=1)
            self.mock = AnswersToAnything()
            self.generator = np.random.default_rng()

        def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
            return {**sample, "drawn": float(self.generator.random())}

    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, transform=Transform())
    assert dataset[rl.PatchKey(0)]["drawn"] == dataset[rl.PatchKey(0)]["drawn"] != dataset[rl.PatchKey(1)]["drawn"]


def test_what_is_too_large_to_be_searched_is_told(
    brains: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("radioloader.datasets.seeding._MOST", 50)

    class Table:
        def __init__(self) -> None:
            self.rows = [(number, [number]) for number in range(100)]

        def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
            return sample

    rl.PatchDataset(brains.uri, image="T1w", patch_size=8, transform=Table())[rl.PatchKey(0)]
    assert "'Table' holds more than 50 objects: random generators among the others are not seeded" in caplog.text
