"""A report as text: a few tables, where the time goes, what limits, what to change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from radioloader.bench.model import PATCHES, REGIONS, BenchReport, CollectionFacts, Cost, Figure, Rate

__all__ = ["WIDTH", "print_report"]

WIDTH = 100
"""Columns that a report takes; a table that is cut to a narrower terminal would lose its figures."""

_NAMES = {PATCHES: "patches, UniformPositions", REGIONS: "patches, RegionPositions"}


def print_report(report: BenchReport, console: Console) -> None:
    """Print a report."""
    console.print(_head(report))
    for facts in report.collections:
        _text(console, _collection(facts), indent="  ")
    _text(console, _conditions(report))
    console.print()
    console.print(_alone(report))
    console.print()
    console.print(_parallel(report))
    console.print()
    _text(console, f"Where the time of a patch goes (num_threads=0): {_cost(report.cost)}")
    if report.cost.transfer is None:
        console.print("There is no GPU that torch can use: transfer is not measured.")
    for line in [*_missing(report.figures), *(f"note: {note}" for note in report.notes)]:
        _text(console, line)
    console.print()
    _text(console, f"What limits: {report.limit}")
    if report.changes:
        console.print("What to change:")
    for number, line in enumerate(report.changes, 1):
        _text(console, f"{number}. {line}", indent="  ", hanging="     ")


def _text(console: Console, text: str, *, indent: str = "", hanging: str | None = None) -> None:
    for line in textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  " if hanging is None else hanging,
        break_on_hyphens=False,
        break_long_words=False,
    ):
        console.print(line)


def _head(report: BenchReport) -> str:
    where = "object store" if report.remote else "local"
    return f"bench of {report.uri} ({where}, version {report.version}), {report.seconds:.0f} s"


def _collection(facts: CollectionFacts) -> str:
    low, high = ("x".join(map(str, shape)) for shape in facts.shapes)
    tiles = " or ".join("x".join(map(str, tile)) for tile in facts.tiles)
    parts = [
        f"{facts.name} ({facts.role}): {_several(facts.volumes, 'volume')} of {low if low == high else f'{low} to {high}'} "
        f"{'/'.join(facts.dtypes)}",
        f"tiles {tiles}",
        facts.codec,
    ]
    if facts.stored_bytes is not None:
        of = "" if facts.measured == facts.volumes else f" ({facts.measured} of them)"
        parts.append(f"{facts.stored_bytes / 1e6:.1f} MB stored for {facts.raw_bytes / 1e6:.1f} MB of voxels{of}")
    return "; ".join(parts)


def _conditions(report: BenchReport) -> str:
    options, machine = report.options, report.machine
    what = "images and labels" if options["label"] is not None else "images"
    patch = "x".join(map(str, options["patch_size"]))
    measured, available = report.subjects
    some = "" if measured == available else f" of {measured} of {available} subjects"
    transform = "" if options["transform"] is None else f", transform {options['transform']} (patches only)"
    code = "in C" if machine["compiled_reader"] else "in Python"
    local = f"; files are in the system's memory, but for the first pass, and tiles are decoded {code}"
    memory = "" if report.remote else local
    return (
        f"Patches of {patch}, {what}{some}, batches of {options['batch_size']} (volumes: 1){transform}; "
        f"{_several(machine['cores'], 'core')}{memory}."
    )


def _alone(report: BenchReport) -> Table:
    table = _table("In this process, num_threads=0", "", "samples/s", "CPU ms", "MB read", "in its tiles")
    table.add_row("patches, first pass", *_cells(report.first_pass), _megabytes(report.first_pass), "")
    for figure in report.figures:
        if figure.way.parallel:
            continue
        if figure.rate is None:
            table.add_row(_NAMES.get(figure.way.what, figure.way.what), "-", "-", "-", "")
            continue
        tiles = "" if figure.in_tiles is None else f"{figure.in_tiles:.1f} x"
        name = _NAMES.get(figure.way.what, figure.way.what)
        table.add_row(name, *_cells(figure.rate), _megabytes(figure.rate), tiles)
    return table


def _parallel(report: BenchReport) -> Table:
    step = report.options["step_ms"]
    waiting = [] if step is None else ["waiting"]
    model = "" if step is None else f"; waiting: of a model that takes {step:g} ms a batch"
    title = f"Patches by setting{model}"
    table = _table(title, "", "patches/s", "CPU ms", "cores busy", "first batch", *waiting, "")
    for figure in _settings(report.figures):
        name, rate = _setting(figure), figure.rate
        mark = "<- best" if figure.way == report.best else ""
        if rate is None:
            table.add_row(name, *["-"] * (4 + len(waiting)))
            continue
        waited = [] if step is None else ["" if rate.waited is None else f"{rate.waited:.0%}"]
        table.add_row(name, *_cells(rate), f"{rate.cores:.1f}", f"{rate.first_batch_s:.2f} s", *waited, mark)
    return table


def _missing(figures: Sequence[Figure]) -> Iterable[str]:
    """What was not measured, by reason."""
    reasons: dict[str, list[str]] = {}
    for figure in figures:
        if figure.rate is None:
            name = _setting(figure) if figure.way.parallel else _NAMES.get(figure.way.what, figure.way.what)
            reasons.setdefault(figure.missing, []).append(name)
    for reason, names in reasons.items():
        yield f"not measured: {'; '.join(names)}: {reason}"


def _setting(figure: Figure) -> str:
    name = figure.way.settings.replace("num_workers=0, ", "")
    return f"{name}, RegionPositions" if figure.way.what == REGIONS else name


def _settings(figures: Sequence[Figure]) -> Iterable[Figure]:
    yield from (figure for figure in figures if figure.way.what == PATCHES)
    yield from (figure for figure in figures if figure.way.what == REGIONS and figure.way.parallel)


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 or not heading else "right", no_wrap=True)
    return table


def _cells(rate: Rate) -> tuple[str, str]:
    return _number(rate.per_s), _number(rate.cpu_ms)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _megabytes(rate: Rate) -> str:
    return "" if rate.read_mb is None else f"{rate.read_mb:.2f}"


def _cost(cost: Cost) -> str:
    parts = {
        "storage": cost.storage,
        "decode": cost.decode,
        "transform": cost.transform,
        "collate": cost.collate,
        "other": cost.other,
    }
    listed = [
        f"{name} {value:.2f} ms ({value / max(cost.total, 1e-12):.0%})"
        for name, value in parts.items()
        if value is not None
    ]
    if cost.transfer is not None:
        listed.append(f"beside that, transfer to the GPU {cost.transfer:.2f} ms")
    return ", ".join(listed)


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
