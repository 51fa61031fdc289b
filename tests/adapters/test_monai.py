"""radioloader.monai.Dataset beside MONAI's own datasets: the same samples, by the same script."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

mt = pytest.importorskip("monai.transforms")

import monai.data  # noqa: E402

import radioloader as rl  # noqa: E402
from radioloader.errors import ConfigError, ReadError  # noqa: E402
from radioloader.monai import AsMetaTensors, Dataset  # noqa: E402

KEYS = ["image", "label"]
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def prefix() -> list[Any]:
    return [
        mt.LoadImaged(KEYS),
        mt.EnsureChannelFirstd(KEYS),
        mt.ScaleIntensityRanged("image", 100, 1200, 0, 1, clip=True),
        mt.CropForegroundd(KEYS, "image", allow_smaller=True),
        mt.Orientationd(KEYS, "RAS", labels=LABELS),
        mt.Spacingd(KEYS, (2.5, 2.5, 3), mode=("bilinear", "nearest")),
    ]


def posneg() -> Any:
    return mt.RandCropByPosNegLabeld(KEYS, "label", (20, 24, 16), 1, 1, 3, "image", 0)


def training() -> Any:
    return mt.Compose([*prefix(), posneg(), mt.RandFlipd(KEYS, 0.5, 0), mt.RandShiftIntensityd("image", 0.1, prob=0.5)])


@pytest.fixture(scope="module")
def store(datalist: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The items, prepared."""
    uri = str(tmp_path_factory.mktemp("prepared") / "store")
    Dataset(datalist, training(), store=uri, progress=False, num_workers=1)
    return uri


@pytest.fixture
def make(store: str, datalist: list[dict[str, Any]]) -> Callable[..., Dataset]:
    def dataset(transform: Any = None, **more: Any) -> Dataset:
        return Dataset(datalist, training() if transform is None else transform, store=store, progress=False, **more)

    return dataset


def cropped(operations: Any) -> np.ndarray[Any, Any]:
    """What the last crop took away at either end of each axis."""
    return np.array(operations[-1]["extra_info"]["extra_info"]["cropped"]).reshape(-1, 2)


def same_meta(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(np.asarray(one[key]), np.asarray(other[key]), equal_nan=np.asarray(one[key]).dtype.kind == "f")
        for key in one
    )


def test_the_sample_is_monais_voxel_for_voxel(make: Callable[..., Dataset], datalist: list[dict[str, Any]]) -> None:
    dataset = make(mt.Compose([*prefix(), posneg()]))
    for item, samples in zip(datalist, dataset, strict=True):
        whole = mt.Compose(prefix())(item)
        assert len(samples) == 3
        for sample in samples:
            edges = cropped(sample["image"].applied_operations)
            shape = whole["image"].shape[1:]
            roi = [slice(int(a), int(n - b)) for (a, b), n in zip(edges, shape, strict=True)]
            expected = mt.SpatialCropd(KEYS, roi_slices=roi)(whole)
            assert list(sample) == [*expected]
            for key in KEYS:
                got, want = sample[key], expected[key]
                assert type(got) is type(want)
                assert got.dtype == want.dtype
                assert torch.equal(got.as_tensor(), want.as_tensor())
                assert torch.equal(got.affine, want.affine)
                assert got.is_contiguous()
                of_the_crop = {"patch_index", "crop_center"}
                assert same_meta({k: v for k, v in got.meta.items() if k not in of_the_crop}, want.meta)
                assert [op["class"] for op in got.applied_operations[:-1]] == [
                    op["class"] for op in want.applied_operations[:-1]
                ]
            assert sample["age"] == item["age"]
            assert np.array_equal(sample["foreground_start_coord"], expected["foreground_start_coord"])


def test_whole_volumes_for_validation(datalist: list[dict[str, Any]], store: str) -> None:
    transform = mt.Compose(prefix())
    dataset = Dataset(datalist, transform, store=store, progress=False, num_workers=1)
    for item, sample in zip(datalist, dataset, strict=True):
        expected = transform(item)
        for key in KEYS:
            assert torch.equal(sample[key].as_tensor(), expected[key].as_tensor())
            assert same_meta(sample[key].meta, expected[key].meta)


