"""PatchDataModule under a real Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError, ShapeError

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval.*"),
    # Lightning's own use of a deprecated torch function
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
]


class Recorder(pl.LightningModule):
    """A tiny model that writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1)
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}

    def _note(self, stage: str, batch: dict[str, Any]) -> torch.Tensor:
        where = batch["location"][:, 0].tolist()
        self.seen[stage] += [
            (self.current_epoch, subject, tuple(start))
            for subject, start in zip(batch["obs_subject_id"], where, strict=True)
        ]
        return torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["label"][:, 0].long())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        assert batch["image"].shape == (2, 1, 8, 8, 8)
        return self._note("train", batch)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._note("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._note("test", batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self._note("predict", batch)
        return self.layer(batch["image"]).argmax(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == [], "Lightning and the data module leave nothing behind"


def module(store_uri: str, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "image": "T1w",
        "label": "seg",
        "patch_size": 8,
        "patches_per_volume": 2,
        "batch_size": 2,
        "split": (0.5, 0.25, 0.25),
    }
    return rl.lightning.PatchDataModule(store_uri, **(arguments | changes))


def test_fit_test_predict(store_uri: str, in_empty_folder: Path) -> None:
    data, model = module(store_uri, seed=3), Recorder()
    trainer = pl.Trainer(max_epochs=2, default_root_dir=in_empty_folder, **QUIET)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    predictions = trainer.predict(model, data)

    epochs = [[entry[1:] for entry in model.seen["train"] if entry[0] == epoch] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(subject for subject, _ in epoch) == sorted(data.split.train * 2), "every draw once an epoch"
    assert set(epochs[0]).isdisjoint(epochs[1]), "another epoch has other patches"
    assert {s for _, s, _ in model.seen["val"]} == set(data.split.val)
    assert {s for _, s, _ in model.seen["test"]} == set(data.split.test)
    assert [s for _, s, _ in model.seen["predict"]] == data.split.test
    shapes = {v.obs_subject_id: v.shape for v in rl.open(store_uri).T1w}
    assert [tuple(p.shape[1:]) for p in predictions] == [shapes[s] for s in data.split.test], "whole volumes"


def test_same_seed_same_patches(store_uri: str, in_empty_folder: Path) -> None:
    seen = []
    for seed in (1, 1, 2):
        model = Recorder()
        trainer = pl.Trainer(max_epochs=1, limit_val_batches=0, default_root_dir=in_empty_folder, **QUIET)
        trainer.fit(model, module(store_uri, seed=seed, split={"train": ["sub-01", "sub-02"], "val": ["sub-03"]}))
        seen.append(model.seen["train"])
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_workers_change_nothing(store_uri: str) -> None:
    batches = [list(module(store_uri, num_workers=n).train_dataloader()) for n in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 2
    for a, b in zip(*batches, strict=True):
        assert a["obs_id"] == b["obs_id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_split_as_told(store_uri: str) -> None:
    split = rl.Split(["sub-04", "sub-01"], ["sub-02"], ["sub-03"])
    for given in (split, {"train": ["sub-04", "sub-01"], "val": ["sub-02"], "test": ["sub-03"]}):
        data = module(store_uri, split=given)
        assert (data.split.train, data.split.val, data.split.test) == (["sub-04", "sub-01"], ["sub-02"], ["sub-03"])
        assert data.train_dataset.subjects == ["sub-04", "sub-01"]
    data = module(store_uri, split={"train": ["sub-01"]})
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"split": {"train": ["sub-01"], "val": ["sub-01"]}},
            ConfigError,
            "subjects more than once, such as \\['sub-01'\\]",
        ),
        ({"split": {"train": ["sub-01"], "validation": []}}, ConfigError, "parts \\['validation'\\]"),
        ({"split": (0.5, 0.6, 0.1)}, ConfigError, "add up to 1"),
        ({"split": {"train": ["sub-99"]}}, KeyNotFoundError, "sub-99"),
        ({"patch_size": 500}, ShapeError, "larger than"),
        ({"image": "T2w"}, KeyNotFoundError, "no collection 'T2w'"),
    ],
)
def test_wrong_arguments_fail_at_construction(
    store_uri: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module(store_uri, **changes)


def test_transform_only_while_training(store_uri: str) -> None:
    data = module(store_uri, transform=_negate, eval_transform=None)
    batch = next(iter(data.train_dataloader()))
    plain = next(iter(module(store_uri).train_dataloader()))
    assert torch.equal(batch["image"], -plain["image"])
    whole = next(iter(data.val_dataloader()))
    volume = rl.open(store_uri).T1w.loc[whole["obs_subject_id"][0]]
    assert torch.equal(whole["image"][0, 0], torch.from_numpy(volume.to_numpy()).float())


def _negate(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "image": -sample["image"]}
