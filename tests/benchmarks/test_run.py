"""A quick run from end to end, on a cohort that fits into a thimble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import matrix, suite
from benchmarks.__main__ import main
from benchmarks.matrix import Block
from benchmarks.model import Job
from benchmarks.suite import Settings, run

PEERS = ("radioloader-uniform", "npy-memmap")


def settings(tmp_path: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "full": False,
        "root": tmp_path / "root",
        "out": tmp_path / "out",
        "subjects": 2,
        "shape": (72, 68, 66),
        "source": None,
        "repetitions": 2,
        "seconds": 0.05,
        "peers": PEERS,
        "cold": False,
        "modes": ((0, 0),),
    }
    return Settings(**{**values, **changes})


def test_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(tmp_path, workloads=("patches", "cold", "call"))
    said: list[str] = []
    facts, records = run(chosen, said.append)
    assert facts["matrix"] == "quick"
    assert {"cpu", "cores", "memory_gib"} <= facts["machine"].keys()
    assert facts["commit"]
    assert facts["minutes"] >= 0

    def of(peer: str, workload: str, **fields: Any) -> list[Any]:
        wanted = {"peer": peer, "workload": workload, **fields}
        return [r for r in records if all(r[name] == value for name, value in wanted.items())]

    prepared = of("radioloader-uniform", "prepare") + of("npy-memmap", "prepare")
    assert all(record["bytes"] > 0 and record["value"] > 0 for record in prepared)
    assert len(prepared) == 2
    for dtype, delivered in (("float32", "float32"), ("stored", "int16")):
        found = of("radioloader-uniform", "patches", size=64, dtype=dtype, workers=0)
        assert [record["repetition"] for record in found] == [0, 1]
        for record in found:
            assert record["value"] > 0
            assert (record["image_dtype"], record["label_dtype"]) == (delivered, "uint8")
            assert record["volumes_per_batch"] >= 1
            assert "radioloader" in record["versions"]
    too_large = of("radioloader-uniform", "patches", size=128)
    assert len(too_large) == 2  # one for each dtype: what failed is not repeated
    assert all("ShapeError" in record["error"] for record in too_large)
    assert of("npy-memmap", "cold")[0]["skipped"] == "cold-cache lines were turned off"
    [call, *_] = of("radioloader-uniform", "call", detail="roi-aligned")
    assert call["calls"] >= 5

    assert main(["report", str(chosen.out)]) == 0
    table = capsys.readouterr().out
    assert "| 13 | bytes on disk | the same .nii.gz |" in table
    assert "cold-cache lines were turned off" in table
    for name in ("patches", "storage", "preparation", "memory", "calls"):
        content = json.loads((chosen.out / f"{name}.json").read_text())
        assert content["run"]["machine"] == facts["machine"]
        assert (chosen.out / f"{name}.md").read_text().startswith("# ")
        assert (chosen.out / f"{name}.png").stat().st_size > 1000
    assert "failed: ShapeError" in (chosen.out / "patches.md").read_text()
    assert json.loads((chosen.out / "verdict.json").read_text())["verdicts"]

    started = settings(tmp_path, workloads=("first-batch",), modes=((2, 0),), repetitions=1, out=tmp_path / "again")
    _, again = run(started, said.append)
    assert [r.get("reused") for r in again if r["workload"] == "prepare"] == [
        None,
        None,
        True,
        True,
    ]  # the files; two peers
    assert main(["report", str(started.out)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 12 |"))
    assert line.split("|")[8].strip() in ("met", "not met")
    assert "2 workers / 2 workers, int16" in line


def test_what_fails_or_is_slow_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow, broken = (Job(name, "patches", size=64) for name in ("fast", "slow", "broken"))
    once = Job("once", "study", detail="x")
    measured: list[tuple[str, int]] = []

    class Stub:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, jobs: list[Job], repetition: int, hang_s: float | None) -> list[Any]:
            assert (hang_s is not None) == (jobs[0].workload == "study")
            measured.extend((job.peer, repetition) for job in jobs)
            values: dict[str, Any] = {"fast": {"value": 99.0}, "slow": {"value": 9.9}, "once": {"value": 1.0}}
            return [
                suite.outcome(job, repetition, unit="patches/s", **values.get(job.peer, {"error": "no"}))
                for job in jobs
            ]

    monkeypatch.setattr(suite, "Launcher", Stub)
    monkeypatch.setattr(suite, "_prepare", lambda *_: {})
    blocks = [Block((fast, slow)), Block((broken,)), Block((once,), once=True)]
    monkeypatch.setattr(Settings, "blocks", property(lambda self: blocks))
    run(settings(tmp_path, repetitions=3), lambda line: None)
    assert measured == [("fast", 0), ("slow", 0), ("broken", 0), ("once", 0), ("fast", 1), ("fast", 2)]

    measured.clear()
    said: list[str] = []
    run(settings(tmp_path, repetitions=3, budget_min=0.0), said.append)
    assert {repetition for _, repetition in measured} == {0}
    assert any("no time for repetition 2 of 3" in line for line in said)


def test_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(suite, "_prepare", lambda *_: {"npy-memmap": "OSError: disk full"})
    chosen = settings(tmp_path, workloads=("cold",), cold=True)
    _, records = run(chosen, lambda line: None)
    ours, theirs = (r for r in records if r["workload"] == "cold")
    assert "needs root" in ours["skipped"]
    assert theirs["error"] == "its preparation failed: OSError: disk full"


@pytest.mark.parametrize("make", [matrix.quick, matrix.full])
def test_a_block_is_one_contestant_in_one_mode(make: Any) -> None:
    blocks = make(2)
    for block in blocks:
        assert len({(job.peer, job.workers, job.threads) for job in block.jobs}) == 1
    jobs = [job for block in blocks for job in block.jobs]
    assert len(set(jobs)) == len(jobs)
    for peer in matrix.preparations(blocks):
        assert peer.peer in {"radioloader-axial", *(job.peer for job in jobs)}


def test_a_folder_without_results_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == 2
    assert f"{tmp_path} holds no records.jsonl" in capsys.readouterr().err
