"""The folder appears whole or not at all; what cannot be read costs no other."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl
from radioloader.errors import ConfigError, ExportError, KeyNotFoundError, StoreNotFoundError
from radioloader.exporting import write


@pytest.fixture
def damaged(store_uri: str, tmp_path: Path) -> str:
    """The store without the image of sub-02, and with a label of sub-03 that was cut off."""
    uri = tmp_path / "damaged"
    shutil.copytree(store_uri, uri)
    store = rl.open(uri)
    shutil.rmtree(store.T1w.loc["sub-02"].uri)
    (data,) = Path(store.seg.loc["sub-03"].uri).glob("__fragments/*/a0.tdb")
    data.write_bytes(data.read_bytes()[:20])
    return str(uri)


def names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if ".exporting-" in path.name]


def test_damaged_volumes_cost_no_other(damaged: str, tmp_path: Path) -> None:
    report = rl.export(damaged, tmp_path / "out")
    assert [(f.subject, f.collection) for f in report.failed] == [("sub-02", "T1w"), ("sub-03", "seg")]
    assert all("could not read" in f.reason for f in report.failed)
    assert names(tmp_path / "out") == [
        *(f"T1w/sub-0{i}.nii.gz" for i in (1, 3, 4)),
        "participants.tsv",
        *(f"seg/sub-0{i}.nii.gz" for i in (1, 2, 4)),
    ]
    assert "--allow-missing" in report.command
    assert not report.ok
    assert "failed 'sub-02', collection 'T1w': could not read" in str(report)


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_a_case_is_written_whole_or_not_at_all(damaged: str, tmp_path: Path, layout: str) -> None:
    report = rl.export(damaged, tmp_path / "out", layout=layout)
    assert {f.subject for f in report.failed} == {"sub-02", "sub-03"}
    assert not [name for name in names(tmp_path / "out") if "sub-02" in name or "sub-03" in name]
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert dataset["numTraining"] == 2
    assert "sub-02" not in json.dumps(dataset)
    assert "sub-03" not in (tmp_path / "out" / "participants.tsv").read_text()


def test_no_empty_folder_is_left_of_what_failed(damaged: str, tmp_path: Path) -> None:
    rl.export(damaged, tmp_path / "out", layout="bids", images="T1w")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["sub-01", "sub-03", "sub-04"]
    assert "sub-02" not in (tmp_path / "out" / "participants.tsv").read_text()


def test_where_nothing_can_be_read_there_is_no_folder(damaged: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nothing could be exported\n  failed 'sub-02', collection 'T1w': could not"):
        rl.export(rl.open(damaged).loc[["sub-02"]], tmp_path / "out", images=["T1w"])
    assert not (tmp_path / "out").exists()
    assert not hidden(tmp_path)


def test_a_folder_that_holds_something_is_left_alone(store_uri: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out holds 1 files already, such as mine\.txt"):
        rl.export(store_uri, tmp_path / "out")
    with pytest.raises(ConfigError, match="is there, and no folder"):
        rl.export(store_uri, tmp_path / "out" / "mine.txt")
    assert names(tmp_path) == ["out/mine.txt"]


def test_an_empty_folder_is_filled(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    rl.export(store_uri, tmp_path / "out", images="T1w")
    assert len(names(tmp_path / "out")) == 5
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = os.stat(".").st_ino
    rl.export(store_uri, ".", images="T1w")
    assert os.stat(tmp_path / "here").st_ino == before, "the folder that somebody is in stays the same one"
    assert names(tmp_path / "here") == names(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    rl.export(store_uri, tmp_path / "link", images="T1w")
    assert names(tmp_path / "empty") == names(tmp_path / "out")
    assert not hidden(tmp_path)


def test_folders_above_are_made(store_uri: str, tmp_path: Path) -> None:
    rl.export(store_uri, tmp_path / "a" / "b" / "out", images="T1w")
    assert (tmp_path / "a" / "b" / "out" / "T1w").is_dir()


def test_a_folder_within_the_store_is_refused(store_uri: str) -> None:
    with pytest.raises(ConfigError, match="is within the store"):
        rl.export(store_uri, Path(store_uri) / "out")
    with pytest.raises(ConfigError, match="writes a local folder"):
        rl.export(store_uri, "s3://bucket/out")


def test_wrong_arguments(store_uri: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for error, match, arguments in (
        (ConfigError, "layout='zip' is not one of nifti, nnunet, decathlon, bids", {"layout": "zip"}),
        (ConfigError, "'seg' holds labels; name it with labels=", {"images": ["seg"]}),
        (KeyNotFoundError, "no collection 'T2w'", {"images": "T2w"}),
        (ConfigError, "'T2w' is none of the collections that are exported, T1w, seg", {"names": {"T2w": "T1w"}}),
        (ConfigError, "two collections would be called 'seg'", {"names": {"T1w": "seg"}}),
        (ConfigError, "is to be called ''", {"names": {"T1w": ""}}),
        (ConfigError, "there is no collection to export", {"images": []}),
        (ConfigError, "workers=0", {"workers": 0}),
    ):
        with pytest.raises(error, match=match):
            rl.export(store_uri, out, **arguments)  # type: ignore[arg-type]
    with pytest.raises(StoreNotFoundError):
        rl.export(tmp_path / "nothing", out)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def full(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_write_file", full)
    with pytest.raises(ExportError, match="No space left on device"):
        rl.export(store_uri, tmp_path / "out", workers=2)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(store_uri: str, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 8
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rl.export(store_uri, tmp_path / "out", workers=2, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_filled_meanwhile_is_left_alone(store_uri: str, tmp_path: Path) -> None:
    def fill(done: int, total: int) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine").touch()

    with pytest.raises(ExportError, match="could not be made: another export made it meanwhile, or something else"):
        rl.export(store_uri, tmp_path / "out", progress=fill)
    assert names(tmp_path) == ["out/mine"]


def test_of_two_exports_one_is_first(store_uri: str, tmp_path: Path) -> None:
    def other(done: int, total: int) -> None:
        if done == 1:
            rl.export(store_uri, tmp_path / "out", images="T1w")

    with pytest.raises(ExportError, match="another export made it meanwhile"):
        rl.export(store_uri, tmp_path / "out", workers=1, progress=other)
    assert {name.split("/")[0] for name in names(tmp_path / "out")} == {"T1w", "participants.tsv"}
    assert not hidden(tmp_path)


def test_a_link_to_another_file_system(store_uri: str, tmp_path: Path, disk: Path) -> None:
    (disk / "empty").mkdir()
    (tmp_path / "link").symlink_to(disk / "empty")
    seen = []
    report = rl.export(
        store_uri, tmp_path / "link", images="T1w", progress=lambda done, _: seen.append((hidden(disk), done))
    )
    assert report.out == str(tmp_path / "link")
    assert all(len(folders) == 1 for folders, _ in seen), "files are written where they stay"
    assert names(disk / "empty") == [*(f"T1w/sub-0{i}.nii.gz" for i in (1, 2, 3, 4)), "participants.tsv"]
    assert (tmp_path / "link").is_symlink()
    assert not hidden(disk) + hidden(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of another file system than the one of ``tmp_path``."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev or not os.access(shared, os.W_OK):
        pytest.skip("/dev/shm is no other file system")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing can be renamed out of or into, as if it was a mount point."""
    place = tmp_path / "mount"
    place.mkdir()
    rename = os.rename

    def across(source: Any, target: Any) -> None:
        inside = [Path(path).is_relative_to(place) and Path(path) != place for path in (source, target)]
        if inside[0] != inside[1]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if Path(target) == place:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    monkeypatch.setattr(os, "rename", across)
    return place


