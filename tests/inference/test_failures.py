"""What cannot be predicted, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, ShapeError, StoreWriteError
from radioloader.inference import target
from tests.inference.models import SUBJECTS, Net, above


def _smaller(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": sample["image"][:, ::2]}


def _without(sample: dict[str, Any]) -> dict[str, Any]:
    return {"scan": sample["image"]}


def test_a_damaged_volume_is_named_and_the_others_are_predicted(store: str) -> None:
    uri = rl.open(store)["T1w"].loc["sub-02"].uri
    for file in Path(uri).rglob("a0.tdb"):
        file.unlink()
    report = rl.predict(store, Net(), image="T1w", patch_size=8, batch_size=5, progress=False)
    assert report.predicted == ["sub-01", "sub-03", "sub-04"]
    assert list(report.failed) == ["sub-02"]
    assert "sub-02_T1w" in report.failed["sub-02"]
    assert "1 failed" in str(report)
    assert rl.open(store)["pred"].obs_subject_ids == report.predicted


def test_values_that_are_not_finite(store: str, cohort: Path) -> None:
    mean = float(np.asarray(nib.load(cohort / "images" / "sub-03_T1w.nii.gz").dataobj, np.float32)[:8, :8, :8].mean())

    def model(images: torch.Tensor) -> torch.Tensor:
        odd = (images.mean(dim=(1, 2, 3, 4), keepdim=True) - mean).abs() < 1e-3
        return torch.where(odd, torch.nan, images)

    report = rl.predict(store, model, image="T1w", patch_size=8, activation="sigmoid", overlap=0, progress=False)
    assert report.predicted == ["sub-01", "sub-02", "sub-04"]
    assert "not finite" in report.failed["sub-03"]
    assert "[0:8, 0:8, 0:8]" in report.failed["sub-03"]


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_temporary_files_that_cannot_be_written(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    arguments: Any = {"image": "T1w", "patch_size": 8, "output": output, "progress": False}
    with pytest.raises(StoreWriteError, match=r"in a temporary file in .*absent: No such file.*TMPDIR.*memory_mb="):
        rl.predict(store, Net(), memory_mb=0, **arguments)
    assert "pred" not in rl.open(store).collection_names
    assert rl.predict(store, Net(), **arguments).ok


def test_a_write_that_fails_keeps_what_was_finished(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = target.write_derived

    def write(*positional: Any, **named: Any) -> Any:
        if named["subject"] == "sub-04":
            raise StoreWriteError("no space left")
        return plain(*positional, **named)

    monkeypatch.setattr(target, "write_derived", write)
    with pytest.raises(StoreWriteError, match="no space left"):
        rl.predict(store, Net(), image="T1w", patch_size=16, progress=False)
    assert rl.open(store)["pred"].obs_subject_ids == SUBJECTS[:3]


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (_smaller, r"gives images \(4, 1, 4, 8, 8\) for windows of .*'sub-01'"),
        (_without, "gives no tensor 'image' for windows of .*'sub-01'"),
    ],
)
def test_transforms_that_do_not_fit(store: str, transform: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        rl.predict(store, Net(), image="T1w", patch_size=8, transform=transform, progress=False)


def test_values_that_are_no_probabilities(store: str) -> None:
    with pytest.raises(ShapeError, match="which are no probabilities"):
        rl.predict(store, above, image="T1w", patch_size=8, output="probabilities", activation=None, progress=False)


def test_a_model_that_raises_keeps_what_was_finished(store: str) -> None:
    calls = []

    def model(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return images

    arguments: Any = {"image": "T1w", "patch_size": (30, 24, 18), "batch_size": 1, "activation": "sigmoid"}
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        rl.predict(store, model, model_id="x", progress=False, **arguments)
    assert caught.value.__notes__ == ["while windows of 'sub-03' were predicted"]
    report = rl.predict(store, model, model_id="x", progress=False, **arguments)
    assert (report.skipped, report.predicted) == (["sub-01", "sub-02"], ["sub-03", "sub-04"])


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda x: [x], r"gives a list, expected a tensor \(B, K, X, Y, Z\)"),
        (lambda x: x[..., ::2], r"gives the shape \(4, 1, 8, 8, 4\) for windows \(4, 1, 8, 8, 8\)"),
        (lambda x: x[:, 0], r"gives the shape \(4, 8, 8, 8\)"),
    ],
)
def test_a_model_that_gives_something_else(store: str, model: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        rl.predict(store, model, model_id="x", image="T1w", patch_size=8, activation="sigmoid", progress=False)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"out": "seg"}, "'seg' that holds no predictions"),
        ({"out": ""}, "out=''"),
        ({"out": "T1w"}, "out='T1w' is what is predicted from"),
        ({"output": "mask"}, "output='mask' is not one of"),
        ({"activation": "relu"}, "activation='relu' is not one of"),
        ({"blend": "median"}, "blend='median' is not one of"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"autocast": "bf16"}, "autocast='bf16' must be a dtype"),
        ({"rank": 1}, "together"),
        ({"rank": 2, "world_size": 2}, "rank=2 must be below"),
        ({"image": []}, "image is empty"),
        ({"model": 3}, "model must be"),
    ],
)
def test_wrong_arguments(store: str, wrong: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {"model": Net(), "image": "T1w", "patch_size": 8, "progress": False} | wrong
    version = rl.open(store).version
    with pytest.raises(ConfigError, match=text):
        rl.predict(store, **arguments)
    assert rl.open(store).version == version
