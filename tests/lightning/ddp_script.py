"""Started as ``python ddp_script.py STORE FOLDER``: Lightning starts rank 1 itself, with the same arguments.

Runs every scenario one after the other, and each rank writes what it saw to ``FOLDER/rank<n>.json``.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from noting import Noting, StopAfter, trainer  # noqa: E402

import radioloader as rl  # noqa: E402

STORE, FOLDER = sys.argv[1], Path(sys.argv[2])
IDS = [f"sub-{number:02d}" for number in range(1, 11)]
WORKER = {"num_workers": 1, "loader_kwargs": {"multiprocessing_context": "fork"}}
PARTS = {"train": IDS[:5], "val": IDS[5:8], "test": IDS[8:]}


def module(**arguments: Any) -> Any:
    defaults: dict[str, Any] = {
        "image": "T1w",
        "label": "seg",
        "patch_size": 6,
        "patches_per_volume": 4,
        "batch_size": 2,
        "split": PARTS,
        "seed": 5,
    }
    return rl.lightning.PatchDataModule(STORE, **defaults | arguments)


def ddp(**arguments: Any) -> Any:
    return trainer(FOLDER, **{"devices": 2, "strategy": "ddp", "max_epochs": 2} | arguments)


def saw(model: Noting, runner: Any) -> dict[str, Any]:
    figures = {name: float(value) for name, value in runner.callback_metrics.items()}
    return {"seen": model.seen, "means": model.means, "figures": figures, "statistics": model.statistics}


def whole(**arguments: Any) -> dict[str, Any]:
    model, runner = Noting(), ddp(**arguments)
    runner.fit(model, datamodule=module())
    return saw(model, runner)


def resumed(steps: int, *, beyond: int = 1, epoch_end: bool = False, **arguments: Any) -> dict[str, Any]:
    """Checkpoint after ``steps``, go on for ``beyond``, stop; go on from the checkpoint."""
    folder = FOLDER / f"at-{steps}-{len(arguments)}-{epoch_end}"
    every: dict[str, Any] = (
        {"every_n_epochs": 1, "save_on_train_epoch_end": True} if epoch_end else {"every_n_train_steps": steps}
    )
    saving = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **every)
    first = Noting()
    ddp(callbacks=[saving, StopAfter(steps + beyond)], enable_checkpointing=True).fit(
        first, datamodule=module(**arguments)
    )
    second, runner = Noting(), ddp()
    runner.fit(second, datamodule=module(**arguments), ckpt_path=folder / f"step={steps}.ckpt")
    consumed = first.seen["train"][: steps * 2] + second.seen["train"]
    return {"seen": {"train": consumed, "val": second.seen["val"]}, "stopped at": len(first.seen["train"])}


def slow_on_rank_1(sample: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.03 * torch.distributed.get_rank())
    return sample


def norm(val: list[str], **arguments: Any) -> dict[str, Any]:
    """BatchNorm, uneven validation, and what ranks do together afterwards: training, a checkpoint of the best."""
    model = Noting(norm=True)
    saving = ModelCheckpoint(FOLDER / f"norm-{len(val)}", monitor="val_loss")
    monitor = rl.lightning.DataWaitMonitor()
    runner = ddp(callbacks=[saving, monitor], enable_checkpointing=True, **arguments)
    transform = slow_on_rank_1 if len(val) == 1 else None
    runner.fit(model, datamodule=module(split=PARTS | {"val": val}, transform=transform))
    weights = [float(v) for p in model.parameters() for v in p.flatten()]
    return saw(model, runner) | {"weights": weights, "best": saving.best_model_path, "line": monitor.line}


def overfit() -> dict[str, Any]:
    model, runner = Noting(), ddp(max_epochs=3, overfit_batches=2)
    runner.fit(model, datamodule=module())
    return saw(model, runner)


def evaluated(test: list[str], **arguments: Any) -> dict[str, Any]:
    model, runner = Noting(), ddp(**arguments)
    data = module(split={"train": IDS[:5], "test": test})
    runner.test(model, datamodule=data, verbose=False)
    figures = {name: float(value) for name, value in runner.callback_metrics.items()}
    predictions = runner.predict(model, datamodule=data)
    return {"seen": model.seen, "figures": figures, "predictions": predictions}


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    "whole": whole,
    "whole, sampler not Lightning's": lambda: whole(use_distributed_sampler=False),
    "resumed in the first epoch": lambda: resumed(2),
    "resumed in the second epoch, with a worker": lambda: resumed(7, beyond=2, **WORKER),
    "resumed at the last step": lambda: resumed(5),
    "resumed at the end of an epoch, with a worker": lambda: resumed(5, epoch_end=True, **WORKER),
    "norm": lambda: norm(IDS[5:8]),
    "norm, one case": lambda: norm(IDS[5:6]),
    "overfit": overfit,
    "evaluated": lambda: evaluated([*IDS[5:]]),
    "evaluated, one case": lambda: evaluated(IDS[8:9]),
    "evaluated, sampler not Lightning's": lambda: evaluated([*IDS[5:]], use_distributed_sampler=False),
}

if __name__ == "__main__":
    found: dict[str, Any] = {}
    faulthandler.dump_traceback_later(150, exit=True)  # a rank that hangs says where
    wanted = sys.argv[3:] or list(SCENARIOS)
    for name in wanted:
        print(name, flush=True)
        found[name] = SCENARIOS[name]()
        (FOLDER / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
