"""``radioloader report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from radioloader.cli._at import AtOption, open_at

__all__ = ["report"]


def report(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for index.html; <name of the store>-report when not given.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page; the store's name when not given.")] = None,
    pictures: Annotated[bool, typer.Option(help="Whether the page has a picture of each volume.")] = True,
    most: Annotated[
        int, typer.Option(help="Images whose voxels are read, at most: outliers first, then evenly spread ones.")
    ] = 2000,
    workers: Annotated[int | None, typer.Option(help="Threads; all cores when not given.")] = None,
    at: AtOption = None,
) -> None:
    """Write a page about a cohort: what it holds, what is odd, and a picture of each volume. One file that works offline.

    Example: radioloader report cohort --out cohort-report
    """
    from radioloader.overview.build import report as run
    from radioloader.storage.uri import is_remote, normalise

    # "." and ".." have names too.
    where = normalise(uri)
    name = where.rpartition("/")[2] if is_remote(where) else os.path.basename(os.path.abspath(where))
    folder = out if out is not None else Path(f"{name or 'store'}-report")
    with open_at(uri, at) as store:
        done = run(store, folder, title=title, pictures=pictures, most=most, workers=workers, progress=True)
    for (collection, obs_id), reason in done.unreadable.items():
        typer.echo(f"unreadable {collection} {obs_id!r}: {reason}", err=True)
    typer.echo(str(done))
    raise typer.Exit(0 if done.ok else 1)
