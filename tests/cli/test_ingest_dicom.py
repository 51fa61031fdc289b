"""``radioloader ingest`` of DICOM: the options that only it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from tests.formats.dicom.make import tilt, write_garbage
from tests.formats.dicom.structures import on_slice
from tests.ingestion.dicom_files import AFFINE, grid_of, same, series, stored, subject_of, voxels, write_rtstruct

Cli = Callable[..., Any]
A, B = subject_of("study of P1"), subject_of("study of P2")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT of two patients, and an MR of one; a structure set with two structures that overlap."""
    root = tmp_path_factory.mktemp("files")
    series(root / "one", 0, description="Thin")
    series(root / "two", 1, who="P2", description="thick")
    series(root / "mr", 2, modality="MR", description="t1")
    grid = grid_of(root / "one")
    drawn = {
        "GTV": [on_slice(grid, 2, [(3.5, 2.5), (11.5, 2.5), (11.5, 9.5), (3.5, 9.5)])],
        "Heart": [on_slice(grid, 2, [(9.5, 4.5), (15.5, 4.5), (15.5, 7.5), (9.5, 7.5)])],
    }
    write_rtstruct(root / "rs", grid, drawn)
    return root


@pytest.fixture
def root(files: Path, tmp_path: Path) -> Path:
    """A folder of the test's own, in which ``dicom`` are those."""
    (tmp_path / "dicom").mkdir()
    for name in ("one", "two", "mr", "rs"):
        (tmp_path / "dicom" / name).symlink_to(files / name)
    return tmp_path


def run(cli: Cli, root: Path, *more: Any) -> Any:
    return cli("ingest", root / "store", "--workers", 1, *more)


def test_a_folder_of_dicom(cli: Cli, root: Path) -> None:
    done = run(cli, root, "--image", f"CT={root}/dicom")
    assert done.status == 0
    assert "note: subject ids of DICOM files come from a hash" in done.out
    assert same(stored(root / "store", "CT"), {f"{A}_CT": voxels(0), f"{B}_CT": voxels(1)})


def test_choices(cli: Cli, root: Path) -> None:
    done = run(cli, root, "-i", f"scan={root}/dicom", "--modality", "ct", "--series-description", "thi*")
    assert done.status == 0
    # Upper and lower case are alike.
    assert same(stored(root / "store", "scan"), {f"{A}_scan": voxels(0), f"{B}_scan": voxels(1)})
    done = cli(
        "ingest",
        root / "b",
        "-i",
        f"scan={root}/dicom",
        "--modality",
        "MR",
        "--modality",
        "CT",
        "--series-description",
        "t?",
    )
    assert done.status == 0
    assert same(stored(root / "b", "scan"), {f"{A}_scan": voxels(2)})


def test_globs_of_folders(cli: Cli, root: Path) -> None:
    done = run(cli, root, "-i", f"CT={root}/dicom/[ot]*")
    assert done.status == 0, done.err
    assert len(rl.open(root / "store").CT) == 2


def test_subjects(cli: Cli, root: Path) -> None:
    assert run(cli, root, "-i", f"CT={root}/dicom", "--subject", "PatientID").status == 0
    assert rl.open(root / "store").obs_subject_ids == ["P1", "P2"]
    (root / "map.csv").write_text("PatientID,obs_subject_id\nP1,x\nP2,y\n")
    assert (
        cli("ingest", root / "b", "--workers", 1, "-i", f"CT={root}/dicom", "--subject", root / "map.csv").status == 0
    )
    assert rl.open(root / "b").obs_subject_ids == ["x", "y"]
    assert cli("ingest", root / "c", "--workers", 1, "-i", f"CT={root}/dicom", "--subject", "folder:1").status == 0
    assert rl.open(root / "c").obs_subject_ids == ["one", "two"]


def test_pseudonyms(cli: Cli, root: Path) -> None:
    (root / "key").write_text("0123456789abcdef" * 2)
    done = run(cli, root, "-i", f"CT={root}/dicom", "--pseudonymize", root / "key")
    assert done.status == 0
    assert "note: subject ids of DICOM files come from keyed hash of PatientID" in done.out
    assert rl.open(root / "store").CT.iloc[0].dicom.pseudonymized


def test_structures(cli: Cli, root: Path) -> None:
    arguments = ["-i", f"CT={root}/dicom", "-l", f"roi={root}/dicom", "--structure", "gtv=1", "--structure", "Heart=2"]
    done = run(cli, root, *arguments, "--allow-missing")
    assert done.status == 1
    assert "structures of different classes overlap" in done.out
    assert rl.open(root / "store").obs_subject_ids == [B]
    done = run(cli, root, *arguments, "--allow-missing", "--on-overlap", "separate")
    assert done.status == 0, done.out
    store = rl.open(root / "store")
    assert store.collection_names == ["CT", "roi_Heart", "roi_gtv"]
    assert (int(store.roi_gtv.iloc[0].to_numpy().sum()), int(store.roi_Heart.iloc[0].to_numpy().sum())) == (56, 18)


