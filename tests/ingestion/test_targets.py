"""Targets that cannot be written, that are something else, or that become full on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiledb

import radioloader as rl
from radioloader.errors import NotAStoreError, ReadError, StoreLockedError, StoreVersionError, StoreWriteError
from radioloader.storage.store import Store

Content = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def images(write_image: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for name in "ab":
        write_image(root / f"{name}.nii", np.ones((3, 4, 5), np.int16))
    return root


def test_a_target_that_is_a_file_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.zip").write_text("not a store")
    with pytest.raises(NotAStoreError) as caught:
        rl.ingest(tmp_path / "cohort.zip", {"CT": images}, workers=1)
    assert str(caught.value) == f"{tmp_path}/cohort.zip is a file, not a radioloader store; give another path"
    assert (tmp_path / "cohort.zip").read_text() == "not a store"


def test_a_folder_with_other_content_is_refused_and_left_alone(images: Path) -> None:
    before = sorted(images.iterdir())
    with pytest.raises(NotAStoreError) as caught:
        rl.ingest(images, {"CT": images}, workers=1)
    assert str(caught.value) == (
        f"{images} is a folder with other content, not a radioloader store; give another path, or an empty folder"
    )
    assert sorted(images.iterdir()) == before


@pytest.mark.parametrize("kind", ["array", "group"])
def test_another_tiledb_object_is_refused(images: Path, tmp_path: Path, kind: str) -> None:
    uri = str(tmp_path / "other")
    if kind == "array":
        tiledb.from_numpy(uri, np.arange(4)).close()
    else:
        tiledb.Group.create(uri)
    with pytest.raises(NotAStoreError) as caught:
        rl.ingest(uri, {"CT": images}, workers=1)
    what = "a TileDB array" if kind == "array" else "another TileDB group"
    assert str(caught.value) == f"{uri} is {what}, not a radioloader store; give another path, or an empty folder"


def test_a_store_of_a_newer_format_is_refused_and_left_alone(images: Path, tmp_path: Path) -> None:
    uri = tmp_path / "store"
    rl.ingest(uri, {"CT": images}, workers=1)
    with tiledb.Group(str(uri), "w") as group:
        group.meta["format_version"] = 2
    before = {path: path.stat().st_mtime_ns for path in uri.rglob("*")}
    with pytest.raises(StoreVersionError) as caught:
        rl.ingest(uri, {"CT": images}, workers=1)
    assert str(caught.value) == (
        f"{uri} has format version 2, this radioloader reads up to 1; upgrade it with: pip install --upgrade radioloader"
    )
    assert {path: path.stat().st_mtime_ns for path in uri.rglob("*")} == before


def test_a_place_below_a_file_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError) as caught:
        rl.ingest(tmp_path / "file" / "store", {"CT": images}, workers=1)
    assert str(caught.value).startswith(f"could not create a store at {tmp_path}/file/store: ")
    assert str(caught.value).endswith("; choose a place that you may write to")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, a file system that takes no files")
def test_a_file_system_that_takes_no_files_is_reported(images: Path) -> None:
    with pytest.raises(
        StoreWriteError, match=r"^could not create a store at /proc/store: .*; choose a place that you may write to$"
    ):
        rl.ingest("/proc/store", {"CT": images}, workers=1)


def test_a_name_that_is_too_long_is_reported(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"^could not look at .*xxx: File name too long$"):
        rl.ingest(tmp_path / ("x" * 300), {"CT": images}, workers=1)


@pytest.mark.usefixtures("obeys_permissions")
def test_a_folder_without_permission_is_reported(images: Path, tmp_path: Path) -> None:
    uri = tmp_path / "store"
    rl.ingest(uri, {"CT": {"a": images / "a.nii"}}, workers=1)
    for path in [uri / ".lock", uri]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        with pytest.raises(StoreWriteError) as caught:
            rl.ingest(uri, {"CT": images}, workers=1)
        assert (
            str(caught.value)
            == f"could not open {uri}/.lock for writing: Permission denied; the store is read-only for this user"
        )
        assert rl.open(uri).obs_subject_ids == ["a"]
    finally:
        for path in [uri, uri / ".lock"]:
            path.chmod(path.stat().st_mode | 0o222)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``mounted(options)``: a small file system of its own in memory; skipped where mounting is not allowed."""
    point = tmp_path / "mounted"
    point.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(point)]
        if (
            os.geteuid() != 0
            or not shutil.which("mount")
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("needs root's right to mount a file system: for one that is read-only, or full")
        return point

    yield mount
    subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)


def test_a_read_only_store_is_read_and_not_written(images: Path, mounted: Callable[[str], Path]) -> None:
    point = mounted("size=8m")
    uri = point / "store"
    rl.ingest(uri, {"CT": {"a": images / "a.nii"}}, workers=1)
    subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
    with pytest.raises(StoreWriteError) as caught:
        rl.ingest(uri, {"CT": images}, workers=1)
    assert (
        str(caught.value)
        == f"could not open {uri}/.lock for writing: Read-only file system; the store is read-only for this user"
    )
    assert rl.open(uri).CT.loc["a"].to_numpy().sum() == 60
    with pytest.raises(StoreWriteError) as caught:
        rl.ingest(point / "new", {"CT": images}, workers=1)
    assert (
        str(caught.value)
        == f"could not create a store at {point}/new: Read-only file system; choose a place that you may write to"
    )


