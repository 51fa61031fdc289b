"""``radioloader materialize`` and ``radioloader vacuum``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl

Cli = Callable[..., Any]


def test_a_copy(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    done = cli("materialize", store_uri, tmp_path / "copy", "--workers", 1, "--message", "for Anna")
    assert done.status == 0
    assert done.out.startswith("8 volumes of 4 subjects written, 0 subjects skipped (there already), 0 failed in ")
    copy = rl.open(tmp_path / "copy")
    assert copy.obs_subject_ids == rl.open(store_uri).obs_subject_ids
    assert copy.history()[0]["message"] == "for Anna"
    again = cli("materialize", store_uri, tmp_path / "copy", "--workers", 1)
    assert "4 subjects skipped" in again.out
    assert again.err == "materialized 4/4 subjects\n"


def test_all_options(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    options = [
        "--where",
        "age > 21 and sex == 'M'",
        "--collection",
        "T1w",
        "--crop",
        "2:14,0:12,3:18",
        "--spacing",
        "1,1,2",
    ]
    options += ["--orientation", "LPS", "--tile", "axial", "--codec", "lz4", "--workers", 1, "--at", 1]
    assert cli("materialize", store_uri, tmp_path / "s", *options).status == 0
    made = rl.open(tmp_path / "s")
    assert (made.obs_subject_ids, made.collection_names) == (["sub-02", "sub-04"], ["T1w"])
    volume = made.T1w.iloc[0]
    assert (volume.axcodes, volume.shape, volume.tile) == ("LPS", (12, 15, 15), (12, 15, 1))
    assert volume.spacing == pytest.approx((1, 1, 2))
    assert cli("materialize", store_uri, tmp_path / "two", "-s", "sub-03", "-s", "sub-01", "--workers", 1).status == 0
    assert rl.open(tmp_path / "two").obs_subject_ids == ["sub-01", "sub-03"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "1:2,3"], "--crop '1:2,3' is not X0:X1,Y0:Y1,Z0:Z1"),
        (["--spacing", "1,x"], "--spacing '1,x' is neither a number of mm nor three of them"),
        (["--spacing", "1,2"], "must be a number of mm, or three of them"),
        (["--where", "weight > 3"], "has no column 'weight'"),
        (["--subject", "sub-9"], "has no subject 'sub-9'"),
        (["--tile", "cubes"], "cubes"),
    ],
)
def test_errors(cli: Cli, store_uri: str, tmp_path: Path, options: list[str], message: str) -> None:
    done = cli("materialize", store_uri, tmp_path / "s", *options)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert not (tmp_path / "s").exists()


def test_what_cannot_be_read_is_1(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    shutil.copytree(store_uri, tmp_path / "broken")
    shutil.rmtree(rl.open(tmp_path / "broken").seg.loc["sub-02"].uri)
    done = cli("materialize", tmp_path / "broken", tmp_path / "s", "--workers", 1)
    assert done.status == 1
    assert "\n  failed 'sub-02': could not read subject 'sub-02', collection 'seg'" in done.out


def test_vacuum(cli: Cli, store_uri: str, tmp_path: Path) -> None:
    shutil.copytree(store_uri, tmp_path / "s")
    rl.open(tmp_path / "s").remove("sub-01")
    done = cli("vacuum", tmp_path / "s")
    assert done.out == f"0 volumes and 0 collections removed, 0.0 MB; {tmp_path}/s has versions 1 to 2\n"
    done = cli("vacuum", tmp_path / "s", "--keep", 1)
    assert done.out.startswith("2 volumes and 0 collections removed, 0.")
    assert done.out.endswith(f" MB; {tmp_path}/s has versions 2 to 3\n")
    assert cli("vacuum", tmp_path / "s", "--keep", 0).status == 2