def test_policies(cli: Cli, tmp_path: Path) -> None:
    series(tmp_path / "dicom" / "a", 0, affine=tilt(AFFINE, 8.0))
    series(tmp_path / "dicom" / "b", 1, who="P2", drop=(3,))
    arguments = ["-i", f"CT={tmp_path}/dicom"]
    done = run(cli, tmp_path, *arguments, "--on-tilt", "error")
    assert done.status == 1
    assert "which on_tilt='error' refuses" in done.out
    assert "choose on_irregular='resample', 'split' or 'keep' (--on-irregular)" in done.out
    done = run(
        cli, tmp_path, *arguments, "--on-tilt", "resample", "--on-irregular", "keep", "--slice-tolerance", "0.05"
    )
    assert done.status == 0
    assert [volume.geometry.changed for volume in rl.open(tmp_path / "store").CT] == (
        ["resampled", "kept"] if A < B else ["kept", "resampled"]
    )


def test_tags_that_may_identify_are_warned_of_before_anything_is_written(cli: Cli, root: Path) -> None:
    done = run(cli, root, "-i", f"CT={root}/dicom", "--keep-tag", "PatientAge", "--keep-tag", "SeriesNumber")
    assert done.status == 0
    warning = "keep_tags keeps PatientAge, which may tell who the patients are"
    first = done.err.splitlines()[0]
    assert first.startswith(f"warning: {warning}")
    assert f"note: {warning}" in done.out
    assert rl.open(root / "store").CT.obs.read().PatientAge.tolist() == ["071Y", "071Y"]
    done = cli("ingest", root / "b", "--workers", 1, "-i", f"CT={root}/dicom", "--keep-tag", "SeriesNumber")
    assert "warning" not in done.err


def test_broken_files_make_it_1_and_the_rest_comes_in(cli: Cli, root: Path) -> None:
    write_garbage(root / "dicom" / "bad")
    done = run(cli, root, "-i", f"CT={root}/dicom")
    assert done.status == 1
    assert f"failed '': {root}/dicom/bad: broken DICOM" in done.out
    assert len(rl.open(root / "store").CT) == 2
    assert "ingest 3/3" in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["-i", "CT={root}/nifti", "--modality", "CT"],
            "--modality chooses among DICOM files, and no --image is of such files",
        ),
        (["-i", "CT={root}/nifti", "--series-description", "x"], "--series-description chooses among DICOM files"),
        (
            ["-i", "CT={root}/dicom", "--structure", "a=1"],
            "--structure chooses among DICOM files, and no --label is of such files",
        ),
        (
            ["-i", "CT={root}/dicom", "--on-overlap", "separate"],
            "--on-overlap chooses among DICOM files, and no --label",
        ),
        (["-i", "CT={root}/dicom", "-l", "r={root}/dicom", "--structure", "a"], "--structure 'a' is not PATTERN=CLASS"),
        (
            ["-i", "CT={root}/dicom", "-l", "r={root}/dicom", "--structure", "a=x"],
            "--structure 'a=x' is not PATTERN=CLASS",
        ),
        (["-i", "CT={root}/dicom", "-l", "r={root}/dicom", "--structure", "a=0"], "structures maps 'a' to 0; expected"),
        (["-i", "CT={root}/dicom", "--subject", "x"], "subject='x' is not 'PatientID', 'folder:N'"),
        (["-i", "CT={root}/nifti", "--subject", "PatientID"], "subject (--subject) is for DICOM files, and none of"),
        (["-i", "CT={root}/nifti", "--keep-tag", "KVP"], "keep_tags (--keep-tag) is for DICOM files, and none of"),
        (["-i", "CT={root}/dicom", "--keep-tag", "Name"], "keep_tags: 'Name' is not the keyword of a DICOM attribute"),
        (["-i", "CT={root}/dicom", "--pseudonymize", "{root}/none"], "cannot be read: No such file or directory"),
        (["-i", "CT={root}/dicom", "--suv", "x"], "suv='x' is not one of 'bw'"),
        (["-i", "CT={root}/dicom", "--modality", "US"], "holds no volume of modality US; it holds CT (2), MR (1)"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str], text: str, cli: Cli, root: Path, write_image: Callable[..., Path]
) -> None:
    write_image(root / "nifti" / "a.nii.gz", np.zeros((3, 4, 5), np.int16))
    done = run(cli, root, *[argument.format(root=root) for argument in arguments])
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert text in line
    assert not (root / "store").exists()
