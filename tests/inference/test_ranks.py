"""Predictions by several processes, and by processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

SUBJECTS = [f"sub-{number:02d}" for number in range(1, 5)]

RANKS = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
import torch
import radioloader as rl

class Bright(torch.nn.Module):
    def __init__(self, scale=1):
        super().__init__()
        self.norm, self.scale = torch.nn.BatchNorm3d(1), scale

    def forward(self, images):
        return images + 0 * self.norm(images)

slow = float(sys.argv[3])  # longer than the process group's ranks would wait for each other
torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=slow - 3 if slow else 60))
rank = torch.distributed.get_rank()
seen = []
model = torch.nn.parallel.DistributedDataParallel(Bright())
# Running statistics, which differ from rank to rank now.
(model(torch.randn(2, 1, 4, 4, 4) * (rank + 1)).sum() * 0).backward()
model.module.register_forward_hook(lambda *_: seen.append(1) or time.sleep(slow if len(seen) == 1 else 0))
reports = [
    rl.predict(sys.argv[2], model, image="T1w", patch_size=8, activation="sigmoid", model_id="b", progress=False, **arguments)
    for arguments in ({"subjects": ["sub-02"]}, {}, {})
]
try:
    rl.predict(sys.argv[2], Bright(rank), image="T1w", patch_size=8, activation="sigmoid", out="other", progress=False)
    refused = ""
except rl.errors.ConfigError as error:
    refused = str(error)
facts = [[r.predicted, r.skipped, sorted(r.failed), r.windows] for r in reports]
version = reports[2].version
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps({"facts": facts, "batches": len(seen), "version": version, "refused": refused}))
torch.distributed.destroy_process_group()
"""


def test_ranks_share_the_subjects(
    store_uri: str,
    tmp_path: Path,
    torchrun: Callable[..., list[dict[str, Any]]],
    counts: Callable[[int, int], int],
) -> None:
    store = shutil.copytree(store_uri, tmp_path / "store")
    shutil.rmtree(rl.open(store)["T1w"].loc["sub-04"].uri)
    ranks = torchrun(RANKS, 3, store, counts(0, 10))
    first, second, third = ranks[0]["facts"]
    assert first[:3] == [["sub-02"], [], []]
    assert second[:3] == [["sub-01", "sub-03"], ["sub-02"], ["sub-04"]]
    assert third[:3] == [[], ["sub-01", "sub-02", "sub-03"], ["sub-04"]]
    assert all(rank["facts"] == ranks[0]["facts"] for rank in ranks)
    # Each volume on a rank of its own: a rank that had no other one saw none of the windows that cannot be read.
    assert sorted(rank["batches"] for rank in ranks)[1] > 0
    voxels = {subject: rl.open(store_uri)["T1w"].loc[subject].to_numpy() for subject in SUBJECTS[:3]}
    opened = rl.open(store)
    assert opened["pred"].obs_subject_ids == SUBJECTS[:3]
    assert all(np.array_equal(opened["pred"].loc[s].to_numpy(), voxels[s] > 0) for s in voxels)
    assert {rank["version"] for rank in ranks} == {opened.version}
    assert all("the ranks' models or arguments differ" in rank["refused"] for rank in ranks)
    assert opened.collection_names == ["T1w", "pred", "seg"]
    assert [entry["version"] for entry in opened.history()] == list(range(1, opened.version + 1))


ALONE = """
import json, os, sys, time
from pathlib import Path
import torch
import radioloader as rl
from radioloader.inference import predict

predict._COMMIT_EVERY_S = 0.0
part, parts, wait = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

def model(images):
    time.sleep(wait)
    return images

if __name__ == "__main__":
    report = rl.predict(
        sys.argv[1], model, image="T1w", patch_size=(16, 24, 18), overlap=0, activation="sigmoid", batch_size=1, progress=False,
        model_id="x", rank=part, world_size=parts,
    )
    print(json.dumps([report.predicted, report.skipped]))
"""


