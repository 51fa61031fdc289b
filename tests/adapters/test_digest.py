"""Hashes of transforms."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from radioloader.adapters.digest import UnhashableError, digest


def module(path: Path, source: str) -> ModuleType:
    """A module of a script's own."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    return made


CLASS = """
import numpy as np
{before}
class Binarise:
    \"\"\"A comment.\"\"\"
    def __init__(self, keys, threshold=1):
        self.keys, self.threshold = keys, threshold
    def __call__(self, data):
        {body}
        return {{key: helper(data[key] > self.threshold) for key in self.keys}}
def helper(x):
    return np.asarray(x, np.uint8) * FACTOR
FACTOR = {factor}
"""


@pytest.fixture
def of_class(tmp_path: Path) -> Callable[..., str]:
    made = iter(range(100))

    def make(before: str = "", body: str = "pass", factor: int = 1, threshold: int = 1) -> str:
        # One file after another under one name: the name of the module must not be what tells them apart.
        folder = tmp_path / str(next(made))
        folder.mkdir()
        source = CLASS.format(before=before, body=body, factor=factor)
        return digest(module(folder / "own_transforms.py", source).Binarise(["label"], threshold))

    return make


def test_a_users_class_is_known_by_its_code_and_what_that_uses(of_class: Callable[..., str]) -> None:
    plain = of_class()
    assert of_class() == plain
    assert of_class(before="# a comment moves every line\n") == plain
    others = [of_class(body="data = dict(data)"), of_class(factor=2), of_class(threshold=2)]
    assert len({plain, *others}) == 4


def test_a_function_in_another_module_of_the_users_counts(tmp_path: Path) -> None:
    def make(value: int) -> str:
        module(tmp_path / "own_deeper.py", f"def f(x):\n    return x + {value}\n")
        module(tmp_path / "own_helper.py", "import own_deeper\ndef g(x):\n    return own_deeper.f(x)\n")
        user = module(tmp_path / "own_user.py", "import own_helper\ndef h(x):\n    return own_helper.g(x)\n")
        return digest(user.h)

    assert make(1) == make(1) != make(2)


def test_the_same_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, torch\nfrom radioloader.adapters.digest import digest\n"
        "class T:\n    def __init__(self): self.kinds, self.table = {'b', 'a', 'c'}, {'x': np.arange(3), 'y': torch.ones(2)}\n"
        "    def __call__(self, x): return x in {'one', 'two', 'three'}\n"
        "print(digest([T(), 1.5, 'text', None, np.float32, torch.int16, slice(1, 2)]))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[2],
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == 64


def function(x: int, y: int = 1) -> int:
    return x + y


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        ([1, 2], (1, 2)),
        ([[1], [2]], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(3), np.zeros(3, np.float32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
        (torch.float32, torch.float64),
        (partial(function, 1), partial(function, 2)),
        (np.add, np.subtract),
        ({1, 2}, {1, 3}),
        (Path("a"), Path("b")),
    ],
)
def test_different_things_differ(one: Any, other: Any) -> None:
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


def test_random_state_takes_no_part() -> None:
    class Own:
        def __init__(self, seed: int) -> None:
            self.R, self.own = np.random.RandomState(seed), np.random.default_rng(seed)

    assert digest(Own(1)) == digest(Own(2))


def test_what_refers_to_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert digest(loop) == digest(loop)


@pytest.mark.parametrize(
    "thing", [lambda x: x + 1, partial(lambda x: x, 1), {"func": [lambda x: x]}], ids=["plain", "partial", "inside"]
)
def test_a_lambda_is_refused_by_its_place(thing: Any) -> None:
    with pytest.raises(UnhashableError, match=r"is a lambda \(line \d+ of test_digest.py\)"):
        digest(thing)


def test_what_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(UnhashableError, match=r"cannot be looked into"):
        digest([iter([1, 2])])


