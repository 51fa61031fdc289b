"""Evaluation with ddp, where ranks have different numbers of cases: no hang, and figures that count every case once."""

from __future__ import annotations

from typing import Any

import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from radioloader._optional import require
from radioloader.datasets.gather import all_gather

__all__ = ["UnevenEvaluation"]

_lightning = require("lightning.pytorch", extra="lightning")

_result = require("lightning.pytorch.trainer.connectors.logger_connector.result", extra="lightning")


class UnevenEvaluation(_lightning.Callback):  # type: ignore[misc, name-defined]
    """Makes validation and test right where every case is on one rank, and ranks have different numbers of them, even none.

    The data modules add it to the Trainer. It does three things, each the same on all ranks:

    - The buffers of a ``DistributedDataParallel`` model (BatchNorm's statistics) are those of rank 0 before validation. Otherwise the
      first forward of each rank sends them, for which a rank without cases is missing, so that the next training step hangs.
    - ``self.log(..., sync_dist=True)`` divides by the number of cases. Lightning averages that number over the ranks as a whole number:
      of 3 cases on 2 ranks it makes 1.
    - A rank without cases takes part in these sums; otherwise the others would wait for it.
    """

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Bring the buffers of all ranks to one state."""
        model = trainer.strategy.model
        if not isinstance(model, DistributedDataParallel):
            return
        if model.will_sync_module_buffers():  # type: ignore[no-untyped-call]
            for buffer in model.modules_buffers:
                torch.distributed.broadcast(buffer, 0, group=model.process_group)
        model.require_forward_param_sync = False  # as it is after an evaluation step; training sets it again

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Have figures prepared right before Lightning sums them. No hook comes then on a rank without cases."""
        connector = trainer._logger_connector
        if trainer.world_size > 1 and "update_eval_epoch_metrics" not in vars(connector):
            original = connector.update_eval_epoch_metrics

            def update() -> Any:
                _prepare(trainer._results, trainer, pl_module)
                return original()

            connector.update_eval_epoch_metrics = update

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the Trainer as it was."""
        vars(trainer._logger_connector).pop("update_eval_epoch_metrics", None)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Have what was logged in training divided exactly as well: ``on_error="skip"`` makes batches uneven."""
        if trainer.world_size > 1:
            _count_exactly(trainer._results)


def _prepare(results: Any, trainer: Any, pl_module: Any) -> None:
    """Make the figures of all ranks the same ones, in the same order: they are summed one after the other."""
    mine = {key: _described(metric) for key, metric in results.items() if not metric.has_reset}
    logged = {key: description for part in all_gather(mine) for key, description in part.items()}
    for key, description in logged.items():
        if key not in mine:
            results[key] = _nothing(description, trainer, pl_module)
        results[key] = results.pop(key)
    _count_exactly(results)


def _count_exactly(results: Any) -> None:
    for metric in results.values():
        if metric.is_tensor and metric.meta.is_mean_reduction:
            metric.cumulated_batch_size = metric.cumulated_batch_size.double()


def _described(metric: Any) -> dict[str, Any]:
    """How a figure was logged, as values that another rank understands."""
    meta = metric.meta
    names = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")
    return {name: getattr(meta, name) for name in (*names, "dataloader_idx", "metric_attribute")} | {
        "reduce_fx": meta.reduce_fx.__name__,
        "sync": {"_should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
    }


def _nothing(description: dict[str, Any], trainer: Any, pl_module: Any) -> Any:
    """The figure of a rank that logged none: it changes no sum, least or greatest value."""
    arguments = dict(description)
    sync = arguments.pop("sync")
    meta = _result._Metadata(**arguments)
    meta.sync = _result._Sync(fn=trainer.strategy.reduce, **sync)
    metric = _result._ResultMetric(meta, is_tensor=meta.metric_attribute is None)
    if meta.metric_attribute is not None:
        metric.value = pl_module.get_submodule(meta.metric_attribute)
    metric._update_count = 1  # or torchmetrics warns that there is nothing to compute
    return metric.to(trainer.strategy.root_device)
