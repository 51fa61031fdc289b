"""From where the time of an epoch went to one line that says what to change: pure functions of measurements and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["STAGES", "Epoch", "Settings", "advice"]

STAGES = ("read", "decode", "transform", "collate", "transfer", "start", "other")
"""What waiting is divided into."""

_ENOUGH = 0.05
"""Waiting for a smaller share of the time is not worth a change."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a loader's settings advice is about.

    Attributes:
        num_workers: Worker processes.
        cores: Cores that a rank may use.
        prefetch_factor: Batches that each worker makes in advance.
        persistent_workers: Whether workers outlive an epoch.
        pin_memory: Whether batches are pinned.
        on_gpu: Whether batches go to another device.
        device_transform: Whether the data module transforms batches there.
        patches: Whether samples are randomly placed patches.
    """

    num_workers: int
    cores: int
    prefetch_factor: int = 2
    persistent_workers: bool = False
    pin_memory: bool = False
    on_gpu: bool = False
    device_transform: bool = False
    patches: bool = False


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch's steps spent, in seconds.

    Attributes:
        total: All steps, from the end of one to the end of the next.
        wait: The loader's iterator.
        first: Of that, its first batch.
        transfer: From the batch's arrival to the begin of the step: moving it to the device, transforms there.
        steps: Number of steps.
        read: In the processes that make batches: fetching from storage.
        decode: There: decompressing, copying, scaling.
        transform: There: ``transform``.
        collate: There: putting batches together.
        batches: Batches that were made meanwhile.
    """

    total: float
    wait: float
    first: float
    transfer: float
    steps: int
    read: float
    decode: float
    transform: float
    collate: float
    batches: int

    @property
    def made_s(self) -> float:
        """Seconds that a process takes to make a batch."""
        return (self.read + self.decode + self.transform + self.collate) / max(self.batches, 1)

    def shares(self, workers: int) -> dict[str, float]:
        """Share of the steps' time that was waited for each of :data:`STAGES`; their sum is the share that was waited at all.

        Workers make batches while the model works: the wait for them is divided as their time is. What they cannot explain, since they
        would have been quick enough, is ``other``; of the first batch it is ``start``, the start of worker processes.
        """
        total = max(self.total, 1e-9)
        start = min(max(0.0, self.first - self.made_s), self.wait) if workers else 0.0
        wait = self.wait - start
        possible = self.made_s * (self.steps / max(1, workers) + (1 if workers else 0))
        explained = min(wait, possible)
        made = max(self.made_s * self.batches, 1e-9)
        parts = {name: explained * getattr(self, name) / made for name in ("read", "decode", "transform", "collate")}
        parts |= {"transfer": self.transfer, "start": start, "other": wait - explained}
        return {name: parts[name] / total for name in STAGES}


def advice(epoch: Epoch, settings: Settings) -> str:
    """One line: how much was waited, for what, and what to change."""
    shares = epoch.shares(settings.num_workers)
    waited = sum(shares.values())
    if waited < _ENOUGH:
        return f"waiting for data {waited:.0%} of the time: nothing to change"
    worst = max(STAGES, key=lambda name: shares[name])
    return f"waiting for data {waited:.0%} of the time, mostly {worst} ({shares[worst]:.0%}): {_change(worst, epoch, settings)}"


def _change(worst: str, epoch: Epoch, settings: Settings) -> str:
    if worst == "transfer":
        return _quicker_transfer(settings)
    if worst == "start":
        if not settings.persistent_workers:
            return "set loader_kwargs={'persistent_workers': True}, so that workers are not started in every epoch"
        return "workers are started once; longer epochs (patches_per_volume=) or fewer workers make that matter less"
    more = _more_workers(worst, epoch, settings)
    if more > settings.num_workers:
        return f"raise num_workers from {settings.num_workers} to {more}"
    if settings.num_workers and _busy(epoch, settings) < 1:
        # On average they are quick enough: batches come unevenly.
        return f"raise prefetch_factor from {settings.prefetch_factor} to {2 * settings.prefetch_factor}"
    return _cheaper(worst, settings)


def _busy(epoch: Epoch, settings: Settings) -> float:
    """How many of the workers' batches the model could use in the time that they take to make one; above 1 they are too slow."""
    step = max((epoch.total - epoch.wait - epoch.transfer) / max(epoch.steps, 1), 1e-6)
    return epoch.made_s / (step + epoch.transfer / max(epoch.steps, 1)) / max(settings.num_workers, 1)


def _more_workers(worst: str, epoch: Epoch, settings: Settings) -> int:
    """Workers that would keep up, as far as cores allow; storage that is waited for needs none."""
    needed = math.ceil(_busy(epoch, settings) * max(settings.num_workers, 1))
    most = settings.cores * (4 if worst == "read" else 1)
    return max(1, min(needed, most))


def _quicker_transfer(settings: Settings) -> str:
    if settings.device_transform:
        return "make device_transform cheaper, or move a part of it into transform, which workers run"
    if settings.on_gpu and not settings.pin_memory:
        return "set loader_kwargs={'pin_memory': True}"
    return "give dtype=None, so that batches keep the stored dtype, and cast on the device"


def _cheaper(worst: str, settings: Settings) -> str:
    if worst == "read":
        return "copy the store to a local disk, or read less at a time from more of it: order=BlockShuffled(window)"
    if worst == "decode":
        if settings.patches:
            return "all cores decode: cut several patches from what is decoded once, positions=RegionPositions(...)"
        return "all cores decode: ingest with a compression that is quicker to read, CompressionConfig('lz4')"
    if worst == "transform":
        return (
            "all cores transform: move a part to the device (device_transform=), or what is not random into the store"
        )
    if worst == "collate":
        return "make smaller batches, or a cheaper collate_fn"
    return "the loader was quick enough; look at what else uses these cores"
