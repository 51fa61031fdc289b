"""What the data modules share: where a split comes from, the device, resuming, overfitting; volumes and slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import radioloader as rl
from radioloader.errors import ConfigError, KeyNotFoundError

pytest.importorskip("lightning.pytorch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*in both `LightningModule` and `LightningDataModule`"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*recommended to use `self.log"),
]

IDS = [f"sub-{number:02d}" for number in range(1, 11)]
FORK = {"loader_kwargs": {"multiprocessing_context": "fork"}}


def patches(store: Any, **arguments: Any) -> Any:
    defaults = {"image": "T1w", "label": "seg", "patch_size": 6, "patches_per_volume": 2, "batch_size": 3}
    return rl.lightning.PatchDataModule(store, **defaults | arguments)


# ---- where the split comes from --------------------------------------------------------------------------------------------


def test_a_column_says_the_split(ten: str) -> None:
    sexes = rl.open(ten).obs_meta.read().set_index("obs_subject_id")["sex"]
    with pytest.raises(ConfigError, match="10 of 10 subjects have neither 'train'"):
        patches(ten, split_column="sex")
    data = patches(ten, split=(0.5, 0.0, 0.5), stratify="sex", seed=2)
    assert sorted(sexes[s] for s in data.split.train) in (["F"] * 3 + ["M"] * 2, ["F"] * 2 + ["M"] * 3)
    assert {sexes[s] for s in data.split.test} == {"F", "M"}
    family = {subject: number // 2 for number, subject in enumerate(IDS)}
    data = patches(ten, split=(0.6, 0.2, 0.2), groups=family)
    for part in (data.split.train, data.split.val, data.split.test):
        assert not {family[s] for s in part} & {family[s] for s in set(IDS) - set(part)}
    assert data.recipe["groups"] == "a mapping"


def test_folds(ten: str) -> None:
    modules = [patches(ten, folds=4, fold=fold, held_out=0.2, stratify="sex", seed=1) for fold in range(4)]
    expected = rl.k_folds(IDS, 4, seed=1, test=0.2, stratify=rl_sexes(ten))
    assert [data.split for data in modules] == expected
    assert modules[1].recipe == {
        "how": "folds", "folds": 4, "fold": 1, "held_out": 0.2, "seed": 1, "groups": None, "stratify": "sex"
    }  # fmt: skip


def rl_sexes(store: str) -> dict[str, str]:
    frame = rl.open(store).obs_meta.read()
    return dict(zip(frame["obs_subject_id"], frame["sex"], strict=True))


def test_a_manifest_is_saved_used_again_and_checked(ten: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    first = patches(ten, split=(0.5, 0.2, 0.3), seed=4, groups={s: s for s in IDS})
    first.save_manifest(path)
    again = patches(ten, split=path)
    assert again.split == first.split == patches(ten, split=str(path)).split
    saved = json.loads(path.read_text())
    assert saved["recipe"]["how"] == "fractions"
    assert saved["recipe"]["collections"] == ["T1w", "seg"]
    assert saved["recipe"]["seed"] == 4
    saved["content_hashes"]["seg"]["sub-03"] = "0" * 64
    path.write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match=r"1 volumes of 'seg' have other contents, such as those of \['sub-03'\]"):
        patches(ten, split=path)
    (tmp_path / "plain.json").write_text('{"train": ["sub-01"], "val": ["sub-02"]}')
    assert patches(ten, split=tmp_path / "plain.json").split == rl.Split(["sub-01"], ["sub-02"], [])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"split": (0.8, 0.1, 0.1), "split_column": "sex"}, ConfigError, "split and split_column each say"),
        ({"folds": 3}, ConfigError, "folds=3 and fold=None: give both"),
        ({"folds": 3, "fold": 3}, ConfigError, "fold=3 must be a whole number from 0 to 2"),
        ({"held_out": 0.2}, ConfigError, "held_out=0.2 is for folds"),
        (
            {"split": {"train": ["sub-01"]}, "groups": "sex"},
            ConfigError,
            "groups and stratify are for a split that is drawn",
        ),
        ({"stratify": "nothing"}, KeyNotFoundError, "has no column 'nothing'"),
        ({"split": "none.json"}, ConfigError, "none.json cannot be read"),
        ({"eval_batch_size": 0}, ConfigError, "eval_batch_size=0 must be a whole number of at least 1"),
        ({"device_transform": 3}, ConfigError, "device_transform must be callable, got int"),
        ({"order": rl.EqualShapes(2)}, ConfigError, "batch_size=3, but the order makes batches of 2"),
        ({"order": rl.Weighted("sex")}, ConfigError, "expected numbers"),
        ({"on_error": "ignore"}, ConfigError, "on_error='ignore' is not one of"),
    ],
)
def test_wrong_arguments(ten: str, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        patches(ten, **arguments)


# ---- loaders ---------------------------------------------------------------------------------------------------------------


def test_orders_reach_training_and_evaluation_drops_nothing(ten: str) -> None:
    order = rl.BlockShuffled(2)
    data = patches(ten, order=order, eval_batch_size=1, loader_kwargs={"drop_last": True}, split=(0.5, 0.2, 0.3))
    assert data.train_dataloader().sampler.order is order
    assert [len(batch["obs_id"]) for batch in data.train_dataloader()] == [3, 3, 3]
    volumes = rl.lightning.VolumeDataModule(
        ten, image="T1w", crop_to=8, batch_size=2, eval_batch_size=2, loader_kwargs={"drop_last": True},
        split={"train": IDS[:5], "test": IDS[5:]},
    )  # fmt: skip
    assert [len(batch["obs_id"]) for batch in volumes.train_dataloader()] == [2, 2]
    assert [len(batch["obs_id"]) for batch in volumes.test_dataloader()] == [2, 2, 1]
    assert [s for batch in volumes.test_dataloader() for s in batch["obs_subject_id"]] == IDS[5:]


def test_volumes_and_slices_train_and_evaluate(ten: str, tmp_path: Path) -> None:
    from noting import Noting, trainer

    split = {"train": IDS[:4], "val": IDS[4:6], "test": IDS[6:]}
    data = rl.lightning.VolumeDataModule(ten, image="T1w", label="seg", crop_to=8, batch_size=2, split=split)
    model, runner = Noting(), trainer(tmp_path, max_epochs=1)
    runner.fit(model, datamodule=data)
    runner.test(model, datamodule=data, verbose=False)
    assert sorted(s for _, s, _ in model.seen["train"]) == IDS[:4]
    assert [s for _, s, _ in model.seen["test"]] == IDS[6:]

    slices = rl.lightning.SliceDataModule(
        ten,
        image="T1w",
        label="seg",
        plane="sagittal",
        context=1,
        skip_empty="label",
        block=2,
        batch_size=4,
        split=split,
    )
    trained = [
        (subject, place[0][0])
        for batch in slices.train_dataloader()
        for subject, place in zip(batch["obs_subject_id"], batch["location"].tolist(), strict=True)
    ]
    assert len(trained) == len(set(trained)) == 4 * 8  # the label fills x = 4 to 11
    assert {x for _, x in trained} == set(range(4, 12))
    assert next(iter(slices.train_dataloader()))["image"].shape == (4, 3, 15, 9)
    tested = [s for batch in slices.test_dataloader() for s in batch["obs_subject_id"]]
    # All slices, in order. From sub-08 on the volume is turned by more than 45 degrees: sagittal is the second axis.
    assert tested == [s for s in IDS[6:] for _ in range(18 if s == "sub-07" else 15)]


# ---- on the device -----------------------------------------------------------------------------------------------------------


def noise(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {"noise": torch.rand(len(batch["obs_id"]))}


def test_transforms_on_the_device(ten: str, tmp_path: Path) -> None:
    from noting import Noting, trainer

    class Model(Noting):
        def __init__(self) -> None:
            super().__init__()
            self.noise: list[list[float]] = []
            self.own: list[str] = []

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.own.append("noise" if "noise" in batch else "marked" if "marked" in batch else "neither")
            return batch

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            self.noise.append(batch["noise"].tolist())
            return super().training_step(batch, index)

    def run(**arguments: Any) -> tuple[Model, torch.Tensor]:
        model = Model()
        data = patches(ten, device_transform=noise, split={"train": IDS[:3], "val": IDS[3:4]}, **arguments)
        torch.manual_seed(7)
        trainer(tmp_path, max_epochs=2).fit(model, datamodule=data)
        return model, torch.rand(3)

    model, after = run(eval_device_transform=lambda batch: batch | {"marked": True})
    assert len({value for part in model.noise for value in part}) == 12  # each batch of each epoch its own
    assert model.own == [
        "marked",
        "noise",
        "noise",
        "marked",
        "noise",
        "noise",
        "marked",
    ]  # and the model's hook as well
    again, after_again = run()
    assert torch.equal(after, after_again)
    assert again.noise == model.noise
    assert again.own[0] == "neither"
    # Lightning's hooks are left alone where nothing is to be done.
    assert "on_after_batch_transfer" not in vars(patches(ten))
    data = patches(ten, split={"train": IDS[:3], "val": IDS[3:4]}, device_transform=lambda batch: noise(batch))
    assert "on_after_batch_transfer" in vars(data)


# ---- resuming and overfitting ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted() -> dict[int, Any]:
    """What a whole run saw, by number of workers."""
    return {}


@pytest.mark.parametrize(("steps", "workers"), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (2, 1), (3, 1)])
def test_resuming_at_any_step(
    ten: str, tmp_path: Path, uninterrupted: dict[int, Any], steps: int, workers: int
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from noting import Noting, StopAfter, trainer

    def data() -> Any:
        return patches(ten, split={"train": IDS[:4], "val": IDS[4:5]}, num_workers=workers, **(FORK if workers else {}))

    if workers not in uninterrupted:
        whole = Noting()
        trainer(tmp_path, max_epochs=3).fit(whole, datamodule=data())
        uninterrupted[workers] = whole.seen["train"]
    assert len(uninterrupted[workers]) == 24
    first, second = Noting(), Noting()
    saving = ModelCheckpoint(tmp_path / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    stopping = trainer(tmp_path, max_epochs=3, callbacks=[saving, StopAfter(steps + 1)], enable_checkpointing=True)
    stopping.fit(first, datamodule=data())
    assert stopping.global_step == steps + 1
    trainer(tmp_path, max_epochs=3).fit(second, datamodule=data(), ckpt_path=tmp_path / "saved" / f"step={steps}.ckpt")
    consumed = sum(min(3, 8 - 3 * (step % 3)) for step in range(steps))
    assert first.seen["train"][:consumed] + second.seen["train"] == uninterrupted[workers]


@pytest.mark.parametrize("workers", [0, 1])
def test_overfitting_has_the_same_batches_in_every_epoch(ten: str, tmp_path: Path, workers: int) -> None:
    from noting import Noting, trainer

    model = Noting()
    data = patches(ten, split={"train": IDS[:4], "val": IDS[4:7]}, num_workers=workers, **(FORK if workers else {}))
    trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, datamodule=data)
    by_epoch = [[entry[1:] for entry in model.seen["train"] if entry[0] == epoch] for epoch in range(3)]
    assert len(by_epoch[0]) == 6
    assert by_epoch[0] == by_epoch[1] == by_epoch[2]
    assert {s for _, s, _ in model.seen["val"]} == {"sub-05", "sub-06"}
    # What is trained on is the beginning of epoch 0.
    sampler = rl.KeySampler(data.train_dataset)
    expected = [data.train_dataset[key] for key in list(sampler)[:6]]
    assert by_epoch[0] == [(s["obs_subject_id"], str(s["location"].tolist())) for s in expected]
