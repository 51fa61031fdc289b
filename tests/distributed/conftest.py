"""Real ranks: scripts under torchrun, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def torchrun(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """``torchrun(script, world, *arguments)`` runs the text of a script on every rank, and gives what each rank wrote as JSON to
    ``Path(sys.argv[1]) / f"{rank}.json"``."""

    def run(script: str, world: int, *arguments: Any, timeout: float = 240) -> list[dict[str, Any]]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        path = out / "script.py"
        path.write_text(script)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        done = subprocess.run(
            [*command, str(path), str(out), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]

    return run
