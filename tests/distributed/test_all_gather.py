"""Python objects of all ranks, and what is left of the exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SCRIPT = """
import json, sys, weakref
from pathlib import Path
import torch.distributed as dist
from radioloader.datasets.gather import all_gather

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
exchange, seen = dist.all_gather, []


def watched(found, mine, group=None):
    seen.extend(weakref.ref(tensor) for tensor in (*found, mine))
    exchange(found, mine, group=group)


dist.all_gather = watched
result = {"held": 0, "wrong": 0, "parts": all_gather({"rank": rank, "text": "x" * 1000 * rank})}
for number in range(300):
    seen.clear()
    parts = all_gather([rank, number] * (rank + 1))
    result["held"] += sum(tensor() is not None for tensor in seen)
    result["wrong"] += parts != [[other, number] * (other + 1) for other in range(world)]
result["seen"] = len(seen)
pair = dist.new_group([1, 2], backend="gloo")
result["group"] = all_gather(rank, pair) if rank else None
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(result))
# The process ends with threads of gloo still there, as it does where a model in DistributedDataParallel holds the process group.
keep = dist.group.WORLD
dist.destroy_process_group()
"""


def test_no_thread_of_the_process_group_holds_a_tensor_afterwards(
    torchrun: Callable[..., list[dict[str, Any]]],
) -> None:
    """One that does while the interpreter ends aborts the process."""
    world = 3
    for rank, result in enumerate(torchrun(SCRIPT, world)):
        assert result["parts"] == [{"rank": other, "text": "x" * 1000 * other} for other in range(world)]
        assert (result["held"], result["wrong"], result["seen"]) == (0, 0, 2 * (world + 1))
        assert result["group"] == ([1, 2] if rank else None)
