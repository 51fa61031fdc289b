"""The snippets of docs/lightning.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning.pytorch")

DOCS = Path(__file__).parents[2] / "docs" / "lightning.md"


@pytest.mark.filterwarnings("ignore")
def test_the_snippets_run(ten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from noting import Noting

    (tmp_path / "cohort").symlink_to(ten)
    monkeypatch.chdir(tmp_path)
    names = {"model": Noting()}
    snippets = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        small = snippet.replace("patch_size=96", "patch_size=8")  # the store's volumes are small
        exec(compile(small, str(DOCS), "exec"), names)  # type: ignore[arg-type]
