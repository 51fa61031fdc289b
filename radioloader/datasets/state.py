"""Where an epoch stands, so that another process can go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from radioloader.errors import ConfigError
from radioloader.samplers.samplers import KeySampler

__all__ = ["LoaderState"]

_VERSION = 1
_DIGEST = "digest of the epoch's order"


@dataclass(frozen=True, slots=True)
class LoaderState:
    """Where an epoch stands. Global: the same on every rank.

    Attributes:
        epoch: The epoch.
        progress: (world size, samples of each rank) for each run that had a part of the epoch, in their order.
        samples: Samples that were consumed of the epoch, over all ranks.
        order: What decides the samples and their order, as plain values by name.
    """

    epoch: int
    progress: tuple[tuple[int, int], ...]
    samples: int
    order: Mapping[str, Any]

    @classmethod
    def of(cls, keys: KeySampler, epoch: int, progress: Sequence[Sequence[int]]) -> LoaderState:
        """The state of a sampler."""
        pairs = tuple((int(world), int(samples)) for world, samples in progress)
        return cls(epoch, pairs, keys.samples_done(pairs), _order(keys) | {_DIGEST: keys.digest(epoch)})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {
            "version": _VERSION,
            "epoch": self.epoch,
            "progress": [list(pair) for pair in self.progress],
            "samples": self.samples,
            "order": dict(self.order),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> LoaderState:
        """The state that :meth:`to_dict` gave.

        Raises:
            ConfigError: It is something else.
        """
        if not isinstance(state, Mapping) or not {"version", "epoch", "progress", "samples", "order"} <= state.keys():
            raise ConfigError("this is not the state of a radioloader.DataLoader; give what its state_dict() returned")
        if state["version"] > _VERSION:
            raise ConfigError(
                f"the loader's state has version {state['version']}, this radioloader reads up to {_VERSION}; upgrade radioloader"
            )
        progress = tuple((int(world), int(samples)) for world, samples in state["progress"])
        return cls(int(state["epoch"]), progress, int(state["samples"]), dict(state["order"]))

    def check(self, keys: KeySampler) -> None:
        """Refuse to go on with another order of samples.

        Raises:
            ConfigError: Data, seed or arguments differ; says which.
        """
        now = _order(keys)
        differ = [name for name in {**self.order, **now} if self.order.get(name) != now.get(name) and name != _DIGEST]
        if not differ and self.order.get(_DIGEST) != keys.digest(self.epoch):
            differ = [_DIGEST]  # a column that the order goes by, such as weights
            now[_DIGEST] = keys.digest(self.epoch)
        if differ:
            lines = "; ".join(f"{name} was {self.order.get(name)!r}, now it is {now.get(name)!r}" for name in differ)
            raise ConfigError(
                f"this state is of another order of samples, so the rest of its epoch cannot be told: {lines}. Make the dataset and the "
                "sampler as they were, or start an epoch anew with set_epoch"
            )


def _order(keys: KeySampler) -> dict[str, Any]:
    dataset: Any = keys.dataset
    return {
        **dataset.fingerprint(),
        "order": repr(keys.order),
        "order seed": keys.seed,
        "training": keys.training,
        "repeat": keys.repeat,
        "drop_last": keys.drop_last,
    }
