"""Predictions of prepared volumes, back on the grid of the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError


class Above(torch.nn.Module):
    """Foreground where the image is bright, as two classes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - images, images - 0.5], dim=1)


def test_monais_orientation_spacing_and_crop_are_undone(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    mt = pytest.importorskip("monai.transforms")
    prefix = mt.Compose(
        [
            mt.LoadImaged("image"),
            mt.EnsureChannelFirstd("image"),
            mt.Orientationd("image", axcodes="PIL", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            mt.Spacingd("image", pixdim=(1.5, 2.5, 2.0)),
            mt.ScaleIntensityRanged("image", a_min=100, a_max=1700, b_min=0, b_max=1),
            mt.CropForegroundd("image", source_key="image", select_fn=_bright, margin=4, allow_smaller=True),
        ]
    )
    data = [{"image": item["image"]} for item in datalist]
    dataset = rl.monai.Dataset(data, prefix, store=tmp_path / "store", progress=False, num_workers=1)
    report = rl.predict(
        dataset.store, Above(), image=dataset.collections["image"], patch_size=32, overlap=0.5, progress=False
    )
    assert len(report.predicted) == 3
    assert sorted(report.predicted) == sorted(dataset.subjects)
    opened = rl.open(dataset.store)
    for number, item in enumerate(data):
        subject = dataset.subjects[number]
        prediction, image = opened["pred"].loc[subject], opened[dataset.collections["image"]].loc[subject]
        source = nib.load(item["image"])
        assert prediction.shape == image.shape != source.shape
        prediction.to_nifti(tmp_path / "pred.nii.gz")
        written = nib.load(tmp_path / "pred.nii.gz")
        assert written.shape == source.shape
        np.testing.assert_allclose(written.affine, source.affine, atol=1e-4)
        assert written.get_data_dtype() == np.uint8

        # What MONAI's own inversion of the same pipeline gives of the same labels.
        sample = prefix({"image": item["image"]})
        labels = torch.from_numpy(prediction.to_numpy()[None])
        inverted = mt.Invertd("pred", prefix, orig_keys="image", nearest_interp=True)(
            {"image": sample["image"], "pred": type(sample["image"])(labels, meta=sample["image"].meta)}
        )["pred"][0].numpy()
        found = np.asarray(written.dataobj)
        assert found.any()
        # Centres that lie half-way between two voxels may go either way.
        assert (found != inverted).mean() < 2e-3
        # And it is the brain where it was.
        bright = np.asarray(source.dataobj) > 900
        assert 2 * (found & bright).sum() / (found.sum() + bright.sum()) > 0.93

        prediction.to_nifti(tmp_path / "stored.nii", grid="stored")
        stored = nib.load(tmp_path / "stored.nii")
        assert np.array_equal(np.asarray(stored.dataobj), prediction.to_numpy())
        np.testing.assert_allclose(stored.affine, prediction.affine, atol=1e-5)
        image.save_on_source_grid(prediction.to_numpy(), tmp_path / "same.nii.gz")
        assert np.array_equal(np.asarray(nib.load(tmp_path / "same.nii.gz").dataobj), found)


def _bright(image: Any) -> Any:
    return image > 0.2


def test_torchios_preparation_is_undone(brain_store: str, datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    tio = pytest.importorskip("torchio")
    dataset = rl.torchio.SubjectsDataset(
        brain_store,
        image={"t1": "T1w"},
        transform=tio.Compose([tio.ToCanonical(), tio.Resample(3), tio.RescaleIntensity((0, 1))]),
        prepared=tmp_path / "prepared",
        progress=False,
        num_workers=1,
    )
    rl.predict(dataset.store, Above(), image=dataset.collections["t1"], patch_size=40, progress=False, output="values")
    prediction = rl.open(dataset.store)["pred"].loc["s1"]
    prediction.to_nifti(tmp_path / "pred.nii.gz")
    written, source = nib.load(tmp_path / "pred.nii.gz"), nib.load(datalist[1]["image"])
    assert written.shape == (*source.shape, 2)
    assert np.array_equal(written.affine, source.affine)
    voxels = np.asarray(source.dataobj, np.float32)
    scaled = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    error = np.abs(written.get_fdata()[..., 1] + 0.5 - scaled)[4:-4, 4:-4, 4:-4]
    assert np.median(error) < 0.05


def test_interpolated_probabilities_of_one_volume(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    mt = pytest.importorskip("monai.transforms")
    prefix = mt.Compose(
        [
            mt.LoadImaged("image"),
            mt.EnsureChannelFirstd("image"),
            mt.Spacingd("image", pixdim=(4, 4, 4)),
            mt.ScaleIntensityRanged("image", a_min=100, a_max=1700, b_min=0, b_max=1),
        ]
    )
    dataset = rl.monai.Dataset(datalist[:1], prefix, store=tmp_path / "store", progress=False, num_workers=1)
    rl.predict(
        dataset.store,
        Above(),
        image=dataset.collections["image"],
        patch_size=32,
        output="probabilities",
        progress=False,
    )
    rl.open(dataset.store)["pred"].iloc[0].to_nifti(tmp_path / "pred.nii.gz")
    written, source = nib.load(tmp_path / "pred.nii.gz"), nib.load(datalist[0]["image"])
    assert written.shape == (*source.shape, 2)
    inside = written.get_fdata().sum(axis=3) > 0
    assert inside.mean() > 0.98
    np.testing.assert_allclose(written.get_fdata().sum(axis=3)[inside], 1, atol=2**-13)
    # Finer than the 4 mm that the model saw: neighbours differ by steps, not by blocks.
    line = written.get_fdata()[30, :, 25, 1]
    assert len(np.unique(line)) > 50


def test_a_file_that_was_turned_while_it_was_loaded(tmp_path: Path) -> None:
    mt = pytest.importorskip("monai.transforms")
    voxels = np.random.default_rng(0).integers(0, 100, (14, 26, 20), np.int16)
    affine = nib.affines.from_matvec([[0, 0, 1.5], [0, -1, 0], [2, 0, 0]], [3, 4, 5])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    prefix = mt.Compose(
        [mt.LoadImaged("image", reader="NibabelReader", as_closest_canonical=True), mt.EnsureChannelFirstd("image")]
    )
    data = [{"image": str(tmp_path / "a.nii.gz")}]
    dataset = rl.monai.Dataset(data, prefix, store=tmp_path / "store", progress=False, num_workers=1)
    rl.open(dataset.store)[dataset.collections["image"]].iloc[0].to_nifti(tmp_path / "back.nii.gz")
    back = nib.load(tmp_path / "back.nii.gz")
    assert np.array_equal(back.affine, affine)
    assert np.array_equal(np.asarray(back.dataobj), voxels)


def test_where_nobody_knows_the_grid_it_is_said(
    brain_store: str, datalist: list[dict[str, Any]], tmp_path: Path
) -> None:
    mt, tio = pytest.importorskip("monai.transforms"), pytest.importorskip("torchio")
    load = [mt.LoadImaged("image"), mt.EnsureChannelFirstd("image")]
    for number, last in enumerate(
        (mt.EnsureTyped("image", track_meta=False), mt.Transposed("image", indices=(0, 2, 1, 3)))
    ):
        prefix = mt.Compose([*load, last])
        dataset = rl.monai.Dataset(
            datalist[:1], prefix, store=tmp_path / f"store{number}", progress=False, num_workers=1
        )
        rl.predict(dataset.store, Above(), image=dataset.collections["image"], patch_size=64, progress=False)
        prediction = rl.open(dataset.store)["pred"].iloc[0]
        with pytest.raises(ConfigError, match="grid='stored'"):
            prediction.to_nifti(tmp_path / "no.nii.gz")
        prediction.to_nifti(tmp_path / "stored.nii.gz", grid="stored")
        assert nib.load(tmp_path / "stored.nii.gz").shape == prediction.shape
    flipped = rl.torchio.SubjectsDataset(
        brain_store, {"t1": "T1w"}, transform=tio.Flip(0), prepared=tmp_path / "p", progress=False, num_workers=1
    )
    with pytest.raises(ConfigError, match="moved voxels without telling"):
        rl.open(flipped.store)[flipped.collections["t1"]].iloc[0].to_nifti(tmp_path / "no.nii.gz")