def test_a_mount_point_is_filled_from_within(store_uri: str, tmp_path: Path, mount: Path) -> None:
    before = mount.stat().st_ino
    seen = []
    rl.export(store_uri, mount, images="T1w", progress=lambda *_: seen.append(len(hidden(mount))))
    assert set(seen) == {1}
    assert mount.stat().st_ino == before
    assert names(mount) == [*(f"T1w/sub-0{i}.nii.gz" for i in (1, 2, 3, 4)), "participants.tsv"]
    assert not hidden(tmp_path) + hidden(mount)


def test_of_two_exports_to_a_mount_point_one_is_first(store_uri: str, mount: Path) -> None:
    def other(done: int, total: int) -> None:
        if done == 1:
            rl.export(store_uri, mount, images="T1w")

    with pytest.raises(ExportError, match="another export made it meanwhile"):
        rl.export(store_uri, mount, workers=1, progress=other)
    assert sorted(path.name for path in mount.iterdir()) == ["T1w", "participants.tsv"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_move_that_fails_takes_back_what_was_moved(
    store_uri: str, mount: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    rename = os.rename

    def fail(source: Any, target: Any) -> None:
        if Path(target) == mount / "seg":
            assert (mount / "T1w").is_dir()
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    expected = ExportError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        rl.export(store_uri, mount)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{mount}: could not be made: Input/output error; nothing was left there"
    assert not list(mount.iterdir())


@pytest.mark.parametrize("inside", [False, True])
def test_what_a_killed_export_left_goes_after_an_hour(store_uri: str, tmp_path: Path, inside: bool) -> None:
    out = tmp_path / "out"
    start = f"{out}/.exporting-" if inside else f"{tmp_path}/.out.exporting-"
    hours = {"0" * 12: 2.0, "1" * 12: 0.5, "2" * 12: 2.0}
    for digits, age in hours.items():
        folder = Path(start + digits)
        (folder / "T1w").mkdir(parents=True)
        (folder / "T1w" / "half.nii.gz").touch()
        then = time.time() - 3600 * age
        # A file came into a folder of the last one just now: it goes on.
        for path in (folder, *([folder / "T1w"] if digits != "2" * 12 else [])):
            os.utime(path, (then, then))
    mine = Path(start + "mine")
    if not inside:
        mine.mkdir()
        os.utime(mine, (0, 0))
    assert rl.export(store_uri, out, images="T1w").ok
    left = {path.name.rpartition("-")[2] for path in hidden(Path(start).parent)}
    assert left == {"1" * 12, "2" * 12} | ({"mine"} if not inside else set())
    assert (out / "T1w" / "sub-01.nii.gz").is_file()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_leaves_no_folder(store_uri: str, tmp_path: Path, kind: signal.Signals) -> None:
    # After Ctrl-C an export waits for what is being written, and so for this.
    held = 60 if kind == signal.SIGKILL else 1
    script = (
        "import sys, time, radioloader as rl\n"
        "def show(done, total):\n"
        "    print(done, flush=True)\n"
        f"    time.sleep({held} if done == 2 else 0)\n"
        f"rl.export({store_uri!r}, {str(tmp_path / 'out')!r}, workers=1, progress=show)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process:
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        time.sleep(0.05)
        process.send_signal(kind)
    assert process.returncode != 0
    assert not (tmp_path / "out").exists()
    assert len(hidden(tmp_path)) == (kind == signal.SIGKILL)
    # The same command goes through.
    if kind == signal.SIGKILL:
        assert rl.export(store_uri, tmp_path / "out", images="T1w").ok
