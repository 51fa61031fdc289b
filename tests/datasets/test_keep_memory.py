"""Freed memory is held on to while a loader runs, where that is wanted, and not a moment longer."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
import torch

import radioloader as rl
from radioloader.storage import _malloc
from radioloader.storage._malloc import keeping

OFF = rl.StorageConfig(read=rl.ReadConfig(keep_memory=False))


def patches(brains: Any, config: rl.StorageConfig | None = None, **kwargs: Any) -> rl.PatchDataset:
    return rl.PatchDataset(brains.uri, image="T1w", patch_size=8, patches_per_volume=2, config=config, **kwargs)


def flag(samples: Any) -> bool:
    return keeping()


@pytest.fixture
def mallopt(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What glibc is told."""
    calls: list[Any] = []

    class Libc:
        def mallopt(self, *options: int) -> int:
            calls.append(options)
            return 1

        def malloc_trim(self, pad: int) -> int:
            calls.append("trim")
            return 1

    monkeypatch.setattr(_malloc, "_libc", Libc())
    return calls


def test_while_an_iterator_runs_in_this_process(brains: Any, mallopt: list[Any]) -> None:
    loader = rl.DataLoader(patches(brains), batch_size=4)
    assert not keeping()
    for _ in loader:
        assert keeping()
    assert not keeping()
    assert mallopt[-1] == "trim"
    iterator, other = iter(loader), iter(loader)
    assert not keeping()  # nothing was read yet
    next(iterator), next(other)
    del iterator
    gc.collect()
    assert keeping()
    list(other)
    assert not keeping()


def test_a_failure_ends_it_and_the_next_batch_begins_it_again(brains: Any, mallopt: list[Any]) -> None:
    def picky(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["obs_subject_id"] == "sub-02":
            raise ValueError("not this one")
        return sample

    iterator = iter(rl.DataLoader(patches(brains, transform=picky), batch_size=2))
    next(iterator)
    with pytest.raises(ValueError, match="not this one"):
        next(iterator)
    assert not keeping()
    next(iterator)
    assert keeping()
    del iterator
    gc.collect()
    assert not keeping()


def test_the_opt_out_does_nothing_to_the_process(brains: Any, mallopt: list[Any]) -> None:
    dataset = patches(brains, OFF)
    for data in (dataset, torch.utils.data.Subset(dataset, [0, 1, 2])):
        for _ in rl.DataLoader(data):
            assert not keeping()
    assert mallopt == []
    other = torch.utils.data.TensorDataset(torch.zeros(3))
    list(rl.DataLoader(other))  # another package's dataset is none of our business
    assert mallopt == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_worker_processes_for_as_long_as_they_live(brains: Any, method: str) -> None:
    options: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": method, "timeout": 60, "collate_fn": flag}
    subset = torch.utils.data.Subset(patches(brains), [0, 1])
    assert list(rl.DataLoader(subset, batch_size=2, **options)) == [True]
    for kept in rl.DataLoader(patches(brains), batch_size=8, **options):
        assert kept
        assert not keeping()  # this process only waits
    assert list(rl.DataLoader(patches(brains, OFF), batch_size=8, **options)) == [False]


RETAINED = """
import gc, sys
import numpy as np
import radioloader as rl

def resident_mb():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def main():
    import nibabel as nib
    root, keep = sys.argv[1], sys.argv[2] == "keep"
    x, y, z = np.ogrid[:256, :256, :128]
    for name in ("a", "b"):
        image = nib.Nifti1Image((x * 3 + y * 2 + z).astype(np.int16), np.eye(4))
        nib.save(image, f"{root}/{name}.nii")
    files = {name: f"{root}/{name}.nii" for name in ("a", "b")}
    assert rl.ingest(f"{root}/store", {"CT": files}, labels=[], workers=1).ok
    read = rl.ReadConfig(max_workers=4, keep_memory=keep)
    dataset = rl.PatchDataset(f"{root}/store", image="CT", patch_size=96, patches_per_volume=8, config=rl.StorageConfig(read=read))
    loader = rl.DataLoader(dataset, batch_size=4)
    next(iter(loader))
    before = resident_mb()
    for _ in range(2):
        for batch in loader:
            pass
    del batch
    print(resident_mb() - before)

main()
"""


@pytest.mark.skipif(_malloc._libc is None, reason="the allocator is told what to keep on Linux with glibc alone")
@pytest.mark.parametrize("keep", ["keep", "leave"])
def test_what_is_retained_after_a_loader_is_bounded(tmp_path: Any, keep: str) -> None:
    # 4 threads whose reads are 13 MB of tiles each, and batches of 14 MB; what they used is back but for some scratch of each thread.
    script = tmp_path / "script.py"
    script.write_text(RETAINED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), keep], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # Left alone, glibc keeps what the arenas of threads that ended held.
    assert float(done.stdout.split()[-1]) < (100 if keep == "keep" else 250)
