"""``radioloader ingest``: exit statuses, what is said where, and that each wrong argument gets one clear line."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb

import radioloader as rl

Done = Any
Cli = Callable[..., Any]


def arguments(root: Path, uri: Path) -> list[Any]:
    return ["ingest", uri, "--image", f"T1w={root}/images/*.nii.gz", "--label", f"seg={root}/labels", "--workers", 1]


def test_all_well_is_0_with_a_summary(cli: Cli, changing: Path, tmp_path: Path) -> None:
    done = cli(*arguments(changing, tmp_path / "store"), "--obs-meta", changing / "participants.tsv")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == f"ingest into {tmp_path}/store"
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines if re.match("[│┃]", line)]
    voxels = sum((12 + n) * 16 * 10 * 3 for n in range(3))
    assert cells == [
        ["", "subjects", "voxels"],
        ["ingested", "3", f"{voxels / 1e6:.1f} MB"],
        ["skipped (unchanged)", "0", ""],
        ["failed", "0", ""],
    ]
    assert re.fullmatch(r"collections: T1w, seg; \d+\.\d s; version 1", lines[-2])
    assert lines[-1] == "note: subject ids come from: BIDS entities (sub-, ses-)"
    store = rl.open(tmp_path / "store")
    assert store.obs_subject_ids == ["sub-01", "sub-02", "sub-03"]
    assert store.obs_meta.read().age.tolist() == [21, 22, 23]

    again = cli(*arguments(changing, tmp_path / "store"))
    assert again.status == 0
    assert re.search(r"skipped \(unchanged\) │ +3 │", again.out)


def test_progress_goes_to_stderr_as_lines_where_that_is_no_terminal(
    cli: Cli, changing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli(*arguments(changing, tmp_path / "store"))
    assert re.fullmatch(r"ingest 3/3 subjects, 0 failed, \d+\.\d subjects/s, \d+ MB/s, 0 s left\n", done.err)
    monkeypatch.setattr("radioloader._progress._LINE_EVERY_S", 0.0)
    done = cli(*arguments(changing, tmp_path / "other"))
    counted = [re.match(r"ingest (\d)/3 subjects, 0 failed, .* s left$", line) for line in done.err.splitlines()]
    assert [match and match.group(1) for match in counted] == ["1", "2", "3", "3"]


def test_a_terminal_gets_a_progress_bar(changing: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(
        [sys.executable, "-m", "radioloader", *map(str, arguments(changing, tmp_path / "store"))],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # how a terminal says that nobody has it open any more
            break
        if not part:
            break
        shown += part
    os.close(master)
    process.communicate()
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"ingest ━+ 3/3 \d+\.\d subjects/s, \d+ MB/s, elapsed 0:00:\d\d left 0:00:00", text), text


def test_a_failed_subject_is_1_and_named_in_both_streams(cli: Cli, changing: Path, tmp_path: Path) -> None:
    broken = changing / "images" / "sub-02_T1w.nii.gz"
    broken.write_bytes(b"")
    done = cli(*arguments(changing, tmp_path / "store"))
    assert done.status == 1
    says = f"failed 'sub-02': {broken}: the file is empty (0 bytes)"
    assert done.err.splitlines()[0] == says
    assert done.err.splitlines()[1].startswith("ingest 3/3 subjects, 1 failed, ")
    assert done.out.splitlines()[-1] == says
    assert re.search(r"│ ingested +│ +2 │", done.out)
    assert re.search(r"│ failed +│ +1 │", done.out)
    assert rl.open(tmp_path / "store").obs_subject_ids == ["sub-01", "sub-03"]


def test_strict_stops_at_once(cli: Cli, changing: Path, tmp_path: Path) -> None:
    broken = changing / "images" / "sub-02_T1w.nii.gz"
    broken.write_bytes(b"")
    done = cli(*arguments(changing, tmp_path / "store"), "--strict")
    assert done.status == 1
    reason = f"{broken}: the file is empty (0 bytes)"
    assert f"error: stopped at the first failure (strict): subject 'sub-02': {reason}" in done.err.splitlines()
    assert re.search(r"│ ingested +│ +1 │", done.out)
    assert "version 1" in done.out
    assert rl.open(tmp_path / "store").obs_subject_ids == ["sub-01"]
    (changing / "images" / "sub-02_T1w.nii.gz").unlink()
    (changing / "labels" / "sub-02_seg.nii.gz").unlink()
    assert cli(*arguments(changing, tmp_path / "store"), "--strict").status == 0


def test_missing_files_can_be_allowed(cli: Cli, changing: Path, tmp_path: Path) -> None:
    (changing / "labels" / "sub-02_seg.nii.gz").unlink()
    done = cli(*arguments(changing, tmp_path / "store"))
    assert done.status == 1
    assert "failed 'sub-02': missing 'seg': no file of subject 'sub-02' in collection 'seg'" in done.out
    assert cli(*arguments(changing, tmp_path / "store"), "--allow-missing").status == 0
    assert rl.open(tmp_path / "store").T1w.obs_subject_ids == ["sub-01", "sub-02", "sub-03"]


def test_notes_are_shown_and_many_of_them_are_cut(cli: Cli, write_image: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(23):
        write_image(tmp_path / "i" / f"s{number:02d}.nii", np.full((2, 2, 2), np.nan, np.float32))
    done = cli("ingest", tmp_path / "store", "--image", f"CT={tmp_path}/i", "--workers", 1)
    assert done.status == 0
    notes = [line for line in done.out.splitlines() if line.startswith("note 's")]
    assert notes[0] == f"note 's00': {tmp_path}/i/s00.nii: 8 voxels are NaN or infinite; kept as they are"
    assert len(notes) == 20
    assert "and 3 more notes like these" in done.out.splitlines()


def test_paths_are_shown_as_they_are(cli: Cli, write_image: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / ("[bold]long-" + "x" * 120) / "[red]"
    write_image(folder / "a.nii", np.ones((2, 2, 2), np.int16))
    (folder / "b.nii").write_bytes(b"")
    done = cli("ingest", folder / "store", "--image", f"CT={tmp_path}/*/*/*.nii", "--workers", 1)
    assert done.status == 1
    assert done.out.splitlines()[0] == f"ingest into {folder}/store"
    assert f"failed 'b': {folder}/b.nii: the file is empty (0 bytes)" in done.out.splitlines()
    assert f"failed 'b': {folder}/b.nii: the file is empty (0 bytes)" in done.err.splitlines()


# Options do what they say


@pytest.mark.parametrize(
    ("options", "tile", "filters", "level"),
    [
        ([], (14, 16, 10), ["ByteShuffleFilter", "ZstdFilter"], 1),
        (["--tile", "8"], (8, 8, 8), ["ByteShuffleFilter", "ZstdFilter"], 1),
        (["--tile", "8,4,2", "--codec", "lz4"], (8, 4, 2), ["ByteShuffleFilter", "LZ4Filter"], None),
        (["--tile", "axial", "--codec", "none"], (14, 16, 1), [], None),
        (["--level", "7"], (14, 16, 10), ["ByteShuffleFilter", "ZstdFilter"], 7),
        (["--preset", "fast"], (14, 16, 10), ["ByteShuffleFilter", "ZstdFilter"], -5),
        (["--preset", "small", "--tile", "8"], (8, 8, 8), ["ByteShuffleFilter", "ZstdFilter"], 19),
        (["--preset", "small", "--level", "3"], (14, 16, 10), ["ByteShuffleFilter", "ZstdFilter"], 3),
    ],
)
def test_tiles_and_compression(
    cli: Cli,
    changing: Path,
    tmp_path: Path,
    options: list[str],
    tile: tuple[int, ...],
    filters: list[str],
    level: int | None,
) -> None:
    assert cli(*arguments(changing, tmp_path / "store"), *options).status == 0
    schema = tiledb.ArraySchema.load(rl.open(tmp_path / "store").T1w.iloc[2].uri)
    assert tuple(int(schema.domain.dim(axis).tile) for axis in range(3)) == tile
    pipeline = list(schema.attr("voxels").filters)
    assert [type(part).__name__ for part in pipeline] == filters
    if level is not None:
        assert pipeline[-1].level == level


def test_orientation_regex_and_tolerance(
    cli: Cli, changing: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    common = [*arguments(changing, tmp_path / "store"), "--subject-regex", r"sub-(\d+)_", "--orientation", "lps"]
    assert cli(*common).status == 0
    store = rl.open(tmp_path / "store")
    assert store.obs_subject_ids == ["01", "02", "03"]
    assert {volume.axcodes for volume in store.T1w} == {"LPS"}
    affine = np.eye(4)
    for name, shift in (("i", 0.0), ("l", 2.0)):
        affine[0, 3] = shift
        write_image(tmp_path / name / "a.nii", np.ones((3, 3, 3), np.int16), affine)
    sources = ["--image", f"CT={tmp_path}/i", "--label", f"seg={tmp_path}/l", "--workers", 1]
    done = cli("ingest", tmp_path / "grids", *sources)
    assert done.status == 1
    assert "the same voxel lies up to 2 mm apart, allowed are 0.05 mm" in done.out
    assert cli("ingest", tmp_path / "grids", *sources, "--grid-tolerance", "2.5").status == 0


def test_labels_are_what_label_says(cli: Cli, changing: Path, tmp_path: Path) -> None:
    sources = [
        "--image",
        f"mask={changing}/images",
        "--label",
        f"tissue={changing}/labels",
        "--subject-regex",
        r"sub-\d+",
    ]
    assert cli("ingest", tmp_path / "store", *sources, "--workers", 1).status == 0
    store = rl.open(tmp_path / "store")
    assert {name: store[name].kind for name in store.collection_names} == {"mask": "image", "tissue": "label"}


def test_images_are_what_image_says_also_without_labels(cli: Cli, changing: Path, tmp_path: Path) -> None:
    words = ["ingest", tmp_path / "store", "--image", f"mask={changing}/images", "--workers", 1]
    done = cli(*words)
    assert done.status == 0
    assert "note: 'mask' is ingested as an image, as told; if it holds labels, give it with --label" in done.out
    assert "going by their names" not in done.out
    assert rl.open(tmp_path / "store").mask.kind == "image"
    # what it is does not hang on what comes with it
    done = cli(*words, "--label", f"seg={changing}/labels")
    assert (done.status, done.err.count("error")) == (0, 0)
    store = rl.open(tmp_path / "store")
    assert {name: store[name].kind for name in store.collection_names} == {"mask": "image", "seg": "label"}


# The program


def program(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "radioloader", *map(str, words)], capture_output=True, text=True, check=False, **options
    )


def test_the_module_and_the_script_run_the_same_program(changing: Path, tmp_path: Path) -> None:
    done = program(*arguments(changing, tmp_path / "store"))
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"ingest into {tmp_path}/store")
    script = shutil.which("radioloader", path=os.path.dirname(sys.executable))
    assert script, "the package is installed without its script"
    words = [script, *map(str, arguments(changing, tmp_path / "store"))]
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr[:11]) == (0, "ingest 3/3 ")
    done = program("ingest", tmp_path / "store", "--image", "x")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: --image 'x' is not NAME=SOURCE, such as --image T1w=images\n",
    )


def test_relative_paths_are_those_of_the_working_folder(changing: Path) -> None:
    done = program(
        "ingest",
        "store",
        "--image",
        "T1w=images",
        "--label",
        "seg=labels/*",
        "--obs-meta",
        "participants.tsv",
        "--workers",
        1,
        cwd=changing,
    )
    assert done.returncode == 0, done.stderr
    assert rl.open(changing / "store").obs_meta.read().age.tolist() == [21, 22, 23]


def test_help_and_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.status, done.out) == (0, f"radioloader {rl.__version__}\n")
    for words in (["--help"], ["-h"], []):
        done = cli(*words)
        text = done.out + done.err
        assert done.status == (0 if words else 2)
        assert all(word in text for word in ("ingest", "demo", "PyTorch-first"))
    done = cli("ingest", "--help")
    assert done.status == 0
    text = re.sub(r"[│\s]+", " ", done.out)
    for option in (
        "--image -i", "--label -l", "--obs-meta", "--orientation", "--subject-regex", "--allow-missing", "--grid-tolerance", "--tile",
        "--preset", "--codec", "--level", "--strict", "--workers", "--commit-interval",
    ):  # fmt: skip
        assert option in text
    assert "continues where it was stopped and skips what is there" in text
    assert (
        'radioloader ingest cohort --image "T1w=images/*.nii.gz" --label seg=labels --obs-meta participants.tsv' in text
    )
    assert cli("demo", "--help").status == 0
