"""The demo takes a folder only if it is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from radioloader.demo.folder import claim_folder
from radioloader.errors import ConfigError

SETTINGS = {"seed": 0, "n_subjects": 14, "resolution": 1.0}


def test_new_empty_and_own_folders_are_taken(tmp_path: Path) -> None:
    claim_folder(tmp_path / "new" / "er", settings=SETTINGS)
    claim_folder(tmp_path / "new" / "er", settings=SETTINGS)
    (tmp_path / "new" / "er" / "notes.txt").write_text("mine")
    claim_folder(tmp_path / "new" / "er", settings=SETTINGS)
    assert (tmp_path / "new" / "er" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    claim_folder(tmp_path / "empty", settings=SETTINGS)


def test_foreign_folder_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty and was not made by the demo"):
        claim_folder(tmp_path, settings=SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        claim_folder(tmp_path / "file", settings=SETTINGS)


@pytest.mark.parametrize("marker", ['{"made_by": "radioloader demo", "seed": 7}', "not json", "[]"])
def test_other_settings_are_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / "demo.json").write_text(marker)
    with pytest.raises(ConfigError, match="other settings"):
        claim_folder(tmp_path, settings=SETTINGS)
    assert (tmp_path / "demo.json").read_text() == marker


def test_a_first_run_killed_at_its_first_write_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / ".demo.json.part").write_text('{"made')
    claim_folder(tmp_path, settings=SETTINGS)
    assert (tmp_path / "demo.json").exists()
