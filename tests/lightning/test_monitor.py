"""DataWaitMonitor: loaders that are slow on purpose at one stage, and the advice that follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import radioloader as rl

pytest.importorskip("lightning.pytorch")

from radioloader.datasets.advice import STAGES

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*have no `validation_step`"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def slow(sample: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.02)
    return sample


def watched(
    store: str, folder: Path, *, epochs: int = 2, step_s: float = 0.0, **arguments: Any
) -> tuple[Any, Any, Any]:
    """Train with the monitor: the callback, the Trainer and the data module."""
    import lightning.pytorch as lightning
    from lightning.pytorch.loggers import CSVLogger

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            time.sleep(step_s)
            return self.layer(torch.ones(1, 1)).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = rl.lightning.PatchDataModule(
        store,
        **{"image": "T1w", "patch_size": 8, "patches_per_volume": 4, "batch_size": 4, "split": (1.0, 0.0, 0.0)}
        | arguments,
    )
    monitor = rl.lightning.DataWaitMonitor()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[monitor],
    )
    trainer.fit(Model(), datamodule=data)
    return monitor, trainer, data


def shares(trainer: Any) -> dict[str, float]:
    return {name: float(trainer.callback_metrics[f"data_wait/{name}"]) for name in STAGES}


FORK = {"multiprocessing_context": "fork"}


def test_a_slow_transform_is_found_and_wants_workers(ten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.lightning.monitor.available_cores", lambda: 4)
    monitor, trainer, _ = watched(ten, tmp_path, transform=slow, step_s=0.04)
    found = shares(trainer)
    assert max(found, key=lambda name: found[name]) == "transform"
    assert found["transform"] > 0.4
    assert float(trainer.callback_metrics["data_wait/share"]) == pytest.approx(sum(found.values()), rel=1e-4)
    # 80 ms to make a batch, 40 ms to use it.
    assert "mostly transform" in monitor.line
    assert monitor.line.endswith(("raise num_workers from 0 to 2", "raise num_workers from 0 to 3"))
    logged = (Path(trainer.logger.log_dir) / "metrics.csv").read_text()
    assert "data_wait/step" in logged.splitlines()[0]
    assert "data_wait/transform" in logged.splitlines()[0]


def test_a_slow_device_transform_is_transfer(ten: str, tmp_path: Path) -> None:
    monitor, trainer, _ = watched(ten, tmp_path, device_transform=slow)
    found = shares(trainer)
    assert max(found, key=lambda name: found[name]) == "transfer"
    assert "make device_transform cheaper" in monitor.line


def test_starting_workers_is_told_from_their_work(ten: str, tmp_path: Path) -> None:
    start = {
        **FORK,
        "worker_init_fn": lambda worker: time.sleep(2.0),
    }  # longer than a busy machine takes for the batches
    monitor, trainer, _ = watched(ten, tmp_path, num_workers=1, epochs=1, loader_kwargs=start)
    found = shares(trainer)
    assert max(found, key=lambda name: found[name]) == "start"
    assert "persistent_workers" in monitor.line


def test_a_slow_collate_is_found(ten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from radioloader.datasets import loader

    def collate(samples: Any) -> Any:
        time.sleep(0.05)
        return rl.collate(samples)

    monkeypatch.setattr(loader, "collate", collate)
    monitor, _, _ = watched(ten, tmp_path)
    assert "mostly collate" in monitor.line


def test_reads_are_divided_into_storage_and_decoding(ten: str, tmp_path: Path) -> None:
    monitor, _, data = watched(ten, tmp_path, patch_size=(12, 15, 9))
    loader = data.train_dataloader()
    assert loader.stats.measured_reads == (0.0, 0.0)
    loader.stats.measure_reads()
    list(loader)
    storage, measured = loader.stats.measured_reads
    assert 0 < storage < measured
    # Of the time that was spent, not of the waiting: reads ahead may have been waited for not at all.
    assert monitor.epoch is not None
    assert monitor.epoch.read > 0
    assert monitor.epoch.decode > 0


def test_in_workers_too_and_they_say_so_across_processes(ten: str, tmp_path: Path) -> None:
    _, trainer, _ = watched(ten, tmp_path, num_workers=1, loader_kwargs=FORK, transform=slow)
    found = shares(trainer)
    assert max(found, key=lambda name: found[name]) == "transform"
    assert found["decode"] > 0


def test_the_last_epochs_measurement_is_kept(ten: str, tmp_path: Path) -> None:
    monitor, _, _ = watched(ten, tmp_path, num_workers=1, step_s=0.1, epochs=1, loader_kwargs={**FORK})
    assert monitor.epoch is not None
    assert monitor.epoch.steps == 10
    assert monitor.epoch.total > 10 * 0.1
