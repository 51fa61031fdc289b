"""``radioloader ingest STORE SOURCE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from tests.ingestion.layouts import trees

Cli = Callable[..., Any]


def test_a_folder_is_recognised_explained_and_ingested(cli: Cli, tmp_path: Path) -> None:
    root = trees.litter(trees.nnunet(tmp_path / "Dataset001"))
    done = cli("ingest", tmp_path / "store", root, "--workers", 1, "--orientation", "RAS")
    assert (done.status, done.err.count("error")) == (0, 0)
    assert done.out.startswith(f"{root}: recognised as nnunet, since dataset.json has channel_names")
    assert "  no volumes: 1 *.txt, 2 .DS_Store, 1 ._*, 1 Thumbs.db\n" in done.out
    assert (
        f"the same, spelled out:\n  radioloader ingest {tmp_path}/store --image 'CT={root}/images[TV]*/*_0000.nii*' "
        f"--label 'label={root}/labelsTr/*.nii*' --classes label={root}/dataset.json --split train={root}/imagesTr "
        f"--split test={root}/imagesTs --allow-missing --workers 1 --orientation RAS\n"
    ) in done.out
    assert done.out.count("recognised as") == 1
    assert rl.open(tmp_path / "store").obs_subject_ids == ["case_1", "case_2", "case_3", "case_9"]


def test_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    done = cli("ingest", tmp_path / "store", root, "--dry-run")
    assert done.status == 0
    assert "recognised as bids" in done.out
    assert "ingested" not in done.out
    assert done.out.endswith("a dry run: nothing was written\n")
    assert not (tmp_path / "store").exists()


def test_collections_are_chosen_by_name(cli: Cli, tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    done = cli("ingest", tmp_path / "store", root, "--layout", "bids", "--image", "T1w", "--label", "dseg")
    assert done.status == 0
    assert rl.open(tmp_path / "store").collection_names == ["T1w", "dseg"]


def test_a_failure_is_the_exit_status(cli: Cli, tmp_path: Path) -> None:
    root = trees.decathlon(tmp_path / "x")
    (root / "imagesTr" / "hip_001.nii.gz").write_bytes(b"no gzip")
    done = cli("ingest", tmp_path / "store", root)
    assert done.status == 1
    assert "failed 'hip_001'" in done.out
    assert len(rl.open(tmp_path / "store")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--layout", "bids"],
            "--layout bids says how a dataset's folder is built; give it: radioloader ingest STORE FOLDER --layout bids",
        ),
        (["--dry-run", "--image", "a=x"], "--dry-run is for a SOURCE"),
        (["SOURCE", "--image", "T1w=x"], "has a source of its own, but"),
        (
            ["SOURCE", "--image", "T3w"],
            "has no collection 'T3w'; it has 'T1w', 'acq-high_T1w', 'pet', 'task-rest_bold', 'dseg'",
        ),
        (["SOURCE", "--layout", "nonsense"], "layout='nonsense' (--layout) is none of auto"),
        (["SOURCE", "--modality", "MR"], "of a SOURCE, choose collections: --image MR"),
        (["SOURCE", "--classes", "x"], "--classes 'x' is neither NAME:CLASS=NUMBER"),
        (["SOURCE", "--classes", "dseg:a=b"], "'b' is no class; give a number"),
        (
            ["SOURCE", "--classes", "T1w:a=1"],
            "classes names those of 'T1w', which is not among the label collections 'dseg'",
        ),
        (["SOURCE", "--split", "test"], "--split 'test' is not NAME=VALUE, such as --split test=imagesTs"),
        (["GONE"], "there is no such folder or table"),
        ([], "nothing to ingest: give a dataset's folder, or at least one collection"),
    ],
)
def test_what_cannot_be_meant_is_refused(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    root = trees.bids(tmp_path / "ds")
    places = {"SOURCE": str(root), "GONE": str(tmp_path / "gone")}
    done = cli("ingest", tmp_path / "store", *[places.get(word, word) for word in arguments])
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "store").exists()


def test_classes_and_splits_by_hand(cli: Cli, tmp_path: Path) -> None:
    root = trees.plain(tmp_path / "x", {"CT": ["a.nii.gz", "b.nii.gz"], "seg": ["a.nii.gz", "b.nii.gz"]})
    done = cli(
        *("ingest", tmp_path / "store", "--image", f"CT={root}/CT", "--label", f"seg={root}/seg"),
        *("--classes", "seg:liver=1", "--classes", "seg:all=1,2", "--split", f"train={root}/CT"),
    )
    assert done.status == 0
    store = rl.open(tmp_path / "store")
    assert store["seg"].classes == {"liver": (1,), "all": (1, 2)}
    assert store.obs_meta.read()["split"].tolist() == ["train", "train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--obs-meta", "gone.tsv"], "gone.tsv: there is no such file"),
        (["--split", "val=gone"], "split 'val': gone holds no NIfTI file of this ingest"),
        (["--orientation", "XYZ"], "XYZ"),
        (
            ["--classes", "lable:a=1"],
            "classes names those of 'lable', which is not among the label collections 'dseg'",
        ),
    ],
)
def test_a_dry_run_finds_what_is_wrong_with_options(cli: Cli, tmp_path: Path, options: list[str], message: str) -> None:
    done = cli("ingest", tmp_path / "store", trees.bids(tmp_path / "ds"), "--dry-run", *options)
    assert (done.status, message in done.err) == (2, True), done.err


def test_a_forgotten_store_is_noticed(cli: Cli, tmp_path: Path) -> None:
    root = trees.bids(tmp_path / "ds")
    done = cli("ingest", root)
    assert done.status == 2
    assert f"({root} is where the store goes; did you mean: radioloader ingest STORE {root}?)" in done.err
