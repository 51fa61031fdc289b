"""Run the bench: choose, measure, judge, all within a minute."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from radioloader._checks import as_whole
from radioloader.bench.choose import choose
from radioloader.bench.facts import collection_facts, warm
from radioloader.bench.feeds import Feed, Feeds, Transform
from radioloader.bench.machine import available_bytes, gpu, machine, versions
from radioloader.bench.measure import gpu_transfer_ms, measure, measure_cost
from radioloader.bench.model import GROUPS_HOW, REGIONS, VOLUMES, BenchReport, Cost, Figure, Way, slices
from radioloader.bench.verdict import Findings, changes, limit, recommended
from radioloader.config import StorageConfig, TileConfig, available_cores
from radioloader.container.radiobject import RadiObject
from radioloader.errors import ConfigError, RadioloaderError
from radioloader.samplers.positions import as_triple
from radioloader.storage.uri import is_remote

__all__ = ["MOST_SECONDS", "ladder", "run_bench"]

MOST_SECONDS = 45.0
"""What may be asked for, so that imports, the last measurement and the end of processes stay within a minute."""

_HARD_S = 52.0
_GRACE_S = 5.0  # beyond what was asked for, before measurements are left out: workers may take long to start
_SLOT_S = 4.0  # more makes no figure better
_MOST_PARALLEL = 16
_POINTS = 5
_PREFETCH = 2  # batches that torch has each worker make in advance
_SCATTER = 1.5
_BUSY = 0.75
_QUICK_START_S = 1.0
_OTHER_WAYS = 8  # besides patches with threads and workers: groups thrice, volumes, planes, blocks


def run_bench(
    uri: str | os.PathLike[str],
    *,
    image: Sequence[str] = (),
    label: str | None = None,
    with_label: bool = True,
    patch_size: int | Sequence[int] = 64,
    batch_size: int = 4,
    seconds: float = 30.0,
    step_ms: float | None = None,
    transform: Transform | None = None,
    max_parallel: int | None = None,
    config: StorageConfig | None = None,
    seed: int | None = None,
    on_step: Callable[[str], None] = lambda what: None,
) -> BenchReport:
    """Measure a store: rates of patches, slices and volumes, with threads and worker processes, where the time goes, what to change.

    All figures but those of the first pass are of data that the system has in memory, where the store is local. No process outlives
    the call, however it ends. Nothing is written.

    Args:
        uri: The store.
        image: Image collections, stacked as channels; empty takes the one that most subjects have.
        label: Label collection; None takes the only one, if there is one on the images' grid.
        with_label: False measures images alone.
        patch_size: Voxels (x, y, z) of patches; one number for a cube. Volumes that are smaller are padded.
        batch_size: Samples in a batch of patches or slices.
        seconds: About how long to measure, at most :data:`MOST_SECONDS`. What there is no time for is left out, with the reason.
        step_ms: Milliseconds that a model takes for a batch, on a device that leaves the processor alone: then the settings are
            looked for that keep up with it.
        transform: Of patches. Where worker processes are spawned it has to be picklable.
        max_parallel: Most threads and most worker processes that are tried; None takes all cores, at most 16, and four times as many
            where storage takes most of a read.
        config: Access; None takes the process's defaults.
        seed: Decides which subjects of a large store are taken; None takes others each time.
        on_step: Called with what is measured next.

    Raises:
        ConfigError: An argument is not allowed, or there is nothing to measure.
        RadioloaderError: The store cannot be opened, a collection does not exist, or patches cannot be read.
    """
    size = as_triple(patch_size, "patch_size", minimum=1)
    as_whole(batch_size, "batch_size", minimum=1)
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"seconds={seconds:g} must be more than 0 and at most {MOST_SECONDS:g}")
    if step_ms is not None and not 0 < step_ms < 1e6:
        raise ConfigError(f"step_ms={step_ms:g} must be more than 0, the milliseconds that a model takes for a batch")
    if max_parallel is not None:
        as_whole(max_parallel, "max_parallel", minimum=1)
    if transform is not None and not callable(transform):
        raise ConfigError(f"transform must be callable, got {type(transform).__name__}")
    facts = machine()
    on_step("opening the store")
    store = RadiObject(uri, config=config)
    seed = secrets.randbits(32) if seed is None else as_whole(seed, "seed")
    choice = choose(store.snapshot, image=image, label=label, with_label=with_label, seed=seed)
    feeds = Feeds(
        store, choice, patch_size=size, batch_size=batch_size, transform=transform, pin_memory=gpu() is not None
    )
    bench = _Bench(store, feeds, seconds=seconds, step_ms=step_ms, max_parallel=max_parallel, on_step=on_step)
    return bench.run(
        facts,
        {
            "image": list(choice.image),
            "label": choice.label,
            "patch_size": list(size),
            "batch_size": batch_size,
            "seconds": seconds,
            "step_ms": step_ms,
            "transform": None if transform is None else getattr(transform, "__qualname__", type(transform).__name__),
            "max_parallel": max_parallel,
            "seed": seed,
        },
    )


def ladder(most: int) -> list[int]:
    """Numbers of threads or workers that are tried: 1, powers of two and ``most``, five at most."""
    steps = [1 << power for power in range(most.bit_length()) if 1 << power < most] + [most]
    if len(steps) <= _POINTS:
        return steps
    return [steps[int(place * (len(steps) - 1) / (_POINTS - 1) + 0.5)] for place in range(_POINTS)]


class _Bench:
    """One run: what was measured so far, and how much time is left."""

    def __init__(
        self,
        store: RadiObject,
        feeds: Feeds,
        *,
        seconds: float,
        step_ms: float | None,
        max_parallel: int | None,
        on_step: Callable[[str], None],
    ) -> None:
        self._store, self._feeds, self._on_step = store, feeds, on_step
        self._step_ms, self._max_parallel = step_ms, max_parallel
        self._began = time.perf_counter()
        self._end = self._began + seconds
        self._hard = self._began + min(1.25 * seconds + _GRACE_S, _HARD_S)
        self._left = 4 + 4 * len(ladder(_most(max_parallel, 0.0))) + _OTHER_WAYS  # measurements that share the time
        self._figures: list[Figure] = []
        self._s_per_voxel = 0.0

    def run(self, facts: dict[str, Any], options: dict[str, Any]) -> BenchReport:
        """Measure everything."""
        choice, snapshot = self._feeds.choice, self._store.snapshot
        notes = [*choice.notes, *self._padded()]
        self._on_step("patches, first pass")
        first_pass, first_cost = measure_cost(self._feeds.patches(), seconds=self._slot(), warm=False)
        subjects = warm(snapshot, choice, seconds=self._slot())
        self._feeds = self._feeds.restricted(subjects)
        collections = collection_facts(snapshot, self._feeds.choice)
        cost = self._alone()
        best = self._parallel(ladder(_most(self._max_parallel, cost.storage_share)))
        self._other_ways(best)
        if facts["gpu"] is not None:
            self._on_step("transfer to the GPU")
            batch = next(iter(self._feeds.patches().loader))
            cost = replace(cost, transfer=gpu_transfer_ms(batch) / self._feeds.batch_size)
        findings = Findings(
            figures=self._figures,
            cost=cost,
            first_pass=first_pass,
            first_cost=first_cost,
            image=collections[0],
            remote=is_remote(snapshot.store.uri),
            cores=facts["cores"],
            batch_size=self._feeds.batch_size,
            step_ms=self._step_ms,
            in_default_tiles=self._feeds.in_tiles(TileConfig().extent),
            compiled=facts["compiled_reader"],
        )
        return BenchReport(
            uri=snapshot.store.uri,
            version=snapshot.commits.version,
            remote=findings.remote,
            options=options,
            machine=facts,
            versions=versions(),
            collections=collections,
            subjects=(len(subjects), len(choice.available)),
            notes=(*notes, *_doubts(self._figures, facts)),
            first_pass=first_pass,
            first_cost=first_cost,
            figures=tuple(self._figures),
            cost=cost,
            limit=limit(findings, best),
            changes=tuple(changes(findings, best)),
            best=best,
            seconds=round(time.perf_counter() - self._began, 1),
        )

    def _alone(self) -> Cost:
        """Patches without threads and workers. What fails here fails everywhere, and is raised."""
        feed = self._feeds.patches()
        self._on_step(f"{feed.way.what}, {feed.way.settings}")
        seconds = self._slot()
        rate, cost = measure_cost(feed, seconds=seconds if self._step_ms is None else seconds / 2, warm=True)
        if self._step_ms is not None:
            stepped = measure(feed, seconds=seconds / 2, step_s=self._step_ms / 1000)
            rate = replace(
                rate,
                waited=stepped.waited,
                step_spent=stepped.step_spent,
                step_seconds=stepped.step_seconds,
                step_batches=stepped.step_batches,
            )
        self._s_per_voxel = 1 / rate.per_s / feed.decoded
        self._figures.append(Figure(feed.way, rate, in_tiles=feed.in_tiles))
        return cost

    def _parallel(self, counts: Sequence[int]) -> Way | None:
        """Patches with threads, then with workers; the best settings."""
        alone = self._figures[0].way
        ways = [replace(alone, num_threads=count) for count in counts]
        ways += [replace(alone, num_workers=count) for count in counts]
        self._left = 2 * len(ways) + 1 + _OTHER_WAYS
        for way in ways:
            self._try(way, partial(self._patches, way), step_ms=self._step_ms)
        # In turn, and the better of two counts: what else runs for a moment should not decide.
        for figure in list(self._figures):
            if figure.rate is None or figure.rate.first_batch_s > _QUICK_START_S:
                self._left -= 1
            else:
                self._try(figure.way, partial(self._patches, figure.way), step_ms=self._step_ms)
        return recommended(self._figures)

    def _other_ways(self, best: Way | None) -> None:
        """Patches in groups, slices, volumes: what matters most first, since the time may be up before the end."""
        feeds = self._feeds
        alone = Way(REGIONS, f"PatchDataset(positions={GROUPS_HOW})")
        ways = [alone]
        if best is not None and best.parallel:
            ways.insert(0, replace(alone, num_threads=best.num_threads, num_workers=best.num_workers))
        tasks: list[tuple[Way, Callable[[], Feed]]] = [(way, partial(self._patches, way)) for way in ways]
        tasks.insert(1, tasks[0])  # twice, as what they are compared with
        planes = [
            (Way(slices(plane), f"SliceDataset(plane={plane!r})"), partial(feeds.slices, plane))
            for plane in ("axial", "coronal", "sagittal")
        ]
        tasks += [planes[0], (Way(VOLUMES, "VolumeDataset()"), feeds.volumes), *planes[1:]]
        if feeds.block("axial") > 1:
            way = Way(slices("axial", blocks=True), "SliceDataset(plane='axial', block=..., mix=...)")
            tasks.append((way, partial(feeds.slices, "axial", blocks=True)))
        self._left = len(tasks)
        for way, make in tasks:
            self._try(way, make)

    def _patches(self, way: Way) -> Feed:
        return self._feeds.patches(
            regions=way.what == REGIONS,
            num_threads=way.num_threads,
            num_workers=way.num_workers,
            patience_s=max(1.0, self._hard - time.perf_counter()),
        )

    def _try(self, way: Way, make: Callable[[], Feed], *, step_ms: float | None = None) -> None:
        """Measure one way, or note why not: what does not work is no reason to lose the rest."""
        self._on_step(f"{way.what}, {way.settings}")
        seconds, figure = self._slot(), Figure(way)
        try:
            feed = make()
            figure = Figure(feed.way, in_tiles=feed.in_tiles, missing=self._too_much(feed, step_ms))
            if not figure.missing:
                step_s = None if step_ms is None else step_ms / 1000
                figure = replace(figure, rate=measure(feed, seconds=seconds, step_s=step_s))
        except Exception as error:
            what = "" if isinstance(error, RadioloaderError) else f"{type(error).__name__}: "
            figure = replace(figure, missing=what + str(error).partition("\n")[0])
        for place, other in enumerate(self._figures):
            if other.way == figure.way:
                self._figures[place] = _better(other, figure)
                return
        self._figures.append(figure)

    def _slot(self) -> float:
        """Seconds for the next of the measurements that are left."""
        seconds = (self._end - time.perf_counter()) / max(self._left, 1)
        self._left -= 1
        return max(0.02, min(_SLOT_S, seconds))

    def _too_much(self, feed: Feed, step_ms: float | None) -> str:
        """Why there is no time or memory to measure a loader; empty where there is."""
        now, way = time.perf_counter(), feed.way
        if now > self._hard:
            return "the time was up"
        batch = 1 if way.what == VOLUMES else self._feeds.batch_size
        batch_s = self._s_per_voxel * feed.decoded * batch
        # One round that warms up, one that is timed; those of several makers come side by side, as far as there are cores.
        rounds = -(-max(1, way.parallel) // available_cores())
        needed = 2 * batch_s * rounds + (0 if step_ms is None else 5 * step_ms / 1000)
        if now + needed > self._hard:
            return f"one batch takes about {batch_s:.1f} s, for which there was no time"
        held = feed.nbytes * (way.num_workers * _PREFETCH if way.num_workers else way.num_threads + 1)
        if held > available_bytes() / 2:
            return f"batches would take {held / 1e9:.1f} GB, more than half of the memory that is free"
        return ""

    def _padded(self) -> list[str]:
        small = int((self._feeds.shapes < self._feeds.patch_size).any(axis=1).sum())
        if not small:
            return []
        return [f"{small} of {len(self._feeds.shapes)} volumes are smaller than a patch, and are padded (pad=True)"]


def _better(first: Figure, second: Figure) -> Figure:
    """The better of two measurements of one way."""
    if first.rate is None or second.rate is None:
        return second if first.rate is None else first
    if first.rate.waited is not None and second.rate.waited is not None:
        return second if second.rate.waited < first.rate.waited else first
    return second if second.rate.per_s > first.rate.per_s else first


def _most(asked: int | None, storage_share: float) -> int:
    """Most threads and workers that are tried."""
    cores = available_cores()
    if asked is not None:
        return asked
    # Waiting needs no core.
    return min(_MOST_PARALLEL, 4 * cores if storage_share >= 0.5 else cores)


def _doubts(figures: Sequence[Figure], facts: dict[str, Any]) -> list[str]:
    """What makes the figures less certain."""
    notes = []
    if facts["load"] is not None and facts["load"] > _BUSY * facts["cores"]:
        notes.append(
            f"the machine was busy when this began (load {facts['load']:g} on {facts['cores']} cores): run it again when nothing else runs"
        )
    scatter = [f.rate.highest / f.rate.lowest for f in figures if f.rate and f.rate.lowest and f.rate.highest]
    if scatter and max(scatter) > _SCATTER:
        notes.append(f"rates scattered by up to {max(scatter):.1f} times within one measurement")
    return notes
