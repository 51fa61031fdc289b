"""PatchDataModule with a real Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError, ShapeError

lightning = pytest.importorskip("lightning.pytorch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # Lightning's advice, whatever the data
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning's own use of torch
]


class Tiny(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """One convolution, which remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1)
        self.seen: dict[str, list[tuple[int, str, str]]] = {"train": [], "val": [], "test": [], "predict": []}

    def _note(self, part: str, batch: dict[str, Any]) -> None:
        for subject, location in zip(batch["obs_subject_id"], batch["location"].tolist(), strict=True):
            self.seen[part].append((self.current_epoch, subject, str(location)))

    def _loss(self, batch: dict[str, Any]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layer(batch["image"] / 1000), batch["label"][:, 0].long())

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        self._note("train", batch)
        return self._loss(batch)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._note("val", batch)
        self.log("val_loss", self._loss(batch), batch_size=len(batch["obs_id"]))

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._note("test", batch)

    def predict_step(self, batch: dict[str, Any], index: int) -> tuple[str, torch.Tensor]:
        self._note("predict", batch)
        return batch["obs_subject_id"][0], self.layer(batch["image"]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, epochs: int = 2, **arguments: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **arguments,
    )


def module(store: Any, **arguments: Any) -> Any:
    defaults = {
        "image": "T1w",
        "label": "seg",
        "patch_size": 8,
        "patches_per_volume": 3,
        "batch_size": 4,
        "split": (0.6, 0.2, 0.2),
    }
    return rl.lightning.PatchDataModule(store, **defaults | arguments)


def subjects(seen: list[tuple[int, str, str]]) -> set[str]:
    return {subject for _, subject, _ in seen}


@pytest.mark.parametrize("workers", [0, 1])
def test_fit_validate_test_and_predict(ten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.chdir(tmp_path)
    data = module(ten, num_workers=workers, loader_kwargs={"multiprocessing_context": "fork"} if workers else None)
    model = Tiny()
    weight = model.layer.weight.detach().clone()
    runner = trainer(tmp_path)
    runner.fit(model, datamodule=data)
    assert runner.callback_metrics["val_loss"].isfinite()
    runner.validate(model, datamodule=data, verbose=False)
    runner.test(model, datamodule=data, verbose=False)
    predictions = runner.predict(model, datamodule=data)
    assert not torch.equal(model.layer.weight, weight)
    seen = model.seen
    assert (len(data.split.train), len(data.split.val), len(data.split.test)) == (6, 2, 2)
    assert subjects(seen["train"]) == set(data.split.train)
    assert subjects(seen["val"]) == set(data.split.val)
    assert subjects(seen["test"]) == set(data.split.test)
    assert not subjects(seen["train"]) & (subjects(seen["val"]) | subjects(seen["test"]))
    # Predictions: every test volume once, whole, in the order of the split.
    assert [subject for subject, _ in predictions] == data.split.test
    shapes = {volume.obs_subject_id: volume.shape for volume in data.store.T1w}
    assert [tuple(mask.shape[1:]) for _, mask in predictions] == [shapes[subject] for subject in data.split.test]
    # The sanity check, an epoch's validation and validate() are alike: whole volumes, each once.
    assert [entry[1:] for entry in seen["val"]] == [entry[1:] for entry in seen["val"][:2]] * 4
    assert list(tmp_path.iterdir()) == []  # neither Lightning nor the data module leaves anything behind


def test_the_trainer_sets_the_epoch(ten: str, tmp_path: Path) -> None:
    data, model = module(ten, seed=3), Tiny()
    trainer(tmp_path, epochs=3).fit(model, datamodule=data)
    by_epoch = [[entry[1:] for entry in model.seen["train"] if entry[0] == epoch] for epoch in range(3)]
    assert [len(part) for part in by_epoch] == [18, 18, 18]
    assert len({subject for subject, _ in by_epoch[0]}) == 6
    orders = [[subject for subject, _ in part] for part in by_epoch]
    assert orders[0] != orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    # Epoch for epoch what the keys say, not merely something else each time.
    for epoch, part in enumerate(by_epoch):
        sampler = rl.KeySampler(data.train_dataset)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key.epoch for key in keys} == {epoch}
        expected = [data.train_dataset[key] for key in keys]
        assert part == [(sample["obs_subject_id"], str(sample["location"].tolist())) for sample in expected]


