"""``radioloader vacuum``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["vacuum"]


def vacuum(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    keep: Annotated[
        int | None,
        typer.Option(help="Give up all but so many of the newest versions; without it every version stays."),
    ] = None,
) -> None:
    """Remove from disk what no version needs: what killed writers left, and with --keep what only older versions had.

    Example: radioloader vacuum cohort --keep 3
    """
    import radioloader as rl

    with rl.open(uri) as store:
        done = store.vacuum(keep=keep)
        versions = f"versions {done.forgotten + 1} to {store.version}" if store.version else "no version yet"
    typer.echo(
        f"{done.volumes} volumes and {done.collections} collections removed, {done.bytes / 1e6:.1f} MB; {uri} has {versions}"
    )
