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
from radioloader.errors import ConfigError, ShapeError
from tests.inference.models import SUBJECTS, Net, above


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

    rl.predict(tmp_path / "store", above, image="T1w", patch_size=8, activation="sigmoid", progress=False)
    prediction = rl.open(tmp_path / "store")["pred"].iloc[0]
    assert prediction.axcodes == "RAS"
    prediction.to_nifti(tmp_path / "pred.nii.gz")
    written = nib.load(tmp_path / "pred.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(turned.dataobj) > 0)
    assert np.array_equal(written.affine, turned.affine)


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


def test_exported_parts_leave_no_other_part_in_training_mode(store: str, cohort: Path) -> None:
    net = Net().eval()
    shape = {"x": {0: torch.export.Dim("batch", min=1, max=16)}}
    exported = torch.export.export(net, (torch.zeros(2, 1, 8, 8, 8),), dynamic_shapes=shape).module()
    inner = torch.nn.Sequential(exported, torch.nn.Dropout(0.9))
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), inner, torch.nn.Dropout(0.9))
    rl.predict(store, model, image="T1w", patch_size=8, subjects=["sub-01"], progress=False)
    wanted = expected(cohort, "sub-01", net, (8, 8, 8), mode="gaussian").argmax(0)
    assert np.array_equal(rl.open(store)["pred"].loc["sub-01"].to_numpy(), wanted)
    assert all(module.training for module in (model, model[0], inner, inner[1], model[2]))


def test_models_without_an_evaluation_mode_are_refused(store: str) -> None:
    class Fixed(torch.nn.Module):
        def train(self, mode: bool = True) -> Any:
            raise NotImplementedError

    model = torch.nn.Sequential(torch.nn.Dropout(), Fixed())
    said = r"Sequential cannot be put in evaluation mode, in which models predict: its eval\(\) or train\(\) raises"
    with pytest.raises(ConfigError, match=said):
        rl.predict(store, model, image="T1w", patch_size=8, progress=False)
    assert model.training
    assert model[0].training


def test_progress_is_told_on_stderr(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(rl.open(store)["T1w"].loc["sub-02"].uri)
    report = rl.predict(store, Net(), image="T1w", patch_size=(23, 24, 18), batch_size=3)
    out, err = capfd.readouterr()
    assert out == ""
    assert "failed 'sub-02': " in err
    assert "predict 3/4 windows, 4/4 subjects, " in err
    assert report.windows == 3


@pytest.mark.parametrize("name", [None, "named"])
def test_networks_inside_of_functions_are_in_evaluation_mode_too(store: str, name: str | None) -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Dropout(0.9), torch.nn.Conv3d(1, 2, 1))
    arguments: Any = {"image": "T1w", "patch_size": 16, "model_id": name, "progress": False}

    def model(images: torch.Tensor) -> torch.Tensor:
        assert not net.training
        return net(images)  # type: ignore[no-any-return]

    assert rl.predict(store, model, **arguments).predicted == SUBJECTS
    assert net.training
    assert net[0].num_batches_tracked == 0
    assert rl.predict(store, model, **arguments).skipped == SUBJECTS
    # What a model keeps of its own can be trained with afterwards.
    net(torch.zeros(2, 1, 4, 4, 4)).sum().backward()
