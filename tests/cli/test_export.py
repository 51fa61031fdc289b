"""``radioloader export``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import radioloader as rl


def test_a_store_becomes_a_folder(cli: Callable[..., Any], store_uri: str, tmp_path: Path) -> None:
    done = cli("export", store_uri, tmp_path / "out")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"8 volumes of 4 subjects exported as nifti to {tmp_path / 'out'}; ")
    assert lines[1:] == [
        "back into a store:",
        f"  radioloader ingest STORE --image T1w={tmp_path}/out/T1w --label seg={tmp_path}/out/seg "
        f"--obs-meta {tmp_path}/out/participants.tsv",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["T1w", "participants.tsv", "seg"]


def test_options(cli: Callable[..., Any], store_uri: str, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_A"
    done = cli(
        *("export", store_uri, out, "--layout", "nnunet", "--image", "T1w", "--label", "seg", "--name", "T1w=T1"),
        *("--workers", "1"),
    )
    assert done.status == 0
    assert json.loads((out / "dataset.json").read_text())["channel_names"] == {"0": "T1"}
    assert len(list(out.rglob("*.nii.gz"))) == 8


def test_volumes_that_failed_give_status_1(cli: Callable[..., Any], store_uri: str, tmp_path: Path) -> None:
    shutil.copytree(store_uri, tmp_path / "store")
    shutil.rmtree(rl.open(tmp_path / "store").T1w.loc["sub-02"].uri)
    done = cli("export", tmp_path / "store", tmp_path / "out")
    assert done.status == 1
    assert done.err.startswith("failed 'sub-02', collection 'T1w': could not read")
    assert (tmp_path / "out" / "seg" / "sub-02.nii.gz").is_file()


def test_errors_are_one_line(cli: Callable[..., Any], store_uri: str, tmp_path: Path) -> None:
    for arguments, message in (
        (["--name", "T1w"], "error: --name 'T1w' is not COLLECTION=NAME"),
        (["--name", "T1w=a", "--name", "T1w=b"], "error: --name names 'T1w' twice"),
        (["--layout", "zip"], "error: layout='zip' is not one of nifti, nnunet, decathlon, bids"),
        (["--image", "seg"], "error: collection 'seg' holds labels; name it with labels=[...] (--label seg)"),
    ):
        done = cli("export", store_uri, tmp_path / "out", *arguments)
        assert done.status == 2
        assert done.err.startswith(message)
        assert done.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
