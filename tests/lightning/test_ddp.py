"""The data modules under Lightning's ddp: two real processes, started once, run every scenario of ``ddp_script.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl

pytest.importorskip("lightning.pytorch")

IDS = [f"sub-{number:02d}" for number in range(1, 11)]
Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(ten: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank saw, by scenario."""
    folder = tmp_path_factory.mktemp("ddp")
    root = Path(rl.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("ddp_script.py"), ten, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"the ranks hang:\n{output[-3000:]}")
    assert process.returncode == 0, output[-5000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def seen(ranks: Results, scenario: str, stage: str) -> list[list[tuple[int, str, str]]]:
    return [[tuple(entry) for entry in rank[scenario]["seen"][stage]] for rank in ranks]  # type: ignore[misc]


def subjects(entries: list[tuple[int, str, str]]) -> list[str]:
    return [subject for _, subject, _ in entries]


@pytest.fixture(scope="module")
def means(ten: str) -> dict[str, float]:
    return {volume.obs_subject_id: float(volume.to_numpy().mean()) for volume in rl.open(ten).T1w}


WHOLE = ["whole", "whole, sampler not Lightning's"]


@pytest.mark.parametrize("scenario", WHOLE)
def test_each_rank_trains_on_its_part_of_the_epoch(ranks: Results, ten: str, scenario: str) -> None:
    dataset = rl.PatchDataset(ten, image="T1w", patch_size=6, patches_per_volume=4, subjects=IDS[:5], seed=5)
    trained = seen(ranks, scenario, "train")
    for epoch in range(2):
        union: list[tuple[str, str]] = []
        for rank in range(2):
            sampler = rl.KeySampler(dataset, rank=rank, world_size=2)
            sampler.set_epoch(epoch)
            samples = [dataset[key] for key in sampler]
            expected = [(epoch, s["obs_subject_id"], str(s["location"].tolist())) for s in samples]
            assert [entry for entry in trained[rank] if entry[0] == epoch] == expected
            union += [entry[1:] for entry in expected]
        assert Counter(s for s, _ in union) == dict.fromkeys(IDS[:5], 4)


@pytest.mark.parametrize("scenario", WHOLE)
def test_each_case_is_validated_once(ranks: Results, scenario: str) -> None:
    for epoch in range(2):
        parts = [[s for e, s, _ in part if e == epoch] for part in seen(ranks, scenario, "val")]
        if epoch == 0:  # the sanity check comes first, and is the same
            parts = [part[len(part) // 2 :] for part in parts]
        assert sorted(parts[0] + parts[1]) == IDS[5:8]
        assert [len(part) for part in parts] == [2, 1]


@pytest.mark.parametrize("scenario", [*WHOLE, "norm"])
def test_logged_figures_are_means_over_cases(ranks: Results, means: dict[str, float], scenario: str) -> None:
    # Of 3 cases on 2 ranks Lightning alone makes 3/2 of the mean: it divides by a whole number.
    expected = [means[subject] for subject in IDS[5:8]]
    for rank in ranks:
        assert rank[scenario]["figures"]["val_mean"] == pytest.approx(np.mean(expected), rel=1e-4)
        assert rank[scenario]["figures"]["val_max"] == pytest.approx(max(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("scenario", "stopped"),
    [
        ("resumed in the first epoch", 3),
        ("resumed in the second epoch, with a worker", 9),
        ("resumed at the last step", 6),
        ("resumed at the end of an epoch, with a worker", 6),
    ],
)
def test_a_resumed_run_consumes_what_an_uninterrupted_one_does(ranks: Results, scenario: str, stopped: int) -> None:
    assert seen(ranks, scenario, "train") == seen(ranks, "whole", "train")
    assert [rank[scenario]["stopped at"] for rank in ranks] == [2 * stopped] * 2  # it had gone on after the checkpoint


@pytest.mark.parametrize(("scenario", "cases"), [("norm", IDS[5:8]), ("norm, one case", IDS[5:6])])
def test_uneven_validation_with_batchnorm(
    ranks: Results, means: dict[str, float], scenario: str, cases: list[str]
) -> None:
    validated = seen(ranks, scenario, "val")
    assert set(subjects(validated[0] + validated[1])) == set(cases)
    assert len(ranks[0][scenario]["means"]["val"] + ranks[1][scenario]["means"]["val"]) == 2 * len(cases)
    first, second = (rank[scenario] for rank in ranks)
    assert first["figures"]["val_mean"] == pytest.approx(np.mean([means[case] for case in cases]), rel=1e-4)
    own = {"data_wait/step"}  # of the rank's own steps
    assert {k: v for k, v in first["figures"].items() if k not in own} == {
        k: v for k, v in second["figures"].items() if k not in own
    }
    assert first["weights"] == second["weights"]
    assert first["best"] == second["best"] != ""
    assert [len(part) for part in seen(ranks, scenario, "train")] == [20, 20]
    # Every case of an epoch is validated with the statistics of rank 0.
    count = len(first["statistics"]) // 2
    for epoch in range(2):
        used = {tuple(values) for values in first["statistics"][epoch * count : (epoch + 1) * count]}
        assert len(used) == 1
        theirs = len(second["statistics"]) // 2
        assert {tuple(v) for v in second["statistics"][epoch * theirs : (epoch + 1) * theirs]} in (used, set())


def test_the_monitor_tells_of_the_rank_that_waits(ranks: Results) -> None:
    for rank in ranks:
        assert "mostly transform" in rank["norm, one case"]["line"]
        assert rank["norm, one case"]["figures"]["data_wait/transform"] > 0.3


def test_overfitting_repeats_the_same_batches(ranks: Results) -> None:
    for part in seen(ranks, "overfit", "train"):
        by_epoch = [[entry[1:] for entry in part if entry[0] == epoch] for epoch in range(3)]
        assert len(by_epoch[0]) == 4
        assert by_epoch[0] == by_epoch[1] == by_epoch[2]
    trained = seen(ranks, "overfit", "train")
    assert not set(trained[0]) & set(trained[1])
    assert sorted({s for part in seen(ranks, "overfit", "val") for _, s, _ in part}) == IDS[5:8]


@pytest.mark.parametrize(
    ("scenario", "cases"),
    [("evaluated", IDS[5:]), ("evaluated, one case", IDS[8:9]), ("evaluated, sampler not Lightning's", IDS[5:])],
)
def test_testing_and_predicting_visit_each_case_once(
    ranks: Results, means: dict[str, float], scenario: str, cases: list[str]
) -> None:
    for stage in ("test", "predict"):
        parts = seen(ranks, scenario, stage)
        assert sorted(subjects(parts[0]) + subjects(parts[1])) == cases
    predicted = [[subject for batch in rank[scenario]["predictions"] for subject in batch] for rank in ranks]
    assert predicted == [subjects(part) for part in seen(ranks, scenario, "predict")]
    for rank in ranks:
        expected = np.mean([means[case] for case in cases])
        assert rank[scenario]["figures"]["test_mean"] == pytest.approx(expected, rel=1e-4)
