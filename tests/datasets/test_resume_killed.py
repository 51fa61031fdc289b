"""An epoch that was left by SIGKILL goes on in new processes, in another world."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import radioloader as rl

SCRIPT = """
import json, os, signal, sys
import radioloader as rl
from radioloader.samplers.samplers import KeySampler

uri, state, log, rank, world, batch_size, workers, kill = sys.argv[1:4] + [int(value) for value in sys.argv[4:]]
dataset = rl.PatchDataset(uri, image="T1w", patch_size=8, patches_per_volume=6)
sampler = KeySampler(dataset, rank=rank, world_size=world)
loader = rl.DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers,
                       multiprocessing_context="fork" if workers else None)
if os.path.exists(state):
    loader.load_state_dict(json.load(open(state)))
written = f"{state}-{rank}" if kill else state + ".done"
for count, batch in enumerate(loader, 1):
    with open(log, "a") as file:
        for name, box in zip(batch["obs_id"], batch["location"].tolist()):
            file.write(f"{name} {box}\\n")
    with open(written, "w") as file:
        json.dump(loader.state_dict(), file)
    if count == kill:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_processes_go_on_in_another_world(brains: Any, tmp_path: Path) -> None:
    def run(rank: int, world: int, batch_size: int, workers: int, kill: int) -> int:
        arguments = [brains.uri, tmp_path / "state", tmp_path / "log", rank, world, batch_size, workers, kill]
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, *map(str, arguments)],
            timeout=120,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        return process.returncode

    assert [run(rank, 2, 2, 2 * rank, 3) for rank in range(2)] == [-signal.SIGKILL] * 2
    assert (tmp_path / "state-0").read_text() == (tmp_path / "state-1").read_text()
    shutil.copy(tmp_path / "state-0", tmp_path / "state")
    assert run(0, 1, 4, 0, 0) == 0
    found = (tmp_path / "log").read_text().splitlines()
    dataset = rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=6)
    expected = [
        f"{name} {box}"
        for batch in rl.DataLoader(dataset, 2, sampler=rl.KeySampler(dataset))
        for name, box in zip(batch["obs_id"], batch["location"].tolist(), strict=True)
    ]
    assert Counter(found) == Counter(expected)
    assert json.loads((tmp_path / "state.done").read_text())["epoch"] == 1