def _start(script: Path, *arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_parts_of_a_job_without_a_process_group(store_uri: str, tmp_path: Path) -> None:
    store = shutil.copytree(store_uri, tmp_path / "store")
    script = tmp_path / "script.py"
    script.write_text(ALONE)
    jobs = [_start(script, store, part, 2, 0.01) for part in range(2)]
    outputs = []
    for job in jobs:
        out, err = job.communicate(timeout=120)
        assert job.returncode == 0, err
        outputs.append(json.loads(out))
    predicted = [out[0] for out in outputs]
    assert sorted(subject for part in predicted for subject in part) == SUBJECTS
    assert all(len(part) == 2 for part in predicted)
    assert rl.open(store)["pred"].obs_subject_ids == SUBJECTS


def test_a_killed_prediction_goes_on(store_uri: str, tmp_path: Path, counts: Callable[[int, int], int]) -> None:
    script = tmp_path / "script.py"
    script.write_text(ALONE)
    voxels = {subject: rl.open(store_uri)["T1w"].loc[subject].to_numpy() for subject in SUBJECTS}
    generator = np.random.default_rng(counts(0, 1))
    caught, attempts = 0, counts(0, 25)
    if not attempts:
        pytest.skip("takes 10 s, and an ingest is killed in the same way; `make stress` kills 25 predictions")
    for attempt in range(attempts):
        store = shutil.copytree(store_uri, tmp_path / f"store-{attempt}")
        version = rl.open(store).version
        job = _start(script, store, 0, 1, 0.15)
        # From its first prediction on; somewhere in the second that the others take.
        while rl.open(store).version == version:
            assert job.poll() is None, job.communicate()
            time.sleep(0.02)
        time.sleep(float(generator.uniform(0, 0.5)))
        job.send_signal(signal.SIGKILL)
        job.communicate()
        opened = rl.open(store)
        done = opened["pred"].obs_subject_ids if "pred" in opened.collection_names else []
        caught += 0 < len(done) < len(SUBJECTS)
        assert all(np.array_equal(opened["pred"].loc[s].to_numpy(), voxels[s] > 0) for s in done)
        out, err = _start(script, store, 0, 1, 0).communicate(timeout=120)
        assert out, err
        assert json.loads(out) == [[s for s in SUBJECTS if s not in done], done]
        opened = rl.open(store)
        assert all(np.array_equal(opened["pred"].loc[s].to_numpy(), voxels[s] > 0) for s in SUBJECTS)
        shutil.rmtree(store)
    assert caught


MEMORY = """
import json, sys, threading
import torch
import radioloader as rl
torch.set_num_threads(1)

class Classes(torch.nn.Module):
    def forward(self, images):
        return torch.cat([images * k for k in range(12)], dim=1)

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

before, seen, ended = None, [], threading.Event()

def watch():  # also while the result is written
    while not ended.wait(0.005):
        seen.append(anonymous())

def model(images):
    global before
    if before is None:
        before = anonymous()
        threading.Thread(target=watch, daemon=True).start()
    return Classes()(images)

rl.predict(sys.argv[1], model, model_id="m", image="CT", patch_size=40, overlap=0.5, batch_size=2, progress=False,
           output=sys.argv[2], memory_mb=int(sys.argv[3]), num_threads=1)
ended.set()
print(json.dumps([before, max(seen)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_volume(
    write_image: Callable[..., Path], tmp_path: Path, counts: Callable[[int, int], int]
) -> None:
    """12 classes: the sums of all windows would be 13 float32 a voxel, the probabilities 24 bytes."""
    shape = (200, 128, 128) if counts(0, 1) == 0 else (512, 512, 280)
    volume = np.random.default_rng(0).integers(-3, 3, shape, dtype=np.int16)
    path = write_image(tmp_path / "ct.nii", volume)
    assert rl.ingest(tmp_path / "store", {"CT": {"a": str(path)}}, workers=1).ok
    script = tmp_path / "script.py"
    script.write_text(MEMORY)
    out, err = _start(script, tmp_path / "store", "probabilities", 16).communicate(timeout=2400)
    assert out, err
    before, highest = json.loads(out)
    window = 12 * 40**3 * 4
    # Two windows of a batch as the model makes and gives them, their weighted values, a cell that is begun, what the allocator keeps:
    # 14 to 17 windows, and on a busy machine some more.
    most = 16 * 2**20 + 26 * window
    assert highest - before < most
    assert volume.size * 13 * 4 > 1.7 * most
    prediction = rl.open(tmp_path / "store")["pred"].iloc[0]
    assert prediction.shape == (*shape, 12)
    part = prediction[70:74, 60:64, 60:64]
    means = volume[70:74, 60:64, 60:64, None] * np.arange(12.0)
    wanted = np.exp(means - means.max(axis=3, keepdims=True))
    np.testing.assert_allclose(part, wanted / wanted.sum(axis=3, keepdims=True), atol=1e-4)
