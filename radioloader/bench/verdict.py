"""From figures to what limits and what to change: pure functions. Nothing is claimed but what was measured or can be computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from radioloader.bench.model import (
    GROUPS,
    GROUPS_HOW,
    PATCHES,
    REGIONS,
    CollectionFacts,
    Cost,
    Figure,
    Rate,
    Spent,
    Way,
    slices,
)
from radioloader.config import TileConfig
from radioloader.datasets.advice import STAGES, Epoch, Settings, cheaper
from radioloader.datasets.ahead import MAX_THREADS
from radioloader.storage._compiled import SWITCH

__all__ = ["KEEPS_UP", "Findings", "changes", "limit", "recommended", "shares"]

KEEPS_UP = 0.05
"""A model that waits for a smaller share of the time needs no quicker loader."""

_ALIKE = 0.05  # rates that differ by less are one
_WORTH = 1.15  # a change is worth a line from this gain on
_LESS_WORK = 1.5  # less processor time is worth one as well
_AMPLE = 1.5  # tiles that hold so many times the voxels are worth one, too
_COLD = 1.5
_WAITS = 0.5  # share of a read from which on it is storage that is waited for
_BUSY = 0.7  # share of the cores
_NAMES = {"read": "storage", "start": "the start of workers", "other": "what is around the reads"}


@dataclass(frozen=True, slots=True)
class Findings:
    """What verdicts are about.

    Attributes:
        figures: All ways that were tried.
        cost: Where the time of a patch goes in this process.
        first_pass: Patches whose data had not been read before.
        first_cost: Where their time went.
        image: The first image collection.
        remote: Whether the store is on an object store.
        cores: Cores that this process may use.
        batch_size: Samples in a batch.
        step_ms: Milliseconds that the model takes for a batch; None where nothing was said of it.
        in_default_tiles: Voxels in the tiles under a patch for each voxel of it, if tiles were the default ones.
        compiled: Whether tiles are read by the compiled reader.
    """

    figures: Sequence[Figure]
    cost: Cost
    first_pass: Rate
    first_cost: Cost
    image: CollectionFacts
    remote: bool
    cores: int
    batch_size: int
    step_ms: float | None
    in_default_tiles: float
    compiled: bool

    def rate(self, what: str, way: Way | None = None) -> Rate | None:
        """The rate of ``what``, with the settings of ``way``, or with neither threads nor workers."""
        wanted = (0, 0) if way is None else (way.num_threads, way.num_workers)
        for figure in self.figures:
            if figure.way.what == what and (figure.way.num_threads, figure.way.num_workers) == wanted:
                return figure.rate
        return None

    def in_tiles(self, what: str) -> float | None:
        """Voxels in the tiles under a sample for each voxel of it; None where that was not measured."""
        return next((figure.in_tiles for figure in self.figures if figure.way.what == what and figure.rate), None)


def recommended(figures: Sequence[Figure]) -> Way | None:
    """The cheapest settings that are as fast as the fastest, or, where there is a model, that keep up with it.

    Settings are cheaper with fewer threads or processes, and with threads rather than processes. None where nothing was measured.
    """
    points = [(figure.way, figure.rate) for figure in figures if figure.way.what == PATCHES and figure.rate is not None]
    if not points:
        return None
    waits = [(way, rate.waited) for way, rate in points if rate.waited is not None]
    if waits:
        enough = max(KEEPS_UP, min(waited for _, waited in waits) + _ALIKE)
        good = [way for way, waited in waits if waited <= enough]
    else:
        top = max(rate.per_s for _, rate in points)
        good = [way for way, rate in points if rate.per_s >= (1 - _ALIKE) * top]
    return min(good, key=lambda way: (way.parallel, way.num_workers))


def shares(findings: Findings, way: Way) -> dict[str, float]:
    """Share of the time that is waited for each stage with these settings, by the rules of ``DataWaitMonitor``."""
    rate = findings.rate(PATCHES, way)
    if rate is None:
        return dict.fromkeys(STAGES, 0.0)
    spent, total, steps = rate.spent, rate.seconds, rate.samples // findings.batch_size
    waited = 1.0
    if rate.step_spent is not None and rate.waited is not None:
        spent, total, steps, waited = rate.step_spent, rate.step_seconds, rate.step_batches, rate.waited
    epoch = _epoch(spent, total=total, wait=waited * total, steps=steps, storage=findings.cost.storage_share)
    return epoch.shares(_settings(findings, way))


def limit(findings: Findings, way: Way | None) -> str:
    """What limits loading with the recommended settings, in one line."""
    rate = None if way is None else findings.rate(PATCHES, way)
    if way is None or rate is None:
        return "too little was measured to tell; give more --seconds"
    parts = shares(findings, way)
    worst = max(STAGES, key=lambda name: parts[name])
    name = _NAMES.get(worst, worst)
    busy = f"{rate.cores:.1f} of {findings.cores} cores busy"
    if rate.waited is None:
        return f"{name} ({parts[worst]:.0%} of the time with {way.settings}; {busy})"
    step = f"a model that takes {findings.step_ms:g} ms a batch"
    if rate.waited <= KEEPS_UP:
        return f"nothing: {step} waits {rate.waited:.0%} of the time with {way.settings}"
    return f"{name} ({parts[worst]:.0%}): {step} waits {rate.waited:.0%} of the time with {way.settings}; {busy}"


def changes(findings: Findings, way: Way | None) -> list[str]:
    """What to change, most important first; each line says what was measured or computed."""
    if way is None:
        return []
    rate = findings.rate(PATCHES, way)
    keeps_up = rate is not None and rate.waited is not None and rate.waited <= KEEPS_UP
    parts = shares(findings, way)
    worst = max(STAGES, key=lambda name: parts[name])
    lines = [_setting(findings, way)]
    if not keeps_up:
        lines += _compiler(findings)
        lines += _regions(findings, way)
        lines += _patch_tiles(findings)
        lines += _more(findings, way)
        lines += _stage(findings, way, worst)
    lines += _planes(findings)
    lines += _codec(findings)
    lines += _cold(findings)
    lines += _transfer(findings, rate)
    return lines


def _epoch(spent: Spent, *, total: float, wait: float, steps: int, storage: float) -> Epoch:
    return Epoch(
        total=total,
        wait=wait,
        first=0.0,
        transfer=0.0,
        steps=max(steps, 1),
        read=spent.read * storage,
        decode=spent.read * (1 - storage),
        transform=spent.transform,
        collate=spent.collate,
        batches=max(spent.batches, 1),
    )


def _settings(findings: Findings, way: Way) -> Settings:
    return Settings(
        num_workers=way.num_workers,
        cores=findings.cores,
        persistent_workers=True,
        patches=True,
        num_threads=way.num_threads,
    )


def _setting(findings: Findings, way: Way) -> str:
    rate, alone = findings.rate(PATCHES, way), findings.rate(PATCHES)
    assert rate is not None
    default = min(MAX_THREADS, findings.cores)
    is_default = " (the default here)" if not way.num_workers and way.num_threads == default else ""
    if rate.waited is not None:
        if rate.waited <= KEEPS_UP:
            line = f"{way.settings}{is_default} is enough: {rate.waited:.0%} waiting"
        else:
            line = f"{way.settings}{is_default} waits least of what was tried, {rate.waited:.0%}"
        if alone is not None and alone.waited is not None and way.parallel:
            line += f"; num_threads=0 waits {alone.waited:.0%}"
        return line
    line = f"{way.settings}{is_default} measured best: {rate.per_s:.0f} patches/s"
    if alone is not None and way.parallel:
        line += f", {rate.per_s / alone.per_s:.1f} times num_threads=0"
    elif not way.parallel:
        line += "; neither threads nor workers were faster"
    return line


def _compiler(findings: Findings) -> list[str]:
    if findings.compiled or findings.remote:
        return []
    slow = "tiles are read in Python, which keeps threads from running side by side"
    if os.environ.get(SWITCH) == "0":
        return [f"{slow}: {SWITCH}=0 in the environment wants it so; unset it"]
    return [
        f"{slow}: install a C compiler and Python's headers, then radioloader anew (docs/performance.md, The compiled reader)"
    ]


def _more(findings: Findings, way: Way) -> list[str]:
    """Where the most that was tried was best, and more is not in vain."""
    tried = [f.way.parallel for f in findings.figures if f.way.what == PATCHES and f.rate is not None]
    waits = findings.cost.storage_share >= _WAITS
    if not way.parallel or way.parallel < max(tried) or not (waits or way.parallel < findings.cores):
        return []
    why = "waiting for storage needs no core" if waits else f"there are {findings.cores} cores"
    return [f"no more than {way.parallel} were tried, and {why}: --max-parallel {4 * way.parallel} tries more"]


def _stage(findings: Findings, way: Way, worst: str) -> list[str]:
    rate = findings.rate(PATCHES, way)
    # Only where cores are busy is making a stage cheaper the only way left; storage is what it is.
    busy = rate is not None and rate.cores >= _BUSY * findings.cores
    if worst == "read" or (worst in ("transform", "collate") and busy):
        return [f"{_NAMES.get(worst, worst)} is waited for most: {cheaper(worst, _settings(findings, way))}"]
    return []


def _regions(findings: Findings, way: Way) -> list[str]:
    alone, grouped = findings.rate(PATCHES, way), findings.rate(REGIONS, way)
    if alone is None or grouped is None:
        return []
    gain, work = (
        grouped.per_s / alone.per_s,
        f"{grouped.cpu_ms:.2f} ms of processor time each instead of {alone.cpu_ms:.2f}",
    )
    if gain >= _WORTH:
        found = f"gave {grouped.per_s:.0f} patches/s with the same settings, {gain:.1f} times, for {work}"
    elif alone.cpu_ms >= _LESS_WORK * grouped.cpu_ms:  # on a busy machine the rate may not show it
        found = f"gave no more patches/s with the same settings, but for {work}"
    else:
        return []
    return [f"positions={GROUPS_HOW} {found}: it cuts {GROUPS.patches} neighbouring patches from what is decoded once"]


def _patch_tiles(findings: Findings) -> list[str]:
    now, then = findings.in_tiles(PATCHES), findings.in_default_tiles
    extent = TileConfig().extent
    if now is None or now < _AMPLE * then:
        return []
    return [
        f"the tiles under a patch hold {now:.1f} times its voxels; cubes of {extent} would hold {then:.1f} times (computed): "
        f"for patches, ingest into a new store with TileConfig(extent={extent}) (--tile {extent})"
    ]


def _planes(findings: Findings) -> list[str]:
    held = {plane: findings.in_tiles(slices(plane)) for plane in ("axial", "coronal", "sagittal")}
    ample = {plane: value for plane, value in held.items() if value is not None and value >= 2 * _AMPLE}
    if not ample:
        return []
    listed = ", ".join(f"{value:.0f} times ({plane})" for plane, value in ample.items())
    line = f"the tiles under a random slice hold its voxels {listed}"
    alone, blocks = findings.rate(slices("axial")), findings.rate(slices("axial", blocks=True))
    if alone is not None and blocks is not None and blocks.per_s >= _WORTH * alone.per_s:
        how = next(f.way.how for f in findings.figures if f.way.what == slices("axial", blocks=True))
        line += f": {how} gave {blocks.per_s:.0f} slices/s, {blocks.per_s / alone.per_s:.1f} times random order"
    first = min(ample)
    return [f"{line}; for slices of one plane alone, ingest with its tiles, such as --tile {first}"]


def _codec(findings: Findings) -> list[str]:
    if findings.image.direct or findings.remote:
        return []
    return [
        f"tiles of {findings.image.codec} are read through TileDB's query; those of zstd without checksum are decoded directly "
        "(docs/datasets.md): ingest into a new store with the defaults"
    ]


def _cold(findings: Findings) -> list[str]:
    alone, first = findings.rate(PATCHES), findings.first_pass
    # Storage has to be why: arrays are opened in the first pass as well.
    slower = alone is not None and alone.per_s >= _COLD * first.per_s
    if findings.remote or not slower or findings.first_cost.storage < 2 * findings.cost.storage:
        return []
    return [
        f"data that had not been read before came at {first.per_s:.0f} patches/s, with storage "
        f"{findings.first_cost.storage_share:.0%} of a read: expect that where the data do not fit into memory; all other figures "
        "are of data in memory"
    ]


def _transfer(findings: Findings, rate: Rate | None) -> list[str]:
    moved = findings.cost.transfer
    if moved is None or rate is None:
        return []
    each_ms = 1000 / rate.per_s if findings.step_ms is None else findings.step_ms / findings.batch_size
    if moved < each_ms / 2:
        return []
    return [
        f"moving a patch to the GPU takes {moved:.2f} ms of {each_ms:.2f} ms: dtype=None keeps the stored dtype "
        f"({', '.join(findings.image.dtypes)}); cast on the device"
    ]
