from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def store(store_uri: str, tmp_path: Path) -> str:
    return str(shutil.copytree(store_uri, tmp_path / "store"))
