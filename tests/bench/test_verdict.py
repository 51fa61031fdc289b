"""What limits and what to change, given made-up measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from radioloader.bench.model import (
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
from radioloader.bench.verdict import Findings, changes, limit, recommended, shares

SHAPE = (512, 512, 280)
CT = CollectionFacts(
    "CT", "image", 12, (SHAPE, SHAPE), ("int16",), ((32, 32, 32),), "zstd level 1, byte shuffle", True, 12, 1, 3
)
COST = Cost(storage=0.5, decode=4.5, transform=None, collate=0.2, other=0.3)


def rate(
    per_s: float, *, makers: int = 1, waited: float | None = None, transform: float = 0.0, cores: float = 2.0
) -> Rate:
    """10 s at so many samples a second; each maker reads for 9 s of them, less what a transform takes."""
    spent = Spent(makers * (9.0 - transform), makers * transform, collate=0.2, batches=round(per_s * 10 / 4))
    alone = Rate(per_s, 1000 * cores / per_s, cores, 0.1, round(per_s * 10), 10.0, spent)
    if waited is None:
        return alone
    return replace(alone, waited=waited, step_spent=spent, step_seconds=10.0, step_batches=spent.batches)


def patches(per_s: float, threads: int = 0, workers: int = 0, **more: Any) -> Figure:
    way = Way(PATCHES, "PatchDataset()", threads, workers)
    return Figure(way, rate(per_s, makers=max(1, way.parallel), **more), in_tiles=3.3)


def findings(*figures: Figure, **more: Any) -> Findings:
    given: dict[str, Any] = {
        "figures": figures,
        "cost": COST,
        "first_pass": rate(195),
        "first_cost": COST,
        "image": CT,
        "remote": False,
        "cores": 2,
        "batch_size": 4,
        "step_ms": None,
        "in_default_tiles": 3.3,
        "compiled": True,
    }
    return Findings(**given | more)


def test_the_fastest_settings_are_recommended() -> None:
    figures = [patches(200), patches(210, 1), patches(412, 2), patches(150, 0, 1), patches(290, 0, 2)]
    assert recommended(figures) == figures[2].way


def test_of_equally_fast_ones_the_cheapest() -> None:
    figures = [patches(200), patches(398, 1), patches(401, 2), patches(405, 0, 1)]
    assert recommended(figures) == figures[1].way  # a thread rather than a process, one rather than two
    figures = [patches(396), patches(398, 1), patches(401, 2)]
    assert recommended(figures) == figures[0].way
    assert recommended([Figure(Way(PATCHES, ""), missing="the time was up")]) is None


def test_with_a_model_what_keeps_up_is_enough() -> None:
    figures = [patches(200, waited=0.4), patches(300, 1, waited=0.04), patches(412, 2, waited=0.0)]
    assert recommended(figures) == figures[1].way


def test_where_nothing_keeps_up_what_waits_least() -> None:
    figures = [
        patches(200, waited=0.6),
        patches(300, 1, waited=0.4),
        patches(310, 2, waited=0.38),
        patches(250, 0, 2, waited=0.5),
    ]
    assert recommended(figures) == figures[1].way


def test_what_limits_is_what_is_waited_for() -> None:
    figures = patches(200), patches(412, 2)
    found = findings(*figures)
    parts = shares(found, figures[1].way)
    # Threads divide 9 s of reads by 9 to 1 into decoding and storage; what takes batches collates.
    assert parts["decode"] == pytest.approx(9 * parts["read"])
    assert parts["collate"] == pytest.approx(0.02)
    assert sum(parts.values()) == pytest.approx(1)
    alone = shares(found, figures[0].way)
    assert (alone["decode"], alone["read"]) == (pytest.approx(0.81), pytest.approx(0.09))
    assert limit(found, figures[0].way) == (
        "decode (81% of the time with num_workers=0, num_threads=0; 2.0 of 2 cores busy)"
    )
    stored = replace(COST, storage=4.5, decode=0.5)
    assert limit(findings(*figures, cost=stored), figures[0].way).startswith("storage (81% of the time")
    assert limit(findings(patches(200, transform=8)), figures[0].way).startswith("transform (80% of the time")


def test_a_model_that_does_not_wait_is_limited_by_nothing() -> None:
    figures = patches(200, waited=0.5), patches(412, 2, waited=0.02)
    found = findings(*figures, step_ms=20.0)
    assert limit(found, figures[1].way) == (
        "nothing: a model that takes 20 ms a batch waits 2% of the time with num_workers=0, num_threads=2"
    )
    assert changes(found, figures[1].way) == [
        "num_workers=0, num_threads=2 (the default here) is enough: 2% waiting; num_threads=0 waits 50%"
    ]
    assert limit(found, figures[0].way) == (
        "decode (44%): a model that takes 20 ms a batch waits 50% of the time with num_workers=0, num_threads=0; 2.0 of 2 cores busy"
    )


def test_the_best_settings_come_first_with_what_was_measured() -> None:
    figures = patches(200), patches(412, 2), patches(290, 0, 2)
    assert changes(findings(*figures), figures[1].way) == [
        "num_workers=0, num_threads=2 (the default here) measured best: 412 patches/s, 2.1 times num_threads=0"
    ]
    assert changes(findings(*figures, cores=1), figures[2].way)[0] == (
        "num_workers=2 measured best: 290 patches/s, 1.4 times num_threads=0"
    )
    assert changes(findings(*figures), figures[0].way)[0].endswith("neither threads nor workers were faster")
    assert limit(findings(), None) == "too little was measured to tell; give more --seconds"
    assert changes(findings(), None) == []


@pytest.mark.parametrize(
    ("per_s", "cores", "said"),
    [
        (
            1190,
            2.0,
            "gave 1190 patches/s with the same settings, 2.9 times, for 1.68 ms of processor time each instead of 4.85",
        ),
        (
            420,
            0.8,
            "gave no more patches/s with the same settings, but for 1.90 ms of processor time each instead of 4.85",
        ),
        (420, 1.9, None),
    ],
)
def test_groups_are_recommended_where_they_gained(per_s: float, cores: float, said: str | None) -> None:
    best = patches(412, 2)
    grouped = Figure(Way(REGIONS, "PatchDataset()", 2), rate(per_s, cores=cores))
    line = (
        f"positions=RegionPositions(patches=8, mix=4) {said}: it cuts 8 neighbouring patches from what is decoded once"
    )
    assert changes(findings(patches(200), best, grouped), best.way)[1:] == ([] if said is None else [line])


def test_groups_are_not_recommended_to_a_model_that_does_not_wait() -> None:
    best = patches(412, 2, waited=0.0)
    grouped = Figure(Way(REGIONS, "PatchDataset()", 2), rate(1190))
    assert len(changes(findings(best, grouped, step_ms=40.0), best.way)) == 1


def test_tiles_that_hold_too_much_are_named() -> None:
    best = patches(100)
    thick = replace(best, in_tiles=64.0)
    assert changes(findings(thick), best.way)[1] == (
        "the tiles under a patch hold 64.0 times its voxels; cubes of 32 would hold 3.3 times (computed): for patches, ingest into a new "
        "store with TileConfig(extent=32) (--tile 32)"
    )
    assert len(changes(findings(best), best.way)) == 1


def test_slices_and_their_blocks() -> None:
    alone = Figure(Way(slices("axial"), "SliceDataset(plane='axial')"), rate(20), in_tiles=32.0)
    blocks = Figure(Way(slices("axial", blocks=True), "SliceDataset(plane='axial', block=32, mix=4)"), rate(380))
    flat = Figure(Way(slices("sagittal"), "SliceDataset(plane='sagittal')"), rate(300), in_tiles=1.0)
    best = patches(200)
    assert changes(findings(best, alone, flat, blocks), best.way)[1] == (
        "the tiles under a random slice hold its voxels 32 times (axial): SliceDataset(plane='axial', block=32, mix=4) gave 380 "
        "slices/s, 19.0 times random order; for slices of one plane alone, ingest with its tiles, such as --tile axial"
    )
    assert changes(findings(best, alone, replace(blocks, rate=None, missing="the time was up")), best.way)[1] == (
        "the tiles under a random slice hold its voxels 32 times (axial); for slices of one plane alone, ingest with its tiles, such as "
        "--tile axial"
    )
    assert len(changes(findings(best, flat), best.way)) == 1


def test_storage_that_is_waited_for_wants_more_threads_than_cores() -> None:
    waits = Cost(storage=9.0, decode=1.0, transform=None, collate=0.1, other=0.1)
    figures = [patches(20, cores=0.1), patches(40, 2, cores=0.2), patches(150, 8, cores=0.6)]
    found = findings(*figures, cost=waits, remote=True, cores=2)
    best = recommended(figures)
    assert best == figures[2].way
    assert limit(found, best).startswith("storage (")
    lines = changes(found, best)
    assert lines[1] == "no more than 8 were tried, and waiting for storage needs no core: --max-parallel 32 tries more"
    assert lines[2].startswith("storage is waited for most: copy the store to a local disk")


def test_more_cores_than_were_tried() -> None:
    figures = [patches(200), patches(390, 2)]
    assert changes(findings(*figures, cores=8), figures[1].way)[1] == (
        "no more than 2 were tried, and there are 8 cores: --max-parallel 8 tries more"
    )


def test_a_costly_transform_with_all_cores_busy() -> None:
    figures = [patches(20, transform=8.5, cores=1.0), patches(38, 0, 2, transform=8.5, cores=1.9)]
    found = findings(*figures)
    assert "move a part to the device" in changes(found, figures[1].way)[1]
    idle = findings(figures[0], patches(38, 0, 2, transform=8.5, cores=0.8))
    assert len(changes(idle, figures[1].way)) == 1


def test_other_codecs_are_named_where_tiledb_reads_them() -> None:
    best = patches(200)
    packed = replace(CT, codec="lz4, byte shuffle", direct=False)
    assert changes(findings(best, image=packed), best.way)[1].startswith(
        "tiles of lz4, byte shuffle are read through TileDB's query"
    )
    assert len(changes(findings(best, image=packed, remote=True), best.way)) == 1


def test_a_slow_first_pass_is_one_of_storage() -> None:
    best = patches(400)
    cold = Cost(storage=40.0, decode=4.5, transform=None, collate=0.2, other=0.3)
    line = changes(findings(best, first_pass=rate(22), first_cost=cold), best.way)[1]
    assert line == (
        "data that had not been read before came at 22 patches/s, with storage 90% of a read: expect that where the data do not fit into "
        "memory; all other figures are of data in memory"
    )
    assert len(changes(findings(best, first_pass=rate(22), first_cost=COST), best.way)) == 1  # arrays were opened
    assert len(changes(findings(best, first_pass=rate(22), first_cost=cold, remote=True), best.way)) == 1


def test_a_transfer_as_long_as_the_rest() -> None:
    best = patches(400)
    slow = replace(COST, transfer=2.0)
    assert changes(findings(best, cost=slow), best.way)[1] == (
        "moving a patch to the GPU takes 2.00 ms of 2.50 ms: dtype=None keeps the stored dtype (int16); cast on the device"
    )
    assert len(changes(findings(best, cost=replace(COST, transfer=0.2)), best.way)) == 1


def test_a_compiled_reader_that_is_switched_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = patches(200), patches(300, 2)
    way = figures[1].way
    monkeypatch.setenv("RADIOLOADER_COMPILED", "0")
    (said,) = [line for line in changes(findings(*figures, compiled=False), way) if "in Python" in line]
    assert "RADIOLOADER_COMPILED=0 in the environment wants it so; unset it" in said
    assert "compiler" not in said


def test_a_missing_compiled_reader_is_said_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADIOLOADER_COMPILED", raising=False)
    figures = [patches(200), patches(210, 2)]
    way = figures[1].way
    said = [line for line in changes(findings(*figures, compiled=False), way) if "C compiler" in line]
    assert len(said) == 1
    assert said[0].startswith("tiles are read in Python")
    for without in (
        findings(*figures, compiled=True),
        findings(*figures, compiled=False, remote=True),  # TileDB reads those
        findings(patches(200, waited=0.4), patches(300, 2, waited=0.0), compiled=False, step_ms=50.0),  # which keep up
    ):
        assert not [line for line in changes(without, way) if "C compiler" in line]
