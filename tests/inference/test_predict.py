"""Predictions of whole stores, beside MONAI's on the files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

import radioloader as rl
from radioloader.errors import ConfigError, ShapeError, StoreWriteError

SUBJECTS = [f"sub-{number:02d}" for number in range(1, 5)]


class Net(torch.nn.Module):
    """Three classes; what it gives depends on where a voxel is in the window, and on the mode."""

    def __init__(self, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv3d(channels, classes, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.conv(x / 1000))  # type: ignore[no-any-return]


@pytest.fixture
def store(store_uri: str, tmp_path: Path) -> str:
    return str(shutil.copytree(store_uri, tmp_path / "store"))


def expected(cohort: Path, subject: str, model: Any, size: Any, **arguments: Any) -> torch.Tensor:
    """MONAI's means on the file, (K, X, Y, Z)."""
    voxels = np.asarray(nib.load(cohort / "images" / f"{subject}_T1w.nii.gz").dataobj, np.float32)
    with torch.inference_mode():
        found: Any = sliding_window_inference(torch.from_numpy(voxels)[None, None], size, 4, model, **arguments)
    return found[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("size", "overlap", "blend"),
    [(8, 0.25, "gaussian"), ((16, 12, 10), 0.5, "constant"), ((21, 30, 8), (0, 0.3, 0.6), "gaussian")],
)
def test_the_means_are_those_of_sliding_window_inference(
    store: str, cohort: Path, size: Any, overlap: Any, blend: str
) -> None:
    model = Net().eval()
    report = rl.predict(
        store, model, image="T1w", patch_size=size, overlap=overlap, blend=blend, output="values", progress=False
    )
    assert report.ok
    assert report.predicted == SUBJECTS
    for subject in SUBJECTS:
        volume = rl.open(store)["pred"].loc[subject]
        wanted = expected(cohort, subject, model, size, overlap=overlap, mode=blend)
        np.testing.assert_allclose(volume.to_numpy(), wanted.permute(1, 2, 3, 0).numpy(), rtol=1e-5, atol=1e-6)
        assert volume.dtype == np.float32
        assert np.array_equal(volume.affine, rl.open(store)["T1w"].loc[subject].affine)


@pytest.mark.parametrize("limit", [0, 1024])
def test_labels_are_a_label_collection_on_the_grid_of_the_files(
    store: str, cohort: Path, tmp_path: Path, limit: int
) -> None:
    model = Net().eval()
    rl.predict(store, model, image="T1w", patch_size=8, overlap=0.5, memory_mb=limit, batch_size=3, progress=False)
    opened = rl.open(store)
    assert opened["pred"].kind == "label"
    for subject in SUBJECTS:
        wanted = expected(cohort, subject, model, (8, 8, 8), overlap=0.5, mode="gaussian").argmax(0).numpy()
        assert np.array_equal(opened["pred"].loc[subject].to_numpy(), wanted)
        opened["pred"].loc[subject].to_nifti(tmp_path / "pred.nii.gz")
        source = nib.load(cohort / "images" / f"{subject}_T1w.nii.gz")
        written = nib.load(tmp_path / "pred.nii.gz")
        assert np.array_equal(np.asarray(written.dataobj), wanted)
        assert written.get_data_dtype() == np.uint8
        assert np.array_equal(written.affine, source.affine)
        for field in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
            assert np.array_equal(written.header[field], source.header[field]), field
    # As labels of a dataset: the foreground index is there.
    patches = rl.PatchDataset(
        store, image="T1w", label="pred", patch_size=4, positions=rl.ForegroundPositions(share=1.0, classes=(2,))
    )
    for key in range(4):
        sample = patches[key]
        assert sample["label"].eq(2).any()


