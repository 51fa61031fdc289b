"""The command line, run in the test's process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from radioloader import config
from radioloader.cli.main import main


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Done]]:
    """``cli("ingest", ...)``: runs the command in this process."""
    before = config.get_config()

    def run(*arguments: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["radioloader", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return Done(0 if exit_.value.code is None else int(exit_.value.code), out, err)

    yield run
    config.configure(read=before.read, write=before.write, s3=before.s3)
