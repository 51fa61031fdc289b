"""The table of what must hold: ours beside each peer in the same run, and whether the ratio is reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.model import Record, config_of
from benchmarks.tables import short

__all__ = ["CASES", "Case", "Side", "Verdict", "judge", "verdict_table"]


@dataclass(frozen=True)
class Side:
    """Which records speak for one side; of several configurations the best one does.

    Attributes:
        peers: Contestants.
        where: Fields that a record must have, with their values.
        measure: The field that holds the figure.
    """

    peers: tuple[str, ...]
    where: Mapping[str, Any]
    measure: str = "value"


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        row: Number of the row that it belongs to; a row that names several peers or sizes has several lines.
        workload: The workload, in words.
        peer: The peer, in words.
        ours: What is measured of radioloader.
        theirs: What is measured of the peer.
        required: The ratio of speeds, ours / peer, at least; with ``at_most`` the ratio of seconds or bytes, at most.
        lower: Figures are times or bytes: the lower one is better.
        at_most: See ``required``.
        spans: Volumes that each batch of ours must come from.
        also: Another way of ours, whose ratio is told beside, and does not decide; its name and what is measured.
    """

    row: int
    workload: str
    peer: str
    ours: Side
    theirs: Side
    required: float
    lower: bool = False
    at_most: bool = False
    spans: int = 1
    also: tuple[str, Side] | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        case: The case.
        state: ``met``, ``not met``, ``failed`` or ``skipped``.
        ours: Our figure, the median over the repetitions; None without one.
        theirs: The peer's.
        ratio: Their ratio, as the case wants it.
        spread: Lowest and highest ratio over the repetitions that both sides have.
        note: The configurations that were best, or the reason.
    """

    case: Case
    state: str
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""


@dataclass
class _Best:
    """The best configuration of a side."""

    median: float | None = None
    by_repetition: dict[int, float] = field(default_factory=dict)
    record: Record = field(default_factory=dict)
    reason: str = ""
    state: str = "skipped"


def _cases() -> Iterator[Case]:
    def patches(peers: Sequence[str] | str, size: int, **more: Any) -> Side:
        names = (peers,) if isinstance(peers, str) else tuple(peers)
        return Side(names, {"workload": "patches", "size": size, **more})

    uniform, region = "radioloader-uniform", "radioloader-region"
    sizes = (64, 128)
    for row, (size, ours, required) in enumerate(
        [(64, uniform, 2.0), (64, region, 4.0), (128, uniform, 1.5), (128, region, 3.0)], 1
    ):
        kind, spans = ("uniform random positions", 1) if ours == uniform else ("RegionPositions", 2)
        words = f"W1 {size}^3, {kind}"
        yield Case(
            row, words, "nnU-Net v2's own loader", patches(ours, size), patches("nnunet", size), required, spans=spans
        )
    for size in sizes:
        words = f"W1 {size}^3, RegionPositions, our best of threads and workers"
        theirs = patches("ram", size, workers=2)
        yield Case(
            5, words, "in-RAM numpy under torch's DataLoader, 2 workers", patches(region, size), theirs, 1.0, spans=2
        )
    others: list[tuple[int, str, tuple[str, ...], float]] = [(6, "zarr v3 with zarrs", ("zarr",), 3.0)]
    others += [
        (7, "MONAI CacheDataset", ("monai-cache",), 20.0),
        (7, "MONAI PersistentDataset", ("monai-persistent",), 20.0),
    ]
    others += [(7, "tio.Queue", ("torchio",), 20.0), (7, "MONAI on .nii.gz", ("monai",), 20.0)]
    others += [(8, "RadiObject 0.1.1", ("radiobject", "radiobject-spawn"), 15.0)]
    for row, words, peers, required in others:
        for size in sizes:
            sides = patches(uniform, size), patches(peers, size)
            also = "RegionPositions", patches(region, size)
            yield Case(row, f"W1 {size}^3", words, *sides, required, also=also)
    radiobject = ("radiobject", "radiobject-spawn")
    whole: list[tuple[str, tuple[str, ...], float]] = [
        ("nnU-Net", ("nnunet",), 2.0),
        ("RadiObject 0.1.1", radiobject, 2.0),
        ("nibabel on .nii.gz", ("nibabel",), 5.0),
    ]
    for words, peers, required in whole:
        volumes = {"workload": "volumes"}
        yield Case(9, "W2 full volumes", words, Side((uniform,), volumes), Side(peers, volumes), required)
    axial = {"workload": "slices", "plane": "axial"}
    for words, ours, required in [
        ("isotropic tiles, block-visited", region, 2.0),
        ("axial tiles, random", "radioloader-axial", 3.0),
    ]:
        sides = Side((ours,), axial), Side(("nnunet",), axial)
        yield Case(10, f"W3 axial slices: {words}", "nnU-Net's 2D configuration", *sides, required)
    cold, first = {"workload": "cold", "size": 64}, {"workload": "first-batch", "workers": 2}
    memmap = ("npy-memmap",)
    yield Case(11, "cold cache, W1 64^3", ".npy memmap", Side((uniform,), cold), Side(memmap, cold), 3.0)
    words = "time to first batch, cold Python, 2 workers"
    sides = Side((uniform,), first), Side(memmap, first)
    yield Case(12, words, "torch DataLoader over .npy memmap", *sides, 1.3, lower=True, at_most=True)
    store = Side((uniform,), {"workload": "prepare"}, "bytes")
    files = Side(("files",), {"workload": "prepare"}, "bytes")
    yield Case(13, "bytes on disk", "the same .nii.gz", store, files, 1.0, lower=True, at_most=True)
    for words, ours, theirs_, detail in [
        ("single ROI 64^3 aligned, open store", uniform, "radiobject", "roi-aligned"),
        ("single axial slice on axial tiles, open store", "radioloader-axial", "radiobject-axial", "axial"),
    ]:
        call = {"workload": "call", "detail": detail}
        yield Case(14, words, "RadiObject 0.1.1", Side((ours,), call), Side((theirs_,), call), 4.0, lower=True)


CASES = tuple(_cases())
"""Every line, in the order of the table."""


def judge(records: Sequence[Record], cases: Sequence[Case] = CASES) -> list[Verdict]:
    """The verdict on each case.

    Like for like: where the peer's record says which dtype its images have, ours must have the same.
    """
    return [_judge(case, records) for case in cases]


def _judge(case: Case, records: Sequence[Record]) -> Verdict:
    theirs = _best(case.theirs, records, lower=case.lower)
    dtype = theirs.record.get("image_dtype")
    like = [r for r in records if dtype is None or "image_dtype" not in r or r["image_dtype"] == dtype]
    ours = _best(case.ours, like, lower=case.lower)
    for name, side in (("radioloader", ours), (case.peer, theirs)):
        if side.median is None:
            return Verdict(case, side.state, ours.median, theirs.median, note=f"{name}: {side.reason}")
    assert ours.median is not None
    assert theirs.median is not None

    def ratio(mine: float, other: float) -> float:
        return other / mine if case.lower and not case.at_most else mine / other

    found = ratio(ours.median, theirs.median)
    shared = sorted(ours.by_repetition.keys() & theirs.by_repetition.keys())
    each = [ratio(ours.by_repetition[n], theirs.by_repetition[n]) for n in shared]
    reached = found <= case.required if case.at_most else found >= case.required
    notes = [f"{_how(ours.record)} / {_how(theirs.record)}"] + ([str(dtype)] if dtype else [])
    spans = ours.record.get("volumes_per_batch", case.spans)
    if spans < case.spans:
        reached = False
        notes.append(f"our batches come from {spans} volume, {case.spans} are wanted")
    if case.also is not None:
        name, another = case.also
        more = _best(another, like, lower=case.lower).median
        notes += [] if more is None else [f"{name}: {short(ratio(more, theirs.median))}"]
    spread = (min(each), max(each)) if len(each) > 1 else None
    return Verdict(case, "met" if reached else "not met", ours.median, theirs.median, found, spread, ", ".join(notes))


def _best(side: Side, records: Sequence[Record], *, lower: bool) -> _Best:
    """The configuration with the best median, or why there is none."""
    ours = [r for r in records if r["peer"] in side.peers and all(r.get(k) == v for k, v in side.where.items())]
    configurations: dict[tuple[Any, ...], list[Record]] = {}
    for record in ours:
        if record.get(side.measure) is not None and "error" not in record:
            configurations.setdefault(config_of(record), []).append(record)
    best = _Best(reason="was not measured in this run")
    for found in configurations.values():
        median = statistics.median(r[side.measure] for r in found)
        if best.median is None or (median < best.median if lower else median > best.median):
            best = _Best(median, {r["repetition"]: r[side.measure] for r in found}, found[0])
    if best.median is None:
        failed = next((r["error"] for r in ours if "error" in r), None)
        skipped = next((r["skipped"] for r in ours if "skipped" in r), None)
        if failed is not None:
            return _Best(reason=failed, state="failed")
        if skipped is not None:
            return _Best(reason=skipped)
    return best


def _how(record: Record) -> str:
    """The configuration, in words."""
    parts = [f"{record['threads']} threads"] if record.get("threads") else []
    parts = parts or ([f"{record['workers']} workers"] if record.get("workers") else ["no workers"])
    return " ".join(parts) if record.get("workload") not in ("call", "prepare") else record["peer"]


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The table as Markdown, and how many lines are met."""
    lines = ["| # | workload | peer | ours | peer's | ratio (min-max) | required | verdict | how: ours / peer |"]
    lines += ["|---:|---|---|---:|---:|---:|---:|---|---|"]
    for v in verdicts:
        unit = _unit(v.case)
        ratio = "-" if v.ratio is None else short(v.ratio)
        ratio += "" if v.spread is None else f" ({short(v.spread[0])}-{short(v.spread[1])})"
        required = f"{'at most ' if v.case.at_most else ''}{v.case.required:g}"
        cells = [
            v.case.row,
            v.case.workload,
            v.case.peer,
            _figure(v.ours, unit),
            _figure(v.theirs, unit),
            ratio,
            required,
        ]
        lines.append("| " + " | ".join(map(str, [*cells, v.state, _cell(v.note)])) + " |")
    states = [v.state for v in verdicts]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("met", "not met", "failed", "skipped") if s in states)
    return "\n".join([*lines, "", f"{counts}; {len(states)} lines."])


def _unit(case: Case) -> str:
    if case.ours.measure == "bytes":
        return "MB"
    units = {"patches": "/s", "volumes": "/s", "slices": "/s", "cold": "/s", "first-batch": " s", "call": " ms"}
    return units[case.ours.where["workload"]]


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.1f} MB" if unit == "MB" else f"{short(value)}{unit}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:160]
