"""The arithmetic of the verdict table, from literal records."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Job, Record, outcome
from benchmarks.verdict import CASES, Case, Side, Verdict, judge, verdict_table

RATE = Side(("ours",), {"workload": "patches", "size": 64})
THEIRS = Side(("them", "them-too"), {"workload": "patches", "size": 64})


def rates(peer: str, values: list[float], dtype: str | None = None, workers: int = 0, **more: Any) -> list[Record]:
    job = Job(peer, "patches", size=64, workers=workers, dtype="float32" if dtype == "float32" else "stored")
    delivered = {} if dtype is None else {"image_dtype": dtype}
    return [outcome(job, n, value=value, unit="patches/s", **delivered, **more) for n, value in enumerate(values)]


def one(records: list[Record], **changes: Any) -> Verdict:
    case = Case(1, "W1", "them", RATE, THEIRS, **{"required": 2.0, **changes})
    [verdict] = judge(records, [case])
    return verdict


def test_ratio_of_medians() -> None:
    verdict = one(rates("ours", [90, 210, 120]) + rates("them", [30, 70, 50]))
    assert (verdict.ours, verdict.theirs, verdict.ratio) == (120, 50, 2.4)
    assert verdict.spread == (2.4, 3.0)  # repetition by repetition: 90/30, 210/70, 120/50
    assert verdict.state == "met"
    assert one(rates("ours", [99.0]) + rates("them", [50.0])).state == "not met"
    assert one(rates("ours", [100.0]) + rates("them", [50.0])).state == "met"


def test_the_best_configuration_speaks() -> None:
    records = rates("ours", [100, 100], workers=2) + rates("ours", [130, 110])
    records += rates("them", [60, 10]) + rates("them", [40, 40], workers=2) + rates("them-too", [39])
    verdict = one(records)
    assert (verdict.ours, verdict.theirs) == (120, 40)
    assert "no workers / 2 workers" in verdict.note


def test_another_way_of_ours_is_told_and_does_not_decide() -> None:
    also = "in regions", Side(("ours-too",), {"workload": "patches", "size": 64})
    records = rates("ours", [150]) + rates("them", [100])
    verdict = one(records + rates("ours-too", [450]), also=also)
    assert (verdict.ours, verdict.ratio, verdict.state) == (150, 1.5, "not met")
    assert verdict.note == "no workers / no workers, in regions: 4.50"
    assert one(records, also=also).note == "no workers / no workers"


def test_like_for_like() -> None:
    records = rates("ours", [400], "int16") + rates("ours", [150], "float32")
    assert one(records + rates("them", [100], "float32")).ratio == 1.5
    assert one(records + rates("them", [100], "int16")).ratio == 4.0
    other = one(records + rates("them", [100], "float64"))
    assert (other.state, other.ratio) == ("skipped", None)
    assert "radioloader: was not measured" in other.note


def test_times_and_bytes() -> None:
    records = [outcome(Job("ours", "call", detail="x"), value=2.0), outcome(Job("them", "call", detail="x"), value=9.0)]
    sides = {name: Side((name,), {"workload": "call", "detail": "x"}) for name in ("ours", "them")}
    speed = Case(1, "call", "them", sides["ours"], sides["them"], 4.0, lower=True)
    most = Case(1, "call", "them", sides["ours"], sides["them"], 0.2, lower=True, at_most=True)
    fast, little = judge(records, [speed, most])
    assert (fast.ratio, fast.state) == (4.5, "met")
    assert (round(little.ratio or 0, 4), little.state) == (0.2222, "not met")


def test_failures_and_what_was_skipped() -> None:
    ours = rates("ours", [100])
    broken = [outcome(Job("them", "patches", size=64), error="ImportError: no module named 'them'")]
    verdict = one(ours + broken)
    assert (verdict.state, verdict.ours, verdict.ratio) == ("failed", 100, None)
    assert verdict.note == "them: ImportError: no module named 'them'"
    assert one(ours + broken + rates("them-too", [10])).state == "met"  # one of the peer's ways worked
    skipped = [outcome(Job("them", "patches", size=64), skipped="needs root")]
    assert (one(ours + skipped).state, one(ours + skipped).note) == ("skipped", "them: needs root")
    assert one(ours).note == "them: was not measured in this run"
    mine = [outcome(Job("ours", "patches", size=64), error="OSError: gone")]
    assert one(mine + rates("them", [1])).note == "radioloader: OSError: gone"


def test_regions_of_one_volume_do_not_count() -> None:
    records = rates("them", [10])
    alone = one(records + rates("ours", [100], volumes_per_batch=1), spans=2)
    assert (alone.state, alone.ratio) == ("not met", 10)
    assert "come from 1 volume" in alone.note
    assert one(records + rates("ours", [100], volumes_per_batch=2), spans=2).state == "met"


def test_every_row_of_the_table_is_there() -> None:
    assert sorted({case.row for case in CASES}) == list(range(1, 15))
    wanted = {(c.row, c.required) for c in CASES}
    assert wanted == {
        *((1, 2.0), (2, 4.0), (3, 1.5), (4, 3.0), (5, 1.0), (6, 3.0), (7, 20.0), (8, 15.0)),
        *((9, 2.0), (9, 5.0), (10, 2.0), (10, 3.0), (11, 3.0), (12, 1.3), (13, 1.0), (14, 4.0)),
    }
    assert [c.row for c in CASES if c.spans == 2] == [2, 4, 5, 5]


def test_the_table() -> None:
    table = verdict_table(judge([outcome(Job("files", "prepare"), bytes=2_000_000)]))
    lines = table.splitlines()
    assert len(lines) == 2 + len(CASES) + 2
    assert "| 13 | bytes on disk | the same .nii.gz | - | 2.0 MB | - | at most 1 | skipped |" in table
    assert lines[-1] == f"{len(CASES)} skipped; {len(CASES)} lines."