def test_a_run_can_be_repeated(ten: str, tmp_path: Path) -> None:
    def run(seed: int) -> tuple[Any, torch.Tensor]:
        torch.manual_seed(0)
        model = Tiny()
        trainer(tmp_path, limit_val_batches=0).fit(model, datamodule=module(ten, seed=seed))
        return model.seen["train"], model.layer.weight.detach()

    first, again, other = run(1), run(1), run(2)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert first[0] != other[0]


def test_transforms_of_training_and_evaluation(ten: str) -> None:
    data = module(
        ten,
        transform=lambda sample: sample | {"which": "train"},
        eval_transform=lambda sample: sample | {"which": "eval"},
        targets={"years": "age"},
    )
    assert next(iter(data.train_dataloader()))["which"] == ["train"] * 4
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        batch = next(iter(loader))
        assert batch["which"] == ["eval"]
        assert batch["years"].item() == 20 + int(batch["obs_subject_id"][0][-2:])


def test_workers_change_nothing(ten: str) -> None:
    def batches(workers: int) -> list[Any]:
        start = {"multiprocessing_context": "fork"} if workers else None
        return list(module(ten, num_workers=workers, loader_kwargs=start).train_dataloader())

    for a, b in zip(batches(0), batches(2), strict=True):
        assert a["obs_id"] == b["obs_id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_arguments_reach_the_loaders(ten: str) -> None:
    grid = rl.GridPositions()
    data = module(ten, positions=grid, loader_kwargs={"drop_last": True}, pad=True, patch_size=16, dtype=torch.float64)
    assert data.train_dataset.positions is grid
    loader = data.train_dataloader()
    assert loader.drop_last
    batch = next(iter(loader))
    assert batch["image"].shape == (4, 1, 16, 16, 16)
    assert batch["image"].dtype == torch.float64


# ---- the split -----------------------------------------------------------------------------------------------------------


def test_the_split_by_fractions_is_that_of_split_subjects(ten: str) -> None:
    everyone = rl.open(ten).obs_subject_ids
    data = module(ten, seed=7)
    assert data.split == rl.split_subjects(everyone, (0.6, 0.2, 0.2), seed=7)
    assert data.split != module(ten, seed=8).split
    assert sorted([*data.split.train, *data.split.val, *data.split.test]) == everyone
    assert data.train_dataset.subjects == data.split.train
    assert data.val_dataset.subjects == data.split.val
    assert data.test_dataset.subjects == data.split.test


def test_test_subjects_without_a_label_do_not_keep_from_training(
    write_image: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "i" / f"{name}.nii.gz", np.arange(512, dtype=np.int16).reshape(8, 8, 8))
        if name != "c":
            write_image(tmp_path / "l" / f"{name}.nii.gz", np.ones((8, 8, 8), np.uint8))
    rl.ingest(tmp_path / "s", {"CT": tmp_path / "i", "seg": tmp_path / "l"}, allow_missing=True, workers=1)
    split = rl.Split(train=["a"], val=["b"], test=["c"])
    data = rl.lightning.PatchDataModule(
        tmp_path / "s", image="CT", label="seg", patch_size=4, batch_size=1, split=split
    )
    assert (data.train_dataset.subjects, data.val_dataset.subjects, data.test_dataset) == (["a"], ["b"], None)
    with pytest.raises(KeyNotFoundError, match=r"'seg' has no volume of 1 of 1 subjects, such as \['c'\]"):
        data.test_dataloader()


@pytest.mark.parametrize("kind", ["split", "mapping"])
def test_the_split_as_told(ten: str, tmp_path: Path, kind: str) -> None:
    parts = {"train": ["sub-09", "sub-02"], "val": ["sub-05"], "test": ["sub-01"]}
    data = module(ten, split=rl.Split(**parts) if kind == "split" else parts)
    model = Tiny()
    trainer(tmp_path, epochs=1).fit(model, datamodule=data)
    assert subjects(model.seen["train"]) == {"sub-09", "sub-02"}
    assert subjects(model.seen["val"]) == {"sub-05"}


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # Lightning's remark on no validation
def test_without_validation_and_test_subjects(ten: str, tmp_path: Path) -> None:
    data, model = module(ten, split={"train": ["sub-01"]}), Tiny()
    runner = trainer(tmp_path, epochs=1)
    runner.fit(model, datamodule=data)
    assert model.seen["val"] == []
    assert len(model.seen["train"]) == 3
    for run in (runner.test, runner.predict):
        with pytest.raises(ConfigError, match="the split has no test subjects"):
            run(model, datamodule=data)
    with pytest.raises(ConfigError, match="the split has no validation subjects"):
        runner.validate(model, datamodule=data)


def test_a_selection_of_a_store(ten: str) -> None:
    data = module(rl.open(ten).iloc[:5])
    everyone = sorted([*data.split.train, *data.split.val, *data.split.test])
    assert everyone == [f"sub-{number:02d}" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("split", "error", "text"),
    [
        (
            {"train": ["sub-01"], "valid": ["sub-02"]},
            ConfigError,
            r"split has the parts \['valid'\]; expected 'train', 'val' and 'test'",
        ),
        ({"train": ["sub-01"], "val": ["sub-01"]}, ConfigError, r"1 subjects more than once, such as \['sub-01'\]"),
        ({"train": ["sub-01"], "val": ["sub-77"]}, KeyNotFoundError, r"has no subjects \['sub-77'\]"),
        ({"val": ["sub-01"]}, ConfigError, "the split has no training subjects"),
        ((0.0, 0.5, 0.5), ConfigError, "the split has no training subjects"),
        ((0.5, 0.5), ConfigError, "must be three fractions"),
        ((0.5, 0.4, 0.2), ConfigError, r"split=\(0.5, 0.4, 0.2\) must be three fractions"),
        (0.8, ConfigError, "split=0.8 must be three fractions"),
    ],
)
def test_wrong_splits(ten: str, split: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        module(ten, split=split)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"patch_size": 40}, ShapeError, r"patch_size=\(40, 40, 40\) is larger than 6 of 6 volumes"),
        ({"image": "CT"}, KeyNotFoundError, "has no collection 'CT'"),
        ({"batch_size": 0}, ConfigError, "batch_size=0 must be a whole number of at least 1"),
        ({"num_workers": -1}, ConfigError, "num_workers=-1 must be a whole number of at least 0"),
        ({"loader_kwargs": {"num_worker": 2}}, ConfigError, "loader_kwargs do not make a loader: .*'num_worker'"),
        ({"loader_kwargs": {"num_workers": "2"}}, ConfigError, "num_workers='2' must be a whole number"),
        ({"loader_kwargs": {"shuffle": True}}, ConfigError, "loader_kwargs sets 'shuffle', but .* order= gives"),
        ({"loader_kwargs": {"batch_size": 2}}, ConfigError, "loader_kwargs sets 'batch_size', but .* give batch_size="),
        ({"loader_kwargs": {"persistent_workers": True}}, ConfigError, "num_workers=0 and loader_kwargs do not make"),
        ({"loader_kwargs": {"prefetch_factor": 2}}, ConfigError, "num_workers=0 and loader_kwargs .*prefetch_factor"),
        ({"loader_kwargs": 3}, ConfigError, "loader_kwargs must be a mapping, such as .*, got int"),
        (
            {"order": rl.EqualShapes(4), "batch_size": 2},
            ConfigError,
            "batch_size=2, but the order makes batches of 4; give both the same",
        ),
    ],
)
def test_wrong_arguments_fail_before_a_trainer_exists(
    ten: str, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        module(ten, **arguments)
