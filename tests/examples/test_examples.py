"""The examples run, as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import radioloader as rl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def store(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Collections and columns as the demo has them, of small volumes."""
    root = make_cohort(tmp_path_factory.mktemp("cohort"), subjects=8, shape=(48, 52, 50))
    uri = root / "store"
    sources = {"T1w": root / "images", "seg": root / "labels"}
    assert rl.ingest(uri, sources, obs_meta=root / "participants.tsv", workers=1).ok
    return str(uri)


def run(*command: str, timeout: float = 200) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_lightning_segmentation(store: str) -> None:
    pytest.importorskip("lightning.pytorch")
    output = run(str(EXAMPLES / "lightning_segmentation.py"), "--store", store, "--patch-size", "16")
    # 8 subjects: 6 (of 5.6) train with 8 patches each, in batches of 4, for two epochs.
    found = re.search(r"(\d+) steps; accuracy on (\d+) validation volumes: ([\d.]+) %", output)
    assert found is not None, output
    assert found.groups()[:2] == ("24", "1")
    assert 0 <= float(found[3]) <= 100


def test_slices_2d(store: str) -> None:
    output = run(str(EXAMPLES / "slices_2d.py"), "--store", store, "--steps", "20", "--size", "48")
    # 6 subjects with 6 slices of label each (see make_cohort).
    assert output.startswith("36 slices of 6 subjects; mixing ")
    assert re.findall(r"^step (\d+): loss", output, re.M) == ["10", "20"]
    assert len(re.findall(r"% of voxels right in 6 slices$", output, re.M)) == 2


def test_classification_full_volume(store: str) -> None:
    output = run(str(EXAMPLES / "classification_full_volume.py"), "--store", store, "--epochs", "2", "--size", "64")
    assert re.findall(r"^epoch (\d+): loss", output, re.M) == ["0", "1"]
    assert re.search(r"^[012] of 2 held-out subjects right$", output, re.M)


def test_torchrun_ddp_and_going_on_with_fewer_ranks(store: str, tmp_path: Path) -> None:
    def start(ranks: int, steps: int) -> str:
        options = ["--store", store, "--patch-size", "16", "--checkpoint", str(tmp_path / "checkpoint.pt")]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        return run(*launcher, str(EXAMPLES / "torchrun_ddp.py"), *options, "--steps", str(steps))

    output = start(2, 8)  # 6 subjects, 8 patches each: 6 steps an epoch
    assert "step 8: loss" in output
    assert "2 of 2 cases evaluated, each once" in output
    output = start(1, 20)
    assert "going on at step 8: epoch 1, 16 patches of it are done" in output
    assert re.findall(r"^step (\d+): loss", output, re.M) == ["10", "20"]


@pytest.mark.parametrize(
    ("name", "pattern", "least"),
    [
        ("monai_spleen", r"^mean Dice of the held-out case: ([\d.]+)$", 0.3),
        ("torchio_brain", r"matter: Dice ([\d.]+) on", 0.6),
        ("predict_native_space", r"on the grid of its file; Dice grey matter ([\d.]+)", 0.7),
    ],
)
def test_demos(name: str, pattern: str, least: float) -> None:
    pytest.importorskip("nilearn")
    if not os.environ.get("RADIOLOADER_STRESS"):
        pytest.skip("trains for a minute; `make stress` runs it")
    found = re.findall(pattern, run(str(EXAMPLES / f"{name}.py"), "--demo", timeout=600), re.M)
    assert found
    assert all(float(dice) > least for dice in found)
