"""``radioloader bench``: a whole run, its JSON, wrong arguments, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Cli = Callable[..., Any]
QUICK = ("--patch-size", 8, "--seconds", 0.5, "--max-parallel", 1)

TRANSFORMS = """
calls = 0

def count(sample):
    global calls
    calls += 1
    return sample

class Scale:
    def __call__(self, sample):
        return {**sample, "image": 2 * sample["image"]}

scale = Scale()
number = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of transforms in the current folder, which is not on the path."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TRANSFORMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_a_whole_run_with_an_object_of_a_module_as_transform(
    cli: Cli, store_uri: str, own_module: str, tmp_path: Path
) -> None:
    options = ("--transform", f"{own_module}:scale", "--json", tmp_path / "bench.json")
    done = cli("bench", "--store", store_uri, *QUICK, *options)
    assert done.status == 0, done.err
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith(f"bench of {store_uri} (local, version ")
    assert [line for line in lines if line.startswith("What limits: ")]
    assert [line for line in lines if line.startswith("  1. num_workers=")]
    assert done.out.count("<- best") == 1
    data = json.loads((tmp_path / "bench.json").read_text())
    assert data["options"]["image"] == ["T1w"]
    assert data["options"]["label"] == "seg"
    assert len(data["figures"]) >= 9
    assert f"What limits: {data['limit']}" in done.out.replace("\n  ", " ")
    assert "transform Scale (patches only)" in done.out.replace("\n  ", " ")


def test_options_reach_the_bench(cli: Cli, store_uri: str, own_module: str, tmp_path: Path) -> None:
    done = cli(
        *("bench", "--store", store_uri, "--seconds", 0.2, "--max-parallel", 1, "--patch-size", "8,6,4"),
        *("--batch-size", 2, "--no-label", "--image", "T1w", "--step-ms", 5, "--json", "bench.json"),
        *("--transform", f"{own_module}:count"),
    )
    assert done.status == 0, done.err
    options = json.loads((tmp_path / "bench.json").read_text())["options"]
    assert options["patch_size"] == [8, 6, 4]
    assert (options["batch_size"], options["label"], options["step_ms"]) == (2, None, 5.0)
    assert (options["transform"], options["max_parallel"], options["seconds"]) == ("count", 1, 0.2)
    assert sys.modules[own_module].calls > 0
    assert "waiting: of a model that takes 5 ms a batch" in done.out


def error(done: Any) -> str:
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    return str(line.removeprefix("error: "))


def test_wrong_arguments_get_one_line(cli: Cli, store_uri: str, own_module: str, tmp_path: Path) -> None:
    def fails(*words: Any, store: Any = store_uri) -> str:
        return error(cli("bench", "--store", store, *words))

    assert fails(store=tmp_path / "none").startswith(f"there is no radioloader store at {tmp_path}/none")
    assert fails("--image", "X") == f"{store_uri} has no collection 'X'; it has 'T1w', 'seg'"
    assert fails("--label", "X") == f"{store_uri} has no collection 'X'; it has 'T1w', 'seg'"
    assert "leave one of them out" in fails("--label", "seg", "--no-label")
    assert fails("--patch-size", "8,b") == "--patch-size '8,b' is neither a number nor three, such as 64,64,32"
    assert fails("--patch-size", "8,8").startswith("patch_size=[8, 8] must be one or three whole numbers")
    assert fails("--seconds", 90) == "seconds=90 must be more than 0 and at most 45"
    assert fails("--json", tmp_path / "no" / "x.json").endswith("give the path of a file in a folder that exists")
    assert fails("--json", tmp_path).endswith("give the path of a file in a folder that exists")
    assert fails("--transform", "augment") == "--transform 'augment' is not MODULE:NAME, such as my_transforms:augment"
    assert fails("--transform", "nowhere_xyz:f").endswith("there is no module 'nowhere_xyz' here or installed")
    assert fails("--transform", f"{own_module}:f").endswith(f"{own_module!r} has no 'f'")
    assert "is a class; name a function" in fails("--transform", f"{own_module}:Scale")
    assert "is a int; name a function" in fails("--transform", f"{own_module}:number")


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C, again where nothing came of it: Python can only note an interrupt that falls into a hook of ``os.fork``."""
    for patience_s in (3, 3, 60):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=patience_s)
    raise AssertionError("three interrupts did not end it")


def test_interrupted_it_leaves_no_process(store_uri: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "radioloader", "bench", "--store", store_uri, "--patch-size", "8", "--seconds", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A background job of a shell, which may run these tests, ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        workers: list[psutil.Process] = []
        while not workers:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
            workers = psutil.Process(process.pid).children(recursive=True)
        out, err = interrupt(process)
        assert process.returncode in (130, -signal.SIGINT), out + err
        assert out == ""
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert alive == []
        # Not the last line always: torch's half-made iterator may complain when it is thrown away.
        assert "interrupted" in err.splitlines()
    finally:
        process.kill()
        process.communicate()