def test_predictions_of_turned_volumes_go_back_to_the_files_grid(cohort: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    source = nib.load(cohort / "images" / "sub-01_T1w.nii.gz")
    ornt = nib.orientations.axcodes2ornt("PIL")
    turned = source.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(source.affine), ornt))
    nib.save(turned, files / "a_T1w.nii.gz")
    turned = nib.load(files / "a_T1w.nii.gz")  # affines are of float32 there
    assert rl.ingest(tmp_path / "store", {"T1w": files}, orientation="RAS", workers=1).ok
    volume = rl.open(tmp_path / "store")["T1w"].iloc[0]
    assert volume.axcodes == "RAS"

    rl.predict(tmp_path / "store", _above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
    prediction = rl.open(tmp_path / "store")["pred"].iloc[0]
    assert prediction.axcodes == "RAS"
    prediction.to_nifti(tmp_path / "pred.nii.gz")
    written = nib.load(tmp_path / "pred.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(turned.dataobj) > 0)
    assert np.array_equal(written.affine, turned.affine)


def _above(images: torch.Tensor) -> torch.Tensor:
    return images


def test_probabilities(store: str, cohort: Path, tmp_path: Path) -> None:
    model = Net().eval()
    report = rl.predict(
        store, model, image="T1w", patch_size=8, output="probabilities", out="soft", subjects=["sub-02"], progress=False
    )
    assert report.predicted == ["sub-02"]
    volume = rl.open(store)["soft"].loc["sub-02"]
    assert rl.open(store)["soft"].kind == "image"
    wanted = expected(cohort, "sub-02", model, (8, 8, 8), mode="gaussian").softmax(0).permute(1, 2, 3, 0).numpy()
    assert volume.ref.dtype == "uint16"
    np.testing.assert_allclose(volume.to_numpy(), wanted, atol=2**-16 + 1e-6)
    volume.to_nifti(tmp_path / "soft.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "soft.nii.gz").get_fdata(), volume.to_numpy())
    # They are channels of an image like others.
    sample = rl.PatchDataset(store, image=["T1w", "soft"], subjects=["sub-02"], patch_size=8)[0]
    assert sample["image"].shape == (4, 8, 8, 8)


@pytest.mark.parametrize(
    ("classes", "activation", "rule"),
    [
        (1, "sigmoid", lambda means: (means > 0)[0]),
        (2, "sigmoid", lambda means: (means > 0).movedim(0, 3)),
        (1, None, lambda means: (means > 0.5)[0]),
        (4, None, lambda means: means.argmax(0)),
    ],
)
def test_kinds_of_labels(store: str, cohort: Path, classes: int, activation: str | None, rule: Any) -> None:
    model = Net(classes=classes).eval()
    rl.predict(
        store, model, image="T1w", patch_size=8, activation=activation, subjects=["sub-01"], progress=False, out="odd"
    )
    wanted = rule(expected(cohort, "sub-01", model, (8, 8, 8), mode="gaussian"))
    found = rl.open(store)["odd"].loc["sub-01"].to_numpy()
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted.numpy())


def test_subjects_that_have_no_image_are_left_out(store: str, cohort: Path, tmp_path: Path) -> None:
    files = tmp_path / "more"
    files.mkdir()
    for subject in SUBJECTS[1:3]:
        shutil.copy(cohort / "images" / f"{subject}_T1w.nii.gz", files / f"{subject}_T2w.nii.gz")
    assert rl.ingest(store, {"T2w": files}, workers=1).ok
    report = rl.predict(store, Net(2), image=["T1w", "T2w"], patch_size=16, progress=False)
    assert report.predicted == SUBJECTS[1:3]
    with pytest.raises(rl.RadioloaderError, match="'T2w' has no volume of 1 of 2 subjects"):
        rl.predict(store, Net(2), image=["T1w", "T2w"], patch_size=16, subjects=SUBJECTS[:2], progress=False)
    # A selection of an open store is one as well.
    opened = rl.open(store)
    report = rl.predict(opened.iloc[:2], Net(2), image=["T1w", "T2w"], patch_size=8, out="p8", progress=False)
    assert report.predicted == SUBJECTS[1:2]


def test_one_channel_has_no_softmax(store: str) -> None:
    with pytest.raises(ShapeError, match="activation='sigmoid'"):
        rl.predict(store, Net(classes=1), image="T1w", patch_size=8, progress=False)
    assert "pred" not in rl.open(store).collection_names


def test_several_images_and_a_transform(store: str, cohort: Path) -> None:
    seen: list[tuple[int, ...]] = []

    class Two(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            return images

    report = rl.predict(
        store,
        Two(),
        image=["T1w", "seg"],
        patch_size=(30, 24, 18),
        output="values",
        transform=_halved,
        batch_size=3,
        pad_value=7,
        progress=False,
    )
    # Batches hold windows of several volumes.
    assert seen == [(3, 2, 30, 24, 18), (1, 2, 30, 24, 18)]
    assert report.windows == 4
    voxels = np.asarray(nib.load(cohort / "images" / "sub-03_T1w.nii.gz").dataobj, np.float32)
    np.testing.assert_allclose(rl.open(store)["pred"].loc["sub-03"].to_numpy()[..., 0], voxels / 2, rtol=1e-6)


def _halved(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": sample["image"] / 2}


def test_the_model_is_left_as_it_was(store: str) -> None:
    model = Net().train()
    model.drop.eval()
    modes: list[tuple[bool, bool]] = []
    model.conv.register_forward_hook(lambda *_: modes.append((model.training, torch.is_grad_enabled())))
    rl.predict(store, model, model_id="hooked", image="T1w", patch_size=16, subjects=["sub-01"], progress=False)
    assert set(modes) == {(False, False)}
    assert model.training
    assert model.conv.training
    assert not model.drop.training


def test_exported_models(store: str, cohort: Path, tmp_path: Path) -> None:
    model = Net().eval()
    shape = {"x": {0: torch.export.Dim("batch", min=1, max=16)}}
    exported = torch.export.export(model, (torch.zeros(2, 1, 8, 8, 8),), dynamic_shapes=shape)
    torch.export.save(exported, tmp_path / "model.pt2")
    for _ in range(2):
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        report = rl.predict(store, loaded, image="T1w", patch_size=8, subjects=["sub-01"], progress=False)
    assert report.skipped == ["sub-01"]
    wanted = expected(cohort, "sub-01", model, (8, 8, 8), mode="gaussian").argmax(0)
    assert np.array_equal(rl.open(store)["pred"].loc["sub-01"].to_numpy(), wanted)


def test_progress_is_told_on_stderr(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(rl.open(store)["T1w"].loc["sub-02"].uri)
    report = rl.predict(store, Net(), image="T1w", patch_size=(23, 24, 18), batch_size=3)
    out, err = capfd.readouterr()
    assert out == ""
    assert "failed 'sub-02': " in err
    assert "predict 3/4 windows, 4/4 subjects, " in err
    assert report.windows == 3


class TestWhatIsThereIsSkipped:
    def test_of_the_same_model(self, store: str) -> None:
        first = rl.predict(store, Net(), image="T1w", patch_size=8, subjects=SUBJECTS[:2], progress=False)
        second = rl.predict(store, Net(), image="T1w", patch_size=8, batch_size=7, progress=False)
        assert (first.predicted, first.skipped) == (SUBJECTS[:2], [])
        assert (second.predicted, second.skipped) == (SUBJECTS[2:], SUBJECTS[:2])
        third = rl.predict(store, Net(), image="T1w", patch_size=8, progress=False)
        assert (third.predicted, third.skipped, third.windows) == ([], SUBJECTS, 0)
        assert third.version == second.version

    def test_another_one_needs_another_name_or_overwrite(self, store: str) -> None:
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
        report = rl.predict(
            store, other, image="T1w", patch_size=8, subjects=["sub-01"], overwrite=True, progress=False
        )
        assert report.predicted == ["sub-01"]
        # Nothing of two models in one collection; who opened the store before still sees what was there.
        assert rl.open(store)["pred"].obs_subject_ids == ["sub-01"]
        assert before["pred"].obs_subject_ids == SUBJECTS
        again = rl.predict(store, other, image="T1w", patch_size=8, overwrite=True, progress=False)
        assert (again.predicted, again.skipped) == (SUBJECTS[1:], ["sub-01"])
        assert np.array_equal(
            rl.open(store)["pred"].loc["sub-04"].to_numpy(), rl.open(store)["other"].loc["sub-04"].to_numpy()
        )

    def test_a_changed_image_is_predicted_anew(self, changing: Path, tmp_path: Path, write_image: Any) -> None:
        uri = tmp_path / "store"
        assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
        rl.predict(uri, _above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
        path = changing / "images" / "sub-02_T1w.nii.gz"
        voxels, affine = np.asarray(nib.load(path).dataobj), nib.load(path).affine
        write_image(path, -voxels, affine)
        assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
        report = rl.predict(uri, _above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
        assert (report.predicted, report.skipped) == (["sub-02"], ["sub-01", "sub-03"])
        assert np.array_equal(rl.open(uri)["pred"].loc["sub-02"].to_numpy(), -voxels > 0)

    def test_an_image_of_another_shape_takes_the_place_of_one(
        self, changing: Path, tmp_path: Path, write_image: Any
    ) -> None:
        uri = tmp_path / "store"
        assert rl.ingest(uri, {"T1w": changing / "images"}, workers=1).ok
        arguments: Any = {"image": "T1w", "patch_size": 8, "activation": "sigmoid", "progress": False}
        rl.predict(uri, _above, **arguments)
        voxels = np.full((9, 9, 9), 3, np.int16)
        write_image(changing / "images" / "sub-02_T1w.nii.gz", voxels)
        report = rl.ingest(
            uri, {"T1w": changing / "images"}, workers=1
        )  # the prediction is no label that it has to fit
        assert report.ok, str(report)
        assert rl.predict(uri, _above, **arguments).predicted == ["sub-02"]
        assert rl.open(uri)["pred"].loc["sub-02"].shape == (9, 9, 9)
        with pytest.raises(ConfigError, match=r"'pred' of .* holds volumes that were computed"):
            rl.ingest(uri, {"pred": changing / "labels"}, labels=["pred"], workers=1)

    def test_lambdas_need_a_name(self, store: str) -> None:
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

    def test_what_made_them_is_noted(self, store: str) -> None:
        report = rl.predict(store, Net(), image="T1w", patch_size=8, progress=False)
        noted = rl.open(store).snapshot.collections["pred"].recipe["prediction"]
        assert noted == report.provenance
        assert noted["model"].endswith("Net")
        assert len(noted["weights"]) == 64
        assert noted["arguments"]["patch_size"] == [8, 8, 8]
        assert noted["versions"]["torch"] == torch.__version__


class TestFailures:
    def test_a_damaged_volume_is_named_and_the_others_are_predicted(self, store: str) -> None:
        uri = rl.open(store)["T1w"].loc["sub-02"].uri
        for file in Path(uri).rglob("a0.tdb"):
            file.unlink()
        report = rl.predict(store, Net(), image="T1w", patch_size=8, batch_size=5, progress=False)
        assert report.predicted == ["sub-01", "sub-03", "sub-04"]
        assert list(report.failed) == ["sub-02"]
        assert "sub-02_T1w" in report.failed["sub-02"]
        assert "1 failed" in str(report)
        assert rl.open(store)["pred"].obs_subject_ids == report.predicted

    def test_values_that_are_not_finite(self, store: str, cohort: Path) -> None:
        mean = float(
            np.asarray(nib.load(cohort / "images" / "sub-03_T1w.nii.gz").dataobj, np.float32)[:8, :8, :8].mean()
        )

        def model(images: torch.Tensor) -> torch.Tensor:
            odd = (images.mean(dim=(1, 2, 3, 4), keepdim=True) - mean).abs() < 1e-3
            return torch.where(odd, torch.nan, images)

        report = rl.predict(store, model, image="T1w", patch_size=8, activation="sigmoid", overlap=0, progress=False)
        assert report.predicted == ["sub-01", "sub-02", "sub-04"]
        assert "not finite" in report.failed["sub-03"]
        assert "[0:8, 0:8, 0:8]" in report.failed["sub-03"]

    @pytest.mark.parametrize("output", ["labels", "probabilities"])
    def test_temporary_files_that_cannot_be_written(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
        arguments: Any = {"image": "T1w", "patch_size": 8, "output": output, "progress": False}
        with pytest.raises(StoreWriteError, match=r"in a temporary file in .*absent: No such file.*TMPDIR.*memory_mb="):
            rl.predict(store, Net(), memory_mb=0, **arguments)
        assert "pred" not in rl.open(store).collection_names
        assert rl.predict(store, Net(), **arguments).ok

    def test_a_model_that_raises_keeps_what_was_finished(self, store: str) -> None:
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
    def test_a_model_that_gives_something_else(self, store: str, model: Any, text: str) -> None:
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
            ({"rank": 1}, "together"),
            ({"rank": 2, "world_size": 2}, "rank=2 must be below"),
            ({"image": []}, "image is empty"),
            ({"model": 3}, "model must be"),
        ],
    )
    def test_wrong_arguments(self, store: str, wrong: dict[str, Any], text: str) -> None:
        arguments: dict[str, Any] = {"model": Net(), "image": "T1w", "patch_size": 8, "progress": False} | wrong
        version = rl.open(store).version
        with pytest.raises(ConfigError, match=text):
            rl.predict(store, **arguments)
        assert rl.open(store).version == version