def test_padding_is_read_as_monai_pads(
    make: Callable[..., Dataset], datalist: list[dict[str, Any]], store: str
) -> None:
    pad = mt.SpatialPadd(KEYS, (10, 90, 60))
    crop = mt.RandSpatialCropd(KEYS, (10, 80, 58), random_size=False)
    dataset = make(mt.Compose([*prefix(), pad, crop]))
    assert dataset.plan.pads == [pad]
    whole = mt.Compose([*prefix(), pad])(datalist[0])
    for _ in range(4):
        sample = dataset[0]
        edges = np.array(sample["image"].applied_operations[-1]["extra_info"]["cropped"]).reshape(-1, 2)
        part = [slice(int(a), int(n - b)) for (a, b), n in zip(edges, whole["image"].shape[1:], strict=True)]
        for key in KEYS:
            assert torch.equal(sample[key].as_tensor(), whole[key].as_tensor()[(slice(None), *part)])
            assert torch.allclose(sample[key].affine, mt.SpatialCrop(roi_slices=part)(whole[key]).affine)
    assert (whole["image"] == 0).any()


def test_what_is_no_crop_that_can_be_left_to_the_read_runs_on_the_volume(
    datalist: list[dict[str, Any]], store: str
) -> None:
    def transform() -> Any:
        return mt.Compose([*prefix(), mt.RandFlipd(KEYS, 1.0, 1), mt.CenterSpatialCropd(KEYS, (8, 8, 8))])

    sample = Dataset(datalist, transform(), store=store, progress=False)[0]
    expected = transform()(datalist[0])
    for key in KEYS:
        assert torch.equal(sample[key].as_tensor(), expected[key].as_tensor())


def total(batch: Any) -> list[float]:
    return [float(batch["image"].double().sum()), float(batch["label"].sum()), float(batch["image"].shape[0])]


def test_batches_depend_on_seed_and_epoch_alone(make: Callable[..., Dataset]) -> None:
    epochs = {}
    for name, arguments in {
        "one": {"num_workers": 0, "num_threads": 0},
        "threads": {"num_threads": 2},
        "fork": {"num_workers": 2, "multiprocessing_context": "fork"},
        # One process for both epochs: it imports MONAI.
        "spawn": {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True},
    }.items():
        loader = rl.DataLoader(make(seed=3), batch_size=2, shuffle=True, **arguments)
        epochs[name] = [[total(batch) for batch in loader] for _ in range(2)]
    assert epochs["threads"] == epochs["fork"] == epochs["spawn"] == epochs["one"]
    assert epochs["one"][0] != epochs["one"][1]
    assert [batch[2] for batch in epochs["one"][0]] == [6.0, 3.0]
    other = rl.DataLoader(make(seed=4), batch_size=2, shuffle=True)
    assert [total(batch) for batch in other] != epochs["one"][0]


def test_an_epoch_goes_on_where_it_was_left(make: Callable[..., Dataset]) -> None:
    loader = rl.DataLoader(make(), batch_size=1, shuffle=True)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    left = [total(batch) for batch in batches]
    again = rl.DataLoader(make(), batch_size=1, shuffle=True, num_workers=1)
    again.load_state_dict(state)
    assert [total(batch) for batch in again] == left


@pytest.mark.parametrize("workers", [0, 2])
def test_monais_loaders(workers: int, make: Callable[..., Dataset]) -> None:
    loader = monai.data.DataLoader(make(), batch_size=2, shuffle=True, num_workers=workers)
    epochs = [list(loader) for _ in range(2)]
    assert [tuple(batch["image"].shape) for batch in epochs[0]] == [(6, 1, 20, 24, 16), (3, 1, 20, 24, 16)]
    assert total(epochs[0][0]) != total(epochs[1][0])
    items = monai.data.decollate_batch(epochs[0][0])
    assert len(items) == 6
    assert items[0]["image"].affine.shape == (4, 4)
    thread = monai.data.ThreadDataLoader(make(), batch_size=3, num_workers=workers)
    assert [batch["label"].shape[0] for batch in thread] == [9]


def test_monais_determinism(make: Callable[..., Dataset]) -> None:
    def sums(seed: int, workers: int = 0) -> list[list[float]]:
        monai.utils.set_determinism(seed)
        try:
            return [
                total(batch) for batch in monai.data.DataLoader(make(), batch_size=1, shuffle=True, num_workers=workers)
            ]
        finally:
            monai.utils.set_determinism(None)

    assert sums(1) == sums(1) != sums(2)
    assert sums(1, 1) == sums(1, 1)