def test_monais_transforms(datalist: list[dict[str, Any]]) -> None:
    mt = pytest.importorskip("monai.transforms")

    def make(spacing: float = 2.0) -> list[Any]:
        keys = ["image", "label"]
        return [
            mt.LoadImaged(keys),
            mt.EnsureChannelFirstd(keys),
            mt.Orientationd(keys, "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            mt.Spacingd(keys, (spacing,) * 3, mode=("bilinear", "nearest")),
            mt.ScaleIntensityRanged("image", 0, 1000, 0, 1, clip=True),
            mt.CropForegroundd(keys, "image"),
        ]

    used, plain = make(), digest(make())
    mt.Compose(used)(datalist[0])
    assert digest(used) == plain  # what a transform keeps of the last item does not count
    assert digest(make(2.5)) != plain


EDITS = {
    "wraps": "import functools\nfrom scipy.ndimage import gaussian_filter\ndef scaled(f):\n    @functools.wraps(f)\n"
    "    def inner(x): return x * {}\n    return inner\nthing = scaled(gaussian_filter)",
    "enum": "import enum\nclass W(enum.Enum):\n    A = {}\nclass C:\n    def __init__(self): self.w = W.A\nthing = C()",
    "method of an enum": "import enum\nclass W(enum.Enum):\n    A = 1\n    def f(self): return {}\nthing = [W.A]",
    "R": "class C:\n    def __init__(self): self.R = {}\nthing = C()",
    "named tuple": "from typing import NamedTuple\nclass W(NamedTuple):\n    a: int\n    def g(self): return {}\nthing = W(1)",
    "list": "class L(list):\n    def g(self): return {}\nthing = L([1])",
    "dunder": "class C:\n    __k__ = {}\nthing = C()",
    "attribute of a function": "def f(x): return x * f.k\nf.k = {}\nthing = f",
    "metaclass": "class M(type):\n    def g(cls): return {}\nclass C(metaclass=M): pass\nthing = C()",
    "inherited": "class B:\n    def g(self): return {}\nclass C(B): pass\nthing = C()",
    "property": "class C:\n    @property\n    def g(self): return {}\nthing = C()",
    "closure": "def make(k):\n    def f(x): return x * k\n    return f\nthing = make({})",
    "default": "def f(x, k={}): return x * k\nthing = f",
    "inner": "def f(x):\n    def g(y): return y * {}\n    return g(x)\nthing = f",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass C:\n    k: int = {}\nthing = C()",
    "global of a method": "K = {}\nclass C:\n    def g(self): return K\nthing = C()",
}


@pytest.mark.parametrize("name", EDITS)
def test_any_edit_of_a_users_code_is_noticed(name: str, tmp_path: Path) -> None:
    def made(value: int) -> str:
        return digest(module(tmp_path / "own_edited.py", EDITS[name].format(value)).thing)

    assert made(2) == made(2) != made(3)


@pytest.mark.parametrize("how", ["from own_k import K\n    return x * K", "import own_k\n    return x * own_k.K"])
@pytest.mark.parametrize("inside", [True, False])
def test_what_a_function_imports_counts(how: str, inside: bool, tmp_path: Path) -> None:
    first, rest = how.split("\n    ")
    source = f"def f(x):\n    {first}\n    {rest}\n" if inside else f"{first}\ndef f(x):\n    {rest}\n"

    def made(value: int) -> str:
        module(tmp_path / "own_k.py", f"K = {value}\n")
        helper = module(tmp_path / "own_h.py", source)
        user = module(tmp_path / "own_u.py", "import own_h\ndef g(x):\n    return own_h.f(x)\n")
        return digest([helper.f, user.g])

    assert made(2) == made(2) != made(3)


def test_a_file_that_a_transform_is_given_counts_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"one")
    before = digest([str(path)]), digest(path)
    assert digest([str(path)], files=False) != before[0]
    path.write_bytes(b"two")
    assert (digest([str(path)]) != before[0], digest(path) != before[1]) == (True, True)


def test_loggers_and_locks_take_no_part(tmp_path: Path) -> None:
    source = "import logging, threading\nlog, lock = logging.getLogger(__name__), threading.Lock()\n"
    user = module(tmp_path / "own_log.py", source + "def f(x):\n    with lock:\n        log.info('x')\n    return x\n")
    assert digest(user.f) == digest(user.f)


def test_a_package_without_metadata_counts_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()

    def made(value: int) -> str:
        return digest(module(tmp_path / "site-packages" / "own_package.py", f"def f(x):\n    return x * {value}\n").f)

    assert made(2) == made(2) != made(3)
