"""What is there of the same model is skipped; what is of another one is not mixed with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError
from tests.inference.models import SUBJECTS, Net, above


def test_of_the_same_model(store: str) -> None:
    first = rl.predict(store, Net(), image="T1w", patch_size=8, subjects=SUBJECTS[:2], progress=False)
    second = rl.predict(store, Net(), image="T1w", patch_size=8, batch_size=7, progress=False)
    assert (first.predicted, first.skipped) == (SUBJECTS[:2], [])
    assert (second.predicted, second.skipped) == (SUBJECTS[2:], SUBJECTS[:2])
    third = rl.predict(store, Net(), image="T1w", patch_size=8, progress=False)
    assert (third.predicted, third.skipped, third.windows) == ([], SUBJECTS, 0)
    assert third.version == second.version


def test_another_one_needs_another_name_or_overwrite(store: str) -> None:
    rl.predict(store, Net(), image="T1w", patch_size=8, progress=False)
    other = Net()
    with torch.no_grad():
        other.conv.weight[0, 0, 0, 0, 0] += 1
    with pytest.raises(ConfigError, match=r"weights .*, now .*overwrite=True"):
        rl.predict(store, other, image="T1w", patch_size=8, progress=False)
    with pytest.raises(ConfigError, match=r"overlap=\[0.25, 0.25, 0.25\], now \[0.5, 0.5, 0.5\]"):
        rl.predict(store, Net(), image="T1w", patch_size=8, overlap=0.5, progress=False)
    assert rl.predict(store, other, image="T1w", patch_size=8, out="other", progress=False).predicted == SUBJECTS
    before = rl.open(store)
    report = rl.predict(store, other, image="T1w", patch_size=8, subjects=["sub-01"], overwrite=True, progress=False)
    assert report.predicted == ["sub-01"]
    # Nothing of two models in one collection; who opened the store before still sees what was there.
    assert rl.open(store)["pred"].obs_subject_ids == ["sub-01"]
    assert before["pred"].obs_subject_ids == SUBJECTS
    again = rl.predict(store, other, image="T1w", patch_size=8, overwrite=True, progress=False)
    assert (again.predicted, again.skipped) == (SUBJECTS[1:], ["sub-01"])
    assert np.array_equal(
        rl.open(store)["pred"].loc["sub-04"].to_numpy(), rl.open(store)["other"].loc["sub-04"].to_numpy()
    )


def test_a_changed_image_is_predicted_anew(changing: Path, tmp_path: Path, write_image: Any) -> None:
    uri = tmp_path / "store"
    assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
    rl.predict(uri, above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
    path = changing / "images" / "sub-02_T1w.nii.gz"
    voxels, affine = np.asarray(nib.load(path).dataobj), nib.load(path).affine
    write_image(path, -voxels, affine)
    assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
    report = rl.predict(uri, above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
    assert (report.predicted, report.skipped) == (["sub-02"], ["sub-01", "sub-03"])
    assert np.array_equal(rl.open(uri)["pred"].loc["sub-02"].to_numpy(), -voxels > 0)


def test_of_an_image_that_was_replaced_nothing_old_stays(changing: Path, tmp_path: Path, write_image: Any) -> None:
    uri = tmp_path / "store"
    assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
    arguments: Any = {"image": "T1w", "patch_size": 8, "activation": "sigmoid", "progress": False}
    rl.predict(uri, above, **arguments)
    before = rl.open(uri)
    write_image(changing / "images" / "sub-02_T1w.nii.gz", np.full((9, 9, 9), np.nan, np.float32))
    assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
    with pytest.raises(ConfigError, match=r"'sub-02_T1w' of .* changed after the store was opened; open it again"):
        rl.predict(before, above, **arguments)
    report = rl.predict(uri, above, **arguments)
    assert list(report.failed) == ["sub-02"]
    assert rl.open(uri)["pred"].obs_subject_ids == ["sub-01", "sub-03"]


def test_two_at_a_time_do_not_mix(store: str) -> None:
    arguments: Any = {"image": "T1w", "patch_size": 16, "activation": "sigmoid", "progress": False}
    inner = []

    def first(images: torch.Tensor) -> torch.Tensor:
        if not inner:
            inner.append(rl.predict(store, above, output="values", subjects=["sub-03"], **arguments))
        return images

    with pytest.raises(ConfigError, match=r"'pred' of .* was taken meanwhile"):
        rl.predict(store, first, model_id="first", **arguments)
    opened = rl.open(store)
    assert inner[0].predicted == opened["pred"].obs_subject_ids == ["sub-03"]
    assert opened["pred"].kind == "image"
    assert opened.snapshot.collections["pred"].recipe["prediction"] == inner[0].provenance
    # What the other one had written is gone.
    folder = Path(opened["pred"].loc["sub-03"].uri).parent
    assert len(list(folder.iterdir())) == 1


def test_an_image_of_another_shape_takes_the_place_of_one(changing: Path, tmp_path: Path, write_image: Any) -> None:
    uri = tmp_path / "store"
    assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
    arguments: Any = {"image": "T1w", "patch_size": 8, "activation": "sigmoid", "progress": False}
    rl.predict(uri, above, **arguments)
    voxels = np.full((9, 9, 9), 3, np.int16)
    write_image(changing / "images" / "sub-02_T1w.nii.gz", voxels)
    report = rl.ingest(uri, {"T1w": changing / "images"}, workers=1)  # the prediction is no label that it has to fit
    assert report.ok, str(report)
    assert rl.predict(uri, above, **arguments).predicted == ["sub-02"]
    assert rl.open(uri)["pred"].loc["sub-02"].shape == (9, 9, 9)
    with pytest.raises(ConfigError, match=r"'pred' of .* holds volumes that were computed"):
        rl.ingest(uri, {"pred": changing / "labels"}, labels=["pred"], workers=1)


def test_lambdas_need_a_name(store: str) -> None:
    import threading

    lock = threading.Condition()
    arguments: Any = {"image": "T1w", "patch_size": 16, "activation": "sigmoid", "progress": False}

    def model(images: torch.Tensor) -> torch.Tensor:
        with lock:
            return images

    with pytest.raises(ConfigError, match="model_id="):
        rl.predict(store, model, **arguments)
    assert rl.predict(store, model, model_id="v1", **arguments).predicted == SUBJECTS
    assert rl.predict(store, model, model_id="v1", **arguments).skipped == SUBJECTS
    with pytest.raises(ConfigError, match="model_id v1, now v2"):
        rl.predict(store, model, model_id="v2", **arguments)


def test_what_made_them_is_noted(store: str) -> None:
    report = rl.predict(store, Net(), image="T1w", patch_size=8, progress=False)
    noted = rl.open(store).snapshot.collections["pred"].recipe["prediction"]
    assert noted == report.provenance
    assert noted["model"].endswith("Net")
    assert len(noted["weights"]) == 64
    assert noted["arguments"]["patch_size"] == [8, 8, 8]
    assert noted["versions"]["torch"] == torch.__version__
