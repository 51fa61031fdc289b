"""What the progress bars say where stderr is no terminal, and where it is one."""

from __future__ import annotations

import io
import sys

import pytest

from radioloader import _progress
from radioloader._progress import Bar
from radioloader.inference.progress import PredictBar
from radioloader.ingestion.progress import ProgressBar
from radioloader.ingestion.report import IngestItem


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed."""
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_lines(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("report", 4, "volumes") as bar:
        bar.update(1)
        clock[0] += 12
        bar.update(2)
        bar.update(4)
    assert capsys.readouterr().err == "report 2/4 volumes, 12 s left\nreport 4/4 volumes\n"


def test_lines_of_a_prediction(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with PredictBar(10, 2, shown=True) as bar:
        clock[0] += 10
        bar.finish(5, 1)
        clock[0] += 10
        bar.finish(10, 2)
        bar.failed("b", "[bold]x")
    assert capsys.readouterr().err == (
        "predict 5/10 windows, 1/2 subjects, 0.5 windows/s, 10 s left\n"
        "predict 10/10 windows, 2/2 subjects, 0.5 windows/s, 0 s left\n"
        "failed 'b': [bold]x\n"
        "predict 10/10 windows, 2/2 subjects, 0.5 windows/s, 0 s left\n"
    )


def test_lines_of_an_ingest(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(2)
    bar.start()
    clock[0] += 10
    bar.advance(IngestItem("a", "failed", "no file", {}, (), 0))
    bar.advance(IngestItem("b", "written", "", {}, (), 20_000_000))
    bar.stop()
    assert capsys.readouterr().err == (
        "failed 'a': no file\n"
        "ingest 1/2 subjects, 1 failed, 0.1 subjects/s, 0 MB/s, 10 s left\n"
        "ingest 2/2 subjects, 1 failed, 0.2 subjects/s, 2 MB/s, 0 s left\n"
    )


def test_none_is_shown_or_left_by_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with PredictBar(1, 1, shown=False) as bar:
        bar.finish(1, 1)
        bar.failed("a", "x")
    with pytest.raises(KeyError), Bar("report", 1, "volumes"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with Bar("report", 2, "volumes") as bar:
        bar.update(2)
    ingest = ProgressBar(1)
    ingest.start()
    ingest.advance(IngestItem("a", "written", "", {}, (), 0))
    ingest.stop()
    told = terminal.getvalue()
    for part in ("report", "2/2", "volumes, left", "ingest", "1/1", "elapsed"):
        assert part in told
