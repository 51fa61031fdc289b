"""``radioloader ingest`` with what it cannot do: status 2, and one clear line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from radioloader.storage.store import Store

Done = Any
Cli = Callable[..., Any]


def arguments(root: Path, uri: Path) -> list[Any]:
    return ["ingest", uri, "--image", f"T1w={root}/images/*.nii.gz", "--label", f"seg={root}/labels", "--workers", 1]


def one_line(done: Done) -> str:
    """The one line of an error, without its ``error: ``."""
    assert (done.status, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# Wrong arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            [],
            "nothing to ingest: give a dataset's folder, or at least one collection, such as --image 'T1w=images/*.nii.gz'",
        ),
        (["--image", "images"], "--image 'images' is not NAME=SOURCE, such as --image T1w=images"),
        (["--image", "=images"], "--image '=images' is not NAME=SOURCE, such as --image T1w=images"),
        (["--label", "seg="], "--label 'seg=' is not NAME=SOURCE, such as --label seg=labels"),
        (["--image", "a=x", "--image", "a=y"], "--image names 'a' twice; give a glob that matches all its files"),
        (["--image", "a=x", "--label", "a=y"], "'a' is given as --image and as --label; each collection has one name"),
        (["--image", "a={root}/none/*"], "collection 'a': {root}/none/* matches nothing (looked in {cwd})"),
        (
            ["--image", "a={root}"],
            "collection 'a': the folder {root} holds no NIfTI file (.nii.gz, .nii, .hdr.gz, .hdr, .img.gz, .img), and no file that is "
            "marked as DICOM",
        ),
        (
            ["--image", "a=x", "--tile", "round"],
            "TileConfig.orientation='round' is not one of 'isotropic', 'axial', 'sagittal', 'coronal', 'custom'",
        ),
        (["--image", "a=x", "--tile", "8,x,2"], "--tile '8,x,2' is neither a name nor extents such as 64,64,32"),
        (
            ["--image", "a=x", "--tile", "8,8"],
            "TileConfig.custom=(8, 8) must be three extents (x, y, z) of at least 1 voxel",
        ),
        (
            ["--image", "a=x", "--tile", "custom"],
            "--tile custom needs the extents themselves: give them instead, such as --tile 64,64,32",
        ),
        (["--image", "a=x", "--tile", "0"], "TileConfig.extent=0 must be at least 1 voxel"),
        (["--image", "a=x", "--codec", "gzip"], "CompressionConfig.codec='gzip' is not one of 'zstd', 'lz4', 'none'"),
        (
            ["--image", "a=x", "--preset", "tiny"],
            "WriteConfig.preset('tiny'): the presets are 'balanced', 'fast', 'small'",
        ),
        (["--image", "a=x", "--level", "99"], "CompressionConfig.level=99 is outside -50..22"),
        (["--image", "a={root}/a.nii", "--workers", "0"], "workers=0 must be at least 1"),
        (["--image", "a={root}/a.nii", "--grid-tolerance", "-1"], "grid_tolerance_mm=-1.0 must not be negative"),
        (["--image", "a={root}/a.nii", "--commit-interval", "-1"], "commit_interval_s=-1.0 must not be negative"),
        (
            ["--image", "a={root}/a.nii", "--orientation", "RAX"],
            "orientation='RAX' is not three axis codes, one each of L/R, P/A and I/S, such as 'RAS'",
        ),
        (
            ["--image", "a={root}/a.nii", "--subject-regex", "("],
            "subject_regex='(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (
            ["--image", "a={root}/a.nii", "--obs-meta", "{root}/no.csv"],
            "{root}/no.csv: there is no such file; obs_meta is a DataFrame or the path of a .csv or .tsv file",
        ),
    ],
)
def test_each_wrong_argument_gets_one_clear_line(cli: Cli, tmp_path: Path, options: list[str], text: str) -> None:
    names = {"root": str(tmp_path), "cwd": os.getcwd()}
    if "a.nii" in str(options):
        (tmp_path / "a.nii").write_bytes(b"")
    done = cli("ingest", tmp_path / "store", *[option.format(**names) for option in options])
    assert one_line(done) == text.format(**names)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ingest"], "Missing argument"),
        (["ingest", "store", "--imag", "a=b"], "No such option: --imag"),
        (["ingest", "store", "--workers", "two"], "'--workers'"),
        (["ingest", "store", "--image"], "--image"),
        (["ingest", "one", "two"], "two"),
        (["ingst"], "No such command 'ingst'"),
    ],
)
def test_arguments_that_do_not_parse_are_2(cli: Cli, words: list[str], text: str) -> None:
    done = cli(*words)
    assert (done.status, done.out) == (2, "")
    assert text in re.sub(r"[│\s]+", " ", done.err)
    assert "Traceback" not in done.err


# Targets


def test_a_target_that_cannot_be_used_is_2(cli: Cli, changing: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli(*arguments(changing, tmp_path / "file"))
    assert one_line(done) == f"{tmp_path}/file is a file, not a radioloader store; give another path"
    done = cli(*arguments(changing, changing))
    assert one_line(done) == (
        f"{changing} is a folder with other content, not a radioloader store; give another path, or an empty folder"
    )
    done = cli(*arguments(changing, tmp_path / "file" / "below"))
    assert one_line(done).startswith(f"could not create a store at {tmp_path}/file/below: ")
    done = cli("ingest", "htp://bucket/x", "--image", f"T1w={changing}/images")
    assert one_line(done) == (
        "the URI 'htp://bucket/x' has the unknown scheme 'htp'; use a path, file://, s3://, azure:// or gcs://"
    )


def test_a_store_that_is_being_written_is_2(cli: Cli, changing: Path, tmp_path: Path) -> None:
    with Store.open_or_create(tmp_path / "store").write():
        done = cli(*arguments(changing, tmp_path / "store"))
    assert done.status == 2
    assert (
        f"error: another process (pid {os.getpid()}) is writing to {tmp_path}/store; wait until it has finished, or set "
        in done.err
    )


def test_another_kind_of_collection_is_2(cli: Cli, changing: Path, tmp_path: Path) -> None:
    assert cli(*arguments(changing, tmp_path / "store")).status == 0
    done = cli("ingest", tmp_path / "store", "--label", f"T1w={changing}/images")
    assert done.status == 2
    assert done.err.splitlines()[-1] == (
        f"error: collection 'T1w' of {tmp_path}/store holds images, but now it is to hold labels; use another name, or set labels"
    )
