from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch

from radioloader.errors import ConfigError
from radioloader.inference.identity import networks_of
from radioloader.inference.target import provenance


def identity(model: Any, model_id: str | None = None, transform: Any = None, **arguments: Any) -> str:
    return provenance(model, model_id, transform, arguments)["identity"]  # type: ignore[no-any-return]


class Net(torch.nn.Module):
    def __init__(self, scale: float = 1.0, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1, stride=stride)
        self.scale = scale
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.scale  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_equal_models_are_one() -> None:
    net = Net()
    other = Net().train(False)
    assert identity(net) == identity(other)
    assert identity(torch.compile(net)) == identity(net)
    assert identity(torch.nn.DataParallel(net)) == identity(net)
    assert identity(net.double().float()) == identity(net)


def test_what_makes_another_model() -> None:
    net = Net()
    changed = Net()
    with torch.no_grad():
        changed.conv.bias[0] += 1e-6
    counted = Net()
    counted.count += 1
    found = {
        "plain": identity(net),
        "weights": identity(changed),
        "buffer": identity(counted),
        "attribute": identity(Net(scale=2.0)),
        "layer's setting": identity(Net(stride=2)),
        "dtype": identity(Net().bfloat16()),
        "arguments": identity(net, overlap=0.5),
        "transform": identity(net, transform=_twice),
        "name": identity(net, "mine"),
        "function": identity(_twice),
    }
    assert len(set(found.values())) == len(found)
    assert identity(net, "mine") == identity(Net(scale=2.0), "mine")  # whoever names it, answers for it
    assert identity(net, "mine") != identity(changed, "mine")


@pytest.mark.parametrize(
    "value",
    [
        [1.0, {"gain": 2.0}],
        {"gain": 2.0},
        np.arange(3.0),
        torch.ones(2),
        np.float32(3),
        {1, 2},
        slice(3),
        torch.bfloat16,
        torch.sigmoid,
        functools.partial(torch.clamp, min=0),
        torch.ones(2, dtype=torch.bfloat16),
        [torch.nn.Linear(1, 1)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_of_any_kind(value: Any) -> None:
    plain, with_value, same = Net(), Net(), Net()
    with_value.kept = value
    same.kept = copy.deepcopy(value)
    assert identity(with_value) == identity(same)
    assert identity(with_value) != identity(plain)


def test_what_is_not_in_the_state_dict() -> None:
    def net(mean: float) -> torch.nn.Module:
        made = Net()
        made.register_buffer("mean", torch.tensor(mean), persistent=False)
        return made

    assert identity(net(0.0)) != identity(net(5.0))
    assert identity(net(0.0), "named") != identity(net(5.0), "named")
    hooked = Net()
    hooked.conv.register_forward_hook(_hook)
    assert identity(hooked) != identity(Net())
    patched = Net()
    patched.forward = MethodType(_forward, patched)  # type: ignore[method-assign]
    assert identity(patched) != identity(Net())


def _hook(module: Any, inputs: Any, output: Any) -> Any:
    return output * 2


def _forward(self: Any, x: Any) -> Any:
    return self.conv(x)


def test_classes_of_one_name() -> None:
    def block(k: float) -> torch.nn.Module:
        class Block(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * k

        return Block()

    two = torch.nn.Sequential
    assert identity(two(block(1), block(9))) == identity(two(block(1), block(9)))
    assert identity(two(block(1), block(9))) != identity(two(block(5), block(9)))


def test_functions_around_networks() -> None:
    def around(net: torch.nn.Module) -> Any:
        def model(images: torch.Tensor) -> Any:
            return net(images)

        return model

    changed = Net()
    with torch.no_grad():
        changed.conv.bias[0] += 1
    assert identity(around(Net())) == identity(around(Net().eval()))
    assert identity(around(Net())) != identity(around(changed))
    assert identity(around(Net()), "named") != identity(around(changed), "named")
    assert identity(functools.partial(Net()), "named") != identity(functools.partial(changed), "named")
    assert identity(around(Net().bfloat16())) != identity(around(Net()))
    assert networks_of(around(changed)) == [changed]


def test_weights_that_are_not_there_yet() -> None:
    for name in (None, "named"):
        with pytest.raises(ConfigError, match="run the model once before"):
            identity(torch.nn.LazyConv3d(2, 3), name)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trainer_makes_no_other_model(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self, gain: float = 1.0) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = Net()

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(batch).sum() * 0

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    module = Module()
    before = identity(module)
    data = torch.utils.data.DataLoader(torch.zeros(2, 1, 4, 4, 4))
    options: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=1, enable_model_summary=False, default_root_dir=tmp_path, **options).fit(module, data)
    assert identity(module) == before
    assert identity(Module()) == before != identity(Module(2.0))


def _twice(value: Any) -> Any:
    return value * 2


def test_exported_models(tmp_path: Path) -> None:
    found = []
    for number, scale in enumerate((1.0, 1.0, 3.0)):
        shape = {"x": {0: torch.export.Dim("batch", min=1, max=16)}}
        exported = torch.export.export(Net(scale).eval(), (torch.zeros(2, 1, 4, 4, 4),), dynamic_shapes=shape)
        torch.export.save(exported, tmp_path / f"{number}.pt2")
        found.append(identity(torch.export.load(tmp_path / f"{number}.pt2").module()))
    assert found[0] == found[1] != found[2]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    traced = torch.jit.trace(Net().eval(), torch.zeros(1, 1, 4, 4, 4))
    torch.jit.save(traced, tmp_path / "model.ts")
    loaded = [torch.jit.load(tmp_path / "model.ts") for _ in range(2)]
    assert identity(loaded[0]) == identity(loaded[1])
    torch.jit.save(torch.jit.trace(Net(scale=3.0).eval(), torch.zeros(1, 1, 4, 4, 4)), tmp_path / "other.ts")
    assert identity(torch.jit.load(tmp_path / "other.ts")) != identity(loaded[0])


SCRIPT = """
import torch
from radioloader.inference.target import provenance

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv3d(1, 2, 3)

    def forward(self, x):
        return self.conv(x){}

print(provenance(Net(), None, None, {{}})["identity"])
"""


def test_the_same_in_other_processes_and_not_after_an_edit(tmp_path: Path) -> None:
    def run(edit: str, seed: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.format(edit))
        return subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout

    first = run("", "1")
    assert first == run("", "2")
    assert first != run(" + 1", "1")


def test_a_lambda_as_transform() -> None:
    with pytest.raises(ConfigError, match=r"the transform cannot be told from others.*lambda"):
        identity(Net(), transform=lambda sample: sample)
