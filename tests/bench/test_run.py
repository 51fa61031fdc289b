"""The whole bench on tiny volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.bench import run_bench
from radioloader.bench.feeds import Feeds
from radioloader.bench.run import _better, _doubts, ladder
from radioloader.bench.verdict import recommended
from radioloader.config import available_cores
from radioloader.errors import ConfigError, ReadError, StoreNotFoundError

EVERYTHING = [
    "patches",
    "patches in groups",
    "axial slices",
    "whole volumes",
    "coronal slices",
    "sagittal slices",
    "axial slices in blocks",
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.bench.run._GRACE_S", 100.0)  # a busy machine leaves nothing out


def quick(uri: str, **arguments: Any) -> Any:
    return run_bench(uri, **{"patch_size": 8, "seconds": 0.5, "max_parallel": 1, "seed": 0} | arguments)


@pytest.fixture(scope="module")
def measured(store_uri: str) -> tuple[Any, list[str]]:
    """A report of the shared store, and the steps that were told on the way."""
    steps: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radioloader.bench.run._GRACE_S", 100.0)
        return quick(store_uri, on_step=steps.append), steps


def double(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": 2 * sample["image"]}


def test_everything_is_measured(measured: tuple[Any, list[str]]) -> None:
    report, steps = measured
    alone = [figure.way.what for figure in report.figures if not figure.way.parallel]
    assert alone == EVERYTHING
    settings = [(f.way.num_threads, f.way.num_workers) for f in report.figures if f.way.what == "patches"]
    assert settings == [(0, 0), (1, 0), (0, 1)]
    assert [figure.missing for figure in report.figures] == [""] * len(report.figures)
    assert all(figure.rate.per_s > 0 and figure.rate.cpu_ms >= 0 for figure in report.figures)
    assert report.best == recommended(report.figures)
    assert report.figure("patches").in_tiles > 1
    assert report.first_pass.samples > 0
    assert report.cost.transfer is None or torch.cuda.is_available()
    assert report.subjects == (4, 4)
    assert report.options["image"] == ["T1w"]
    assert report.options["label"] == "seg"
    assert report.limit
    assert report.changes[0].startswith(report.best.settings)
    assert steps[:3] == ["opening the store", "patches, first pass", "patches, num_workers=0, num_threads=0"]


def test_all_figures_turn_into_json(measured: tuple[Any, list[str]]) -> None:
    report, _ = measured
    data = json.loads(json.dumps(report.to_dict()))
    assert data["collections"][0]["tiles"] == [[8, 8, 8]]
    assert data["figures"][0]["rate"]["per_s"] == report.figures[0].rate.per_s
    assert data["machine"]["cores"] == available_cores()
    assert data["versions"]["radioloader"] == rl.__version__
    assert data["versions"]["torch"] == torch.__version__
    assert data["options"]["patch_size"] == [8, 8, 8]
    assert "cpu" in data["machine"]


def test_one_small_volume_and_a_transform(make_store: Callable[..., str]) -> None:
    uri = make_store({"A": {"a": np.arange(4 * 5 * 2, dtype=np.int16).reshape(4, 5, 2)}})
    report = quick(uri, patch_size=(8, 4, 8), transform=double, batch_size=3)
    assert "1 of 1 volumes are smaller than a patch, and are padded (pad=True)" in report.notes
    assert report.options["transform"] == "double"
    assert report.options["label"] is None
    assert report.cost.transform is not None
    assert all(figure.rate is not None for figure in report.figures), report.figures
    assert [f.way.what for f in report.figures if not f.way.parallel] == EVERYTHING


def test_a_model_s_step_is_waited_for(store_uri: str) -> None:
    report = quick(store_uri, step_ms=1.0)
    points = [figure for figure in report.figures if figure.way.what == "patches"]
    assert all(0 <= point.rate.waited <= 1 for point in points)
    assert all(f.rate.waited is None for f in report.figures if f.way.what != "patches")
    assert "waits" in report.limit


def test_what_there_is_no_time_for_is_named(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.bench.run._HARD_S", 0.0)
    report = quick(store_uri, max_parallel=2)
    assert report.figures[0].rate is not None
    assert {figure.missing for figure in report.figures[1:]} == {"the time was up"}
    assert report.best == report.figures[0].way


def test_what_there_is_no_memory_for_is_named(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radioloader.bench.run.available_bytes", lambda: 90_000)
    volumes = quick(store_uri).figure("whole volumes")
    assert volumes.rate is None
    assert volumes.missing == "batches would take 0.0 GB, more than half of the memory that is free"


def test_a_volume_that_takes_too_long_is_not_begun(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Feeds.volumes

    def huge(self: Feeds) -> Any:
        feed = whole(self)
        return replace(feed, decoded=1e12)

    monkeypatch.setattr(Feeds, "volumes", huge)
    assert "for which there was no time" in quick(store_uri).figure("whole volumes").missing


def test_what_fails_does_not_cost_the_rest(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Feeds) -> Any:
        raise RuntimeError("no shared memory\nmore of it")

    monkeypatch.setattr(Feeds, "volumes", broken)
    report = quick(store_uri)
    assert report.figure("whole volumes").missing == "RuntimeError: no shared memory"
    assert report.figure("sagittal slices").rate is not None


def test_but_what_cannot_be_read_at_all_is_an_error(make_store: Callable[..., str]) -> None:
    uri = make_store({"A": {"a": np.arange(1000, dtype=np.int16).reshape(10, 10, 10)}})
    for data in Path(uri).glob("c/*/volumes/*/__fragments/*/a0.tdb"):
        data.write_bytes(b"")
    with pytest.raises(ReadError, match="subject 'a', collection 'A'"):
        quick(uri)


def test_wrong_arguments(store_uri: str, tmp_path: Any) -> None:
    with pytest.raises(StoreNotFoundError):
        quick(str(tmp_path / "nothing"))
    for arguments, words in [
        ({"seconds": 46}, "seconds=46 must be more than 0 and at most 45"),
        ({"seconds": 0}, "seconds=0 must be"),
        ({"patch_size": (8, 8)}, "patch_size="),
        ({"batch_size": 0}, "batch_size=0"),
        ({"step_ms": 0}, "step_ms=0 must be more than 0"),
        ({"max_parallel": 0}, "max_parallel=0"),
        ({"transform": 3}, "transform must be callable, got int"),
    ]:
        with pytest.raises(ConfigError, match=words):
            quick(store_uri, **arguments)


@pytest.mark.parametrize(
    ("most", "steps"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (12, [1, 2, 4, 8, 12]),
        (64, [1, 4, 8, 32, 64]),
    ],
)
def test_numbers_that_are_tried(most: int, steps: list[int]) -> None:
    assert ladder(most) == steps


def test_doubts(measured: tuple[Any, list[str]]) -> None:
    quiet = {"load": 0.2, "cores": 2}
    assert _doubts([], quiet) == []
    assert _doubts([], {"load": None, "cores": 2}) == []
    assert _doubts([], {"load": 1.6, "cores": 2}) == [
        "the machine was busy when this began (load 1.6 on 2 cores): run it again when nothing else runs"
    ]
    figure = measured[0].figures[0]
    uneven = replace(figure, rate=replace(figure.rate, lowest=100.0, highest=180.0))
    assert _doubts([uneven], quiet) == ["rates scattered by up to 1.8 times within one measurement"]


def test_the_better_of_two_measurements_counts(measured: tuple[Any, list[str]]) -> None:
    figure = measured[0].figures[0]
    slow, fast = (replace(figure, rate=replace(figure.rate, per_s=value)) for value in (100.0, 120.0))
    missing = replace(figure, rate=None, missing="the time was up")
    assert _better(slow, fast) == _better(fast, slow) == fast
    assert _better(slow, missing) == _better(missing, slow) == slow
    waits, less = (replace(figure, rate=replace(figure.rate, waited=value)) for value in (0.3, 0.1))
    assert _better(waits, less) == _better(less, waits) == less