def test_slices_and_parts_as_of_monais_dataset(make: Callable[..., Dataset], datalist: list[dict[str, Any]]) -> None:
    dataset = make()
    assert len(dataset) == 3
    assert list(dataset.data) == datalist
    assert [sample[0]["age"] for sample in dataset[1:]] == [31, 32]
    assert [sample[0]["age"] for sample in dataset[[2, 0]]] == [32, 30]
    assert dataset[-1][0]["age"] == 32
    with pytest.raises(IndexError, match="item 3 is out of range"):
        dataset[3]
    with pytest.raises(TypeError, match="takes integers"):
        dataset["image"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_prediction_goes_back_to_the_files_grid(
    method: str, make: Callable[..., Dataset], datalist: list[dict[str, Any]], tmp_path: Path
) -> None:
    transform = mt.Compose(prefix())
    loader = rl.DataLoader(make(transform), batch_size=1, num_workers=1, multiprocessing_context=method)
    post = mt.Compose(
        [
            mt.Invertd("pred", transform, "image", nearest_interp=True, to_tensor=True),
            mt.SaveImaged(
                "pred", output_dir=str(tmp_path), output_postfix="pred", separate_folder=False, print_log=False
            ),
        ]
    )
    for item, batch in zip(datalist, loader, strict=True):
        batch["pred"] = batch["label"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (one,) = monai.data.decollate_batch(batch)
            post(one)
        saved, source = (
            nib.load(tmp_path / Path(item["image"]).name.replace(".nii.gz", "_pred.nii.gz")),
            nib.load(item["label"]),
        )
        assert saved.shape == source.shape
        np.testing.assert_allclose(saved.affine, source.affine, atol=1e-5)
        voxels, truth = np.asarray(saved.dataobj), np.asarray(source.dataobj)
        dice = 2 * ((voxels == 2) & (truth == 2)).sum() / ((voxels == 2).sum() + (truth == 2).sum())
        assert dice > 0.8  # resampled there and back


def test_a_patch_is_inverted_as_monai_inverts_it(make: Callable[..., Dataset], datalist: list[dict[str, Any]]) -> None:
    flip = mt.Compose(
        [*prefix(), mt.RandSpatialCropd(KEYS, (20, 24, 16), random_size=False), mt.RandFlipd(KEYS, 1.0, 0)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverted = flip.inverse(make(flip)[1])
    source = nib.load(datalist[1]["image"])
    assert tuple(inverted["image"].shape[1:]) == source.shape
    np.testing.assert_allclose(inverted["image"].affine, source.affine, atol=1e-5)
    assert inverted["image"].applied_operations == []
    voxels, truth = np.asarray(inverted["label"][0]), np.asarray(nib.load(datalist[1]["label"]).dataobj)
    inside = voxels > 0
    assert inside.sum() > 100
    assert (truth[inside] > 0).mean() > 0.8


def test_a_sliding_window_gives_what_it_gives_on_the_file(
    make: Callable[..., Dataset], datalist: list[dict[str, Any]]
) -> None:
    from monai.inferers import SlidingWindowInferer

    torch.manual_seed(0)
    model = torch.nn.Conv3d(1, 2, 3, padding=1)
    inferer, transform = SlidingWindowInferer((16, 16, 16), 2, 0.25, "gaussian"), mt.Compose(prefix())
    with torch.no_grad():
        mine = inferer(make(transform)[0]["image"][None], model)
        theirs = inferer(transform(datalist[0])["image"][None], model)
    assert torch.equal(mine, theirs)


def test_the_line_of_a_script_is_all_that_changes(datalist: list[dict[str, Any]], store: str) -> None:
    cached = Dataset(data=datalist, transform=training(), cache_rate=1.0, num_workers=1, progress=False, store=store)
    kept = Dataset(datalist, training(), cache_dir=store, hash_transform=None, progress=False)
    assert len(cached) == len(kept) == 3
    with pytest.raises(TypeError, match="unexpected argument 'cache_rates'"):
        Dataset(datalist, training(), store=store, cache_rates=1.0)
    with pytest.raises(ConfigError, match="store is missing"):
        Dataset(datalist, training())
    with pytest.raises(ConfigError, match=r"data is a dict, expected a list of dicts"):
        Dataset(datalist[0], training(), store=store)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_workers"):
        Dataset(datalist, training(), store=store, num_workers=-1)
    with pytest.raises(ConfigError, match=r"data\[0\] is a str"):
        Dataset(["a"], training(), store=store)


def test_a_decathlon_datalist(datalist: list[dict[str, Any]], store: str, tmp_path: Path) -> None:
    import json

    entries = [{key: item[key] for key in KEYS} for item in datalist]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "labels": {"0": "background"}}))
    data = monai.data.load_decathlon_datalist(str(tmp_path / "dataset.json"), True, "training")
    sample = Dataset(data, training(), store=store, progress=False, num_workers=1)[0]
    assert sample[0]["image"].shape == (1, 20, 24, 16)


def test_a_damaged_volume_is_named(make_datalist: Callable[..., Any], tmp_path: Path) -> None:
    data = make_datalist(tmp_path / "files", items=1)
    dataset = Dataset(data, training(), store=tmp_path / "store", progress=False, num_workers=1)
    for file in (tmp_path / "store").glob("c/*/volumes/*/__fragments/*/a0.tdb"):
        file.write_bytes(b"")
    with pytest.raises(ReadError, match="subject 'case0_t1-"):
        dataset[0]


def test_an_error_in_a_transform_names_the_item(make: Callable[..., Dataset]) -> None:
    def fail(sample: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(RuntimeError) as caught:
        make(mt.Compose([*prefix(), posneg(), fail]))[1]
    assert "case1_t1.nii.gz" in "".join(caught.value.__notes__)


def test_explain_names_every_transform(make: Callable[..., Dataset]) -> None:
    lines = make().explain().splitlines()
    assert [line.split()[0] for line in lines] == [type(transform).__name__ for transform in training().transforms]


def test_a_class_of_the_scripts_own_in_the_pipeline(store: str, datalist: list[dict[str, Any]]) -> None:
    """As MONAI's tutorial of BraTS has one."""

    class ToChannels(mt.MapTransform):
        def __call__(self, data: Any) -> Any:
            sample = dict(data)
            for key in self.keys:
                sample[key] = torch.cat([sample[key] == 1, sample[key] == 2, sample[key] > 0]).float()
            return sample

    def transform() -> Any:
        return mt.Compose(
            [*prefix()[:2], ToChannels("label"), mt.RandSpatialCropd(KEYS, (16, 16, 16), random_size=False)]
        )

    dataset = Dataset(datalist, transform(), store=store, progress=False, num_workers=1)
    sample = dataset[0]
    whole = mt.Compose(transform().transforms[:-1])(datalist[0])
    edges = np.array(sample["label"].applied_operations[-1]["extra_info"]["cropped"]).reshape(-1, 2)
    part = [slice(int(a), int(n - b)) for (a, b), n in zip(edges, whole["label"].shape[1:], strict=True)]
    assert sample["label"].shape == (3, 16, 16, 16)
    assert torch.equal(sample["label"].as_tensor(), whole["label"].as_tensor()[(slice(None), *part)])


@pytest.mark.parametrize("meta", [False, True])
def test_our_datasets_take_monais_transforms(meta: bool, store_uri: str, tmp_path: Path) -> None:
    transforms = [mt.RandFlipd(KEYS, 1.0, 0), mt.RandScaleIntensityd("image", 0.1, prob=1.0)]
    dataset = rl.PatchDataset(
        store_uri,
        image="T1w",
        label="seg",
        patch_size=(8, 9, 10),
        transform=mt.Compose([AsMetaTensors(), *transforms] if meta else transforms),
    )
    plain = rl.PatchDataset(store_uri, image="T1w", label="seg", patch_size=(8, 9, 10))
    key = rl.PatchKey(1, 2, 3)
    sample, before = dataset[key], plain[key]
    assert isinstance(sample["image"], monai.data.MetaTensor) == meta
    if not meta:
        assert {type(sample[key]) for key in KEYS} == {torch.Tensor}
    assert torch.equal(torch.as_tensor(sample["label"]), before["label"].flip(1))
    assert not torch.equal(torch.as_tensor(sample["image"]), before["image"].flip(1))
    assert torch.equal(torch.as_tensor(sample["image"]), torch.as_tensor(dataset[key]["image"]))
    batch = next(iter(rl.DataLoader(dataset, batch_size=3)))
    assert batch["image"].shape == (3, 1, 8, 9, 10)
    if meta:
        # The corner that was the last voxel on x is the first one now.
        corner = before["affine"] @ torch.tensor([7.0, 0, 0, 1], dtype=torch.float64)
        assert torch.allclose(sample["image"].affine[:, 3], corner)
        assert sample["image"].meta["filename_or_obj"] == sample["obs_id"]


def test_a_missing_transform_and_failures_of_all(datalist: list[dict[str, Any]], tmp_path: Path) -> None:
    from radioloader.errors import ConfigError, IngestError
    from radioloader.monai import Dataset

    with pytest.raises(ConfigError, match="transform is missing"):
        Dataset(datalist, store=tmp_path / "store", progress=False)
    wrong = mt.Compose([mt.LoadImaged("scan"), mt.EnsureChannelFirstd("scan")])
    with pytest.raises(IngestError, match=r"1 of 1 items could not be prepared.*Nothing was prepared"):
        Dataset(datalist[:1], wrong, store=tmp_path / "store", progress=False)
