"""A made-up report as text."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from radioloader.bench.model import PATCHES, REGIONS, BenchReport, CollectionFacts, Cost, Figure, Rate, Spent, Way
from radioloader.bench.report import WIDTH, print_report

NOTHING = Spent(0.0, 0.0, 0.0, 0)


def rate(per_s: float, cpu_ms: float, **more: Any) -> Rate:
    return Rate(per_s, cpu_ms, per_s * cpu_ms / 1000, 0.25, 100, 1.0, NOTHING, **more)


def report(**changes: Any) -> BenchReport:
    shape = (512, 512, 280)
    facts = CollectionFacts(
        "CT", "image", 12, (shape, shape), ("int16",), ((32, 32, 32),), "zstd level 1", True, 3, 655_274_291, 10**9
    )
    given: dict[str, Any] = {
        "uri": "s3://bucket/cohort",
        "version": 6,
        "remote": True,
        "options": {"label": None, "patch_size": [64, 64, 32], "batch_size": 4, "transform": None, "step_ms": None},
        "machine": {"cores": 2, "compiled_reader": True},
        "versions": {},
        "collections": (facts,),
        "subjects": (3, 12),
        "notes": ("the machine was busy",),
        "first_pass": rate(206.4, 2.934, read_mb=0.651),
        "first_cost": Cost(1, 1, None, 0, 0),
        "figures": (
            Figure(Way(PATCHES, ""), rate(384.2, 2.41, read_mb=0.65), in_tiles=3.26),
            Figure(Way(PATCHES, "", num_threads=2), rate(1234.0, 15.26)),
            Figure(Way(PATCHES, "", num_workers=4), missing="the time was up"),
            Figure(Way(REGIONS, "", num_threads=2), rate(5.333, 0.5)),
            Figure(Way("whole volumes", ""), missing="the time was up"),
        ),
        "cost": Cost(0.4, 1.9, None, 0.1, 0.1),
        "limit": "decode (76% of the time)",
        "changes": ("num_threads=2 measured best", "a line that is so long that it has to be broken " * 4),
        "best": Way(PATCHES, "", num_threads=2),
        "seconds": 29.6,
    }
    return BenchReport(**given | changes)


def text(made: BenchReport) -> str:
    file = io.StringIO()
    print_report(made, Console(file=file, width=WIDTH, markup=False, highlight=False))
    return file.getvalue()


def cells(shown: str, name: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.strip().startswith(name)]
    return line.strip().removeprefix(name).split()


def test_the_text() -> None:
    shown = text(report())
    lines = shown.splitlines()
    assert lines[0] == "bench of s3://bucket/cohort (object store, version 6), 30 s"
    assert "CT (image): 12 volumes of 512x512x280 int16; tiles 32x32x32; zstd level 1; 655.3 MB" in lines[1]
    assert "(3 of them)" in shown
    assert "Patches of 64x64x32, images of 3 of 12 subjects, batches of 4 (volumes: 1); 2 cores." in shown
    assert cells(shown, "patches, first pass") == ["206", "2.93", "0.65"]
    assert cells(shown, "patches, UniformPositions") == ["384", "2.41", "0.65", "3.3", "x"]
    assert cells(shown, "num_threads=0") == ["384", "2.41", "0.9", "0.25", "s"]
    assert cells(shown, "num_threads=2 ") == ["1234", "15.3", "18.8", "0.25", "s", "<-", "best"]
    assert cells(shown, "num_threads=2, RegionPositions") == ["5.33", "0.50", "0.0", "0.25", "s"]
    assert cells(shown, "num_workers=4 ") == ["-"] * 4
    assert cells(shown, "whole volumes") == ["-"] * 3
    assert "not measured: num_workers=4; whole volumes: the time was up" in lines
    assert "storage 0.40 ms (16%), decode 1.90 ms (76%), collate 0.10 ms (4%)" in shown.replace("\n  ", " ")
    assert "There is no GPU that torch can use: transfer is not measured." in lines
    assert "note: the machine was busy" in lines
    assert "What limits: decode (76% of the time)" in lines
    assert "  1. num_threads=2 measured best" in lines
    assert max(map(len, lines)) <= WIDTH


def test_a_model_and_a_gpu() -> None:
    options = {**report().options, "step_ms": 20.0, "transform": "augment", "label": "seg"}
    figures = (Figure(Way(PATCHES, ""), rate(384.2, 2.41, waited=0.304), in_tiles=3.26),)
    cost = replace(report().cost, transform=1.5, transfer=0.12)
    shown = text(report(options=options, figures=figures, cost=cost, best=None, changes=(), remote=False))
    assert cells(shown, "num_threads=0") == ["384", "2.41", "0.9", "0.25", "s", "30%"]
    assert "waiting: of a model that takes 20 ms a batch" in shown
    assert "transform 1.50 ms" in shown
    assert "beside that, transfer to the GPU 0.12 ms" in shown.replace("\n  ", " ")
    assert "no GPU" not in shown
    assert "What to change" not in shown
    assert "images and labels of 3 of 12 subjects, batches of 4 (volumes: 1), transform augment" in shown.replace(
        "\n  ", " "
    )
    assert "files are in the system's memory" in shown.replace("\n  ", " ")


def test_nothing_is_cut_off() -> None:
    options = {**report().options, "step_ms": 1234.5}
    long = Way(REGIONS, "", num_threads=16)
    shown = text(report(options=options, figures=(Figure(long, rate(123456.0, 1234.0, waited=1.0)),), best=long))
    assert "…" not in shown
    assert cells(shown, "num_threads=16, RegionPositions")[:2] == ["123456", "1234"]
    assert shown.count("<- best") == 1
