"""Forks for real: a child that reads after, or while, its parent reads, and one that exits as a script does.

All of it runs in processes of its own with time limits: what goes wrong here hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from radioloader import StorageConfig, VolumeRef

PRELUDE = """
import json, multiprocessing, os, sys, threading, time
import numpy as np
from radioloader.config import ReadConfig, StorageConfig
from radioloader.storage import context
from radioloader.storage.reader import ReadRequest, VolumeReader
from radioloader.types import Box, VolumeRef

folder, repetitions = sys.argv[1], int(sys.argv[2])
refs = [VolumeRef(uri, (24, 20, 28), "int16") for uri in json.load(open(folder + "/refs.json"))]
truth = np.load(folder + "/truth.npy")
reader = VolumeReader(StorageConfig(read=ReadConfig(max_workers=3, max_open_arrays=3, direct=False)))

def check(reader=reader, seed=0, reads=20):
    generator = np.random.default_rng(seed)
    requests, places = [], []
    for _ in range(reads):
        i, start = int(generator.integers(len(refs))), generator.integers(0, 12, 3).tolist()
        box = Box.at(start, (8, 8, 8))
        requests.append(ReadRequest(refs[i], box, np.empty(box.shape, np.int16)))
        places.append((i, *box.slices()))
    assert np.array_equal(reader.read(refs[0]), truth[0])
    reader.read_many(requests)
    for request, place in zip(requests, places):
        assert np.array_equal(request.out, truth[place])

def wait_for(pid, limit=20.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise SystemExit(f"child {pid} hung")

def join(process, limit=20.0):
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        raise SystemExit("a child process hung")
    assert process.exitcode == 0, process.exitcode

class Reading:
    \"\"\"Threads of the parent that read all the time.\"\"\"
    def __init__(self, count=3):
        self.stop, self.failures = threading.Event(), []
        self.threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(count)]
    def work(self, seed):
        try:
            while not self.stop.is_set():
                check(seed=seed, reads=5)
        except BaseException as error:
            self.failures.append(error)
    def __enter__(self):
        for thread in self.threads: thread.start()
        time.sleep(0.05)
    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads: thread.join()
        assert not self.failures, self.failures
"""


@pytest.fixture(scope="module")
def volumes(put: Callable[..., VolumeRef], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five stored volumes: ``refs.json`` names them, ``truth.npy`` holds what they hold."""
    import json

    folder = tmp_path_factory.mktemp("fork")
    truth = np.random.default_rng(0).integers(-999, 999, (5, 24, 20, 28), dtype=np.int16)
    refs = [put(folder, array) for array in truth]
    np.save(folder / "truth.npy", truth)
    (folder / "refs.json").write_text(json.dumps([ref.uri for ref in refs]))
    return folder


@pytest.fixture
def run_forks(run_script: Callable[..., str], volumes: Path, counts: Callable[[int, int], int]) -> Callable[..., str]:
    def run(source: str, quick: int = 5, full: int = 100) -> str:
        repetitions = counts(quick, full)
        return run_script(PRELUDE + source, volumes, repetitions, timeout=30 + 3 * repetitions)

    return run


def test_children_read_after_their_parent_has_read(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
check()
fork = multiprocessing.get_context("fork")
for _ in range(repetitions):
    children = [fork.Process(target=check, kwargs={"seed": seed}) for seed in range(3)]
    for child in children: child.start()
    check()
    for child in children: join(child)
check()
print("done")
"""
    )
    assert output == "done\n"


def test_children_start_while_threads_of_the_parent_read(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
check()
fork = multiprocessing.get_context("fork")
with Reading():
    for seed in range(repetitions):
        child = fork.Process(target=check, kwargs={"seed": seed})
        child.start()
        join(child)
check()
print("done")
""",
        quick=15,
        full=300,
    )
    assert output == "done\n"


@pytest.mark.parametrize("child_reads", [True, False])
@pytest.mark.parametrize("busy", [True, False])
def test_a_raw_fork_that_ends_through_sys_exit(run_forks: Callable[..., str], child_reads: bool, busy: bool) -> None:
    """``sys.exit`` runs every finaliser of the interpreter, on objects that belong to the parent as well."""
    output = run_forks(
        f"""
import contextlib
check()
with Reading() if {busy} else contextlib.nullcontext():
    for seed in range(repetitions):
        pid = os.fork()
        if pid == 0:
            if {child_reads}:
                check(seed=seed)
            sys.exit(7)
        assert wait_for(pid) == 7
check()
if os.getppid() and __name__ == "__main__":
    print("done")
""",
        quick=8,
        full=200,
    )
    assert output == "done\n"


def test_forks_while_contexts_are_replaced(run_forks: Callable[..., str]) -> None:
    """A context that the parent retires, or finalises, is never touched by a child, whenever that was forked."""
    output = run_forks(
        """
context.QUERIES_PER_CONTEXT = 15
check()
first = context.get_context(reader.config)
fork = multiprocessing.get_context("fork")
with Reading():
    for seed in range(repetitions):
        child = fork.Process(target=check, kwargs={"seed": seed})
        child.start()
        join(child)
        pid = os.fork()
        if pid == 0:
            check(seed=seed, reads=40)
            sys.exit(7)
        assert wait_for(pid) == 7
assert context.get_context(reader.config) is not first
check()
print("done")
""",
        quick=6,
        full=150,
    )
    assert output == "done\n"


