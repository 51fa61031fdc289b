"""The whole demo on tiny volumes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from radioloader.demo.run import DemoResult, run_demo
from radioloader.errors import ConfigError

pytest.importorskip("monai")
pytest.importorskip("lightning")
pytest.importorskip("torchio")
pytest.importorskip("nilearn")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")


def _run(out: Path) -> tuple[DemoResult, str]:
    text = io.StringIO()
    result = run_demo(
        out,
        seed=3,
        n_subjects=6,
        resolution=4.0,
        patch_size=32,
        max_steps=4,
        repetitions=1,
        workers=1,
        console=Console(file=text, width=120),
    )
    return result, text.getvalue()


def test_demo_leaves_what_it_promises_and_repeats_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, out = tmp_path / "here", tmp_path / "out"
    here.mkdir()
    monkeypatch.chdir(here)
    result, text = _run(out)

    assert list(here.iterdir()) == []
    assert "simulated" in text
    assert "Dice" in text
    assert "times as fast" in text
    assert str(out / "report.html") in text.replace("\n", "")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["simulated"] is True
    assert metrics["dice"]["mean"] == result.mean_dice
    assert metrics["data"]["volumes_equal"] == 12
    assert list(metrics["seconds"]) == ["imports", "cohort", "ingest", "check", "train", "predict", "speed", "report"]
    assert len(metrics["speed"]["ways"]) == 5
    split = metrics["training"]["split"]
    assert sorted(split["train"] + split["val"] + split["test"]) == [f"sub-{i:02d}" for i in range(1, 7)]
    assert set(metrics["dice"]["subjects"]) == set(split["test"])
    for name in ("cohort", "training", "speeds", *split["test"]):
        assert (out / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "training" / "model.pt").exists()
    for subject in split["test"]:
        prediction = nib.load(out / "predictions" / f"{subject}_pred.nii.gz")
        source = nib.load(out / "cohort" / "images" / f"{subject}_T1w.nii.gz")
        assert prediction.shape == source.shape
        np.testing.assert_array_equal(prediction.affine, source.affine)
        np.testing.assert_array_equal(prediction.get_qform(), source.get_qform())
        assert prediction.get_data_dtype() == np.uint8
        assert set(np.unique(prediction.dataobj)) <= {0, 1, 2}

    notes = out / "cohort" / "images" / "notes.txt"
    notes.write_text("mine")
    again, text = _run(out)
    assert again.metrics["prediction_sha256"] == metrics["prediction_sha256"]
    assert again.metrics["dice"] == metrics["dice"]
    assert "0 made, 6 already there" in text
    assert "voxel for voxel" in again.metrics["reproduced"]
    assert notes.read_text() == "mine"


def test_demo_refuses_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not made by the demo"):
        _run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
