"""A contestant that fails is a record with its reason, and the others go on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.launch import Launcher, _last_words
from benchmarks.model import Cohort, Job

HERE = "tests.benchmarks.contestants"


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    cohort = Cohort(tmp_path, 1, (8, 8, 8))
    return Launcher(cohort, sys.executable, tmp_path / "log", seconds=0.01, warm_s=0.0, hang_s=20.0)


def test_an_exception(launcher: Launcher) -> None:
    peer = f"{HERE}:Raises"
    jobs = [Job(peer, "patches", size=4), Job(peer, "volumes"), Job(peer, "slices", plane="axial")]
    failed, worked, skipped = launcher.run(jobs, repetition=2)
    assert failed["error"] == "RuntimeError: the patches are broken"
    assert "value" not in failed
    assert worked["value"] > 0
    assert worked["unit"] == "volumes/s"
    assert worked["image_dtype"] == "int16"
    assert "numpy" in worked["versions"]
    assert skipped["skipped"] == "this version has no slices"
    assert [r["repetition"] for r in (failed, worked, skipped)] == [2, 2, 2]


def test_a_contestant_that_is_not_there(launcher: Launcher) -> None:
    [record] = launcher.run([Job("no_such_package.peers:Peer", "patches", size=4)])
    assert "ModuleNotFoundError" in record["error"]
    [record] = launcher.run([Job("nobody", "patches", size=4)])
    assert "there is no contestant 'nobody'" in record["error"]


def test_a_process_that_dies(launcher: Launcher) -> None:
    peer = f"{HERE}:Dies"
    records = launcher.run([Job(peer, "patches", size=4), Job(peer, "patches", size=5)])
    assert [record["size"] for record in records] == [4, 5]
    for record in records:
        assert record["error"] == "the process ended with status 3; last words: out of something"


def test_a_process_that_hangs(launcher: Launcher) -> None:
    launcher.hang_s = 1.0
    [record] = launcher.run([Job(f"{HERE}:Hangs", "patches", size=4)])
    assert record["error"].startswith("gave nothing for 1 s and was ended; last words: was at File")
    assert "in batches" in record["error"]
    assert str(Path(__file__).parent) not in record["error"]  # results are shown to others
    assert '"contestants.py", line' in record["error"]


def test_folders_are_left_out_of_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\nOSError: '/home/me/data/a.nii' of s3://bucket/x/y at 10 MB/s")
    assert _last_words(log, 7) == "OSError: 'a.nii' of s3://bucket/x/y at 10 MB/s"


def test_what_was_not_asked_for(launcher: Launcher) -> None:
    [record] = launcher.run([Job(f"{HERE}:Wrong", "patches", size=4)])
    assert record["error"] == "ValueError: delivered image (4, 1, 2, 2, 2), not 4 of 64 voxels each"


def test_the_page_cache_is_emptied_when_all_is_ready(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    launcher.drop_cache = lambda: emptied.append(1)
    [record] = launcher.run([Job(f"{HERE}:Wrong", "cold", size=2)])
    assert emptied == [1]
    assert record.get("error") is None
    assert record["unit"] == "patches/s"
    assert "first_batch_s" in record

    def refused() -> Any:
        raise PermissionError("only as root")

    launcher.drop_cache = refused
    with pytest.raises(PermissionError):
        launcher.run([Job(f"{HERE}:Wrong", "cold", size=2)])
