"""``radioloader history``."""

from __future__ import annotations

import datetime
import json
from typing import Annotated

import typer

__all__ = ["history"]


def history(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: version, time, message, changes.")
    ] = False,
) -> None:
    """Show the versions of a store, oldest first: number, time, what happened. Any of them can be opened again (--at).

    Example: radioloader history cohort
    """
    import radioloader as rl

    for commit in rl.open(uri).history():
        if as_json:
            typer.echo(json.dumps(commit, ensure_ascii=False))
        else:
            when = datetime.datetime.fromtimestamp(commit["time"]).astimezone()
            typer.echo(
                f"{commit['version']:>6}  {when.isoformat(sep=' ', timespec='milliseconds')}  {commit['message']}"
            )
