"""Large catalogs: memory that does not multiply with workers, small pickles, few file descriptors."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.storage.store import Store

MB = 2**20


@pytest.fixture(scope="module")
def wide(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``wide(rows, own_arrays=False)``: a store of that many subjects, image and label each, whose catalog rows name the same few voxel
    arrays (``own_arrays``: each its own copy)."""
    root = make_cohort(tmp_path_factory.mktemp("wide"), subjects=2, shape=(20, 24, 18))
    made: dict[tuple[int, bool], str] = {}

    def make(rows: int, own_arrays: bool = False) -> str:
        if (rows, own_arrays) in made:
            return made[rows, own_arrays]
        uri = root / f"store-{rows}-{own_arrays}"
        assert rl.ingest(uri, {"T1w": root / "images", "seg": root / "labels"}, workers=1).ok
        store = Store.open(uri)
        snapshot = rl.open(uri).snapshot
        with store.write() as transaction:
            subjects = [f"more-{number:06d}" for number in range(rows - 2)]
            for name, info in snapshot.collections.items():
                table = store.table("c", info.id, "obs")
                source = table.read()
                columns = {c: [source[c][0]] * len(subjects) for c in source if c not in ("row", "commit", "deleted")}
                columns["obs_subject_id"] = subjects
                columns["obs_id"] = [f"{subject}_{name}" for subject in subjects]
                if own_arrays:
                    first = Path(store.collection_uri(info.id)) / str(source["uri"][0])
                    columns["uri"] = [f"volumes/copy{number:06d}" for number in range(len(subjects))]
                    for path in columns["uri"]:
                        shutil.copytree(first, Path(store.collection_uri(info.id)) / path)
                transaction.append(table, columns)
                if info.kind == "label":
                    index = store.table("c", info.id, "foreground")
                    known = index.read()
                    mine = np.flatnonzero(known["obs_id"] == source["obs_id"][0])
                    parts: dict[str, list[Any]] = {"obs_id": [], "class": [], "voxels": [], "coordinates": []}
                    for subject in subjects:
                        parts["obs_id"] += [f"{subject}_{name}"] * len(mine)
                        parts["class"] += known["class"][mine].tolist()
                        parts["voxels"] += known["voxels"][mine].tolist()
                        parts["coordinates"] += [data[:600] for data in known["coordinates"][mine].tolist()]
                    transaction.append(index, parts)
            transaction.append(store.table("obs_meta"), {"obs_subject_id": subjects})
            transaction.commit("more subjects", {})
        made[rows, own_arrays] = str(uri)
        return str(uri)

    return make


def dataset(uri: str) -> rl.PatchDataset:
    return rl.PatchDataset(
        uri, image="T1w", label="seg", patch_size=8, positions=rl.ForegroundPositions(0.5), patches_per_volume=1
    )


MEMORY = """
import json, sys
import psutil
import radioloader as rl


def main():
    dataset = rl.PatchDataset(
        sys.argv[1], image="T1w", label="seg", patch_size=8, positions=rl.ForegroundPositions(0.5), patches_per_volume=1
    )
    loader = rl.DataLoader(dataset, batch_size=1, shuffle=True, num_workers=2, multiprocessing_context=sys.argv[2])
    iterator = iter(loader)
    for _ in range(20):
        next(iterator)
    print(json.dumps(max(psutil.Process(worker.pid).memory_full_info().uss for worker in iterator._workers)))


if __name__ == "__main__":
    main()
"""


def worker_memory(uri: str, start: str, folder: Path) -> int:
    """USS of the largest of two workers that have made ten samples each, in bytes. Their parent is a fresh Python: what a forked worker
    writes to, and so owns, depends on everything that its parent holds, and this process holds the tests."""
    script = folder / "memory.py"
    script.write_text(MEMORY)
    command = [sys.executable, "-W", "ignore", str(script), uri, start]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout))


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_workers_do_not_copy_the_catalog(
    wide: Callable[..., str], tmp_path: Path, start: str, counts: Callable[[int, int], int]
) -> None:
    if start == "forkserver" and not counts(0, 1):
        pytest.skip("takes 15 s, and forkserver hands a dataset over as spawn does; `make stress` runs it")
    small, large = worker_memory(wide(20), start, tmp_path), worker_memory(wide(20_000), start, tmp_path)
    assert large - small < max(0.05 * small, 5 * MB), f"{small / MB:.1f} MB and {large / MB:.1f} MB"


def test_the_pickle_stays_small_and_gives_the_same_samples(
    wide: Callable[..., str], counts: Callable[[int, int], int]
) -> None:
    rows = counts(20_000, 100_000)  # the first is the store of the test above
    most = 10 * rows  # bytes: 1 MB of 100,000
    patches = dataset(wide(rows))
    data = pickle.dumps(patches)
    assert len(data) < most
    copy = pickle.loads(data)
    assert len(copy) == len(patches) == rows
    for number in (0, 1, 777, rows - 1):
        key = patches.key(number, epoch=3)
        a, b = patches[key], copy[key]
        assert a["obs_id"] == b["obs_id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["location"], b["location"])
    # A selection of subjects, in an order of its own, is no larger.
    chosen = rl.PatchDataset(wide(rows), image="T1w", patch_size=8, subjects=patches.subjects[::-1])
    data = pickle.dumps(chosen)
    assert len(data) < most
    assert pickle.loads(data)[rl.PatchKey(0)]["obs_subject_id"] == "sub-02"


LIMITED = """
import json, resource, sys
import radioloader as rl

resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def main():
    dataset = rl.PatchDataset(sys.argv[1], image="T1w", label="seg", patch_size=8, patches_per_volume=1)
    seen = set()
    kept = []
    workers = int(sys.argv[3])
    loader = rl.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers, multiprocessing_context=sys.argv[2])
    for batch in loader:
        seen.update(batch["obs_subject_id"])
        kept.append(batch["location"])  # small things are kept by many scripts
        kept = kept[-20:]
    print(json.dumps(len(seen)))


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_1024_file_descriptors_are_enough(
    wide: Callable[..., str], tmp_path: Path, start: str, counts: Callable[[int, int], int]
) -> None:
    if start != "fork" and not counts(0, 1):
        pytest.skip("takes 15 s; `make stress` runs it with forkserver as well")
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    # Either way more arrays (two of each subject) than descriptors in each worker, and more batches' tensors in their parent.
    rows, workers = counts(1_200, 2_400), counts(2, 4)
    command = [sys.executable, "-W", "ignore", str(script), wide(rows, own_arrays=True), start, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == rows
