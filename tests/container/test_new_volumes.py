"""Volumes of arrays and files that are in no store yet, and putting them into one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.container.new_volume import NewVolume
from radioloader.errors import ConfigError, FormatError, IngestError, ShapeError
from tests.ingestion.dicom_files import series

AFFINE = np.array([[0.0, -1.5, 0, 7], [2, 0, 0, -3], [0, 0, 3, 5], [0, 0, 0, 1]])


def array(seed: int, shape: tuple[int, ...] = (9, 8, 7), dtype: Any = np.int16) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "bool", "float16", ">i4"])
@pytest.mark.parametrize("shape", [(9, 8, 7), (6, 5, 4, 3)])
def test_an_array_is_a_volume(dtype: str, shape: tuple[int, ...]) -> None:
    values = (array(1, shape) > 50 if dtype == "bool" else array(1, shape)).astype(dtype)
    volume = rl.Volume.from_numpy(values, affine=AFFINE, subject="s")
    assert volume.shape == shape
    assert volume.dtype.name == {"bool": "uint8", "float16": "float32", ">i4": "int32"}.get(dtype, dtype)
    np.testing.assert_array_equal(volume.to_numpy(), values)
    np.testing.assert_array_equal(volume[2:5, ::-2, 3], values[2:5, ::-2, 3])
    np.testing.assert_array_equal(volume.coronal(2), values[2])
    assert (volume.axcodes, volume.spacing) == ("ALS", pytest.approx((2.0, 1.5, 3.0)))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.histogram(5)[0].sum() == values.size
    assert volume.to_torch().shape == ((3, 6, 5, 4) if len(shape) == 4 else shape)
    assert repr(volume).startswith("NewVolume('s', ")


def test_an_array_is_copied_and_can_be_changed() -> None:
    values = array(2)
    volume = rl.Volume.from_numpy(torch.from_numpy(values), spacing=(1, 2, 3))
    values[:] = 0
    assert volume.to_numpy().any()
    np.testing.assert_array_equal(volume.affine, np.diag([1, 2, 3, 1]))
    made = rl.Volume.create((4, 5, 6), np.uint8, fill=2, subject="s")
    name = made.source.name
    made[1:3, :, 0] = 7
    assert made.source.name != name
    assert (made.to_numpy().sum(), made.dtype) == (2 * 110 + 7 * 10, np.uint8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rl.Volume.from_numpy(np.zeros((3, 4))), ShapeError, r"the array has shape \(3, 4\); a volume is"),
        (lambda: rl.Volume.from_numpy(np.zeros((3, 0, 4))), ShapeError, "of at least a voxel"),
        (
            lambda: rl.Volume.from_numpy(np.zeros((3, 4, 5), complex)),
            ConfigError,
            "dtype complex128; volumes are of uint8",
        ),
        (
            lambda: rl.Volume.from_numpy(np.zeros((3, 4, 5)), affine=np.eye(3)),
            ConfigError,
            r"shape \(3, 3\), expected \(4, 4\)",
        ),
        (lambda: rl.Volume.from_numpy(np.zeros((3, 4, 5)), affine=np.zeros((4, 4))), ConfigError, "singular"),
        (lambda: rl.Volume.from_numpy(np.zeros((3, 4, 5)), spacing=(1, 2)), ConfigError, r"spacing=\(1, 2\) must be"),
        (
            lambda: rl.Volume.from_numpy(np.zeros((3, 4, 5)), spacing=(1, 1, 1), affine=np.eye(4)),
            ConfigError,
            "not both",
        ),
        (lambda: rl.Volume.from_nifti("no.nii"), FormatError, "no.nii"),
        (lambda: rl.Volume.from_dicom("no"), ConfigError, "no"),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_collection_of_arrays(tmp_path: Path) -> None:
    volumes = [rl.Volume.from_numpy(array(n), affine=AFFINE, subject=f"s{n}") for n in range(3)]
    made = rl.VolumeCollection.from_volumes(tmp_path / "s", "T1w", volumes)
    assert (made.kind, made.obs_ids, made.is_uniform) == ("image", ["s0_T1w", "s1_T1w", "s2_T1w"], True)
    for volume, stored in zip(volumes, made, strict=True):
        np.testing.assert_array_equal(stored.to_numpy(), volume.to_numpy(), strict=True)
        np.testing.assert_array_equal(stored.affine, AFFINE)
    labels = {f"s{n}": rl.Volume.from_numpy(array(n, dtype=np.uint8) > 50, affine=AFFINE) for n in range(3)}
    masks = rl.VolumeCollection.from_volumes(tmp_path / "s", "mask", labels, workers=1)
    assert masks.kind == "label"
    store = rl.open(tmp_path / "s")
    batch = next(
        iter(rl.create_segmentation_dataloader(store.T1w, store.mask, patch_size=4, batch_size=2, num_workers=0))
    )
    assert tuple(batch["image"].shape) == (2, 1, 4, 4, 4)
    assert store.version == 2
    assert rl.VolumeCollection.from_volumes(tmp_path / "s", "T1w", volumes).obs_ids == made.obs_ids
    assert rl.open(tmp_path / "s").version == 2, "what is there already is skipped"
    volumes[0][0, 0, 0] = 500
    rl.VolumeCollection.from_volumes(tmp_path / "s", "T1w", volumes, workers=2)
    assert rl.open(tmp_path / "s").T1w.loc["s0"][0, 0, 0] == 500
    assert store.T1w.loc["s0"][0, 0, 0] != 500
    stored = store.T1w.loc["s1"]
    stored.to_nifti(tmp_path / "s1.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "s1.nii.gz").dataobj), volumes[1].to_numpy())


def test_files_and_arrays_are_appended(write_image: Any, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", array(5), AFFINE, 0.5, 3.0)
    series(tmp_path / "dicom", 0)
    new = rl.Volume.from_nifti(path)
    np.testing.assert_array_equal(new.to_numpy(), nib.load(path).get_fdata())
    assert (new.subject, new.dtype) == ("a", np.float64)
    with pytest.raises(TypeError, match="cannot be changed"):
        new[0] = 1
    scanned = rl.Volume.from_dicom(tmp_path / "dicom", subject="b")
    store = rl.RadiObject.from_niftis(tmp_path / "s", {"T1w": {"a": path}}, workers=1)
    second = rl.Volume.from_numpy(array(6), affine=AFFINE, subject="a", suffix="late")
    report = store.append({"T1w": [new, second], "CT": [scanned]}, workers=1)
    assert [(item.subject, item.status) for item in report.items] == [("a", "ingested"), ("b", "ingested")]  # type: ignore[union-attr]
    assert store.T1w.obs_ids == ["a_T1w", "a_T1w_late"]
    np.testing.assert_array_equal(store.CT.iloc[0].to_numpy(), scanned.to_numpy())
    assert store.CT.iloc[0].geometry is not None
    assert store.obs_subject_ids == ["a", "b"]
    with pytest.raises(ConfigError, match="append takes labels=, workers= and executor= for new volumes"):
        store.append({"T1w": [new]}, strict=True)


def test_what_cannot_be_put(tmp_path: Path) -> None:
    one = rl.Volume.from_numpy(array(1), subject="a")

    def put(*volumes: Any, name: str = "T1w", **options: Any) -> Any:
        return rl.VolumeCollection.from_volumes(tmp_path / "s", name, volumes, **options)

    with pytest.raises(ConfigError, match="has no subject; say it"):
        put(rl.Volume.from_numpy(array(1)))
    with pytest.raises(ConfigError, match="subject 'a' has two volumes in collection 'T1w'; tell them apart"):
        put(one, rl.Volume.from_numpy(array(2), subject="a"))
    with pytest.raises(ConfigError, match=r"collection 'T1w' is given a ndarray; give volumes of Volume\.from_numpy"):
        put(array(1))
    with pytest.raises(ConfigError, match="kind='picture' is not 'image' or 'label'"):
        put(one, kind="picture")
    stored = put(one)
    with pytest.raises(ConfigError, match=r"in a store already: RadiObject.from_volume_collections"):
        put(stored.iloc[0])
    with pytest.raises(IngestError, match="is not on the grid of"):
        put(rl.Volume.from_numpy(array(1, (4, 4, 4)), subject="a"), name="seg")
    assert rl.open(tmp_path / "s").collection_names == ["T1w"]
    assert isinstance(one, NewVolume)
