"""Which transform of a MONAI pipeline runs where: once when an item is prepared, as a smaller read, or on the patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import monai.transforms as mt
from monai.transforms import Compose, Randomizable, Transform
from monai.transforms.traits import LazyTrait, MultiSampleTrait, RandomizableTrait, ThreadUnsafe

from radioloader.adapters.crops import can_push_crop, can_push_pad

__all__ = ["Plan", "split"]

PREPARED, READ, PATCH = "once, at preparation", "while reading", "on every sample"


@dataclass(frozen=True)
class Plan:
    """A pipeline in parts.

    Attributes:
        prefix: Deterministic transforms, which run once for each item.
        pads: ``SpatialPadd`` transforms that the read does.
        crop: The random crop that the read does, or None.
        rest: What runs on every sample.
        compose: The pipeline, for its settings.
        steps: Name, where, and why, of every transform.
    """

    prefix: list[Any]
    pads: list[Any]
    crop: Any
    rest: list[Any]
    compose: Any
    steps: list[tuple[str, str, str]] = field(default_factory=list)

    def prepare(self) -> Any:
        """The deterministic transforms as one."""
        return _compose(self.prefix, self.compose)

    def finish(self) -> Any:
        """What runs on every sample as one; None where nothing does."""
        return _compose(self.rest, self.compose) if self.rest else None

    @property
    def random(self) -> bool:
        """Whether samples of an item differ."""
        return self.crop is not None or any(_random(transform) for transform in self.rest)

    def __str__(self) -> str:
        width = max((len(name) for name, _, _ in self.steps), default=0)
        lines = [f"{name:<{width}}  {where:<{len(PREPARED)}}  {why}".rstrip() for name, where, why in self.steps]
        return "\n".join(lines) or "no transforms: items are stored and read as they are"


def split(transform: Any) -> Plan:
    """Split a pipeline.

    Args:
        transform: A ``Compose``, one transform, or None.
    """
    if type(transform) is Compose:
        compose = transform
    else:
        parts = [] if transform is None else list(transform) if isinstance(transform, list | tuple) else [transform]
        compose = _compose(parts, Compose())
    transforms = list(_flat(compose))
    steps: list[tuple[str, str, str]] = []
    if compose.unpack_items or compose.map_items is not True:
        reason = "the Compose passes items on in its own way (map_items, unpack_items)"
        return Plan([], [], None, transforms, compose, [(_name(t), PATCH, reason) for t in transforms])
    end = 0
    stop = "nothing is left"
    for end, transform in enumerate([*transforms, None]):  # noqa: B007
        if transform is None:
            break
        why = _why_not_once(transform, compose)
        if why is not None:
            stop = why
            break
    prefix, rest = transforms[:end], transforms[end:]
    crop: Any = None
    pads: list[Any] = []
    if rest and can_push_crop(rest[0]) and not _lazy(rest[0], compose):
        crop, rest = rest[0], rest[1:]
        # Weights are looked at after padding, which is a part of the preparation then.
        while prefix and can_push_pad(prefix[-1]) and type(crop) is not mt.RandWeightedCropd:
            pads.insert(0, prefix.pop())
        if not prefix:
            prefix, pads = pads, []
    steps += [(_name(t), PREPARED, "deterministic") for t in prefix]
    steps += [(_name(t), READ, "padding is left to the read") for t in pads]
    if crop is not None:
        steps.append((_name(crop), READ, "only its boxes are read"))
    for number, step in enumerate(rest):
        if number == 0 and crop is None:
            steps.append((_name(step), PATCH, f"{stop}; whole volumes are read for it"))
        else:
            own = _why_not_once(step, compose)
            steps.append((_name(step), PATCH, own or "comes after a random transform"))
    return Plan(prefix, pads, crop, rest, compose, steps)


def _flat(compose: Any) -> Iterator[Any]:
    for transform in compose.transforms:
        same = type(transform) is Compose and all(
            getattr(transform, name) == getattr(compose, name) for name in ("map_items", "unpack_items", "overrides")
        )
        if same and transform.lazy == compose.lazy:
            yield from _flat(transform)
        else:
            yield transform


def _why_not_once(transform: Any, compose: Any) -> str | None:
    """Why a transform cannot run once for each item; None when it can."""
    if _random(transform):
        return "random"
    if not isinstance(transform, Transform):
        return "a plain function, which MONAI does not cache either"
    if isinstance(transform, MultiSampleTrait):
        return "makes several samples of one"
    if isinstance(transform, ThreadUnsafe) and not isinstance(transform, Randomizable):
        return "keeps state from item to item"
    if _lazy(transform, compose):
        return "lazy: MONAI resamples once for it and what follows"
    return None


def _random(transform: Any) -> bool:
    if isinstance(transform, Compose):
        chooses = type(transform) is not Compose  # OneOf and its kin
        return chooses or any(_random(part) for part in transform.transforms)
    return isinstance(transform, Randomizable | RandomizableTrait)


def _lazy(transform: Any, compose: Any) -> bool:
    """Whether a transform would run lazily in this pipeline."""
    if isinstance(transform, Compose):
        return any(_lazy(part, transform) for part in transform.transforms)
    if compose.lazy is False or not isinstance(transform, LazyTrait):
        return False
    return bool(compose.lazy) or bool(transform.lazy)


def _compose(transforms: Sequence[Any], like: Any) -> Any:
    settings = {name: getattr(like, name) for name in ("map_items", "unpack_items", "log_stats", "lazy", "overrides")}
    made = Compose([], **settings)
    made.transforms = tuple(transforms)  # the constructor would seed the user's transforms anew
    return made


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", None) or type(transform).__name__
