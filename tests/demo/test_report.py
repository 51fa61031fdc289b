"""Pictures and report from made-up numbers; progress on terminals and in log files."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("matplotlib")

from radioloader.demo.metrics import compare_with_last_run, dice_facts, speed_facts
from radioloader.demo.pictures import draw_cohort, draw_prediction, draw_speeds, draw_training
from radioloader.demo.predict import Prediction
from radioloader.demo.progress import Steps, print_dice, print_speeds
from radioloader.demo.report import write_report
from radioloader.demo.speed import Speed

SPEEDS = [
    Speed("radioloader", "PatchDataset", 400.0, (390.0, 400.0, 410.0), 5.0),
    Speed("MONAI <1 patch>", "Dataset & LoadImaged", 10.0, (9.0, 10.0, 11.0), 100.0),
    Speed("TorchIO", "Queue", 0.5, (0.4, 0.5, 0.6), 50.0),
]


def _prediction(subject: str) -> Prediction:
    truth = np.zeros((30, 34, 28), np.uint8)
    truth[8:22, 8:26, 8:20] = 1
    truth[12:18, 12:22, 10:16] = 2
    return Prediction(
        subject=subject,
        path=Path("unused"),
        dice={"grey matter": 0.9, "white matter": 0.95},
        sha256="0" * 64,
        image=truth.astype(np.float32) * 100,
        truth=truth,
        labels=np.roll(truth, 1, axis=0),
        spacing=(1.0, 1.2, 0.9),
    )


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "seed": 0,
        "patch_size": 64,
        "max_steps": 300,
        "data": {
            "statement": "made of one real brain",
            "n_subjects": 2,
            "volumes": 4,
            "volumes_equal": 4,
            "nii_gz_bytes": 2_000_000,
            "store_bytes": 1_500_000,
        },
        "training": {"statement": "MONAI's UNet"},
        "dice": dice_facts([_prediction("sub-01"), _prediction("sub-02")]),
        "speed": speed_facts(SPEEDS, patch_size=64),
        "seconds": {"cohort": 1.0, "train": 2.0},
        "total_s": 3.0,
        "machine": "2 CPU cores",
        "versions": {"radioloader": "0", "torch": "2"},
        "reproduced": "first run",
        "prediction_sha256": {"sub-01": "0" * 64},
    }


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        if tag == "img":
            self.images.append(values["src"])
        self.links += [values[k] for k in ("href", "src") if k in values]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_one_page_that_needs_no_other_file(tmp_path: Path, metrics: dict[str, Any]) -> None:
    pictures = {name: tmp_path / f"{name}.png" for name in ("cohort", "training", "speeds", "sub-01", "sub-02")}
    slices = {f"sub-{i:02d}": (np.ones((20, 24)), (1.0, 1.2), "20×24×9\nRAS") for i in range(1, 10)}
    draw_cohort(slices, test=["sub-01"], path=pictures["cohort"])
    draw_training([1.0, 0.5, 0.25], [(3, 0.8)], path=pictures["training"])
    draw_speeds(SPEEDS, path=pictures["speeds"])
    for subject in ("sub-01", "sub-02"):
        draw_prediction(_prediction(subject), path=pictures[subject])
    for path in pictures.values():
        assert path.read_bytes().startswith(b"\x89PNG")
    write_report(tmp_path / "report.html", metrics=metrics, pictures=pictures)
    page = _Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) == 5
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "These subjects are simulated" in page.text
    assert "0.9250" in page.text  # mean Dice
    assert "MONAI <1 patch>" in page.text  # escaped, not taken as a tag


def test_draw_one_subject_and_no_validation(tmp_path: Path) -> None:
    draw_cohort({"sub-01": (np.ones((5, 6)), (1.0, 1.0), "")}, test=[], path=tmp_path / "a.png")
    draw_training([1.0], [], path=tmp_path / "b.png")


def test_speed_facts_say_the_ratio(metrics: dict[str, Any]) -> None:
    assert [way["ratio"] for way in metrics["speed"]["ways"]] == [1.0, 40.0, 800.0]
    json.dumps(metrics)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_and_tables(metrics: dict[str, Any], *, terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    steps = Steps(console, count=2)
    with steps.step("a", "First thing", total=3) as step:
        for i in range(3):
            step.advance(f"piece {i}")
        step.summary = "3 pieces"
    with steps.step("b", "Second thing"):
        pass
    print_dice(console, metrics["dice"])
    print_speeds(console, metrics["speed"])
    text = out.getvalue()
    assert list(steps.seconds) == ["a", "b"]
    for words in ("1/2", "First thing", "3 pieces", "2/2", "0.9250", "40.0 times as fast"):
        assert words in text
    if not terminal:
        assert text.isascii()
        assert "\x1b" not in text


def test_compare_with_last_run(tmp_path: Path, metrics: dict[str, Any]) -> None:
    path = tmp_path / "metrics.json"
    assert "again" in compare_with_last_run(path, metrics)
    path.write_text(json.dumps(metrics))
    assert "are the same" in compare_with_last_run(path, metrics)
    changed = {**metrics, "prediction_sha256": {"sub-01": "1" * 64}}
    assert "differ" in compare_with_last_run(path, changed)
    assert "with the same seed and versions" in compare_with_last_run(path, changed)
    assert "other settings or versions" in compare_with_last_run(path, {**changed, "seed": 1})
    path.write_text("damaged")
    assert "again" in compare_with_last_run(path, metrics)
