"""``radioloader show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radioloader.cli._at import AtOption, open_at

__all__ = ["show"]


def show(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    subject: Annotated[str, typer.Argument(help="Id of the subject, or the obs_id of one of its volumes.")],
    image: Annotated[str | None, typer.Option(help="Collection of the image; the first one when not given.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Collection of the label; the first on the image's grid when not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The PNG; <subject>.png when not given.")] = None,
    size: Annotated[int, typer.Option(help="Pixels of the longest side of a plane.")] = 512,
    open_it: Annotated[bool, typer.Option("--open", help="Also open it with the system's viewer.")] = False,
    at: AtOption = None,
) -> None:
    """Write a PNG of a subject: axial, coronal and sagittal plane, with its label in colour.

    Example: radioloader show cohort sub-01 --label seg
    """
    from radioloader.overview.show import show as run

    with open_at(uri, at) as store:
        path = run(store, subject, out, image=image, label=label, size=size)
    typer.echo(str(path))
    if open_it:
        typer.launch(str(path))
