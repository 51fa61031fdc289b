"""A fresh process that measures one contestant: ``python -m benchmarks.child JSON``. Started by :mod:`benchmarks.launch` only.

Events are JSON lines on the file descriptor that the settings name: ``phase`` when a job begins, ``record`` when it is measured, ``ready``
when the page cache may be emptied, ``done`` at the end. Whatever a contestant prints goes elsewhere.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.machine import cpu_seconds, versions
from benchmarks.model import BATCH, UNITS, Cohort, Job, Record, from_json, outcome, without_folders
from benchmarks.peers import load

if TYPE_CHECKING:
    from benchmarks.peers.base import Feed, Peer

__all__ = ["main", "measure_jobs"]

Emit = Callable[[dict[str, Any]], None]

_COLD_PATCHES = 60
_CALLS = (5, 200)  # calls that are timed, at least and at most


def main() -> None:
    """Measure, tell, end at once: contestants that hang at exit have been measured all the same."""
    import faulthandler
    import signal

    jobs, cohort, settings = from_json(sys.argv[1])
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # what a hanging contestant was doing, for the log
    with open(settings["events"], "w", encoding="utf-8") as events:

        def emit(event: dict[str, Any]) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        measure_jobs(jobs, cohort, settings, emit, wait=sys.stdin.readline)
        emit({"event": "done"})
    sys.stderr.flush()
    os._exit(0)


def measure_jobs(
    jobs: list[Job], cohort: Cohort, settings: dict[str, Any], emit: Emit, wait: Callable[[], Any] = lambda: None
) -> None:
    """Measure one contestant's jobs, one after the other. A job that fails is a record, and the others go on.

    Args:
        jobs: All of one contestant, and of one number of workers and threads.
        cohort: The files.
        settings: ``seconds``, ``warm_s``, ``repetition``, ``started`` (:func:`time.time` before this process began), ``full``.
        emit: Takes events.
        wait: Returns when the page cache has been emptied.
    """
    repetition = settings["repetition"]
    peer: Peer | None = None
    failure: Record = {}
    emit({"event": "phase", "job": None})
    try:
        peer = load(jobs[0].peer)(cohort)
        if jobs[0].workload != "prepare":
            peer.open()
    except Exception as error:
        failure = _reason(error)
    for number, job in enumerate(jobs):
        emit({"event": "phase", "job": number})
        values: Record = dict(failure)
        if peer is not None and not failure:
            try:
                values = _measure(peer, job, settings, emit, wait)
            except Exception as error:
                values = _reason(error)
            values["versions"] = versions(peer.packages)
        if "several" in values:
            for several in values.pop("several"):
                emit({"event": "record", "job": number, "record": outcome(job, repetition, **{**values, **several})})
            continue
        emit({"event": "record", "job": number, "record": outcome(job, repetition, **values)})


def _reason(error: Exception) -> Record:
    if type(error).__name__ == "Unsupported":
        return {"skipped": str(error)}
    return {"error": without_folders(f"{type(error).__name__}: {error}")[:400]}


def _measure(peer: Peer, job: Job, settings: dict[str, Any], emit: Emit, wait: Callable[[], Any]) -> Record:
    if job.workload == "prepare":
        return _prepare(peer, job)
    if job.workload == "call":
        return _calls(peer.call(job.detail), settings)
    if job.workload == "study":
        from benchmarks.studies import run

        return {"several": list(run(job.detail, peer.cohort, full=settings["full"]))}
    if job.workload == "pipeline":
        return peer.pipeline(job, settings)
    feed = _feed(peer, job)
    try:
        if job.workload == "first-batch":
            batch = next(iter(feed.batches))
            values: Record = {"value": round(time.time() - settings["started"], 3), "unit": UNITS["first-batch"]}
            return values | _check(peer, job, batch)
        if job.workload == "cold":
            return _cold(peer, job, feed, emit, wait)
        return _steady(peer, job, feed, settings)
    finally:
        feed.close()
        del feed
        gc.collect()


def _feed(peer: Peer, job: Job) -> Feed:
    if job.workload == "volumes":
        return peer.volumes(job)
    if job.workload == "slices":
        return peer.slices(job)
    return peer.patches(job)


def _prepare(peer: Peer, job: Job) -> Record:
    """Convert the cohort, unless that was done before and would give the same again."""
    marker = peer.cohort.folder / f"prepared-{job.peer.replace(':', '-')}.json"
    recipe = peer.recipe()
    if marker.is_file():
        found: Record = json.loads(marker.read_text())
        if found["recipe"] == recipe:
            return {**found, "reused": True}
        marker.unlink()
    for name in peer.folders:
        shutil.rmtree(peer.cohort.folder / name, ignore_errors=True)
    started = time.perf_counter()
    peer.prepare()
    values = {
        "value": round(time.perf_counter() - started, 2),
        "unit": UNITS["prepare"],
        "bytes": sum(_size(peer.cohort.folder / name) for name in peer.folders),
        "recipe": recipe,
    }
    marker.write_text(json.dumps(values))
    return values


def _size(folder: Any) -> int:
    return sum(os.path.getsize(os.path.join(top, file)) for top, _, files in os.walk(folder) for file in files)


def _calls(call: Callable[[], Any], settings: dict[str, Any]) -> Record:
    """Times single calls: the median of at least five, in milliseconds, and the CPU time beside them."""
    call()
    times: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    while len(times) < _CALLS[0] or (len(times) < _CALLS[1] and time.perf_counter() - started < settings["seconds"]):
        before = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - before))
    times.sort()
    return {
        "value": round(times[len(times) // 2], 4),
        "unit": UNITS["call"],
        "calls": len(times),
        "lowest": round(times[0], 4),
        "highest": round(times[-1], 4),
        "cpu_percent": round(100 * (time.process_time() - cpu) / (time.perf_counter() - started)),
    }


def _check(peer: Peer, job: Job, batch: Any) -> Record:
    """What is delivered: dtypes, and that it is what was asked for."""
    image, label = peer.parts(batch)
    x, y, z = peer.cohort.shape
    plane = {"sagittal": y * z, "coronal": x * z, "axial": x * y}.get(job.plane, 0)
    samples, voxels = (1, x * y * z) if job.workload == "volumes" else (BATCH, plane if job.plane else job.size**3)
    for name, array in (("image", image), ("label", label)):
        if array.shape[0] != samples or int(_product(array.shape)) != samples * voxels:
            raise ValueError(f"delivered {name} {tuple(array.shape)}, not {samples} of {voxels} voxels each")
    return {
        "image_dtype": str(image.dtype).removeprefix("torch."),
        "label_dtype": str(label.dtype).removeprefix("torch."),
    }


def _product(shape: Any) -> int:
    result = 1
    for n in shape:
        result *= int(n)
    return result


def _steady(peer: Peer, job: Job, feed: Feed, settings: dict[str, Any]) -> Record:
    """After a warm-up: whole cycles, and whole rounds of the workers, for at least so many seconds."""
    begun = time.perf_counter()
    batches = feed.endless()
    batch = next(batches)
    values: Record = {"first_batch_s": round(time.perf_counter() - begun, 3), **_check(peer, job, batch)}
    spans = [] if (span := peer.volumes_in(batch)) is None else [span]
    step = feed.cycle if feed.cycle > 1 else max(1, job.workers)
    count, begun = 1, time.perf_counter()
    while count % step or time.perf_counter() - begun < settings["warm_s"]:
        batch = next(batches)
        if spans and len(spans) < 64:
            spans.append(peer.volumes_in(batch) or 0)
        count += 1
    count, cpu, begun = 0, cpu_seconds(os.getpid()), time.perf_counter()
    while count % step or time.perf_counter() - begun < settings["seconds"]:
        batch = next(batches)
        count += 1
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds(os.getpid()) - cpu
    del batch
    batches.close()  # type: ignore[attr-defined]
    samples = count * (1 if job.workload == "volumes" else BATCH)
    values |= {"value": round(samples / seconds, 3), "unit": UNITS[job.workload]}
    values |= {"seconds": round(seconds, 2), "batches": count, "cpu_ms": round(1000 * cpu / samples, 3)}
    if spans:
        values["volumes_per_batch"] = min(spans)
    return values


def _cold(peer: Peer, job: Job, feed: Feed, emit: Emit, wait: Callable[[], Any]) -> Record:
    """The first patches after the page cache was emptied; everything but the first batch's reading has been done before."""
    batches = feed.endless()
    emit({"event": "ready"})
    wait()
    started, count = time.perf_counter(), 0
    first: Record = {}
    while count < _COLD_PATCHES:
        batch = next(batches)
        count += BATCH
        if not first:
            first = {"first_batch_s": round(time.perf_counter() - started, 3)}
    seconds = time.perf_counter() - started
    return {"value": round(count / seconds, 3), "unit": UNITS["cold"], **first, **_check(peer, job, batch)}


if __name__ == "__main__":
    main()
