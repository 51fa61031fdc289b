"""Ingest in worker processes and on other executors, and what becomes of the processes."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import radioloader as rl
from radioloader.errors import IngestError
from radioloader.ingestion.pool import run

Content = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def root(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), subjects=6, shape=(12, 16, 10))


def sources(root: Path) -> dict[str, Path]:
    return {"T1w": root / "images", "seg": root / "labels"}


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory, content: Content) -> dict[str, Any]:
    uri = tmp_path_factory.mktemp("reference") / "store"
    assert rl.ingest(uri, sources(root), obs_meta=root / "participants.tsv", workers=1).ok
    return content(uri)


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes below ``pid``, without the helpers of multiprocessing (semaphores, forkserver), which end with their parent."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if not _is_helper(process)]


def _is_helper(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or any(
            "resource_tracker" in part or "multiprocessing.forkserver" in part or "torch_shm_manager" in part
            for part in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


# The same content, whoever does the work


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_content(
    root: Path,
    tmp_path: Path,
    reference: dict[str, Any],
    content: Content,
    counts: Callable[[int, int], int],
    workers: int,
) -> None:
    if workers == 2 and not counts(0, 1):
        pytest.skip("as with 5, and two workers run in the tests below; `make stress` runs it")
    report = rl.ingest(
        tmp_path / "store", sources(root), obs_meta=root / "participants.tsv", workers=workers, commit_interval_s=0.0
    )
    assert [item.subject for item in report.items] == [f"sub-{n:02d}" for n in range(1, 7)]
    assert report.ok, str(report)
    assert content(tmp_path / "store") == reference
    assert workers_of(os.getpid()) == []


def test_workers_are_as_many_as_cores_or_as_configured(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def spy(function: Any, tasks: Any, *, workers: int, **options: Any) -> Iterator[Any]:
        asked.append(workers)
        return run(function, tasks, workers=1, **options)

    monkeypatch.setattr("radioloader.ingestion.job.run", spy)
    monkeypatch.setattr("radioloader.ingestion.pipeline.available_cores", lambda: 4)
    config = rl.StorageConfig(write=rl.WriteConfig(max_workers=3))
    rl.ingest(tmp_path / "a", sources(root))
    rl.ingest(tmp_path / "b", sources(root), config=config)
    rl.ingest(tmp_path / "c", sources(root), config=config, workers=2)
    rl.ingest(tmp_path / "d", sources(root), workers=99)  # no more than subjects
    assert asked == [4, 3, 2, 6]


def executors() -> dict[str, Callable[[], Executor]]:
    spawn = multiprocessing.get_context("spawn")
    fork = multiprocessing.get_context("fork")
    return {
        "threads": lambda: ThreadPoolExecutor(3),
        "spawned processes": lambda: ProcessPoolExecutor(2, mp_context=spawn),
        "forked processes": lambda: ProcessPoolExecutor(2, mp_context=fork),
    }


# Python 3.12 and newer warn of every fork of a process with threads; radioloader is made to bear it.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["threads", "spawned processes", "forked processes"])
def test_an_executor_of_ones_own_does_the_work_and_stays_open(
    root: Path, tmp_path: Path, reference: dict[str, Any], content: Content, kind: str
) -> None:
    with executors()[kind]() as executor:
        for name in ("first", "second"):  # the second one meets the first one's workers
            rl.ingest(tmp_path / name, sources(root), obs_meta=root / "participants.tsv", executor=executor)
            assert content(tmp_path / name) == reference
        report = rl.ingest(tmp_path / "first", sources(root), executor=executor)
        assert len(report.skipped) == 6
        assert executor.submit(int, "7").result() == 7


def test_reading_headers_in_threads_leaves_logging_as_it_was(root: Path, tmp_path: Path) -> None:
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    with ThreadPoolExecutor(8) as executor:
        for number in range(3):
            rl.ingest(tmp_path / str(number), sources(root), executor=executor, workers=8)
    assert logger.level == level


def test_strict_cancels_what_an_executor_has_not_begun(root: Path, tmp_path: Path) -> None:
    gate = threading.Event()
    futures: list[Future[Any]] = []

    class Gated(ThreadPoolExecutor):
        def submit(self, function: Any, task: Any) -> Future[Any]:  # type: ignore[override]
            futures.append(super().submit(lambda: (task.subject == "s0" or gate.wait()) and function(task)))
            return futures[-1]

    files = {f"s{n}": path for n, path in enumerate(sorted((root / "images").iterdir()))}
    files["s0"] = tmp_path / "gone.nii.gz"
    with Gated(1) as executor:
        with pytest.raises(IngestError):
            rl.ingest(tmp_path / "store", {"T1w": files}, executor=executor, workers=3, strict=True)
        assert [future.cancelled() for future in futures[2:]] == [True] * (len(futures) - 2)
        assert len(futures) == 6
        gate.set()


# A worker process that dies


@contextlib.contextmanager
def killing_its_reader(fifo: Path) -> Iterator[list[int]]:
    """While this runs, every process that opens ``fifo`` to read is killed with SIGKILL; gives their pids."""
    os.mkfifo(fifo)
    killed: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            try:
                # Succeeds only while a reader waits; then its own open() ends, and the link in /proc tells who it is.
                end = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                # Threads of a process that was killed may hold the file for a moment after it is gone by name: nobody waits then.
                end_of_search = time.monotonic() + 3
                while (reader := _reader_of(fifo)) is None and time.monotonic() < end_of_search:
                    time.sleep(0.02)
                if reader is None:
                    continue
                killed.append(reader)
                os.kill(reader, signal.SIGKILL)
                wait_until(lambda pid=reader: _is_gone(pid), 10)
            finally:
                os.close(end)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def _is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _reader_of(path: Path) -> int | None:
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{process.pid}/fd/{number}") == str(path):
                        return process.pid
    return None


pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


def test_a_worker_that_is_killed_costs_its_subject_only(root: Path, tmp_path: Path, content: Content) -> None:
    fifo = tmp_path / "deadly.nii.gz"
    files = {path.name[:6]: path for path in sorted((root / "images").iterdir())}
    # in the middle, with others in flight beside it
    deadly = {**dict(list(files.items())[:3]), "killer": fifo, **dict(list(files.items())[3:])}
    with killing_its_reader(fifo) as killed:
        report = rl.ingest(tmp_path / "store", {"T1w": deadly}, workers=2)
    assert len(killed) == 2  # among others, and then alone, so that its name is known
    assert [(item.subject, item.reason) for item in report.failed] == [
        (
            "killer",
            f"{fifo}: the worker process died while it read these files (killed, or out of memory?); ingest with fewer workers, or "
            "leave the subject out",
        )
    ]
    assert [item.subject for item in report.ingested] == sorted(files)
    assert rl.open(tmp_path / "store").obs_subject_ids == sorted(files)
    rl.ingest(tmp_path / "reference", {"T1w": files}, workers=1)
    assert content(tmp_path / "store") == content(tmp_path / "reference")
    assert workers_of(os.getpid()) == []


def test_workers_that_are_killed_at_any_time_cost_nothing(
    root: Path, tmp_path: Path, reference: dict[str, Any], content: Content, counts: Callable[[int, int], int]
) -> None:
    """Kills that have nothing to do with a file: what was in flight is tried again."""
    for number in range(counts(1, 10)):
        left = [3]

        def kill_one(item: Any, done: int, total: int, left: list[int] = left) -> None:
            alive = workers_of(os.getpid())
            if left[0] and alive:
                left[0] -= 1
                alive[done % len(alive)].kill()

        uri = tmp_path / str(number)
        report = rl.ingest(uri, sources(root), obs_meta=root / "participants.tsv", workers=2, progress=kill_one)
        assert left[0] < 3
        failed = {item.subject for item in report.failed}
        assert all("the worker process died" in item.reason for item in report.failed)
        # A worker killed while it had its subject alone is taken for that subject's victim; the next run has it.
        if failed:
            assert rl.ingest(uri, sources(root), obs_meta=root / "participants.tsv", workers=2).ok
        assert content(uri) == reference


def test_a_lost_executor_of_ones_own_is_reported(
    root: Path, tmp_path: Path, shows_sources: Callable[..., list[str]]
) -> None:
    fifo = tmp_path / "deadly.nii.gz"
    files = {path.name[:6]: path for path in sorted((root / "images").iterdir())}
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        killing_its_reader(fifo) as killed,
        pytest.raises(RuntimeError) as caught,
    ):
        rl.ingest(tmp_path / "store", {"T1w": {**files, "zz": fifo}}, executor=executor, workers=1)
    assert len(killed) == 1
    assert str(caught.value) == "the executor lost its workers; start another one and do the same again"
    shown = shows_sources(tmp_path / "store", root, [("T1w", "images")])
    assert rl.ingest(tmp_path / "store", {"T1w": files}, workers=1).ok
    assert set(shown) <= set(files) == set(rl.open(tmp_path / "store").obs_subject_ids)


# Processes that end


BLOCKED = """
import sys
import radioloader as rl
rl.ingest(sys.argv[1], {"T1w": {"a": sys.argv[2], "b": sys.argv[3], "c": sys.argv[2]}}, workers=2)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(root: Path, tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "blocked.py"
    script.write_text(BLOCKED)
    fifo = tmp_path / "never.nii.gz"
    os.mkfifo(fifo)  # its reader waits forever
    image = str(root / "images" / "sub-01_T1w.nii.gz")
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "store"), image, str(fifo)])
    try:
        # both workers are up, and one of them reads
        wait_until(lambda: len(workers_of(parent.pid)) == 2)
        wait_until(lambda: list(tmp_path.glob("store/c/*/volumes/*/__commits/*")))
        processes = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(sent)
        parent.wait(10)
        _, alive = psutil.wait_procs(processes, timeout=5)
        assert alive == []
    finally:
        parent.kill()
        parent.wait()