def test_what_a_child_prints_before_it_exits_arrives(run_forks: Callable[..., str]) -> None:
    """Its C buffers too, though it leaves without the exit handlers of its parent; its own exit handlers do run."""
    output = run_forks(
        """
import atexit, ctypes
check()
pid = os.fork()
if pid == 0:
    atexit.register(print, "handler")
    ctypes.CDLL(None).puts(b"buffered by C")
    print("buffered by Python")
    raise SystemExit("farewell")
assert wait_for(pid) == 1
print("done")
"""
    )
    assert set(output.splitlines()) == {"handler", "buffered by C", "buffered by Python", "farewell", "done"}


def test_a_child_that_lets_go_of_everything_it_inherited(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
import gc
check()
with Reading():
    for seed in range(repetitions):
        pid = os.fork()
        if pid == 0:
            reader.close()
            del reader
            gc.collect()
            sys.exit(3)
        assert wait_for(pid) == 3
check()
print("done")
""".replace("            del reader\n", "            globals().pop('reader')\n            check.__defaults__ = None\n")
    )
    assert output == "done\n"


def test_a_child_has_its_own_contexts_and_leaves_the_parents_alone(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
check()
parent = dict(context._leases)
assert {pid for pid, _ in parent} == {os.getpid()}
pid = os.fork()
if pid == 0:
    assert reader.open_arrays == 0
    check()
    assert {key: value for key, value in context._leases.items() if key in parent} == parent
    mine = [lease.context for key, lease in context._leases.items() if key not in parent]
    assert len(mine) == len(parent) and not {id(c) for c in mine} & {id(c.context) for c in parent.values()}
    grandchild = os.fork()
    if grandchild == 0:
        check()
        assert len({pid for pid, _ in context._leases}) == 3
        sys.exit(5)
    sys.exit(wait_for(grandchild))
assert wait_for(pid) == 5
assert context._leases == parent
print("done")
"""
    )
    assert output == "done\n"


def test_locks_that_were_held_at_the_fork_do_not_block_the_child(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
check()
for lock in (reader._lock, context._lock()):
    with lock:
        pid = os.fork()
        if pid == 0:
            context.get_context(StorageConfig(read=ReadConfig(concurrency=2)))
            check()
            os._exit(4)
    assert wait_for(pid) == 4
print("done")
"""
    )
    assert output == "done\n"


def test_a_fork_waits_for_threads_that_open_or_close_arrays(run_forks: Callable[..., str]) -> None:
    """libtiledb's own mutex may be held by such a thread, and would be held for ever in the child."""
    output = run_forks(
        """
from radioloader.storage._fork import gate
check()
entered, leave, order = threading.Event(), threading.Event(), []
def hold():
    with gate, gate:  # nested, as when opening an array makes a context
        entered.set()
        leave.wait()
        time.sleep(0.2)
        order.append("out")
holder = threading.Thread(target=hold)
holder.start()
entered.wait()
def late():
    with gate:
        order.append("late")
starter = threading.Timer(0.1, leave.set)
starter.start()
latecomer = threading.Timer(0.2, late)  # comes while the fork waits, and has to wait for it
latecomer.start()
pid = os.fork()
if pid == 0:
    assert order == ["out"], order
    check()
    sys.exit(6)
assert wait_for(pid) == 6
for thread in (holder, latecomer): thread.join()
assert order == ["out", "late"], order
check()
print("done")
"""
    )
    assert output == "done\n"


def test_a_fork_does_not_wait_for_ever(run_forks: Callable[..., str]) -> None:
    output = run_forks(
        """
from radioloader.storage import _fork
_fork._PATIENCE_S = 0.2
leave = threading.Event()
def hold():
    with _fork.gate:
        leave.wait()
holder = threading.Thread(target=hold)
holder.start()
time.sleep(0.05)
started = time.monotonic()
pid = os.fork()
if pid == 0:
    check()
    sys.exit(6)
assert 0.1 < time.monotonic() - started < 5
assert wait_for(pid) == 6
leave.set()
holder.join()
check()
print("done")
"""
    )
    assert output == "done\n"


def test_a_child_reads_the_store_that_its_parent_ingested(
    run_script: Callable[..., str], cohort: Path, tmp_path: Path
) -> None:
    output = run_script(
        """
import multiprocessing, os, sys
import nibabel as nib
import numpy as np
import radioloader as rl

cohort, uri = sys.argv[1:]
assert rl.ingest(uri, {"T1w": cohort + "/images", "seg": cohort + "/labels"}, workers=1).ok
store = rl.open(uri)
truth = {s: np.asanyarray(nib.load(f"{cohort}/images/{s}_T1w.nii.gz").dataobj) for s in store.obs_subject_ids}
first = store.T1w.iloc[0].to_numpy()

def check(opened=None):
    opened = opened or rl.open(uri)
    for volume in opened.T1w:
        assert np.array_equal(volume.to_numpy(), truth[volume.obs_subject_id])
        assert opened.seg.loc[volume.obs_subject_id][5, 6, 4] == 1

fork = multiprocessing.get_context("fork")
children = [fork.Process(target=check), fork.Process(target=check, args=(store,))]
for child in children: child.start()
for child in children:
    child.join(20)
    assert child.exitcode == 0, child.exitcode
check(store)
print("done")
""",
        cohort,
        tmp_path / "store",
    )
    assert output == "done\n"


def test_spawned_processes_read_with_a_pickled_reader(
    put: Callable[..., VolumeRef], tmp_path: Path, small_reads: StorageConfig
) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from radioloader import VolumeReader

    array = np.random.default_rng(0).integers(-9, 9, (9, 8, 7), dtype=np.int16)
    ref = put(tmp_path, array)
    reader = VolumeReader(small_reads)
    reader.read(ref)
    for method in ("spawn", "forkserver"):
        with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
            np.testing.assert_array_equal(pool.submit(reader.read, ref).result(timeout=60), array, strict=True)