def test_a_mount_point_becomes_a_store(images: Path, mounted: Callable[[str], Path]) -> None:
    point = mounted("size=8m")
    device = point.stat().st_dev
    assert device != point.parent.stat().st_dev
    rl.ingest(point, {"CT": images}, workers=1)
    assert point.stat().st_dev == device
    assert (point / "commits").is_dir()
    assert rl.open(point).CT.loc["a"].to_numpy().sum() == 60


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_file_system_keeps_what_was_committed_and_the_next_run_completes(
    make_cohort: Callable[..., Path],
    mounted: Callable[[str], Path],
    tmp_path: Path,
    shows_sources: Callable[..., list[str]],
    content: Content,
    workers: int,
) -> None:
    root = make_cohort(tmp_path / "cohort", subjects=8, shape=(40, 40, 40))
    sources = {"T1w": root / "images", "seg": root / "labels"}
    point = mounted("size=4m")
    uri = point / "store"
    with pytest.raises(StoreWriteError) as caught:
        rl.ingest(uri, sources, obs_meta=root / "participants.tsv", workers=workers, commit_interval_s=0.0)
    assert "No space left on device" in str(caught.value)
    assert str(uri) in str(caught.value)
    if str(caught.value).startswith("could not write subject"):
        assert str(caught.value).endswith(
            "; what was finished before is kept: make room, and run the same command again"
        )
    kept = shows_sources(uri, root)
    assert 1 <= len(kept) < 8
    subprocess.run(["mount", "-o", "remount,size=100m", str(point)], check=True)
    report = rl.ingest(uri, sources, obs_meta=root / "participants.tsv", workers=workers)
    assert (len(report.skipped), len(report.ingested)) == (len(kept), 8 - len(kept))
    rl.ingest(tmp_path / "reference", sources, obs_meta=root / "participants.tsv", workers=1)
    assert content(uri) == content(tmp_path / "reference")


LIMITED = """
import resource, sys
import radioloader as rl
from pathlib import Path
root, uri, limit, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    rl.ingest(uri, {"T1w": root / "images", "seg": root / "labels"}, workers=workers, commit_interval_s=0.0)
except rl.RadioloaderError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("limit", "workers"), [(100, 1), (60_000, 1), (60_000, 2)])
def test_a_limit_on_file_sizes_acts_like_a_full_disk(
    make_cohort: Callable[..., Path],
    tmp_path: Path,
    shows_sources: Callable[..., list[str]],
    content: Content,
    limit: int,
    workers: int,
) -> None:
    root = make_cohort(tmp_path / "cohort", subjects=2, shape=(20, 24, 18))
    for path, shape in (("sub-03", (40, 40, 40)), ("sub-04", (20, 24, 18))):
        other = make_cohort(tmp_path / path, subjects=1, shape=shape)  # type: ignore[arg-type]
        for folder, ending in (("images", "T1w"), ("labels", "seg")):
            shutil.copy(other / folder / f"sub-01_{ending}.nii.gz", root / folder / f"{path}_{ending}.nii.gz")
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    uri = tmp_path / "store"
    command = [sys.executable, str(script), str(root), str(uri), str(limit), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    sources = {"T1w": root / "images", "seg": root / "labels"}
    if limit == 100:  # not even a table's schema
        assert done.stdout.startswith(f"StoreWriteError could not create a store at {uri}: "), done.stdout
        assert not uri.exists()
        assert [path.name for path in tmp_path.iterdir() if "creating" in path.name] == []
    else:
        assert done.stdout.startswith(
            f"StoreWriteError could not write subject 'sub-03', collection 'T1w' to {uri}/c/"
        ), done.stdout
        assert "File too large" in done.stdout
        shown = shows_sources(uri, root)
        assert shown == ["sub-01", "sub-02"] if workers == 1 else "sub-03" not in shown
    rl.ingest(uri, sources, workers=1)
    rl.ingest(tmp_path / "reference", sources, workers=1)
    assert content(uri) == content(tmp_path / "reference")


def test_a_second_writer_is_told_who_writes(images: Path, tmp_path: Path) -> None:
    uri = tmp_path / "store"
    with Store.open_or_create(uri).write(), pytest.raises(StoreLockedError) as caught:
        rl.ingest(uri, {"CT": images}, workers=1)
    assert (
        str(caught.value)
        == f"another process (pid {os.getpid()}) is writing to {uri}; wait until it has finished, or set WriteConfig.wait_s"
    )
    assert rl.ingest(uri, {"CT": images}, workers=1).ok


def test_the_lock_ends_with_the_ingest_even_while_forked_children_live(images: Path, tmp_path: Path) -> None:
    uri = tmp_path / "store"
    with Store.open_or_create(uri).write():
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:  # holds every file open, as the workers of a forking executor do
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    try:
        assert rl.ingest(uri, {"CT": images}, workers=1).ok
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)


def test_what_an_abandoned_creation_left_is_removed_after_an_hour(images: Path, tmp_path: Path) -> None:
    old, young = tmp_path / ".store.creating-old", tmp_path / ".store.creating-young"
    for path in (old, young):
        (path / "commits").mkdir(parents=True)
    os.utime(old, (1e9, 1e9))
    rl.ingest(tmp_path / "store", {"CT": images}, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.creating-young", "store"]
