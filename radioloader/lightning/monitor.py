"""How long training waits for data, for what, and what to change."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

import torch

from radioloader._optional import require
from radioloader.config import available_cores
from radioloader.datasets.advice import STAGES, Epoch, Settings, advice
from radioloader.datasets.loader import DataLoader
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.stats import TIMES

__all__ = ["DataWaitMonitor"]

_lightning = require("lightning.pytorch", extra="lightning")
_rank_zero = require("lightning.pytorch.utilities.rank_zero", extra="lightning")


class DataWaitMonitor(_lightning.Callback):  # type: ignore[misc, name-defined]
    """Logs the share of training that is spent waiting for data and where it goes, and says at the end of each epoch what to change.

    Logged are ``data_wait/step`` (share of each step) and, for each epoch, ``data_wait/share``, which is the sum of

    - ``data_wait/read``: fetching from storage, ``data_wait/decode``: decompressing, copying and scaling. TileDB does both in one call;
      its own timers, switched on for one read in 16, say in which proportion.
    - ``data_wait/transform``, ``data_wait/collate``: in the processes that make batches; a ``collate_fn`` of yours is under ``other``.
    - ``data_wait/transfer``: from the arrival of a batch to the begin of the step: ``pin_memory`` apart, the move to the device, and
      ``device_transform``. Where the device works asynchronously, only what the host waits for.
    - ``data_wait/start``: starting worker processes. ``data_wait/other``: what all this does not explain.

    With several ranks it is the one that waits longest: the others wait for it in turn, inside their steps. Validation is not
    measured, nor is it part of the steps. The line of the last epoch stays in :attr:`line`.

    Attributes:
        line: What was said last.
        epoch: What was measured last, on the rank that waited longest.
    """

    def __init__(self) -> None:
        self.line = ""
        self.epoch: Epoch | None = None
        self._loader: DataLoader | None = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start measuring."""
        found = [loader for loader in _loaders(trainer.train_dataloader) if isinstance(loader, DataLoader)]
        self._loader = found[0] if len(found) == 1 else None
        if self._loader is None:
            _rank_zero.rank_zero_warn(
                f"DataWaitMonitor measures training with one radioloader.DataLoader, found {len(found)}: nothing is measured"
            )
            return
        self._loader.stats.measure_reads()
        self._before = _counters(self._loader)
        self._total = self._first = self._transfer = 0.0
        self._steps = 0
        self._waited, self._ended = self._loader.wait_s, time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch is there."""
        if self._loader is None:
            return
        self._step_transfer = time.perf_counter() - self._loader.waited_until
        self._transfer += self._step_transfer

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A step is over."""
        if self._loader is None:
            return
        now, wait = time.perf_counter(), self._loader.wait_s - self._waited
        if not self._steps:
            self._first = wait
        self._steps += 1
        self._total += now - self._ended
        share = (wait + self._step_transfer) / max(now - self._ended, 1e-9)
        self._waited, self._ended = self._loader.wait_s, now
        self.log("data_wait/step", share, on_step=True, on_epoch=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Validation between two steps is part of neither."""
        self._ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Say where the epoch's time went."""
        if self._loader is None or not self._steps:
            return
        settings = _settings(trainer, self._loader)
        self.epoch = _slowest(trainer, self._measured(), settings)
        shares = self.epoch.shares(settings)
        figures = {f"data_wait/{name}": shares[name] for name in STAGES}
        self.log_dict({"data_wait/share": sum(shares.values()), **figures}, on_step=False, on_epoch=True)
        self.line = f"epoch {trainer.current_epoch}: {advice(self.epoch, settings)}"
        _rank_zero.rank_zero_info(self.line)

    def _measured(self) -> Epoch:
        assert self._loader is not None
        now = _counters(self._loader)
        spent = {name: now[name] - self._before[name] for name in now}
        # Of all reads so far: few of one epoch may have been measured.
        storage, measured = self._loader.stats.measured_reads
        share = storage / measured if measured else 0.0
        return Epoch(
            total=self._total,
            wait=self._waited - self._before["wait"],
            first=self._first,
            transfer=self._transfer,
            steps=self._steps,
            read=spent["read"] * share,
            decode=spent["read"] * (1 - share),
            transform=spent["transform"],
            collate=spent["collate"],
            batches=max(1, round(spent["batches"])),
        )


def _counters(loader: DataLoader) -> dict[str, float]:
    seconds = loader.stats.seconds
    return {name: seconds[name] for name in TIMES} | {"batches": float(loader.stats.batches), "wait": loader.wait_s}


def _slowest(trainer: Any, mine: Epoch, settings: Settings) -> Epoch:
    """What was measured on the rank that waited for the largest share of its time."""
    if trainer.world_size == 1:
        return mine
    values = torch.tensor(astuple(mine), dtype=torch.float64, device=trainer.strategy.root_device)
    rows = trainer.strategy.all_gather(values).reshape(trainer.world_size, -1).tolist()
    whole = ("steps", "batches")
    names = Epoch.__dataclass_fields__
    everyone = [Epoch(**{n: int(v) if n in whole else v for n, v in zip(names, row, strict=True)}) for row in rows]
    return max(everyone, key=lambda epoch: sum(epoch.shares(settings).values()))


def _settings(trainer: Any, loader: DataLoader) -> Settings:
    transforms = getattr(trainer.datamodule, "_on_device", None)
    return Settings(
        num_workers=loader.num_workers,
        cores=max(1, available_cores() // max(1, trainer.num_devices)),
        prefetch_factor=loader.prefetch_factor or 2,
        persistent_workers=loader.persistent_workers,
        pin_memory=loader.pin_memory,
        on_gpu=trainer.strategy.root_device.type != "cpu",
        device_transform=transforms is not None and transforms.train is not None,
        patches=isinstance(loader.dataset, PatchDataset) and loader.dataset.random,
        num_threads=loader.threads,
    )


def _loaders(loaders: Any) -> Iterator[Any]:
    """The loaders in what a Trainer was given: one, or lists and dicts of them."""
    if isinstance(loaders, DataLoader) or not isinstance(loaders, Mapping | list | tuple):
        yield loaders
        return
    parts: Iterable[Any] = loaders.values() if isinstance(loaders, Mapping) else loaders
    for part in parts:
        yield from _loaders(part)