PLAIN = """
# No guard for the main module: the workers must not import it.
print("begin")
import sys
import psutil
import radioloader as rl
report = rl.ingest(sys.argv[2], {"T1w": sys.argv[1] + "/images", "seg": sys.argv[1] + "/labels"}, workers=2)
below = [p for p in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]
print(len(report.ingested), len(report.failed), below)
"""


def test_a_plain_script_needs_no_main_guard_and_leaves_no_process(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    command = [sys.executable, str(script), str(root), str(tmp_path / "store")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error) == (0, "begin\n6 0 []\n", "")
    # nor any helper once it has ended
    wait_until(lambda: not [p for p in psutil.process_iter() if _session_of(p.pid) == process.pid], 5)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def test_ingest_runs_in_a_thread_of_the_caller(
    root: Path, tmp_path: Path, reference: dict[str, Any], content: Content
) -> None:
    """As in a notebook server: no signal handler may be set there."""
    reports: list[Any] = []
    thread = threading.Thread(
        target=lambda: reports.append(
            rl.ingest(tmp_path / "store", sources(root), obs_meta=root / "participants.tsv", workers=2)
        )
    )
    thread.start()
    thread.join()
    assert reports[0].ok
    assert content(tmp_path / "store") == reference


def test_the_callers_signal_handler_and_mask_are_as_before(root: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    rl.ingest(tmp_path / "store", sources(root), workers=2)
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before
